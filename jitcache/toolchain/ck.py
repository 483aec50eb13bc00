"""Where Composable Kernel's headers are, and which CK they are.

CK is looked for in the directory the user names, in `JITCACHE_CK`, `CK_DIR` and `AITER_DIR`,
and in the installed `aiter_meta` or `aiter` package, which is located but never imported.
What is named but doesn't hold CK is an error, not a reason to search on.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from jitcache import digest
from jitcache.toolchain.base import PartReport, Request
from jitcache.toolchain.memo import Memo

_PROBE = Path("include", "ck", "ck.hpp")
_SUBMODULE = Path("3rdparty", "composable_kernel")
_COMMIT = re.compile(r"[0-9a-f]{40}")
VARIABLES = ("JITCACHE_CK", "CK_DIR", "AITER_DIR")
NEXT_STEP = (
    "name a CK or AITER checkout with --ck or CK_DIR, or install CK's headers: "
    "pip install --no-deps amd-aiter==0.1.7.post2.dev18"
)


class CkTree(NamedTuple):
    """A CK source tree.

    Attributes:
        include: directory of `ck/ck.hpp`.
        config: directory of a generated `ck/config.h`, which must be searched before it.
        origin: commit, or digest of the headers where there is none: `ck<12 hex>` in ids.
        headers: digest of the headers below `ck/`, edited or not.
        version: for people: `commit 1a2b3c...`, `amd-aiter 0.1.7.post2.dev18`.
    """

    include: Path
    config: Path
    origin: str
    headers: str
    version: str


def find_ck(request: Request, own_config: Path, memo: Memo) -> tuple[CkTree | None, PartReport]:
    """Find CK.

    Args:
        request: names the directory, the environment variables and the memo's place.
        own_config: directory of our `ck/config.h`, for a tree that was never configured.
        memo: remembers the digest of the headers.
    """
    named = [("--ck", str(request.ck))] if request.ck is not None else []
    named += [(v, request.environ[v]) for v in VARIABLES if request.environ.get(v)]
    if named:
        source, value = named[0]
        root = _root_of(Path(value).expanduser().absolute())
        if root is None:
            return None, PartReport(
                "ck",
                "wrong",
                Path(value),
                detail=f"{source} names it, but it holds neither {_PROBE} nor {_SUBMODULE}"
                " (for a checkout: git submodule update --init)",
                next_step=NEXT_STEP,
            )
    else:
        root = _installed(request)
        if root is None:
            return None, PartReport(
                "ck",
                "missing",
                detail=f"no --ck, {', '.join(VARIABLES)}, and no installed amd-aiter",
                next_step=NEXT_STEP,
            )
    config = next((c for c in _configs(root) if (c / "ck" / "config.h").is_file()), own_config)
    commit = _git_commit(root)
    headers = _headers_digest(root / "include" / "ck", memo)
    origin = commit or headers
    package = _package_version(root)
    version = f"commit {commit[:12]}" if commit else package or f"headers {origin[7:19]}"
    tree = CkTree(root / "include", config, origin, headers, version)
    return tree, PartReport("ck", "found", root, version)


def short(origin: str) -> str:
    """The first 12 hex digits of a commit or digest."""
    return origin.removeprefix("sha256:")[:12]


def _root_of(path: Path) -> Path | None:
    """The CK tree in a directory: itself, or in the AITER checkout or package that it is."""
    places = (path, path / _SUBMODULE, path / "aiter_meta" / _SUBMODULE)
    return next((p for p in places if (p / _PROBE).is_file()), None)


def _configs(root: Path) -> tuple[Path, ...]:
    return (root.parent / "ck_helper", root / "build" / "include", root / "include")


def _installed(request: Request) -> Path | None:
    # Only directories of the Python path are looked into: a finder of an editable install could run
    # anything, and importing aiter takes seconds and starts rocminfo.
    for entry in dict.fromkeys(request.python_path):
        for holder in ("aiter_meta", "aiter"):
            package = Path(entry or ".").absolute() / holder
            if package.is_dir():
                for base in (package, package.resolve().parent):
                    if (base / _SUBMODULE / _PROBE).is_file():
                        return base / _SUBMODULE
    return None


def _package_version(root: Path) -> str:
    """`amd-aiter 0.1.7...` if the tree is inside an installed or unpacked wheel."""
    if root.parent.parent.name != "aiter_meta":
        return ""
    site = root.parent.parent.parent
    infos = sorted(site.glob("amd_aiter-*.dist-info"))
    if not infos:
        return ""
    return "amd-aiter " + infos[-1].name.removeprefix("amd_aiter-").removesuffix(".dist-info")


def _git_commit(root: Path) -> str | None:
    """The commit that is checked out, read from git's files without running git."""
    try:
        dot = root / ".git"
        if dot.is_file():  # a submodule or work tree
            git = (root / dot.read_text().strip().removeprefix("gitdir:").strip()).resolve()
        else:
            git = dot
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref:"):
            return head if _COMMIT.fullmatch(head) else None
        ref = head.removeprefix("ref:").strip()
        common = git / "commondir"
        shared = (git / common.read_text().strip()) if common.is_file() else git
        for base in (git, shared):
            if (base / ref).is_file():
                text = (base / ref).read_text().strip()
                return text if _COMMIT.fullmatch(text) else None
        for line in (shared / "packed-refs").read_text().splitlines():
            if line.endswith(" " + ref) and _COMMIT.fullmatch(line.split()[0]):
                return line.split()[0]
    except (OSError, UnicodeDecodeError):
        pass
    return None


def _headers_digest(directory: Path, memo: Memo) -> str:
    """Digest of all headers of a tree; read again only when a file's stat changed."""
    top = str(directory)
    stats: list[tuple[str, int, int, int]] = []
    pending = [top]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                elif entry.is_file():
                    st = entry.stat()
                    stats.append((entry.path[len(top) :], st.st_size, st.st_mtime_ns, st.st_ino))
    stats.sort()
    about = [top, digest.of_bytes(repr(stats).encode())]
    known = memo.recall("ck", about)
    if digest.is_digest(known):
        return str(known)
    value = digest.of_json([[name, digest.of_file(Path(top + name))] for name, *_ in stats])
    memo.remember("ck", about, value)
    return value
