"""a4w4: MXFP4 activations and shuffled MXFP4 weights, one E8M0 scale per 32 values.

K counts stored bytes: 128 are 256 fp4 values. Tiles and thresholds: AITER 9bab8388,
gemm_moe_ck2stages_common.py (`a4w4_*`) and gen_instances.py (`A4W4_*`). Kernels:
CK device_moe_mx_gemm_bpreshuffle.hpp.
"""

from ..family import ALWAYS, ARCHES, NEVER, PARITY, Family, Op, over, row, up_to
from ..model import Quant

FAMILY = Family(
    tag="a4w4",
    a=("fp4x2",),
    b=("fp4x2",),
    quants=tuple(Quant),
    arches=ARCHES,
    runs_on=("gfx950",),
    preshuffle=True,
    packed=2,
    header="_mxfp4",
    device_op="DeviceMoeGemmMXBPreShuffle",
    ops=(Op("MulABScaleShuffled"), Op("MulABScaleExpertWeightShuffled")),
    pipelines={1: PARITY, 3: PARITY},
    non_temporal=False,
    stage1=(
        # threads  M    N    K   waves  v   picked for block_m == M if
        row(256,  32, 128, 128,  1, 4,  3,  NEVER),
        row(256,  64, 128, 128,  1, 4,  3,  ALWAYS),
        row(256, 128, 128, 128,  1, 4,  3,  ALWAYS),
        row( 64,  32,  32, 128,  1, 1,  3,  ALWAYS),
    ),
    stage2=(
        # threads  M    N    K   waves  v   picked for block_m == M if
        row(256,  32, 128, 128,  1, 4,  3,  over(256)),
        row(256,  64, 128, 128,  1, 4,  3,  over(256)),
        row(256, 128, 128, 128,  1, 4,  3,  over(256)),
        row( 64,  32,  32, 128,  1, 1,  1,  up_to(256)),
        row( 64,  64, 128, 128,  1, 1,  3,  up_to(256)),
        row( 64, 128, 128, 128,  1, 1,  3,  up_to(256)),
    ),
)  # fmt: skip
