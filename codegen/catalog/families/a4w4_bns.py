"""a4w4_bns: MXFP4 activations and MXFP4 weights that are not shuffled.

K counts stored bytes: 128 are 256 fp4 values. The v1 pipeline prefetches one step and its
device op passes `TailNumber::Full` whatever the parity. Tiles and thresholds: AITER
9bab8388, gemm_moe_ck2stages_common.py (`a4w4_bns_*`) and gen_instances.py (`A4W4_bns_*`).
Kernels: CK device_moe_mx_gemm_bns.hpp.
"""

from ..family import ALWAYS, ARCHES, PARITY, Family, Op, Pipeline, over, row, up_to
from ..model import Quant

FAMILY = Family(
    tag="a4w4_bns",
    a=("fp4x2",),
    b=("fp4x2",),
    quants=tuple(Quant),
    arches=ARCHES,
    runs_on=("gfx950",),
    preshuffle=False,
    packed=2,
    header="_mxfp4_bns",
    device_op="DeviceMoeGemmMXBNS",
    ops=(Op("MulABScale"), Op("MulABScaleExpertWeight")),
    pipelines={1: Pipeline(prefetch=1, tails=("full",)), 3: PARITY},
    non_temporal=False,
    stage1=(
        # threads  M    N    K   waves  v   picked for block_m == M if
        row(256,  32, 128, 128,  1, 4,  3,  ALWAYS),
        row(256,  64,  64, 128,  2, 2,  3,  ALWAYS),
        row(256, 128,  64, 128,  2, 2,  3,  ALWAYS),
    ),
    stage2=(
        # threads  M    N    K   waves  v   picked for block_m == M if
        row( 64,  32,  32, 128,  1, 1,  1,  up_to(256)),
        row( 64,  64,  64, 128,  1, 1,  1,  up_to(256)),
        row( 64, 128, 128, 128,  1, 1,  1,  up_to(256)),
        row(256,  32, 128, 128,  1, 4,  3,  over(256)),
        row(256,  64,  64, 128,  2, 2,  3,  over(256)),
        row(256, 128,  64, 128,  2, 2,  3,  over(256)),
    ),
)  # fmt: skip
