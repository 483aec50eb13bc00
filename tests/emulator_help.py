"""C programs compiled for a GPU, run on the emulator."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from jitcache.emulator.launch import Pointer, launch
from jitcache.emulator.program import read
from jitcache.emulator.replay import listing
from jitcache.errors import ToolchainError
from jitcache.toolchain.objdump import find_objdump

DEVICE = ("-target", "amdgcn-amd-amdhsa", "-nogpulib", "-nogpuinc", "-ffp-contract=off")


def clang() -> str:
    """The compiler beside the disassembler."""
    try:
        objdump = find_objdump(os.environ)
    except ToolchainError as e:
        pytest.skip(e.what)
    beside = Path(os.path.realpath(objdump)).with_name("clang")
    if not beside.exists():
        pytest.skip(f"no clang beside {objdump}")
    return str(beside)


def compile_c(source: str, output: Path, *options: str) -> bytes:
    """Compile C and give the output's bytes."""
    file = output.with_suffix(".c")
    file.write_text(source)
    command = [clang(), "-x", "c", "-O2", "-Wno-everything", *options, str(file), "-o", str(output)]
    subprocess.run(command, check=True)
    return output.read_bytes()


def run(
    code: bytes,
    symbol: str,
    arch: str,
    kernarg: bytes,
    buffers: dict[str, Pointer],
    *,
    grid: tuple[int, int, int] = (1, 1, 1),
    block: int = 64,
) -> dict[str, bytes]:
    """Launch a kernel of a code object; gives the buffers afterwards."""
    text = listing(code, symbol, arch, find_objdump(os.environ))
    return launch(read(code, symbol, arch, text), grid, (block, 1, 1), 0, kernarg, buffers)
