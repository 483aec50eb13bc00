"""a8w8blkscale: 8-bit activations and weights with block scales (128 along K).

Each kernel exists with and without non-temporal weight loads. A split-K module writes
float32 in stage 1. Tiles and thresholds: AITER 9bab8388, gemm_moe_ck2stages_common.py
(`a8w8_*_blockscale_*`) and gen_instances.py (`A8W8_blockscale_*`). Kernels: CK
device_moe_gemm_blockscale.hpp.
"""

from ..family import ALWAYS, ARCHES, NEVER, PARITY, Family, Op, multiple, not_multiple, row
from ..model import Quant

FAMILY = Family(
    tag="a8w8blkscale",
    a=("f8", "i8"),
    b=("f8", "i8"),
    quants=(Quant.PER_1X32, Quant.PER_1X128),
    arches=ARCHES,
    runs_on=ARCHES,
    preshuffle=None,
    packed=1,
    header="_blockscale",
    device_op="DeviceMoeGemmBlockScale",
    ops=(
        Op(
            "MulABScaleExpertWeightA8W8blkscale",
            splitk="MulABScaleExpertWeightA8W8blkscaleSplitk",
        ),
        Op("MulABScaleExpertWeightA8W8blkscale"),
    ),
    pipelines={1: PARITY, 3: PARITY},
    non_temporal=True,
    stage1=(
        # threads  M    N    K   waves  v   picked for block_m == M if
        row(256,  16, 128, 256,  1, 4,  1,  ALWAYS),
        row(128,  16, 128, 128,  1, 2,  1,  NEVER),
        row(256,  32, 128, 128,  1, 4,  1,  ALWAYS),
        row(256,  64, 128, 128,  1, 4,  3,  ALWAYS),
        row(256,  64, 128, 128,  1, 4,  1,  NEVER),
    ),
    stage2=(
        # threads  M    N    K   waves  v   picked for block_m == M if
        row(256,  16, 128, 256,  1, 4,  1,  multiple(256)),
        row(128,  16, 128, 128,  1, 2,  1,  not_multiple(256)),
        row(256,  32, 128, 128,  1, 4,  1,  ALWAYS),
        row(256,  64, 128, 128,  1, 4,  3,  ALWAYS),
        row(256,  64, 128, 128,  1, 4,  1,  NEVER),
    ),
)  # fmt: skip
