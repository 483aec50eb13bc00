"""The 19 arguments of AITER's MoE stages, and whether they are what the kernels read.

Signatures and meaning are AITER's (9bab8388, csrc/ck_gemm_moe_2stages_codegen/
gemm_moe_ck2stages.cu:46-181): sizes are taken from the tensors' shapes. AITER checks only the
output's type; a wrong expert count, a missing scale or a strided tensor makes its kernel read
what it shouldn't. Here each is an error that names the argument.

Tensors are only asked for shape, dtype, device, strides and address, so that this module
imports no torch.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from jitcache.errors import UsageError
from jitcache.runtime.argumentcheck import DTYPES, Checker

if TYPE_CHECKING:
    from jitcache.codegen.catalog import ModuleSpec

_BITS = {"f8": 8, "i8": 8, "b16": 16, "f16": 16, "fp4x2": 4, "i4": 4}
_ALIGNMENT = 16
_WIDE = frozenset({"out", "states", "w1", "w2"})
"""Read and written 16 bytes at a time; the others are aligned to their elements."""


class Arguments(NamedTuple):
    """What AITER passes to a stage, in its order.

    Attributes:
        states: activations, [tokens, k] in stage 1 and [tokens, topk, k] in stage 2.
        w1: [experts, 2 * inter_dim, model_dim].
        w2: [experts, model_dim, inter_dim].
        sorted_token_ids: int32, rows sorted by expert.
        sorted_expert_ids: int32, one per block of block_m rows.
        num_valid_ids: int32, how many sorted rows count.
        out: [tokens, topk, inter_dim] or [tokens, model_dim].
        topk: experts per token.
        kernelName: a tuned table's choice, or "".
        w_scale: scales of this stage's weights.
        a_scale: scales of the activations.
        block_m: rows of a block; None is 32.
        sorted_weights: routed weights in float32, where this stage multiplies by them.
        quant_type: AITER's QuantType number.
        activation: AITER's ActivationType number; stage 2 ignores it.
        splitk: workgroups that share one K in stage 1 of a split-K module. 0 and None are 1:
            AITER's host passes 0 where it doesn't split (9bab8388, aiter/fused_moe.py:2281).
        non_temporal_load: non-temporal weight loads.
        dst_type: type of the final output in split-K modules; part of AITER's signature.
        is_shuffled: whether the weights are shuffled.
    """

    states: Any
    w1: Any
    w2: Any
    sorted_token_ids: Any
    sorted_expert_ids: Any
    num_valid_ids: Any
    out: Any
    topk: int
    kernelName: str | None = ""  # noqa: N815 - AITER's name
    w_scale: Any = None
    a_scale: Any = None
    block_m: int | None = 32
    sorted_weights: Any = None
    quant_type: int = 0
    activation: int = 0
    splitk: int | None = 1
    non_temporal_load: bool | None = False
    dst_type: str | None = None
    is_shuffled: bool = True

    def tensors(self, stage: int) -> tuple[Any, ...]:
        """Those of a problem in the order of `shim.POINTERS`, then the other stage's weights."""
        weight, other = (self.w1, self.w2) if stage == 1 else (self.w2, self.w1)
        return (
            self.states,
            self.a_scale,
            weight,
            self.w_scale,
            self.sorted_token_ids,
            self.sorted_expert_ids,
            self.num_valid_ids,
            self.sorted_weights,
            self.out,
            other,
        )

    def signature(self, tensors: tuple[Any, ...]) -> Hashable:
        """All that `examine` looks at: everything but the tensors' addresses and content.

        Calls of equal signatures pass or fail together, which is why `Stages` examines one of
        them only.
        """
        parts: list[Any] = [*self[7:9], self.block_m, *self[13:]]
        # 2 and 2.0 are equal, but not both a number of experts.
        parts += (self.topk.__class__, self.block_m.__class__, self.splitk.__class__)
        for t in tensors:
            parts += (None,) if t is None else (t.shape, t.dtype, t.device, t.is_contiguous())
        return tuple(parts)


@dataclass(frozen=True, slots=True)
class Examined:
    """What the arguments say, apart from addresses.

    Attributes:
        where: what was called, for errors.
        stage: 1 or 2.
        block_m: rows of a block.
        inter_dim: N of stage 1, K of stage 2.
        sizes: the numbers of a problem, as `shim.Problem` takes them.
        device: device index; -1 for host memory.
        alignments: bytes that each of `Arguments.tensors` has to be aligned to; 0 where there
            is none.
    """

    where: str
    stage: int
    block_m: int
    inter_dim: int
    sizes: tuple[int, ...]
    device: int
    alignments: tuple[int, ...]

    def check_addresses(self, addresses: list[int]) -> None:
        """Whether each of `Arguments.tensors` has memory, and is aligned.

        Raises:
            UsageError: one isn't.
        """
        for i, alignment in enumerate(self.alignments):
            if alignment and (not addresses[i] or addresses[i] % alignment):
                name = _names(self.stage)[i]
                if not addresses[i]:
                    raise UsageError(f"{name} has no memory (it is empty)", where=self.where)
                raise UsageError(
                    f"{name} is not aligned to {alignment} bytes",
                    where=self.where,
                    hint="pass a whole tensor, not a slice",
                )


