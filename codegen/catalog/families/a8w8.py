"""a8w8: 8-bit activations and weights, per-tensor or per-token scales, on gfx942.

Tiles and thresholds: AITER 9bab8388, gemm_moe_ck2stages_common.py (`a8w8_gemm*`) and
gen_instances.py (`A8W8_gemm*`). Kernels: CK device_moe_gemm.hpp.
"""

from ..family import ALWAYS, NEVER, PARITY, Family, Op, over, row, up_to
from ..model import Quant

FAMILY = Family(
    tag="a8w8",
    a=("f8", "i8"),
    b=("f8", "i8"),
    quants=(Quant.NO, Quant.PER_TENSOR, Quant.PER_TOKEN),
    arches=("gfx942",),
    runs_on=("gfx942",),
    preshuffle=None,
    packed=1,
    header="",
    device_op="DeviceMoeGemm",
    ops=(Op("MulABScale"), Op("MulABScaleExpertWeight")),
    pipelines={1: PARITY, 3: PARITY},
    non_temporal=False,
    stage1=(
        # threads  M    N    K   waves  v   picked for block_m == M if
        row(128,  16,  64, 128,  1, 2,  1,  NEVER),
        row(256,  16, 128, 256,  1, 4,  1,  NEVER),
        row(256,  32,  64, 256,  1, 4,  1,  NEVER),
        row(256,  32,  64, 128,  1, 4,  1,  ALWAYS),
        row(256,  64,  64, 256,  1, 4,  1,  NEVER),
        row(256,  64,  64, 128,  1, 4,  1,  up_to(192)),
        row(256, 128,  64, 128,  1, 4,  1,  up_to(192)),
        row(256, 256,  64, 128,  1, 4,  1,  up_to(192)),
        row(256,  64, 128, 256,  1, 4,  3,  NEVER),
        row(256,  64, 128, 128,  1, 4,  3,  over(192)),
        row(256, 128, 128, 256,  1, 4,  3,  NEVER),
        row(256, 128, 128, 128,  1, 4,  3,  over(192)),
        row(256, 256, 128, 128,  1, 4,  3,  over(192)),
        row(256,  16,  64, 256,  1, 4,  1,  ALWAYS),
    ),
    stage2=(
        # threads  M    N    K   waves  v   picked for block_m == M if
        row(256,  16, 128, 256,  1, 4,  1,  NEVER),
        row(128,  16, 128, 128,  1, 2,  1,  NEVER),
        row(256,  32,  64, 256,  1, 4,  1,  NEVER),
        row(256,  64,  64, 256,  1, 4,  1,  NEVER),
        row(256, 128,  64, 128,  1, 4,  1,  NEVER),
        row(256, 256,  64, 128,  1, 4,  1,  NEVER),
        row(256,  64, 128, 256,  1, 4,  3,  NEVER),
        row(256, 128, 128, 128,  1, 4,  3,  over(192)),
        row(256, 256, 128, 128,  1, 4,  3,  over(192)),
        row(256,  32,  64, 128,  1, 4,  1,  over(192)),
        row(256,  64, 128, 128,  1, 4,  3,  over(192)),
        row(256,  32,  64,  64,  1, 4,  1,  up_to(192)),
        row(256,  64, 128,  64,  1, 4,  3,  NEVER),
        row(256,  64,  64,  64,  1, 4,  1,  up_to(192)),
        row(256, 128, 128,  64,  1, 4,  3,  NEVER),
        row(256, 128,  64,  64,  1, 4,  3,  up_to(192)),
        row(256, 256, 128,  64,  1, 4,  3,  NEVER),
        row(256, 256,  64,  64,  1, 4,  3,  up_to(192)),
        row( 64,  16,  64,  64,  1, 1,  1,  ALWAYS),
    ),
)  # fmt: skip
