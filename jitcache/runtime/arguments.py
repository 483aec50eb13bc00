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

if TYPE_CHECKING:
    from jitcache.codegen.catalog import ModuleSpec

_DTYPES = {
    "f8": ("float8_e4m3fn", "float8_e4m3fnuz"),
    "i8": ("int8",),
    "b16": ("bfloat16",),
    "f16": ("float16",),
    "fp4x2": ("float4_e2m1fn_x2", "uint8"),
    "i4": ("int4", "uint8", "int8", "int32", "uint32"),
}
_BITS = {"f8": 8, "i8": 8, "b16": 16, "f16": 16, "fp4x2": 4, "i4": 4}
_E8M0 = ("float8_e8m0fnu", "uint8")
_ACTIVATIONS = {"silu": 0, "gelu": 1}
_QUANTS = {0: "no", 1: "per_tensor", 2: "per_token", 3: "per_1x32", 4: "per_1x128", 5: "per_1x128"}
"""AITER's QuantType; per_128x128 (5) becomes per_1x128 (aiter/ops/moe_op.py:510)."""
_ALIGNMENT = 16
_OPTIONAL = frozenset({"a_scale", "w_scale", "sorted_weights"})
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
    c = _Checker(where, host_memory)
    c.module(spec, stage, given.quant_type, given.activation, is_shuffled=given.is_shuffled)
    c.number("topk", topk)
    c.number("block_m", block_m)
    c.number("splitk", splitk)
    if given.dst_type is not None and given.dst_type != spec.c:
        c.fail("dst_type", f"is {given.dst_type}, but the module writes {spec.c}")

    names = _names(stage)
    tensors = given.tensors(stage)
    device = c.tensors(names, tensors)
    c.dtype("states", states, *_DTYPES[spec.a])
    c.dtype("w1", w1, *_DTYPES[spec.b])
    c.dtype("w2", w2, *_DTYPES[spec.b])
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
    c.dtype("out", out, *(("float32",) if split else _DTYPES[spec.c]))
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


class _Checker:
    """Checks that name the argument."""

    def __init__(self, where: str, host_memory: bool) -> None:
        self._where = where
        self._host_memory = host_memory

    def fail(self, argument: str, problem: str, hint: str | None = None) -> None:
        raise UsageError(f"{argument} {problem}", where=self._where, hint=hint)

    def number(self, name: str, value: Any) -> None:
        if not hasattr(value, "__index__"):
            self.fail(name, f"must be a whole number, but is {value!r}")
        if value < 1:
            self.fail(name, f"must be positive, but is {value}")

    def module(
        self, spec: Any, stage: int, quant_type: int, activation: int, *, is_shuffled: bool
    ) -> None:
        quant = _QUANTS.get(int(quant_type))
        if quant != spec.quant.word:
            self.fail(
                "quant_type", f"is {quant or quant_type}, but the module has {spec.quant.word}"
            )
        if stage == 1 and int(activation) != _ACTIVATIONS[spec.act]:
            self.fail(
                "activation",
                f"is {activation}, but the module has {_ACTIVATIONS[spec.act]} ({spec.act})",
            )
        if spec.b == "fp4x2" and bool(is_shuffled) != spec.preshuffle:
            self.fail(
                "is_shuffled",
                f"is {bool(is_shuffled)}, but the module is for"
                f" {'shuffled' if spec.preshuffle else 'plain'} weights",
                "a tensor that was copied or viewed loses the attribute `is_shuffled`",
            )

    def tensors(self, names: tuple[str, ...], tensors: tuple[Any, ...]) -> int:
        """One device, contiguous; the device's index, -1 for host memory."""
        given = dict(zip(names, tensors, strict=True))
        for name in given.keys() - _OPTIONAL:
            if given[name] is None:
                self.fail(name, "is missing")
        reference = given["out"].device
        for name, tensor in given.items():
            if tensor is None:
                continue
            if tensor.device != reference:
                self.fail(name, f"is on {tensor.device}, but out is on {reference}")
            # Scales may be a transposed view: AITER keeps some of them column by column.
            if not name.endswith("_scale") and not tensor.is_contiguous():
                self.fail(name, f"is not contiguous (strides {tuple(tensor.stride())})")
        if reference.type == "cuda":
            return reference.index or 0
        if not self._host_memory:
            self.fail("out", f"is on {reference}, not on a GPU")
        return -1

    def dimensions(self, name: str, tensor: Any, wanted: int, *, or_more: bool = False) -> None:
        found = len(tensor.shape)
        if found < wanted or (found > wanted and not or_more):
            shape = tuple(tensor.shape)
            self.fail(name, f"must have {wanted} dimensions, but has the shape {shape}")

    def dtype(self, name: str, tensor: Any, *allowed: str) -> None:
        found = str(tensor.dtype).removeprefix("torch.")
        if found not in allowed:
            self.fail(name, f"must be {' or '.join(allowed)}, but is {found}")

    def count(self, name: str, tensor: Any, wanted: int, *, exact: bool = False) -> None:
        found = tensor.numel()
        if found < wanted or (exact and found != wanted):
            self.fail(
                name,
                f"has {found} elements (shape {tuple(tensor.shape)}), but {wanted} are"
                f" {'needed' if exact else 'read'}",
            )

    def scales(
        self, spec: Any, a_scale: Any, w_scale: Any, rows: int, experts: int, wide: int, k: int
    ) -> None:
        """The fewest scales that the kernels read, by the quantisation."""
        word = spec.quant.word
        if word == "no":
            return
        fewest = {
            "per_tensor": (1, experts),
            "per_token": (rows, experts * wide),
            "per_1x32": (rows * k // 32, experts * wide * k // 32),
            "per_1x128": (rows * -(-k // 128), experts * -(-wide // 128) * -(-k // 128)),
        }[word]
        for name, scale, wanted in (
            ("a_scale", a_scale, fewest[0]),
            ("w_scale", w_scale, fewest[1]),
        ):
            if scale is None:
                self.fail(name, f"is missing: {word} needs it")
            self.dtype(name, scale, *(_E8M0 if word == "per_1x32" else ("float32",)))
            self.count(name, scale, wanted)
