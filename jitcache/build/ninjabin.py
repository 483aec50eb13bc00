"""Find the ninja to run."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

from jitcache.errors import ToolchainError

VARIABLE = "JITCACHE_NINJA"


def find_ninja() -> Path:
    """`JITCACHE_NINJA`, else the one of the PyPI package, else the first on PATH.

    Raises:
        ToolchainError: none, or the variable names no program.
    """
    chosen = os.environ.get(VARIABLE)
    if chosen:
        found = shutil.which(chosen)
        if found is None:
            raise ToolchainError(
                "not a program that can be run",
                where=f"{VARIABLE}={chosen}",
                hint=f"unset {VARIABLE} to use the ninja that jitcache was installed with",
            )
        return Path(found).absolute()
    if importlib.util.find_spec("ninja") is not None:
        import ninja

        packaged = shutil.which("ninja", path=str(ninja.BIN_DIR)) if ninja.BIN_DIR else None
        if packaged is not None:
            return Path(packaged).absolute()
    found = shutil.which("ninja")
    if found is None:
        raise ToolchainError(
            "no ninja found", hint=f"`pip install ninja`, or set {VARIABLE} to its path"
        )
    return Path(found).absolute()
