"""Provider `llvm`: a distribution's clang with HIP headers and device libraries beside it.

Needs no ROCm and no GPU. Headers and device libraries come from the distribution's packages
(Debian: libamdhip64-dev, rocm-device-libs); the constants that the packages lack are made here
(devicelibs). The `triton` wheel's newer HIP headers can't serve: it has no hip_fp16.h, which CK
includes.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from jitcache.errors import ToolchainError
from jitcache.toolchain import devicelibs
from jitcache.toolchain.base import Examination, PartReport, Request
from jitcache.toolchain.ck import find_ck
from jitcache.toolchain.compiler import (
    CompilerFacts,
    NotACompiler,
    compiler_facts,
    find_linker,
    host_runtime,
    is_executable,
    path_dirs,
)
from jitcache.toolchain.finish import OWN_CK_CONFIG, Pieces, finish, parse_hip_version
from jitcache.toolchain.memo import Memo

MIN_CLANG = 22
"""Oldest clang that was proven to build CK's gfx950 kernels without ROCm (design D8)."""

_NEWEST_TRIED = 30
_SETUP = (
    "run tools/setup in a checkout, or on Debian: "
    "apt install clang-22 lld-22 libamdhip64-dev rocm-device-libs"
)
_BITCODE_DIRS = (
    "usr/lib/*/amdgcn/bitcode",
    "usr/lib/llvm-*/lib/clang/*/lib/amdgcn/bitcode",
    "usr/lib/clang/*/lib/amdgcn/bitcode",
    "usr/lib/clang/*/amdgcn/bitcode",
    "usr/lib64/amdgcn/bitcode",
    "usr/share/amdgcn/bitcode",
)


class _HipSource(NamedTuple):
    """HIP headers and the device libraries that came with them."""

    include: Path
    bitcode: Path | None
    version: str


def examine(request: Request, memo: Memo) -> Examination:
    """Look at every part, and put them together if none is missing."""
    facts, clang = _clang(request, memo)
    lld = _lld(facts, request, memo)
    source, hip = _hip(request)
    libraries = _bitcode(source)
    tree, ck = find_ck(request, OWN_CK_CONFIG, memo)
    reports = [clang, lld, hip, libraries, ck]
    if facts is not None:
        reports.insert(2, host_runtime(facts, memo, _SETUP))
    whole = all(r.status == "found" for r in reports)
    if not whole or facts is None or source is None or source.bitcode is None or tree is None:
        return Examination("llvm", request.arch, tuple(reports), None)
    try:
        root = devicelibs.assemble(
            facts, source.include, source.version, source.bitcode, request, memo
        )
    except ToolchainError as e:
        reports[4] = PartReport(
            "device-libs", "wrong", source.bitcode, detail=str(e.what), next_step=e.hint or ""
        )
        return Examination("llvm", request.arch, tuple(reports), None)
    reports[4] = PartReport(
        "device-libs", "found", source.bitcode, libraries.version, root.digest, libraries.detail
    )
    pieces = Pieces(
        reports=tuple(reports),
        facts=facts,
        ck=tree,
        hip_include=source.include,
        rocm_include=root.include,
        hip_version=source.version,
        path_flags=(f"--rocm-path={root.path}", f"--rocm-device-lib-path={root.bitcode}"),
        label=f"llvm-{facts.version_text}",
    )
    return finish("llvm", pieces, request, memo)


def clang_candidates(request: Request) -> list[Path]:
    """Drivers to try, the proven version first."""
    if own := request.environ.get("JITCACHE_CLANG"):
        return [Path(own).expanduser().absolute()]
    versions = range(MIN_CLANG, _NEWEST_TRIED + 1)
    names = [f"clang++-{v}" for v in versions]
    found = [d / n for n in names for d in path_dirs(request) if is_executable(d / n)]
    installed = [str(p) for p in request.root.glob("usr/lib*/llvm*/bin/clang++")]
    by_version = sorted(installed, key=lambda p: (_number(p), p))
    found += [Path(p) for p in by_version if _number(p) >= MIN_CLANG or _number(p) == 0]
    found += [d / "clang++" for d in path_dirs(request) if is_executable(d / "clang++")]
    return list(dict.fromkeys(found))


def _number(path: str) -> int:
    found = re.search(r"llvm-?(\d+)/bin", path)
    return int(found[1]) if found else 0


def _clang(request: Request, memo: Memo) -> tuple[CompilerFacts | None, PartReport]:
    unfit: list[PartReport] = []
    for path in clang_candidates(request):
        facts = compiler_facts(path, request, memo)
        if isinstance(facts, NotACompiler):
            unfit.append(PartReport("clang", "wrong", path, detail=facts.reason, next_step=_SETUP))
        elif facts.version[0] < MIN_CLANG:
            unfit.append(
                PartReport(
                    "clang",
                    "wrong",
                    path,
                    facts.version_text,
                    detail=f"{MIN_CLANG} or newer is needed for {request.arch}",
                    next_step=_SETUP,
                )
            )
        else:
            return facts, PartReport("clang", "found", path, facts.version_text, facts.digest)
    if unfit:
        return None, unfit[0]
    return None, PartReport(
        "clang",
        "missing",
        detail=f"no clang++-{MIN_CLANG} or newer on PATH or below /usr/lib/llvm-*",
        next_step=_SETUP,
    )


def _lld(facts: CompilerFacts | None, request: Request, memo: Memo) -> PartReport:
    if facts is None:
        return PartReport("lld", "missing", detail="needs a clang first", next_step=_SETUP)
    path = find_linker(facts, request)
    if path is None:
        return PartReport(
            "lld", "missing", detail="neither beside clang nor on PATH", next_step=_SETUP
        )
    return PartReport("lld", "found", path, "", memo.file_digest(path))


def _hip(request: Request) -> tuple[_HipSource | None, PartReport]:
    include = request.system("/usr/include/hip")
    version = parse_hip_version(include)
    if version is not None:
        source = _HipSource(include, _system_bitcode(request), version)
        return source, PartReport("hip-headers", "found", include, version)
    return None, PartReport(
        "hip-headers", "missing", detail=f"no {include}/hip_version.h", next_step=_SETUP
    )


def _bitcode(source: _HipSource | None) -> PartReport:
    if source is None or source.bitcode is None:
        return PartReport(
            "device-libs",
            "missing",
            detail=f"no directory with {' and '.join(devicelibs.CODE_LIBRARIES)}",
            next_step=_SETUP,
        )
    return PartReport(
        "device-libs", "found", source.bitcode, detail="constants of newer targets added"
    )


def _system_bitcode(request: Request) -> Path | None:
    for pattern in _BITCODE_DIRS:
        for found in sorted(request.root.glob(pattern)):
            if all((found / n).is_file() for n in devicelibs.CODE_LIBRARIES):
                return found
    return None
