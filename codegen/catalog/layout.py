"""How a kernel reads shuffled weights, and whether that is how AITER shuffles them.

Source: AITER 9bab8388, gemm_moe_ck2stages_common.cuh: `K1` is 16 bytes, but 8 in stage 1 with
pipeline 3 and N 64, and in stage 2 with 256 threads and K 64, for 8-bit types. CK,
gridwise_moe_gemm.hpp: `KPack / KGroup` values of a row lie together; that is the larger of K1
and what a matrix instruction takes of a row, which on gfx950 makes up for it. AITER's
`shuffle_weight` (aiter/ops/shuffle.py) puts 16 bytes of a row together for all of them.
"""

from __future__ import annotations

from .family import Arch
from .model import Instance

SHUFFLED = 16
"""Bytes of a row that AITER's shuffle keeps together."""
_HALF = 8
_NARROW = frozenset({"f8", "i8"})


def weight_pack(instance: Instance, arch: Arch) -> int:
    """Bytes of a row of shuffled weights that a kernel takes together.

    Where they aren't `SHUFFLED`, it computes with the wrong weights: shown with the machine code
    of the wheel's CK on the emulator (docs/emulator.md), not on a GPU.
    """
    spec, tile = instance.module, instance.tile
    if arch != "gfx942" or spec.quant.word == "per_1x128" or {spec.a, spec.b} - _NARROW:
        return SHUFFLED
    if instance.stage == 1:
        return _HALF if (tile.pipeline, tile.n) == (3, 64) else SHUFFLED
    return _HALF if (tile.block_size, tile.k) == (256, 64) else SHUFFLED
