"""The host's rules of `fused_moe`: block height, split of K, loads, types, lookup key. Pure.

Source: AITER 9bab8388, aiter/fused_moe.py:351-373, 655-735 and 1125-1187. Environment
variables that change them (AITER_KSPLIT, AITER_USE_NT, AITER_BF16_FP8_MOE_BOUND,
GPTOSS_SWIGLU_MXFP4_BF16_BOUND) are taken as unset.
"""

from __future__ import annotations

from jitcache.codegen.catalog.model import Quant
from jitcache.manifest.model import Layer, Target
from jitcache.plan.tuned import Shape

BLOCK_M_CHOICE = (32, 64, 128)
"""Block heights that `get_block_size_M` chooses from."""

_SMALL = 256
"""Real token counts below this keep 16-bit activations in swiglu and interleaved layers."""


def block_size_m(tokens: int, layer: Layer, cu_num: int) -> int:
    """`get_block_size_M`: fewest rounds over the compute units, then fewest idle ones."""
    columns = -(-layer.inter_dim // 128)
    best: tuple[int, int, int] | None = None
    for block_m in BLOCK_M_CHOICE:
        rows = tokens * layer.top_k + layer.experts * block_m - layer.top_k
        groups = columns * (rows + block_m - 1) // block_m
        score = (-(-groups // cu_num), cu_num - groups % cu_num, block_m)
        if best is None or score[:2] < best[:2]:
            best = score
    assert best is not None  # noqa: S101 - the choice isn't empty
    return best[2]


def k_split(tokens: int, layer: Layer, cu_num: int) -> int:
    """`get_ksplit`: how many ways stage 1 splits K when few tokens leave units idle."""
    routed = tokens * layer.top_k
    if routed > layer.experts:
        return 0
    groups = -(-layer.inter_dim // 128) * routed
    if groups >= cu_num:
        return 0
    for split in range(-(-cu_num // groups), 1, -1):
        if layer.model_dim % split == 0 and layer.model_dim // split % 256 == 0:
            return split
    return 0


def non_temporal(tokens: int, layer: Layer) -> bool:
    """`use_nt`: non-temporal weight loads where an expert has few tokens."""
    return tokens * layer.top_k // layer.experts < 64


def host_block_ms(layer: Layer) -> tuple[int, ...]:
    """Every block height that the untuned rule can pick for a layer."""
    return block_ms_of(layer.quant)


def block_ms_of(quant: Quant) -> tuple[int, ...]:
    """The same where no more than the quantisation is known."""
    return (16, 64) if quant is Quant.PER_1X128 else BLOCK_M_CHOICE


def activation_type(layer: Layer, target: Target, tokens: int) -> str:
    """Type that `fused_moe` quantises activations to, for a real (not padded) token count."""
    if layer.a is not None:
        return layer.a
    if layer.quant is not Quant.PER_1X32:
        return "f8" if layer.w == "i4" else layer.w
    if layer.w == "i4":
        return "b16"
    if layer.gate == "separated":
        return "b16" if layer.act == "swiglu" and tokens < _SMALL else "fp4x2"
    return "b16" if target.arch != "gfx950" or tokens < _SMALL else "f8"


def shape_of(layer: Layer, target: Target, a: str) -> Shape:
    """The key under which tuned rows of a layer stand."""
    return Shape(
        arch=target.arch,
        cu_num=target.cu_num,
        model_dim=layer.model_dim,
        inter_dim=layer.inter_dim,
        expert=layer.experts,
        topk=layer.top_k,
        dtype=_torch_name(layer.out, layer, target),
        q_dtype_a=_torch_name(a, layer, target),
        q_dtype_w=_torch_name(layer.w, layer, target),
        q_type=_Q_TYPES[layer.quant],
        use_g1u1=True,
        doweight_stage1=layer.doweight_stage1,
    )


_Q_TYPES = {
    Quant.NO: "QuantType.No",
    Quant.PER_TENSOR: "QuantType.per_Tensor",
    Quant.PER_TOKEN: "QuantType.per_Token",
    Quant.PER_1X32: "QuantType.per_1x32",
    Quant.PER_1X128: "QuantType.per_1x128",
}


def _torch_name(kind: str, layer: Layer, target: Target) -> str:
    if kind == "f8":
        return "torch.float8_e4m3fn" + ("uz" if target.arch == "gfx942" else "")
    if kind == "i4":
        return "torch.int4" if layer.quant is Quant.PER_1X32 else "torch.uint32"
    return {
        "b16": "torch.bfloat16",
        "f16": "torch.float16",
        "i8": "torch.int8",
        "fp4x2": "torch.float4_e2m1fn_x2",
    }[kind]


# fused_moe_1stage_dict, rows with gate and up weights (use_g1u1) only:
# (activation, quantisation, output, A, W, doweight_stage1)
_ONE_STAGE: dict[str, frozenset[tuple[str, Quant, str, str, str, bool]]] = {
    "gfx942": frozenset(
        {
            ("silu", Quant.PER_1X32, "b16", "fp4x2", "fp4x2", False),
            ("silu", Quant.PER_TOKEN, "b16", "i8", "i8", False),
            ("gelu", Quant.PER_TOKEN, "b16", "i8", "i8", False),
            ("silu", Quant.PER_TOKEN, "b16", "f8", "f8", False),
            ("gelu", Quant.PER_TOKEN, "b16", "f8", "f8", False),
            ("silu", Quant.PER_1X128, "b16", "f8", "f8", False),
        }
    ),
    "gfx950": frozenset(
        {
            ("silu", Quant.PER_1X32, "b16", "fp4x2", "fp4x2", False),
            ("silu", Quant.PER_1X128, "b16", "f8", "f8", False),
            ("gelu", Quant.PER_1X128, "b16", "f8", "f8", False),
            ("silu", Quant.PER_TOKEN, "b16", "f8", "f8", True),
            ("silu", Quant.PER_TOKEN, "b16", "f8", "f8", False),
            ("gelu", Quant.PER_TOKEN, "b16", "f8", "f8", False),
        }
    ),
}


def runs_one_stage(layer: Layer, target: Target, a: str, tokens: int) -> bool:
    """The untuned rule for the assembly kernels that do both stages."""
    key = (layer.act, layer.quant, layer.out, a, layer.w, layer.doweight_stage1)
    if key not in _ONE_STAGE[target.arch]:
        return False
    aligned = layer.inter_dim % 128 == 0
    match layer.quant:
        case Quant.PER_1X128:
            return tokens > 32 and aligned
        case Quant.PER_TOKEN if layer.w == "i8":
            return tokens > 32
        case Quant.PER_TOKEN:
            return tokens > 16 or not aligned
    return False
