"""Compiler flags: AITER's list, and which of them this compiler accepts.

The list is what AITER 9bab8388 passes for its CK modules (aiter/jit/core.py, and CK's own
CMakeLists.txt, which it follows). Flags decide the instructions, so all that were accepted
are in every key; LLVM's internal options come and go with versions, so each is tried once per
compiler and the answer is remembered.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from jitcache.errors import ToolchainError
from jitcache.toolchain.base import Request, first_error, run
from jitcache.toolchain.compiler import CompilerFacts
from jitcache.toolchain.memo import Memo

Flag = tuple[str, ...]
"""One flag with its value: one or more command-line words that stand or fall together."""

_ROCM7_CLANG = 20
"""Major version of the clang in ROCm 7.0, from which on the newer list holds."""


class Probed(NamedTuple):
    """Which optional flags a compiler accepts, in the order of the list."""

    accepted: tuple[Flag, ...]
    rejected: tuple[Flag, ...]


def base_flags(arch: str) -> tuple[str, ...]:
    """Flags of every compile: language, macros, target; none holds a local path."""
    return (
        # No configuration file or unit id of this machine may reach the output.
        "--no-default-config",
        "-fuse-cuid=none",
        "-x",
        "hip",
        "-std=c++20",
        "-O3",
        f"--offload-arch={arch}",
        "-D__HIP_PLATFORM_AMD__=1",
        "-D__HIP_PLATFORM_HCC__=1",
        "-DUSE_PROF_API=1",
        "-DLEGACY_HIPBLAS_DIRECT",
        "-U__HIP_NO_HALF_CONVERSIONS__",
        "-U__HIP_NO_HALF_OPERATORS__",
        "-Wno-unused-command-line-argument",
    )


def host_flags() -> tuple[str, ...]:
    """Flags of host-only shared libraries: they must load where no HIP runtime is."""
    return ("-fPIC", "-no-hip-rt", "-fuse-ld=lld")


def device_candidates(clang_major: int) -> tuple[Flag, ...]:
    """Optional flags of device passes, in AITER's order."""
    bottom_up = (
        "--misched-prera-direction=bottomup"
        if clang_major >= _ROCM7_CLANG
        else "--misched-bottomup=1"
    )
    internal = (
        "--amdgpu-kernarg-preload-count=16",
        "--lsr-drop-solution=1",
        "-enable-post-misched=0",
        "-amdgpu-early-inline-all=true",
        "-amdgpu-function-calls=false",
        "-amdgpu-coerce-illegal-types=1",
        "-greedy-reverse-local-assignment=1",
        "--amdgpu-use-amdgpu-trackers=1",
        "--slp-threshold=-32",
        bottom_up,
    )
    return (
        ("-fgpu-flush-denormals-to-zero",),
        ("-fno-offload-uniform-block",),
        *(("-mllvm", option) for option in internal),
    )


def bisect(flags: tuple[Flag, ...], works: Callable[[tuple[Flag, ...]], bool]) -> Probed:
    """Split flags into accepted and rejected: one question if all work, halving if not.

    Args:
        flags: what to try.
        works: whether the compiler takes all of these together.
    """
    if not flags or works(flags):
        return Probed(flags, ())
    if len(flags) == 1:
        return Probed((), flags)
    middle = len(flags) // 2
    left, right = bisect(flags[:middle], works), bisect(flags[middle:], works)
    return Probed(left.accepted + right.accepted, left.rejected + right.rejected)


def probe(facts: CompilerFacts, arch: str, request: Request, memo: Memo) -> Probed:
    """Which of the device flags this compiler accepts; remembered per compiler and list.

    Raises:
        ToolchainError: the compiler refuses the fixed flags, too.
    """
    candidates = device_candidates(facts.version[0])
    fixed = base_flags(arch)
    about = {
        "compiler": facts.digest,
        "fixed": list(fixed),
        "candidates": [list(f) for f in candidates],
    }
    known = memo.recall("flags", about)
    if isinstance(known, list):
        return _of(candidates, known)

    def diagnostics(flags: tuple[Flag, ...]) -> str | None:
        words = [word for flag in flags for word in flag]
        done = run(
            [
                str(facts.path),
                *fixed,
                *words,
                "--cuda-device-only",
                "--no-gpu-bundle-output",
                "-nogpuinc",
                "-nogpulib",
                "-c",
                os.devnull,
                "-o",
                os.devnull,
            ],
            request.environ,
        )
        return None if done.status == 0 else first_error(done.err)

    if (error := diagnostics(())) is not None:
        raise ToolchainError(
            f"the compiler does not build for {arch}: {error}",
            where=str(facts.path),
            hint="use a clang of 22 or newer with the AMDGPU target, and its lld",
        )
    probed = bisect(candidates, lambda flags: diagnostics(flags) is None)
    memo.remember("flags", about, [list(f) for f in probed.rejected])
    return probed


def _of(candidates: tuple[Flag, ...], rejected: list[list[str]]) -> Probed:
    bad = tuple(tuple(f) for f in rejected)
    return Probed(tuple(f for f in candidates if f not in bad), bad)
