"""a16w16: bf16 or fp16 activations and weights, on gfx942.

Tiles and thresholds: AITER 9bab8388, gemm_moe_ck2stages_common.py (`a16w16_gemm*`) and
gen_instances.py (`A16W16_gemm*`). Kernels: CK device_moe_gemm.hpp.
"""

from ..family import ALWAYS, NEVER, PARITY, Family, Op, over, row, up_to
from ..model import Quant

FAMILY = Family(
    tag="a16w16",
    a=("b16", "f16"),
    b=("b16", "f16"),
    quants=tuple(Quant),
    arches=("gfx942",),
    runs_on=("gfx942",),
    preshuffle=None,
    packed=1,
    header="",
    device_op="DeviceMoeGemm",
    ops=(
        Op("TypeCast", routed="TypeCastExpertWeight"),
        Op("TypeCast", routed="TypeCastExpertWeight"),
    ),
    pipelines={1: PARITY, 3: PARITY},
    non_temporal=False,
    stage1=(
        # threads  M    N    K   waves  v   picked for block_m == M if
        row(256,  32,  64, 128,  1, 4,  1,  NEVER),
        row(256,  32,  64,  64,  1, 4,  1,  ALWAYS),
        row(256,  64,  64, 128,  1, 4,  1,  NEVER),
        row(256,  64,  64,  64,  1, 4,  1,  up_to(192)),
        row(256, 128,  64,  64,  1, 4,  1,  up_to(192)),
        row(256,  64, 128, 128,  1, 4,  3,  NEVER),
        row(256,  64, 128,  64,  1, 4,  3,  over(192)),
        row(256, 128, 128, 128,  1, 4,  3,  NEVER),
        row(256, 128, 128,  64,  1, 4,  3,  over(192)),
        row(256, 256, 128,  64,  1, 4,  3,  over(192)),
        row(256, 256,  64,  64,  1, 4,  1,  up_to(192)),
    ),
    stage2=(
        # threads  M    N    K   waves  v   picked for block_m == M if
        row(256,  32,  64, 128,  1, 4,  1,  NEVER),
        row(256,  64,  64, 128,  1, 4,  1,  NEVER),
        row(256, 128,  64,  64,  1, 4,  1,  NEVER),
        row(256, 256,  64,  64,  1, 4,  1,  NEVER),
        row(256,  64, 128, 128,  1, 4,  3,  NEVER),
        row(256, 128, 128,  64,  1, 4,  3,  over(192)),
        row(256, 256, 128,  64,  1, 4,  3,  over(192)),
        row(256,  32,  64,  64,  1, 4,  1,  ALWAYS),
        row(256,  64, 128,  64,  1, 4,  3,  over(192)),
        row(256,  64,  64,  64,  1, 4,  1,  up_to(192)),
        row(256, 128,  64,  64,  1, 4,  3,  up_to(192)),
        row(256, 256,  64,  64,  1, 4,  3,  up_to(192)),
    ),
)  # fmt: skip
