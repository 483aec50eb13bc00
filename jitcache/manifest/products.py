"""GPU products: architecture and number of compute units.

Source: AITER's tuned tables and `get_cu_num` users report 80 on MI308X, 304 on MI300X,
MI300A's 228, MI325X 304, MI350X and MI355X 256; partitioned GPUs report fewer.
"""

from __future__ import annotations

PRODUCTS: dict[str, tuple[str, int]] = {
    "MI300A": ("gfx942", 228),
    "MI300X": ("gfx942", 304),
    "MI308X": ("gfx942", 80),
    "MI325X": ("gfx942", 304),
    "MI350X": ("gfx950", 256),
    "MI355X": ("gfx950", 256),
}
"""Product name → (architecture, compute units of the whole GPU)."""

DEFAULT_CU: dict[str, int] = {"gfx942": 304, "gfx950": 256}
"""Compute units assumed for an architecture when none are given: MI300X, MI355X."""
