"""Checks of single arguments of a stage: type, count, place, and the scales by quantisation.

Types are torch's names, so that nothing here imports torch.
"""

from __future__ import annotations

from typing import Any

from jitcache.errors import UsageError

DTYPES = {
    "f8": ("float8_e4m3fn", "float8_e4m3fnuz"),
    "i8": ("int8",),
    "b16": ("bfloat16",),
    "f16": ("float16",),
    "fp4x2": ("float4_e2m1fn_x2", "uint8"),
    "i4": ("int4", "uint8", "int8", "int32", "uint32"),
}
"""The catalog's types: torch's names of what holds them."""

_E8M0 = ("float8_e8m0fnu", "uint8")
_ACTIVATIONS = {"silu": 0, "gelu": 1}
_QUANTS = {0: "no", 1: "per_tensor", 2: "per_token", 3: "per_1x32", 4: "per_1x128", 5: "per_1x128"}
"""AITER's QuantType; per_128x128 (5) becomes per_1x128 (aiter/ops/moe_op.py:510)."""
_OPTIONAL = frozenset({"a_scale", "w_scale", "sorted_weights"})


class Checker:
    """Checks of single arguments; each raises `UsageError` with the argument's name.

    Args:
        where: what was called, for errors.
        host_memory: accept tensors in host memory.
    """

    def __init__(self, where: str, host_memory: bool) -> None:
        self._where = where
        self._host_memory = host_memory

    def fail(self, argument: str, problem: str, hint: str | None = None) -> None:
        """Refuse an argument."""
        raise UsageError(f"{argument} {problem}", where=self._where, hint=hint)

    def number(self, name: str, value: Any) -> None:
        """A whole number above 0."""
        if not hasattr(value, "__index__"):
            self.fail(name, f"must be a whole number, but is {value!r}")
        if value < 1:
            self.fail(name, f"must be positive, but is {value}")

    def module(
        self, spec: Any, stage: int, quant_type: int, activation: int, *, is_shuffled: bool
    ) -> None:
        """The module is the one that AITER would take for these words."""
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
        for name, tensor in given.items():
            if tensor is None and name not in _OPTIONAL:
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
        """So many dimensions."""
        found = len(tensor.shape)
        if found < wanted or (found > wanted and not or_more):
            shape = tuple(tensor.shape)
            self.fail(name, f"must have {wanted} dimensions, but has the shape {shape}")

    def dtype(self, name: str, tensor: Any, *allowed: str) -> None:
        """One of some types, by torch's names."""
        found = str(tensor.dtype).removeprefix("torch.")
        if found not in allowed:
            self.fail(name, f"must be {' or '.join(allowed)}, but is {found}")

    def count(self, name: str, tensor: Any, wanted: int, *, exact: bool = False) -> None:
        """So many elements, or at least so many."""
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
