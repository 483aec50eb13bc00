"""Finding LLVM's disassembler, which needs no more than a PATH: no CK, no headers, no compiler."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from jitcache.errors import ToolchainError

_OLDEST, _NEWEST_TRIED = 20, 30
"""LLVM's versions that know gfx950, and the newest that is looked for."""


def find_objdump(environ: Mapping[str, str]) -> Path:
    """The newest llvm-objdump on the PATH, or ROCm's.

    Args:
        environ: PATH and ROCM_PATH are read.

    Raises:
        ToolchainError: there is none.
    """
    path = environ.get("PATH", os.defpath)
    for name in _names():
        found = shutil.which(name, path=path)
        if found is not None:
            return Path(found)
    rocm = Path(environ.get("ROCM_PATH") or "/opt/rocm") / "llvm" / "bin" / "llvm-objdump"
    if rocm.is_file():
        return rocm
    raise ToolchainError(
        "there is no llvm-objdump, which reads the kernels' instructions",
        where="PATH",
        hint=f"install llvm-22 (any from {_OLDEST} on will do), or set ROCM_PATH",
    )


def _names() -> Iterator[str]:
    for version in range(_NEWEST_TRIED, _OLDEST - 1, -1):
        yield f"llvm-objdump-{version}"
    yield "llvm-objdump"
