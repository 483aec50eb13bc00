"""Runs a capsule's launch on the emulator."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from pathlib import Path

from jitcache.errors import UnsupportedError
from jitcache.runtime.capsule import Capsule
from jitcache.toolchain.base import run
from jitcache.toolchain.objdump import find_objdump

_PATIENCE_S = 60
"""A whole kernel takes a tenth of a second."""


def require_emulator() -> Path:
    """The disassembler that the emulator reads kernels with.

    Raises:
        UnsupportedError: numpy can't be imported.
        ToolchainError: there is no such disassembler.
    """
    if importlib.util.find_spec("numpy") is None:
        raise UnsupportedError(
            "the emulator needs numpy, which isn't installed",
            hint="pip install 'jitcache[emulate]'",
        )
    return find_objdump(os.environ)


def replay(capsule: Capsule, objdump: Path) -> dict[str, bytes]:
    """Run a capsule without a GPU.

    Args:
        capsule: what to run.
        objdump: from `require_emulator`.

    Returns:
        The bytes of every buffer afterwards, by field.

    Raises:
        FaultError: the kernel reaches memory that isn't there, or never ends.
        UnknownError: it has an instruction that the emulator doesn't know.
    """
    # Only now: numpy is optional.
    from jitcache.emulator import launch, program

    text = listing(capsule.code, capsule.symbol, capsule.arch, objdump)
    kernel = program.read(capsule.code, capsule.symbol, capsule.arch, text)
    pointers = {b.field: launch.Pointer(b.before, b.offsets) for b in capsule.buffers}
    if capsule.clear_bytes:
        out = capsule.out
        cleared = bytes(capsule.clear_bytes) + out.before[capsule.clear_bytes :]
        pointers["out"] = launch.Pointer(cleared, out.offsets)
    sizes = capsule.grid, capsule.block, capsule.lds
    return launch.launch(kernel, *sizes, capsule.kernarg, pointers)


def listing(code: bytes, symbol: str, arch: str, objdump: Path) -> str:
    """The disassembly of a code object's kernel.

    Raises:
        UnsupportedError: the disassembler can't read it, or doesn't get done with it.
    """
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "kernel.co"
        file.write_bytes(code)
        options = ["-d", f"--mcpu={arch}", f"--disassemble-symbols={symbol}"]
        # Headers of a damaged file can lead it round in circles.
        ran = run([str(objdump), *options, str(file)], os.environ, patience_s=_PATIENCE_S)
    if ran.status:
        raise UnsupportedError(f"{objdump} can't read the kernel: {ran.err.strip()[:200]}")
    return ran.out
