"""The last steps that all providers share: include roots, flags, a trial compile, the id."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from jitcache import digest
from jitcache.errors import ToolchainError
from jitcache.toolchain import ck as ck_module
from jitcache.toolchain import flags
from jitcache.toolchain.base import Examination, PartReport, Request, first_error, run
from jitcache.toolchain.ck import CkTree
from jitcache.toolchain.compiler import CompilerFacts
from jitcache.toolchain.memo import Memo
from jitcache.toolchain.model import IncludeRoot, ProviderName, Toolchain
from jitcache.toolchain.shortcuts import Proof, decide

CSRC = Path(os.path.realpath(Path(__file__).parent.parent / "csrc"))
"""Our C++ sources, in a checkout as in an installed package."""

OWN_CK_CONFIG = CSRC / "ck_config"
COMPAT_HEADER = "jitcache_hip5_compat.h"
COMPAT_BELOW = (6, 0)
"""HIP headers older than this need the compatibility header; tried with 5.2.3."""

_TRIAL = """\
#include <hip/hip_runtime.h>
#include <hip/hip_fp16.h>
extern "C" __global__ void trial(float* x, __half* h)
{
    x[threadIdx.x] = expf(x[threadIdx.x]) + powf(x[1], x[2]);
    h[0] = hrcp(h[1]);
}
"""
_TRIAL_SCHEMA = 1


class Pieces(NamedTuple):
    """What a provider found.

    Attributes:
        reports: of all parts, found, missing and wrong.
        facts: the compiler.
        ck: CK's tree.
        hip_include: directory of `hip_runtime.h`.
        rocm_include: the directory above, as the compiler is told.
        hip_version: `5.2.21153`.
        path_flags: `--rocm-path=...` and the like.
        label: `llvm-22.1.8` or `rocm-7.0.1`, the id's first words.
    """

    reports: tuple[PartReport, ...]
    facts: CompilerFacts
    ck: CkTree
    hip_include: Path
    rocm_include: Path
    hip_version: str
    path_flags: tuple[str, ...]
    label: str


def finish(provider: ProviderName, pieces: Pieces, request: Request, memo: Memo) -> Examination:
    """Probe the flags, compile a small kernel, and put the toolchain together."""
    try:
        toolchain = _toolchain(provider, pieces, request, memo)
        _trial(toolchain, request, memo)
    except ToolchainError as e:
        report = PartReport(
            "compile", "wrong", detail="; ".join((e.what, *e.details)), next_step=e.hint or ""
        )
        return Examination(provider, request.arch, (*pieces.reports, report), None)
    report = PartReport(
        "compile", "found", pieces.facts.path, detail="a trial kernel and host library compile"
    )
    return Examination(provider, request.arch, (*pieces.reports, report), toolchain)


def parse_hip_version(include: Path) -> str | None:
    """`5.2.21153` as `hip/hip_version.h` states it, or None where it can't be read."""
    wanted = ("MAJOR", "MINOR", "PATCH")
    found: dict[str, str] = {}
    try:
        text = (include / "hip_version.h").read_text(errors="replace")
    except OSError:
        return None
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3 and words[0] == "#define" and words[2].isdigit():
            found[words[1].removeprefix("HIP_VERSION_")] = words[2]
    return ".".join(found[w] for w in wanted) if all(w in found for w in wanted) else None


def compat_needed(hip_version: str) -> bool:
    """Whether these HIP headers need the compatibility header."""
    major, minor, _ = hip_version.split(".")
    return (int(major), int(minor)) < COMPAT_BELOW


