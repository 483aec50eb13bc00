"""a8w4: fp8 activations and int4 weights, dequantised in the kernel.

K counts values of A. Tiles: AITER 9bab8388, gemm_moe_ck2stages_common.py (`a8w4_*`) and
gen_instances.py (`A8W4_*`). Kernels: CK device_moe_gemm.hpp.
"""

from ..family import ALWAYS, ARCHES, PARITY, Family, Op, row
from ..model import Quant

FAMILY = Family(
    tag="a8w4",
    a=("f8",),
    b=("i4",),
    quants=tuple(Quant),
    arches=ARCHES,
    runs_on=ARCHES,
    preshuffle=None,
    packed=1,
    header="",
    device_op="DeviceMoeGemm",
    ops=(Op("MulABScaleWint4"), Op("MulABScaleExpertWeightWin4")),
    pipelines={1: PARITY, 3: PARITY},
    non_temporal=False,
    stage1=(
        # threads  M    N    K   waves  v   picked for block_m == M if
        row(256,  32,  64, 128,  1, 4,  1,  ALWAYS),
        row(256,  64,  64, 128,  1, 4,  1,  ALWAYS),
        row(256, 128,  64, 128,  1, 4,  1,  ALWAYS),
        row(256, 256,  64, 128,  1, 4,  1,  ALWAYS),
    ),
    stage2=(
        # threads  M    N    K   waves  v   picked for block_m == M if
        row(256,  32, 128, 128,  1, 4,  1,  ALWAYS),
        row(256,  64, 128, 128,  1, 4,  1,  ALWAYS),
        row(256, 128, 128, 128,  1, 4,  1,  ALWAYS),
        row(256, 256, 128, 128,  1, 4,  1,  ALWAYS),
    ),
)  # fmt: skip
