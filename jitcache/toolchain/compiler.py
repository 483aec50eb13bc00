"""What a clang is: version, digest, where it looks for headers."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from jitcache import digest
from jitcache.toolchain.base import PartReport, Request, run
from jitcache.toolchain.memo import Memo

_LIBRARY = re.compile(r"^\s*(lib(?:LLVM|clang)[^\s/]*) => (\S+)", re.MULTILINE)
_HOST_OBJECTS = (
    "crti.o",
    "crtbeginS.o",
    "crtendS.o",
    "crtn.o",
    "libgcc.a",
    "libgcc_eh.a",
    "libstdc++.a",
)
_BANNER = re.compile(r"^.*clang version (\d+)\.(\d+)\.(\d+).*", re.MULTILINE)
# A snapshot of a branch has another form, `(++20260617...+1a2b3c...)`, and names its commit.
_PACKAGE_REVISION = re.compile(r" \(\d[^\s()]*\)$")


class CompilerFacts(NamedTuple):
    """What a clang says of itself.

    Attributes:
        path: the driver as it is called.
        version: major, minor, patch.
        build: whose build of which sources it is, by its own words (`build_of`).
        target: triple of the machine it compiles host code for.
        digest: over the driver's binary and the LLVM and clang libraries that it loads.
        resource_dir: its own headers are in `include/` below it.
        include_dirs: system header directories it searches by itself, resolved.
        host_objects: start files and static C++ runtime that go into host shims.
        host_missing: names of those that are not installed.
    """

    path: Path
    version: tuple[int, int, int]
    build: str
    target: str
    digest: str
    resource_dir: Path
    include_dirs: tuple[Path, ...]
    host_objects: tuple[Path, ...]
    host_missing: tuple[str, ...]

    @property
    def version_text(self) -> str:
        """`22.1.8`."""
        return ".".join(map(str, self.version))


class NotACompiler(NamedTuple):
    """Why a candidate is no usable clang."""

    path: Path
    reason: str


def compiler_facts(path: Path, request: Request, memo: Memo) -> CompilerFacts | NotACompiler:
    """Ask a clang about itself, or remember what it said while its files are unchanged."""
    about = [str(path)]
    known = memo.recall("clang", about)
    if known is not None:
        try:
            return _from_memo(path, known, memo)
        except (OSError, KeyError, TypeError, ValueError):
            pass
    asked = run(
        [str(path), "--no-default-config", "-v", "-E", "-x", "c++", os.devnull, "-o", os.devnull],
        request.environ,
    )
    version = _BANNER.search(asked.err)
    if asked.status != 0 or version is None:
        first = (asked.err or asked.out).strip().splitlines()
        return NotACompiler(path, first[0] if first else "it printed nothing")
    resource = re.search(r'-resource-dir "?([^"\s]+)', asked.err)
    target = re.search(r"^Target: (\S+)", asked.err, re.MULTILINE)
    gcc = re.search(r"^Selected GCC installation: (\S+)", asked.err, re.MULTILINE)
    if resource is None or target is None:
        return NotACompiler(path, "its -v output names no target or resource directory")
    objects, missing = _host_objects(path, gcc[1] if gcc else None, request)
    said = {
        "host_objects": objects,
        "host_missing": missing,
        "version": [int(x) for x in version.groups()],
        "build": build_of(version[0]),
        "target": target[1],
        "files": [os.path.realpath(path), *_loaded_libraries(path, request)],
        "resource_dir": os.path.realpath(resource[1]),
        "include_dirs": _include_dirs(asked.err),
        # A GCC installed later can change which C++ headers clang picks.
        "gcc": _stamp(gcc[1]) if gcc else None,
    }
    facts = _from_memo(path, said, memo)
    if not missing:  # what is missing may be installed at any time
        memo.remember("clang", about, {**said, "digest": facts.digest})
    return facts


def build_of(banner: str) -> str:
    """Whose build of which sources a clang is: its version line without a package's revision.

    `Debian clang version 22.1.8 (1~deb12u1)` is `Debian clang version 22.1.8`, and stays that
    when the distribution builds the release again. What names sources stays: the repository and
    commit of AMD's fork, the commit of a snapshot.
    """
    return _PACKAGE_REVISION.sub("", banner.strip())


def find_linker(facts: CompilerFacts, request: Request) -> Path | None:
    """The lld that this clang calls for device code: beside it, or else on the PATH."""
    beside = [Path(os.path.realpath(facts.path)).parent, facts.path.parent]
    for directory in (*beside, *path_dirs(request)):
        for name in ("lld", "ld.lld"):
            if is_executable(directory / name):
                return directory / name
    return None


def host_runtime(facts: CompilerFacts, memo: Memo, next_step: str) -> PartReport:
    """Report the objects that are linked into host shims, with one digest over all."""
    if facts.host_missing:
        return PartReport(
            "host-runtime",
            "missing",
            detail=f"no {', '.join(facts.host_missing)} for {facts.target}",
            next_step=next_step,
        )
    files = {f.name: memo.file_digest(f) for f in facts.host_objects}
    place = next(f for f in facts.host_objects if f.name == "libstdc++.a").parent
    return PartReport("host-runtime", "found", place, "", digest.of_json(files), host_only=True)


def path_dirs(request: Request) -> list[Path]:
    """Directories of PATH that are absolute, in order."""
    return [Path(d) for d in request.environ.get("PATH", "").split(os.pathsep) if d.startswith("/")]


def is_executable(path: Path) -> bool:
    """Whether `path` is a file that can be run."""
    return path.is_file() and os.access(path, os.X_OK)


def _from_memo(path: Path, said: dict[str, Any], memo: Memo) -> CompilerFacts:
    gcc = said["gcc"]
    if gcc is not None and _stamp(gcc[0]) != gcc:
        raise ValueError("another GCC may be selected now")
    if os.path.realpath(path) != said["files"][0]:
        raise ValueError("the driver is a link to another binary now")
    for file in said["host_objects"]:
        Path(file).stat()
    parts = {Path(f).name: memo.file_digest(f) for f in said["files"]}
    value = digest.of_json(parts)
    if said.get("digest", value) != value:
        raise ValueError("the compiler was replaced")
    major, minor, patch = said["version"]
    return CompilerFacts(
        path=path,
        version=(major, minor, patch),
        build=said["build"],
        target=said["target"],
        digest=value,
        resource_dir=Path(said["resource_dir"]),
        include_dirs=tuple(Path(d) for d in said["include_dirs"]),
        host_objects=tuple(Path(f) for f in said["host_objects"]),
        host_missing=tuple(said["host_missing"]),
    )


def _stamp(gcc: str) -> list[Any]:
    """A GCC installation, with the mtime of the directory its siblings appear in."""
    return [gcc, Path(gcc).parent.stat().st_mtime_ns]


def _host_objects(path: Path, gcc: str | None, request: Request) -> tuple[list[str], list[str]]:
    """What the driver adds to a shared library with a static C++ runtime: found, missing."""
    places = [Path(gcc)] if gcc else []
    asked = run([str(path), "--no-default-config", "-print-file-name=crti.o"], request.environ)
    if asked.status == 0 and asked.out.startswith("/"):
        places.append(Path(asked.out.strip()).parent)
    found, missing = [], []
    for name in _HOST_OBJECTS:
        file = next((p / name for p in places if (p / name).is_file()), None)
        if file is None:
            missing.append(name)
        else:
            found.append(os.path.realpath(file))
    return found, missing


def _loaded_libraries(path: Path, request: Request) -> list[str]:
    listed = run(["ldd", os.path.realpath(path)], request.environ)
    found = {os.path.realpath(m[2]) for m in _LIBRARY.finditer(listed.out)}
    return sorted(f for f in found if Path(f).is_file())


def _include_dirs(text: str) -> list[str]:
    inside, dirs = False, []
    for line in text.splitlines():
        if line.startswith("#include <...>"):
            inside = True
        elif line.startswith("End of search list"):
            break
        elif inside:
            real = os.path.realpath(line.strip())
            if real not in dirs:
                dirs.append(real)
    return dirs