def _toolchain(provider: ProviderName, pieces: Pieces, request: Request, memo: Memo) -> Toolchain:
    facts = pieces.facts
    probed = flags.probe(facts, request.arch, request, memo)
    roots = _include_roots(pieces)
    base = flags.base_flags(request.arch)
    if compat_needed(pieces.hip_version):
        base = (*base, "-include", COMPAT_HEADER)
    met = Proof(pieces.ck.headers, facts.build, pieces.hip_version)
    shortcuts = decide(met, request.environ)
    device = (*(word for flag in probed.accepted for word in flag), *shortcuts.flags)
    host = flags.host_flags()
    # __FILE__ in CK's messages must not depend on where CK lies.
    maps = tuple(f"-fmacro-prefix-map={r.path}=/{r.name}" for r in roots if r.flag is not None)
    parts = tuple(r.part() for r in pieces.reports if r.status == "found")
    major, minor, _ = pieces.hip_version.split(".")
    identity = {
        "provider": provider,
        "host": facts.target,
        "parts": {p.name: p.digest for p in parts if p.digest},
        "hip": pieces.hip_version,
        "base": list(base),
        "device": list(device),
        "host_flags": list(host),
    }
    words = (
        pieces.label,
        f"hip{major}.{minor}",
        f"ck{ck_module.short(pieces.ck.origin)}",
        digest.of_json(identity)[7:19],
    )
    return Toolchain(
        provider=provider,
        id="-".join(words),
        compiler=facts.path,
        parts=parts,
        include_roots=roots,
        base_flags=base,
        path_flags=(*pieces.path_flags, *maps),
        device_flags=device,
        host_flags=host,
        hip_version=(int(major), int(minor)),
        ck_commit=pieces.ck.origin,
        rejected_flags=tuple(" ".join(f) for f in probed.rejected),
        no_shortcuts=shortcuts.detail,
    )


def _include_roots(pieces: Pieces) -> tuple[IncludeRoot, ...]:
    roots = [
        IncludeRoot("compat", CSRC / "hip_compat", "-I"),
        IncludeRoot("csrc", CSRC, "-I"),
        IncludeRoot("ck", pieces.ck.include, "-isystem"),
        IncludeRoot("rocm", pieces.rocm_include, "-isystem"),
        IncludeRoot("hip", pieces.hip_include, None),
        IncludeRoot("clang", pieces.facts.resource_dir / "include", None),
    ]
    if pieces.ck.config != pieces.ck.include:
        # The generated ck/config.h must win over any that stands in the tree itself.
        roots.insert(2, IncludeRoot("ck-config", pieces.ck.config, "-isystem"))
    # What clang searches by itself. A directory inside another needs no name of its own.
    outer = [
        d
        for d in pieces.facts.include_dirs
        if not d.is_relative_to(pieces.facts.resource_dir)
        and not any(d != o and d.is_relative_to(o) for o in pieces.facts.include_dirs)
    ]
    for number, directory in enumerate(outer, 1):
        known = {"/usr/include": "system", "/usr/local/include": "local"}
        name = known.get(str(directory), f"system-{number}")
        roots.append(IncludeRoot(name, directory, None))
    return tuple(roots)


def _trial(toolchain: Toolchain, request: Request, memo: Memo) -> None:
    """Compile something that uses all parts but CK, once per toolchain.

    Raises:
        ToolchainError: it does not compile.
    """
    needed = [r for r in toolchain.include_roots if r.name in ("compat", "rocm")]
    includes = [word for r in needed for word in (str(r.flag), str(r.path))]
    about = {
        "schema": _TRIAL_SCHEMA,
        "toolchain": toolchain.id.rpartition("-")[2],
        "includes": includes,
    }
    if memo.recall("trial", about) is True:
        return
    common = [str(toolchain.compiler), *toolchain.base_flags, *toolchain.path_flags, *includes]
    passes = {
        "kernel": (*toolchain.device_flags, "--cuda-device-only", "--no-gpu-bundle-output", "-c"),
        "shared library": (
            *toolchain.host_flags,
            "--cuda-host-only",
            "-shared",
            "-static-libstdc++",
            "-static-libgcc",
        ),
    }
    import tempfile

    try:
        with tempfile.TemporaryDirectory(prefix="jitcache-trial-") as directory:
            place = Path(directory)
            (place / "trial.hip").write_text(_TRIAL)
            for what, words in passes.items():
                argv = [*common, *words, "trial.hip", "-o", "trial.out"]
                done = run(argv, request.environ, cwd=place)
                if done.status != 0:
                    raise ToolchainError(
                        f"a trial {what} does not compile: {first_error(done.err)}",
                        where=str(toolchain.compiler),
                        hint="the HIP headers, device libraries and compiler don't fit "
                        "together: `jitcache doctor` shows which ones were taken",
                    )
    except OSError as e:
        raise ToolchainError(
            f"no place for a trial compile: {e.strerror}",
            hint="set TMPDIR to a writable directory with some free space",
        ) from e
    memo.remember("trial", about, True)
