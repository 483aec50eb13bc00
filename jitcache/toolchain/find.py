"""Finding a toolchain, and naming the headers that it reads."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path

from jitcache.errors import ToolchainError, UnsupportedError
from jitcache.store.layout import store_root
from jitcache.store.memo import StatMemo
from jitcache.toolchain.base import ISA_VERSIONS, Examination, Request
from jitcache.toolchain.memo import Memo
from jitcache.toolchain.model import IncludeRoot, ProviderName, Toolchain


def find_toolchain(
    arch: str,
    *,
    provider: str | None = None,
    ck: Path | None = None,
    cache_dir: Path | None = None,
    stat_memo: StatMemo | None = None,
) -> Toolchain:
    """The toolchain to build for `arch` with.

    The first call on a machine asks the compiler about itself, probes its flags and compiles
    a trial kernel (seconds); later ones only stat the files that matter (milliseconds).

    Args:
        arch: `gfx942` or `gfx950`.
        provider: `rocm` or `llvm`; `rocm` if installed, else `llvm`, when not given.
        ck: CK or AITER directory; searched for when not given.
        cache_dir: store root; JITCACHE_DIR's when not given.
        stat_memo: file digests already loaded, to share.

    Raises:
        ToolchainError: parts are missing or unfit: each is named, with the next step.
        UnsupportedError: no toolchain builds for `arch`.
    """
    request = make_request(arch, provider=provider, ck=ck, cache_dir=cache_dir)
    return examine(request, stat_memo).require()


def make_request(
    arch: str,
    *,
    provider: str | None = None,
    ck: Path | None = None,
    cache_dir: Path | None = None,
) -> Request:
    """Check and complete what was asked for.

    Raises:
        ToolchainError: no such provider.
        UnsupportedError: no such architecture.
    """
    if arch not in ISA_VERSIONS:
        raise UnsupportedError(
            f"no toolchain builds for {arch!r}", hint=f"supported: {', '.join(ISA_VERSIONS)}"
        )
    return Request(
        arch=arch,
        cache_dir=cache_dir or store_root(),
        environ=dict(os.environ),
        provider=_provider(provider),
        ck=ck,
        python_path=tuple(sys.path),
    )


def examine(request: Request, stat_memo: StatMemo | None = None) -> Examination:
    """Report every part of the requested (or best) provider, fit or not."""
    from jitcache.toolchain import llvm, rocm

    memo = Memo(request.cache_dir, stat_memo)
    chosen = request.provider or ("rocm" if rocm.rocm_root(request) is not None else "llvm")
    look = rocm.examine if chosen == "rocm" else llvm.examine
    examination = look(request, memo)
    memo.save()
    return examination


def root_of(toolchain: Toolchain, path: str | Path) -> tuple[str, str]:
    """The stable name of a header that a compile read: include root and relative path.

    The longest matching root wins, after links are resolved, so each file has one name.

    Raises:
        ToolchainError: the header is in none of the roots.
    """
    real = os.path.realpath(path)
    for prefix, name in _prefixes(toolchain.include_roots):
        if real.startswith(prefix):
            return name, real[len(prefix) :]
    raise ToolchainError(
        "the compiler read a header outside of every directory that it was told of",
        where=real,
        hint="unset variables that add include directories, and look for links in the CK tree",
    )


def path_of(toolchain: Toolchain, name: str, relative: str) -> Path:
    """Where the header of that stable name is here; the inverse of `root_of`.

    Raises:
        KeyError: the toolchain has no such root.
    """
    for root in toolchain.include_roots:
        if root.name == name:
            return root.path / relative
    raise KeyError(name)


@functools.lru_cache(maxsize=16)
def _prefixes(roots: tuple[IncludeRoot, ...]) -> tuple[tuple[str, str], ...]:
    pairs = {os.path.realpath(r.path).rstrip("/") + "/": r.name for r in reversed(roots)}
    return tuple(sorted(pairs.items(), key=lambda pair: -len(pair[0])))


def _provider(name: str | None) -> ProviderName | None:
    if name is None:
        return None
    if name == "rocm":
        return "rocm"
    if name == "llvm":
        return "llvm"
    raise ToolchainError(f"no toolchain provider {name!r}", hint="there are: rocm, llvm")
