"""What a sample launch computes: random inputs in AITER's layouts, and the expected result."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from jitcache.capture.choice import Launch
from jitcache.codegen.catalog import ModuleSpec
from jitcache.errors import UnsupportedError
from jitcache.runtime import layouts
from jitcache.runtime.reference import (
    Activation,
    Quantised,
    Scheme,
    Sorted,
    moe_stage1,
    moe_stage2,
    quantise_activations,
    quantise_weights,
    sort_by_expert,
)

_FP8 = {"gfx942": torch.float8_e4m3fnuz, "gfx950": torch.float8_e4m3fn}
"""The fp8 that each architecture's matrix instructions take."""
_SIXTEEN = {"b16": torch.bfloat16, "f16": torch.float16}
_ACTIVATIONS: dict[str, tuple[Activation, int]] = {"silu": ("silu", 0), "gelu": ("gelu", 1)}
_SCHEMES: dict[str, Scheme] = {
    "no": "none",
    "per_tensor": "per_tensor",
    "per_token": "per_token",
    "per_1x32": "per_1x32",
    "per_1x128": "per_1x128",
}
_SPREAD = 32
"""Values of a row that share a random power of two."""
_EXPONENTS = range(-2, 3)
_NAN_BYTE = 0xFF


@dataclass(frozen=True, slots=True)
class Case:
    """One launch's data, in host memory.

    Attributes:
        arguments: AITER's arguments of the stage call, by name.
        expected: what `out` must hold afterwards, in its type.
        roundings: how often a correct kernel rounds a value to the type of `expected`: once in
            stage 1; in stage 2 each expert's part is rounded, and then each sum of parts.
    """

    arguments: dict[str, Any]
    expected: Tensor
    roundings: int

    @property
    def tolerance(self) -> float:
        """Largest error of a correct kernel, relative to the largest expected value."""
        return self.roundings * float(torch.finfo(self.expected.dtype).eps)


def make_case(launch: Launch, arch: str, seed: int = 0) -> Case:
    """Random data for a launch; equal for equal arguments.

    Values are normal, and those of a row are scaled by random powers of two so that no scale
    is like the next; weights are made so small that sums are of order 1.

    Args:
        launch: what is launched.
        arch: architecture: decides which fp8.
        seed: another seed gives other values.

    Raises:
        UnsupportedError: stage 1 of a split-K module, whose sums AITER finishes in a kernel of
            its own, or an N that leaves a block of 128 weights' scales incomplete.
    """
    instance, spec = launch.instance, launch.instance.module
    _check(launch)
    sizes = (launch.n, launch.k, launch.tokens, launch.topk, launch.experts)
    name = " ".join(map(str, (instance.name, arch, *sizes, seed)))
    random = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    wide = launch.n * (2 if instance.stage == 1 else 1)
    rows = (launch.tokens, launch.topk) if instance.stage == 2 else (launch.tokens,)

    chances = torch.rand((launch.tokens, launch.experts), generator=random)
    topk_ids = chances.argsort(dim=-1)[:, : launch.topk]
    topk_weights = chances.gather(1, topk_ids).softmax(dim=-1)
    states = _values((*rows, launch.k), random)
    weights = _values((launch.experts, wide, launch.k), random) / launch.k**0.5

    scheme: Scheme = "int4" if spec.b == "i4" else _SCHEMES[spec.quant.word]
    if scheme == "none":
        states, weights = states.to(_SIXTEEN[spec.a]), weights.to(_SIXTEEN[spec.b])
    eight = torch.int8 if spec.a == "i8" else _FP8[arch]
    x, w = quantise_activations(states, scheme, eight), quantise_weights(weights, scheme, eight)

    routed = topk_weights if instance.mul_routed_weight else None
    if instance.stage == 1:
        activation, _ = _ACTIVATIONS[spec.act]
        result = moe_stage1(x, w, topk_ids, activation=activation, topk_weights=routed)
    else:
        result = moe_stage2(x, w, topk_ids, topk_weights=routed)
    expected = result.to(_SIXTEEN[spec.c])
    order = sort_by_expert(topk_ids, topk_weights, instance.tile.m, launch.experts)
    roundings = 1 if instance.stage == 1 else launch.topk
    return Case(_arguments(launch, x, w, order, expected), expected, roundings)


def _check(launch: Launch) -> None:
    spec, where = launch.instance.module, launch.instance.name
    if spec.splitk and launch.instance.stage == 1:
        raise UnsupportedError("a stage 1 that splits K leaves partial sums", where=where)
    if spec.quant.word == "per_1x128" and launch.n % 128:
        raise UnsupportedError(f"N {launch.n} is not a multiple of 128", where=where)


def _values(shape: tuple[int, ...], random: torch.Generator) -> Tensor:
    blocks = (*shape[:-1], shape[-1] // _SPREAD)
    powers = torch.randint(_EXPONENTS.start, _EXPONENTS.stop, blocks, generator=random).exp2()
    variance = sum(4.0**e for e in _EXPONENTS) / len(_EXPONENTS)
    spread = powers.repeat_interleave(_SPREAD, dim=-1) / variance**0.5
    return torch.randn(shape, generator=random) * spread


def _arguments(
    launch: Launch, states: Quantised, weights: Quantised, order: Sorted, expected: Tensor
) -> dict[str, Any]:
    spec, stage = launch.instance.module, launch.instance.stage
    laid = _laid_out(weights.values, spec)
    inter, model = launch.inter_dim, launch.model_dim
    per = launch.k // laid.shape[-1]
    # A stage reads only the weights of its own; of the other it takes the shape.
    if stage == 1:
        w1, w2 = laid, laid.new_zeros((launch.experts, model, inter // per))
    else:
        w1, w2 = laid.new_zeros((launch.experts, 2 * inter, model // per)), laid
    a_scale, w_scale = states.scales, weights.scales
    if spec.quant.word == "per_1x32" and a_scale is not None and w_scale is not None:
        a_scale = layouts.sort_scales(a_scale, order, launch.tokens)
        w_scale = layouts.shuffle_scales(w_scale.flatten(0, 1))
    # Stage 1 writes all of its output, stage 2 adds to zeros.
    out = torch.zeros_like(expected)
    if stage == 1:
        out.view(torch.uint8).fill_(_NAN_BYTE)
    return {
        "states": states.values,
        "w1": w1,
        "w2": w2,
        "sorted_token_ids": order.token_ids,
        "sorted_expert_ids": order.expert_ids,
        "num_valid_ids": order.num_valid,
        "out": out,
        "topk": launch.topk,
        "kernelName": launch.instance.name,
        "w_scale": w_scale,
        "a_scale": a_scale,
        "block_m": launch.instance.tile.m,
        "sorted_weights": order.weights if launch.instance.mul_routed_weight else None,
        "quant_type": spec.quant.number,
        "activation": _ACTIVATIONS[spec.act][1],
        "non_temporal_load": launch.non_temporal,
        "is_shuffled": spec.preshuffle,
    }


def _laid_out(values: Tensor, spec: ModuleSpec) -> Tensor:
    if spec.b == "i4":
        return layouts.shuffle_int4(values)
    if spec.b == "fp4x2" and not spec.preshuffle:
        return values
    return layouts.shuffle_weights(values)