def _names(stage: int) -> tuple[str, ...]:
    """Names of `Arguments.tensors`."""
    return (
        *("states", "a_scale", f"w{stage}", "w_scale", "sorted_token_ids", "sorted_expert_ids"),
        *("num_valid_ids", "sorted_weights", "out", f"w{3 - stage}"),
    )


def examine(
    spec: ModuleSpec, where: str, stage: int, given: Arguments, *, host_memory: bool
) -> Examined:
    """Check a call's arguments against the module's types and against each other.

    Args:
        spec: the module.
        where: what was called, for errors.
        stage: 1 or 2.
        given: the arguments.
        host_memory: accept tensors in host memory.

    Raises:
        UsageError: an argument isn't what the kernels read; it is named.
    """
    states, w1, w2, sorted_token_ids, sorted_expert_ids, num_valid_ids, out = given[:7]
    topk, w_scale, a_scale = given.topk, given.w_scale, given.a_scale
    sorted_weights = given.sorted_weights
    block_m = 32 if given.block_m is None else given.block_m
    splitk = given.splitk or 1
    c = Checker(where, host_memory)
    c.module(spec, stage, given.quant_type, given.activation, is_shuffled=given.is_shuffled)
    c.number("topk", topk)
    c.number("block_m", block_m)
    c.number("splitk", splitk)
    if given.dst_type is not None and given.dst_type != spec.c:
        c.fail("dst_type", f"is {given.dst_type}, but the module writes {spec.c}")

    names = _names(stage)
    tensors = given.tensors(stage)
    device = c.tensors(names, tensors)
    c.dtype("states", states, *DTYPES[spec.a])
    c.dtype("w1", w1, *DTYPES[spec.b])
    c.dtype("w2", w2, *DTYPES[spec.b])
    c.dimensions("w1", w1, 3)
    c.dimensions("w2", w2, 3)
    c.dimensions("states", states, 2, or_more=True)
    c.dimensions("sorted_token_ids", sorted_token_ids, 1)
    experts = w1.shape[0]
    if w2.shape[0] != experts:
        c.fail("w2", f"has {w2.shape[0]} experts, but w1 has {experts}")

    tokens = states.shape[0]
    packed = 2 if spec.a == "fp4x2" else 1
    k = states.shape[-1] * packed
    n = w1.shape[1] // 2 if stage == 1 else w2.shape[1]
    weight, wide = (w1, 2 * n) if stage == 1 else (w2, n)
    name = "w1" if stage == 1 else "w2"
    c.count("states", states, tokens * (topk if stage == 2 else 1) * k // packed, exact=True)
    if weight.numel() * weight.element_size() * 8 != experts * wide * k * _BITS[spec.b]:
        c.fail(
            name,
            f"has the shape {tuple(weight.shape)}, which doesn't hold {experts} experts of"
            f" {wide} x {k} values of {spec.b}, as the states' last dimension asks for",
        )

    split = stage == 1 and splitk > 1
    if split != (spec.splitk and stage == 1):
        c.fail(
            "splitk",
            f"is {splitk}, but the module {'splits' if spec.splitk else 'does not split'} K",
        )
    c.dtype("out", out, *(("float32",) if split else DTYPES[spec.c]))
    sorted_size = min(tokens * topk * block_m, sorted_token_ids.shape[0])
    if split:
        # Partial sums of gate and up, by sorted row; the whole of it is set to zero first.
        c.count("out", out, sorted_size * wide)
    else:
        c.count("out", out, tokens * (topk * n if stage == 1 else n), exact=True)

    for what, ids in (
        ("sorted_token_ids", sorted_token_ids),
        ("sorted_expert_ids", sorted_expert_ids),
        ("num_valid_ids", num_valid_ids),
    ):
        c.dtype(what, ids, "int32")
    c.count("sorted_expert_ids", sorted_expert_ids, -(-sorted_size // block_m))
    c.count("num_valid_ids", num_valid_ids, 1)
    if (sorted_weights is not None) != (spec.routed_weight_stage == stage):
        c.fail(
            "sorted_weights",
            f"must {'' if sorted_weights is None else 'not '}be given: this module multiplies"
            f" by the routed weight in stage {spec.routed_weight_stage}",
        )
    if sorted_weights is not None:
        c.dtype("sorted_weights", sorted_weights, "float32")
        c.count("sorted_weights", sorted_weights, sorted_size)
    rows = tokens * (topk if stage == 2 else 1)
    c.scales(spec, a_scale, w_scale, rows, experts, wide, k)

    return Examined(
        where=where,
        stage=stage,
        block_m=block_m,
        inter_dim=n if stage == 1 else k,
        sizes=(tokens, topk, sorted_size, n, k, splitk, int(bool(given.non_temporal_load))),
        device=device,
        alignments=tuple(map(_alignment, names, tensors)),
    )


def _alignment(name: str, tensor: Any) -> int:
    if tensor is None:
        return 0
    return _ALIGNMENT if name in _WIDE else int(tensor.element_size())
