"""Who runs a MoE layer for a token count: CK, assembly, FlyDSL or CK-Tile. Pure.

A model of AITER 9bab8388's choice: `get_2stage_cfgs` in aiter/fused_moe.py (915-1577) and
the modules asked for in aiter/ops/moe_op.py (216-294, 485-532). AITER_BYPASS_TUNE_CONFIG
is taken as unset.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from jitcache.codegen import catalog
from jitcache.codegen.catalog import Instance, ModuleSpec, Quant, Stage, Variant
from jitcache.errors import UnsupportedError
from jitcache.manifest.model import Layer, Target
from jitcache.plan.hostrules import (
    activation_type,
    block_size_m,
    k_split,
    non_temporal,
    runs_one_stage,
    shape_of,
)
from jitcache.plan.tuned import Row, TunedTable, padded_tokens

Backend = Literal["ck", "asm", "flydsl", "cktile"]

_ASM_BLOCK_M = (16, 32, 64, 128)
"""Block heights that stage 2 has after an assembly stage 1."""


class StageChoice(msgspec.Struct, frozen=True):
    """What runs one stage.

    Attributes:
        backend: whose kernel.
        kernel: its name; "" where it isn't named (one kernel does both, CK-Tile chooses).
        spec: for CK, the module that is asked for.
        instance: for CK, the instance that runs; None if the call raises.
        variant: for CK, the device kernel of it.
        problem: why the call raises, or "".
        note: what is worth knowing about the choice of the instance, or "".
    """

    backend: Backend
    kernel: str = ""
    spec: ModuleSpec | None = None
    instance: Instance | None = None
    variant: Variant | None = None
    problem: str = ""
    note: str = ""


class Decision(msgspec.Struct, frozen=True):
    """What AITER does for one token count.

    Attributes:
        tokens: the padded token count it decides by.
        block_m: rows per block.
        ksplit: split of K in stage 1; 0 or 1 mean none.
        non_temporal: whether non-temporal loads are asked for.
        row: the tuned row that decided, if one did.
        one_stage: whether one assembly kernel does both stages.
        stages: stage 1 and 2.
        why: for people.
    """

    tokens: int
    block_m: int
    ksplit: int
    non_temporal: bool
    row: Row | None
    one_stage: bool
    stages: tuple[StageChoice, StageChoice]
    why: str


def decide(
    layer: Layer, target: Target, tokens: int, tuned: TunedTable, *, flydsl: bool
) -> Decision:
    """What AITER runs for a token count.

    Args:
        layer: the layer, as this rank runs it.
        target: the GPU.
        tokens: real token count.
        tuned: the tuned tables.
        flydsl: whether FlyDSL is importable.
    """
    padded = padded_tokens(tokens)
    a = activation_type(layer, target, tokens)
    found = tuned.lookup(shape_of(layer, target, a), padded, flydsl=flydsl)
    row = found.row
    if row is not None:
        one_stage = row.run_1stage
        call = _Call(
            layer=layer,
            target=target,
            a=a,
            tokens=padded,
            block_m=row.block_m,
            ksplit=row.ksplit,
            nt=False,
            kernel1=row.kernel1,
            kernel2=row.kernel2,
            flydsl=flydsl,
            tuned=True,
        )
        why = found.why
    else:
        one_stage = runs_one_stage(layer, target, a, padded)
        call = _untuned(layer, target, a, padded, one_stage=one_stage, flydsl=flydsl)
        why = f"{found.why}: block_m {call.block_m} by AITER's rule for {padded} tokens"
    if one_stage:
        block_m, stages = call.block_m, (StageChoice("asm", call.kernel1), StageChoice("asm"))
        why += "; one assembly kernel does both stages"
    else:
        block_m, stages, route = _two_stages(call)
        why += f"; {route}" if route else ""
    return Decision(
        tokens=padded,
        block_m=block_m,
        ksplit=call.ksplit,
        non_temporal=call.nt,
        row=row,
        one_stage=one_stage,
        stages=stages,
        why=why,
    )


class _Call(msgspec.Struct, frozen=True):
    """What a two-stage call is decided by."""

    layer: Layer
    target: Target
    a: str
    tokens: int
    block_m: int
    ksplit: int
    nt: bool
    kernel1: str
    kernel2: str
    flydsl: bool
    tuned: bool


_Route = tuple[int, tuple[StageChoice, StageChoice], str]
"""Block height, the two stages, and why it left the usual path (or "")."""


def _untuned(
    layer: Layer, target: Target, a: str, tokens: int, *, one_stage: bool, flydsl: bool
) -> _Call:
    ksplit = 0
    if one_stage:
        block_m = 32
    elif layer.quant is Quant.PER_1X128:
        block_m = 64 if tokens > 32 else 16
    else:
        block_m = block_size_m(tokens, layer, target.cu_num)
    if not one_stage and layer.quant in (Quant.PER_1X128, Quant.PER_1X32):
        ksplit = k_split(tokens, layer, target.cu_num)
    return _Call(
        layer=layer,
        target=target,
        a=a,
        tokens=tokens,
        block_m=block_m,
        ksplit=ksplit,
        nt=non_temporal(tokens, layer),
        kernel1="",
        kernel2="",
        flydsl=flydsl,
        tuned=False,
    )


def _two_stages(call: _Call) -> _Route:
    """The order of tests in `get_2stage_cfgs`, from its first to its last return."""
    layer = call.layer
    per_1x32 = layer.quant is Quant.PER_1X32
    swiglu = layer.act == "swiglu"
    fp4_shuffled = per_1x32 and layer.w == "fp4x2" and layer.preshuffle
    swiglu_16bit = fp4_shuffled and swiglu and call.a in ("b16", "f16")
    if call.tuned and not (call.kernel1 and call.kernel2):
        lost = StageChoice("ck", problem="the row's kernelName is empty, read as NaN: AITER raises")
        return call.block_m, (lost, lost), ""
    flydsl1, flydsl2 = (k.startswith("flydsl_") for k in (call.kernel1, call.kernel2))
    if (flydsl1 or flydsl2) and call.flydsl:
        first = StageChoice("flydsl", call.kernel1) if flydsl1 else _ck(call, 1)
        return call.block_m, (first, _second(call, flydsl2)), ""
    small_tiles = 16 if call.tokens < 2048 else 32 if call.tokens < 16384 else 64
    if layer.gate != "separated" and per_1x32 and swiglu:
        height = 32 if call.a == "f8" else small_tiles
        return height, _BOTH_CKTILE, "CK-Tile runs interleaved swiglu"
    if per_1x32 and layer.w == "i4" and call.flydsl:
        return small_tiles, _BOTH_FLYDSL, "FlyDSL runs int4 weights with 16-bit activations"
    if fp4_shuffled and swiglu and call.a == "fp4x2" and not layer.doweight_stage1 and call.flydsl:
        height = _swiglu_height(call.tokens)
        return height, _BOTH_FLYDSL, "FlyDSL runs swiglu with fp4 activations"
    if fp4_shuffled and not (swiglu and call.a == "fp4x2") and (call.ksplit > 1 or swiglu_16bit):
        reason = (
            "CK-Tile runs swiglu with 16-bit activations"
            if swiglu_16bit
            else f"CK-Tile splits K {call.ksplit} ways"
        )
        return small_tiles, _BOTH_CKTILE, reason
    untuned_ck = not call.kernel1 and (
        (layer.quant is Quant.PER_1X128 and layer.doweight_stage1)
        or layer.w in ("b16", "f16", "fp4x2", "f8")
        or (layer.w == "i4" and not per_1x32)
    )
    if "ck2stages" in call.kernel1 or untuned_ck:
        return call.block_m, (_ck(call, 1), _second(call, flydsl=False)), ""
    height = next((m for m in _ASM_BLOCK_M if m >= call.block_m), _ASM_BLOCK_M[-1])
    rest = msgspec.structs.replace(call, block_m=height)
    first = StageChoice("asm", call.kernel1)
    return height, (first, _second(rest, flydsl=False)), "stage 1 is an assembly kernel"


_BOTH_CKTILE = (StageChoice("cktile"), StageChoice("cktile"))
_BOTH_FLYDSL = (StageChoice("flydsl"), StageChoice("flydsl"))


def _swiglu_height(tokens: int) -> int:
    if tokens < 2048:
        return 32
    return 128 if 4096 <= tokens < 16384 else 64


def _second(call: _Call, flydsl: bool) -> StageChoice:
    if flydsl:
        return StageChoice("flydsl", call.kernel2)
    if call.kernel2.startswith("cktile_"):
        return StageChoice("cktile", call.kernel2)
    return _ck(call, 2)


def _ck(call: _Call, stage: Stage) -> StageChoice:
    """The CK kernel that a stage runs: the named one if its module has it, else by heuristic."""
    layer, arch = call.layer, call.target.arch
    name = call.kernel1 if stage == 1 else call.kernel2
    splits = layer.quant is Quant.PER_1X128 and call.ksplit > 1
    splitk = stage == 1 and ("Splitk" in name if name else splits)
    spec = module_of(layer, _activation(call, stage), splitk=splitk)
    if stage == 1 and splits != splitk:
        problem = (
            f"the row splits K {call.ksplit} ways, but its kernel isn't a split-K one: "
            "AITER finds no module for float32 output"
            if splits
            else "the row names a split-K kernel but doesn't split K: it would write float32 "
            "into a 16-bit tensor"
        )
        return StageChoice("ck", name, spec, problem=problem)
    try:
        refused = catalog.refusal(spec, arch)
        if refused is not None:
            return StageChoice("ck", name, spec, problem=refused.reason)
        found = catalog.find(name, spec, arch) if name else None
        note = ""
        if found is None:
            if name:
                note = f"the module lacks the tuned kernel {name}: the heuristic decides"
            picked = catalog.dispatch(spec, arch, stage, call.block_m, layer.inter_dim)
            if isinstance(picked, catalog.Unsupported):
                return StageChoice("ck", name, spec, problem=picked.reason, note=note)
            found = picked
    except UnsupportedError as e:
        return StageChoice("ck", name, spec, problem=e.what)
    n, k = stage_dims(layer, stage)
    rejected = catalog.rejects(found, n, k) or (
        _bad_split(found, k, call.ksplit) if splitk else None
    )
    return StageChoice(
        backend="ck",
        kernel=found.name,
        spec=spec,
        instance=found,
        variant=catalog.variant_for(found, k, call.nt, splitk=call.ksplit)
        if not rejected
        else None,
        problem=f"CK refuses {found.short}: {rejected}" if rejected else "",
        note=note,
    )


def _bad_split(instance: Instance, k: int, ksplit: int) -> str | None:
    """AITER's own check of a split (gemm_moe_ck2stages_common_blockscale.cuh)."""
    step = catalog.k_per_block(instance) * ksplit
    if k // step > 1 and k % step != 0:
        return f"K (model_dim) {k} is not a multiple of {step} (steps of ksplit {ksplit})"
    return None


def stage_dims(layer: Layer, stage: Stage) -> tuple[int, int]:
    """(N, K) of a stage's GEMM, in elements."""
    dims = layer.inter_dim, layer.model_dim
    return dims if stage == 1 else dims[::-1]


def module_of(layer: Layer, a: str, *, splitk: bool = False) -> ModuleSpec:
    """The module that AITER asks for."""
    return ModuleSpec(
        a=a,
        b=layer.w,
        c=layer.out,
        quant=layer.quant,
        act=layer.act,
        routed_weight_stage=1 if layer.doweight_stage1 else 2,
        preshuffle=layer.preshuffle,
        splitk=splitk,
    )


def _activation(call: _Call, stage: Stage) -> str:
    """A's type: FlyDSL's stage 1 may quantise its result, and says so in its name's end."""
    if stage == 2 and call.kernel1.startswith("flydsl_"):
        ending = call.kernel1.rpartition("_t")[2]
        if "_fp8" in ending:
            return "f8"
        if "_fp4" in ending:
            return "fp4x2"
    return call.a
