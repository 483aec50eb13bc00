"""Stores that were installed as wheels (`jitcache wheel`): found where pip puts packages.

Only the interpreter's own package directories count, never the current directory or
`PYTHONPATH`: a project must not be able to bring kernels of its own.
"""

from __future__ import annotations

import os
import site
from pathlib import Path

PACKAGE = "jitcache_kernels"
"""The directory that all such wheels share; each has one below it."""


def wheel_roots() -> tuple[Path, ...]:
    """Roots of the installed stores, sorted by name within each package directory."""
    places = site.getsitepackages()
    if site.ENABLE_USER_SITE:
        places = [*places, site.getusersitepackages()]
    found = []
    for place in places:
        if not place.startswith("/"):  # a user without a home has one below "~"
            continue
        try:
            names = sorted(os.listdir(f"{place}/{PACKAGE}"))  # noqa: PTH208
        except OSError:
            continue
        found += [Path(place, PACKAGE, name) for name in names]
    return tuple(found)
