"""A device compile in two halves: the front end to bitcode, the back end to a code object. Pure.

The bitcode is what the front end hands over before anything is optimised, so every `-mllvm`
option still has its say in the second half, and the two halves write the same bytes as one
compile (`tests/test_split.py`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from jitcache.action.command import Command, compile_command
from jitcache.toolchain.compiler import is_executable
from jitcache.toolchain.model import Toolchain

_FRONT = ("-emit-llvm", "-c", "-Xclang", "-disable-llvm-passes")
# What clang's driver adds for HIP, and for code that is not compiled from HIP does not.
_DRIVER = ("-mllvm", "-amdgpu-internalize-symbols")


@dataclass(frozen=True, slots=True)
class BitcodeTools:
    """LLVM's programs for bitcode, of the compiler's own version."""

    extract: Path
    nm: Path
    opt: Path


def find_bitcode_tools(compiler: Path) -> BitcodeTools | None:
    """The programs beside the compiler itself; None where one is missing."""
    place = Path(os.path.realpath(compiler)).parent
    tools = BitcodeTools(place / "llvm-extract", place / "llvm-nm", place / "opt")
    return tools if all(map(is_executable, (tools.extract, tools.nm, tools.opt))) else None


def front_command(toolchain: Toolchain) -> Command:
    """The front end's command; its output is the bitcode. No `-mllvm` option is in it."""
    plain = without_mllvm(toolchain.device_flags)
    command = compile_command(replace(toolchain, device_flags=plain), "device")
    *words, source = command.argv
    return replace(command, argv=(*words, *_FRONT, source), flags=(*command.flags, *_FRONT))


def back_argv(toolchain: Toolchain, arch: str) -> tuple[str, ...]:
    """The optimiser's and back end's command line; `@bitcode` and `@output` stand for paths.

    Args:
        toolchain: the `-mllvm` options among its flags are the back end's.
        arch: target.
    """
    return (
        str(toolchain.compiler),
        "--no-default-config",
        *("-x", "ir", "-O3"),
        *("--target=amdgcn-amd-amdhsa", f"-mcpu={arch}", "-nogpulib"),
        *(w for option in mllvm_options(toolchain.device_flags) for w in ("-mllvm", option)),
        *_DRIVER,
        *("-o", "@output", "@bitcode"),
    )


def mllvm_options(flags: tuple[str, ...]) -> tuple[str, ...]:
    """The options that stand behind `-mllvm`, in their order."""
    return tuple(option for word, option in pairwise(flags) if word == "-mllvm")


def without_mllvm(flags: tuple[str, ...]) -> tuple[str, ...]:
    """The other flags."""
    before = ("", *flags)
    return tuple(
        word for previous, word in pairwise(before) if word != "-mllvm" and previous != "-mllvm"
    )
