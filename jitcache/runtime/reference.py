"""The two MoE stages computed plainly in torch, to validate a kernel's result against.

What is computed follows AITER 9bab8388 (aiter/fused_moe.py, `torch_moe_stage1` and
`torch_moe_stage2` describe the same sums) and CK's element operations: products of dequantised
values are summed, gate and up halves of w1 are [gate; up], the activation is SiLU
or erf-GELU, the routed weight multiplies a row's sums (in stage 1 before the activation), and
stage 2 adds up the experts of a token. Weights and scales are in their plain, unshuffled order.

Everything is computed in float64, where dequantised values are exact, and given as float32; CK's
kernels sum in float32. Rounding to the kernel's output type is left to the caller.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from jitcache.errors import UsageError
from jitcache.runtime import mx

Activation = Literal["silu", "gelu"]
Scheme = Literal["none", "per_tensor", "per_token", "per_1x32", "per_1x128", "int4"]
"""`none`: 16-bit; `per_1x32`: MXFP4; `int4`: int4 weights with fp8 activations per row."""


@dataclass(frozen=True, slots=True)
class Quantised:
    """A quantised tensor and how to read it.

    Attributes:
        scheme: how it was quantised.
        values: stored values; two per byte where they have 4 bits.
        scales: scales; None for `none`.
    """

    scheme: Scheme
    values: Tensor
    scales: Tensor | None = None

    def dequantise(self) -> Tensor:
        """Values in float64, which holds them exactly, in the logical shape.

        Raises:
            UsageError: scales are missing, or are there without a scheme.
        """
        if (self.scales is None) != (self.scheme == "none"):
            missing = "missing" if self.scales is None else "not expected"
            raise UsageError(f"scales are {missing} with the scheme {self.scheme}")
        if self.scales is None:
            return self.values.double()
        if self.scheme == "per_1x32":
            return mx.mxfp4_dequantise(self.values, self.scales)
        if self.scheme == "int4":
            return mx.int4_decode(self.values).double() * self.scales
        values = self.values.double()
        if self.scheme == "per_1x128":
            scales = self.scales.repeat_interleave(128, dim=-1)
            if scales.shape[-2] != values.shape[-2]:
                scales = scales.repeat_interleave(128, dim=-2)
            return values * scales
        return values * self.scales


def quantise_activations(
    values: Tensor, scheme: Scheme, dtype: torch.dtype = torch.float8_e4m3fn
) -> Quantised:
    """Quantise activations as a scheme does; int4 schemes have fp8 activations.

    Args:
        values: [..., k].
        scheme: the scheme.
        dtype: of 8-bit values: the fp8 that the GPU takes, or int8.
    """
    if scheme == "none":
        return Quantised("none", values)
    if scheme == "per_1x32":
        return Quantised(scheme, *mx.mxfp4_quantise(values))
    if scheme == "per_tensor":
        flat, scale = mx.quantise8(values.reshape(1, -1), dtype=dtype)
        return Quantised(scheme, flat.view(values.shape), scale.view(1))
    if scheme == "per_1x128":
        return Quantised(scheme, *mx.quantise8(values, block=128, dtype=dtype))
    return Quantised("per_token", *mx.quantise8(values, dtype=dtype))


def quantise_weights(
    weights: Tensor, scheme: Scheme, dtype: torch.dtype = torch.float8_e4m3fn
) -> Quantised:
    """Quantise [experts, n, k] weights as a scheme does; `dtype` as in `quantise_activations`."""
    if scheme == "none":
        return Quantised("none", weights)
    if scheme == "per_1x32":
        return Quantised(scheme, *mx.mxfp4_quantise(weights))
    if scheme == "per_tensor":
        flat, scale = mx.quantise8(weights.flatten(1), dtype=dtype)
        return Quantised(scheme, flat.view(weights.shape), scale[..., None])
    if scheme == "per_1x128":
        return Quantised(scheme, *mx.quantise8_tiles(weights, dtype=dtype))
    if scheme == "int4":
        return Quantised(scheme, *mx.int4_quantise(weights))
    return Quantised("per_token", *mx.quantise8(weights, dtype=dtype))


def moe_stage1(
    states: Quantised,
    w1: Quantised,
    topk_ids: Tensor,
    *,
    activation: Activation = "silu",
    topk_weights: Tensor | None = None,
) -> Tensor:
    """Gate and up projection with activation.

    Args:
        states: [tokens, model_dim].
        w1: [experts, 2 * inter_dim, model_dim], gate above up.
        topk_ids: [tokens, topk] expert of each choice.
        activation: of the gate.
        topk_weights: [tokens, topk] routed weights, where this stage multiplies by them.

    Returns:
        [tokens, topk, inter_dim] in float32.

    Raises:
        UsageError: an expert doesn't exist, or scales don't fit a scheme.
    """
    x, w = states.dequantise(), w1.dequantise()
    inter_dim = w.shape[1] // 2
    out = x.new_zeros((*topk_ids.shape, inter_dim))
    for expert in _experts(topk_ids, len(w)):
        token, slot = (topk_ids == expert).nonzero(as_tuple=True)
        gate, up = (x[token] @ w[expert].T).split(inter_dim, dim=-1)
        if topk_weights is not None:
            # CK's operation scales both products, before the activation.
            weight = topk_weights[token, slot].double()[:, None]
            gate, up = gate * weight, up * weight
        out[token, slot] = _activate(gate, activation) * up
    return out.float()


def moe_stage2(
    states: Quantised,
    w2: Quantised,
    topk_ids: Tensor,
    *,
    topk_weights: Tensor | None = None,
) -> Tensor:
    """Down projection, added up over the experts of a token.

    Args:
        states: [tokens, topk, inter_dim].
        w2: [experts, model_dim, inter_dim].
        topk_ids: [tokens, topk] expert of each choice.
        topk_weights: [tokens, topk] routed weights, where this stage multiplies by them.

    Returns:
        [tokens, model_dim] in float32.

    Raises:
        UsageError: an expert doesn't exist, or scales don't fit a scheme.
    """
    x, w = states.dequantise(), w2.dequantise()
    out = x.new_zeros((x.shape[0], w.shape[1]))
    for expert in _experts(topk_ids, len(w)):
        token, slot = (topk_ids == expert).nonzero(as_tuple=True)
        part = x[token, slot] @ w[expert].T
        if topk_weights is not None:
            part = part * topk_weights[token, slot].double()[:, None]
        out.index_add_(0, token, part)
    return out.float()


@dataclass(frozen=True, slots=True)
class Sorted:
    """Rows sorted by expert, as the kernels want them.

    Attributes:
        token_ids: int32; the token in the low 24 bits, the choice's slot in the high 8;
            padding rows name the token number `tokens`, which doesn't exist.
        expert_ids: int32, one per block.
        num_valid: int32 [2]: how many rows count, and how many tokens there are.
        weights: float32 routed weight per row; 0 for padding.
    """

    token_ids: Tensor
    expert_ids: Tensor
    num_valid: Tensor
    weights: Tensor


def sort_by_expert(topk_ids: Tensor, topk_weights: Tensor, block_m: int, experts: int) -> Sorted:
    """Sort choices by expert and pad each expert's rows to whole blocks.

    Source of the layout: AITER 9bab8388, aiter/fused_moe.py `moe_sorting`. Buffers have the size
    for the worst case, tokens * topk + experts * block_m - topk rows.
    """
    tokens, topk = topk_ids.shape
    capacity = tokens * topk + experts * block_m - topk
    capacity = -(-capacity // block_m) * block_m
    slots = torch.arange(topk).expand(tokens, topk)
    padding = tokens | (topk << 24)
    ids = torch.full((capacity,), padding, dtype=torch.int32)
    weights = torch.zeros(capacity)
    blocks: list[int] = []
    at = 0
    for expert in range(experts):
        token, slot = (topk_ids == expert).nonzero(as_tuple=True)
        if len(token) == 0:
            continue
        ids[at : at + len(token)] = (token | (slots[token, slot] << 24)).to(torch.int32)
        weights[at : at + len(token)] = topk_weights[token, slot].float()
        count = -(-len(token) // block_m)
        blocks += [expert] * count
        at += count * block_m
    expert_ids = torch.zeros(capacity // block_m, dtype=torch.int32)
    expert_ids[: len(blocks)] = torch.tensor(blocks, dtype=torch.int32)
    return Sorted(ids, expert_ids, torch.tensor([at, tokens], dtype=torch.int32), weights)


def _experts(topk_ids: Tensor, experts: int) -> list[int]:
    """Experts that were chosen; a negative number would silently count from the end."""
    chosen: list[int] = topk_ids.unique().tolist()
    if missing := [e for e in chosen if not 0 <= e < experts]:
        raise UsageError(f"topk_ids name the experts {missing}, but the weights have {experts}")
    return chosen


def _activate(gate: Tensor, activation: Activation) -> Tensor:
    if activation == "silu":
        return torch.nn.functional.silu(gate)
    return torch.nn.functional.gelu(gate)
