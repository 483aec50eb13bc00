"""Provider `rocm`: a ROCm installation, with its own clang, headers and device libraries."""

from __future__ import annotations

import re
from pathlib import Path

from jitcache import digest
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

MIN_CLANG = {"gfx942": 17, "gfx950": 19}
"""Major version of ROCm's clang that first knew the target (ROCm 6.0 and 6.4)."""

_REINSTALL = "install ROCm's compiler, HIP headers and device libraries, or set ROCM_PATH"
_CXX = "install the static C++ runtime (Debian: libstdc++-12-dev, Fedora: libstdc++-static)"


def rocm_root(request: Request) -> Path | None:
    """The ROCm directory: `ROCM_PATH`, /opt/rocm, or the one that hipcc on PATH is in."""
    if own := request.environ.get("ROCM_PATH"):
        return Path(own).expanduser().absolute()
    default = request.system("/opt/rocm")
    if _driver(default) is not None:
        return default
    for directory in path_dirs(request):
        if is_executable(directory / "amdclang++"):
            root = (directory / "amdclang++").resolve().parent
            for above in (root, *root.parents):
                if (above / "include" / "hip" / "hip_version.h").is_file() and _driver(above):
                    return above
    return None


def examine(request: Request, memo: Memo) -> Examination:
    """Look at every part of the installation, and put them together if none is missing."""
    root = rocm_root(request)
    tree, ck = find_ck(request, OWN_CK_CONFIG, memo)
    if root is None:
        missing = PartReport(
            "rocm",
            "missing",
            detail="no ROCM_PATH, no /opt/rocm with a compiler, no amdclang++ on PATH",
            next_step=_REINSTALL,
        )
        return Examination("rocm", request.arch, (missing, ck), None)
    facts, clang = _clang(root, request, memo)
    lld = _lld(facts, request, memo)
    hip_include = root / "include" / "hip"
    hip_version = parse_hip_version(hip_include)
    if hip_version is None:
        detail = "no readable hip_version.h"
        hip = PartReport("hip-headers", "missing", hip_include, "", "", detail, _REINSTALL)
    else:
        hip = PartReport("hip-headers", "found", hip_include, hip_version)
    bitcode, libraries = _device_libs(root, facts, request, memo)
    parts = [clang, lld, hip, libraries, ck]
    if facts is not None:
        parts.insert(2, host_runtime(facts, memo, _CXX))
    reports = tuple(parts)
    whole = all(r.status == "found" for r in reports)
    if not whole or facts is None or tree is None or bitcode is None or hip_version is None:
        return Examination("rocm", request.arch, reports, None)
    pieces = Pieces(
        reports=reports,
        facts=facts,
        ck=tree,
        hip_include=hip_include,
        rocm_include=root / "include",
        hip_version=hip_version,
        path_flags=(f"--rocm-path={root}", f"--rocm-device-lib-path={bitcode}"),
        label=f"rocm-{rocm_version(root) or hip_version}",
    )
    return finish("rocm", pieces, request, memo)


def rocm_version(root: Path) -> str:
    """`7.0.1` as `.info/version` states it, "" where there is none."""
    try:
        text = (root / ".info" / "version").read_text(errors="replace")
    except OSError:
        return ""
    found = re.match(r"\s*(\d+\.\d+\.\d+)", text)
    return found[1] if found else ""


def _driver(root: Path) -> Path | None:
    # The clang itself, not the `hipcc` or `amdclang++` wrappers: those read HIPCC_* variables
    # and add flags of their own.
    names = ("lib/llvm/bin/clang++", "llvm/bin/clang++", "bin/amdclang++")
    return next((root / n for n in names if is_executable(root / n)), None)


def _clang(root: Path, request: Request, memo: Memo) -> tuple[CompilerFacts | None, PartReport]:
    driver = _driver(root)
    if driver is None:
        detail = "neither lib/llvm/bin/clang++ nor bin/amdclang++"
        return None, PartReport("clang", "missing", root, "", "", detail, _REINSTALL)
    facts = compiler_facts(driver, request, memo)
    if isinstance(facts, NotACompiler):
        return None, PartReport("clang", "wrong", driver, "", "", facts.reason, _REINSTALL)
    least = MIN_CLANG[request.arch]
    if facts.version[0] < least:
        return None, PartReport(
            "clang",
            "wrong",
            driver,
            facts.version_text,
            detail=f"{request.arch} needs clang {least} or newer",
            next_step="install a newer ROCm, or use --provider llvm",
        )
    return facts, PartReport("clang", "found", driver, facts.version_text, facts.digest)


def _lld(facts: CompilerFacts | None, request: Request, memo: Memo) -> PartReport:
    path = find_linker(facts, request) if facts is not None else None
    if path is None:
        return PartReport("lld", "missing", detail="not beside clang", next_step=_REINSTALL)
    return PartReport("lld", "found", path, "", memo.file_digest(path))


def _device_libs(
    root: Path, facts: CompilerFacts | None, request: Request, memo: Memo
) -> tuple[Path | None, PartReport]:
    places = [root / "amdgcn" / "bitcode", root / "lib" / "llvm" / "amdgcn" / "bitcode"]
    if facts is not None:
        places.insert(0, facts.resource_dir / "lib" / "amdgcn" / "bitcode")
    isa = f"oclc_isa_version_{request.arch.removeprefix('gfx')}.bc"
    for place in places:
        if (place / "ocml.bc").is_file():
            if not (place / isa).is_file():
                return None, PartReport(
                    "device-libs",
                    "wrong",
                    place,
                    detail=f"{isa} is missing: these libraries don't know {request.arch}",
                    next_step="install a newer ROCm, or use --provider llvm",
                )
            files = sorted(f for f in place.iterdir() if f.suffix == ".bc")
            value = digest.of_json({f.name: memo.file_digest(f) for f in files})
            return place, PartReport("device-libs", "found", place, "", value)
    return None, PartReport(
        "device-libs", "missing", root, detail="no amdgcn/bitcode/ocml.bc", next_step=_REINSTALL
    )
