"""AITER's `ck_moe_stage1` and `ck_moe_stage2` on a loaded module, checked before the launch.

Signatures and meaning are AITER's (9bab8388, csrc/ck_gemm_moe_2stages_codegen/
gemm_moe_ck2stages.cu:46-181): 19 positional arguments, sizes taken from the tensors' shapes.
AITER checks only the output's type; a wrong expert count, a missing scale or a strided tensor
makes its kernel read what it shouldn't. Here each is an error before anything is launched.

Tensors are only asked for shape, dtype, device, strides and address, so that this module
imports no torch.
"""

from __future__ import annotations

import ctypes
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jitcache.errors import UsageError
from jitcache.runtime.shim import Problem

if TYPE_CHECKING:
    from jitcache.runtime.capsule import Capsule
    from jitcache.runtime.module import Module

CAPTURE_VARIABLE = "JITCACHE_CAPTURE"
"""A directory: the first launch of each instance is written there as a capsule."""

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


@dataclass(frozen=True, slots=True)
class StageCall:
    """A checked call, not launched yet.

    Attributes:
        name: the instance that runs.
        problem: what its host shim is asked.
        device: device index; -1 for host memory.
        buffers: every tensor of the problem by its field, for capsules; also keeps them alive.
    """

    name: str
    problem: Problem
    device: int
    buffers: dict[str, Any]


class Stages:
    """The two MoE stages of a module.

    Args:
        module: a loaded module.
        host_memory: accept tensors in host memory, which a GPU can read only where it shares
            the host's address space; by default they are refused.
    """

    def __init__(self, module: Module, *, host_memory: bool = False) -> None:
        self.module = module
        self._host_memory = host_memory
        self._captured: set[str] = set()

    def ck_moe_stage1(self, *arguments: Any, **named: Any) -> None:
        """Gate and up projection with activation; see `check` for the arguments."""
        self.launch(self.check(1, *arguments, **named))

    def ck_moe_stage2(self, *arguments: Any, **named: Any) -> None:
        """Down projection, added up over a token's experts; see `check` for the arguments."""
        self.launch(self.check(2, *arguments, **named))

    def launch(self, call: StageCall, *, stream: int | None = None) -> None:
        """Launch a checked call on a stream; torch's current one when not given.

        Raises:
            JitcacheError: as `Module.launch`.
        """
        if stream is None:
            stream = current_stream(call.device)
        if (directory := os.environ.get(CAPTURE_VARIABLE)) and call.name not in self._captured:
            self._captured.add(call.name)
            self._capture(call, Path(directory))
        self.module.launch(call.name, call.problem, stream=stream, device=call.device)

    def capture(self, call: StageCall) -> Capsule:
        """A capsule of a checked call, with its buffers' bytes as they are now.

        Raises:
            JitcacheError: as `capsule.capture`.
        """
        from jitcache.runtime import capsule, hip

        read = ctypes.string_at if call.device < 0 else hip.require_hip().read
        return capsule.capture(self.module, call.name, call.problem, call.buffers, read=read)

    def _capture(self, call: StageCall, directory: Path) -> None:
        from jitcache.runtime import capsule

        directory.mkdir(parents=True, exist_ok=True)
        made = self.capture(call)
        capsule.write(directory / f"{call.name}.{os.getpid()}.capsule", made)

    def check(
        self,
        stage: int,
        states: Any,
        w1: Any,
        w2: Any,
        sorted_token_ids: Any,
        sorted_expert_ids: Any,
        num_valid_ids: Any,
        out: Any,
        topk: int,
        kernelName: str | None = "",  # noqa: N803 - AITER's name
        w_scale: Any = None,
        a_scale: Any = None,
        block_m: int | None = 32,
        sorted_weights: Any = None,
        quant_type: int = 0,
        activation: int = 0,
        splitk: int | None = 1,
        non_temporal_load: bool | None = False,
        dst_type: str | None = None,
        is_shuffled: bool = True,
    ) -> StageCall:
        """Check a call and choose its instance.

        Args:
            stage: 1 or 2.
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
            block_m: rows of a block.
            sorted_weights: routed weights in float32, where this stage multiplies by them.
            quant_type: AITER's QuantType number.
            activation: AITER's ActivationType number; stage 2 ignores it.
            splitk: workgroups that share one K in stage 1 of a split-K module.
            non_temporal_load: non-temporal weight loads.
            dst_type: type of the final output in split-K modules; part of AITER's signature.
            is_shuffled: whether the weights are shuffled.

        Raises:
            UsageError: an argument isn't what the kernels read.
            MissError: the kernel wasn't built.
            UnsupportedError: no kernel takes it.
        """
        spec = self.module.spec
        block_m = 32 if block_m is None else block_m
        splitk = 1 if splitk is None else splitk
        c = _Checker(f"ck_moe_stage{stage} of {self.module.name}", self._host_memory)
        c.module(spec, stage, quant_type, activation, is_shuffled=is_shuffled)
        c.number("topk", topk)
        c.number("block_m", block_m)
        c.number("splitk", splitk)
        if dst_type is not None and dst_type != spec.c:
            c.fail("dst_type", f"is {dst_type}, but the module writes {spec.c}")

        device = c.tensors(
            out=out,
            states=states,
            w1=w1,
            w2=w2,
            sorted_token_ids=sorted_token_ids,
            sorted_expert_ids=sorted_expert_ids,
            num_valid_ids=num_valid_ids,
            w_scale=w_scale,
            a_scale=a_scale,
            sorted_weights=sorted_weights,
        )
        c.dtype("states", states, *_DTYPES[spec.a])
        c.dtype("w1", w1, *_DTYPES[spec.b])
        c.dtype("w2", w2, *_DTYPES[spec.b])
        for name, weight in (("w1", w1), ("w2", w2)):
            if len(weight.shape) != 3:
                c.fail(name, f"must have 3 dimensions, but has the shape {tuple(weight.shape)}")
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
        c.count(
            "out", out, tokens * (topk * n * (2 if split else 1) if stage == 1 else n), exact=True
        )

        for what, ids in (
            ("sorted_token_ids", sorted_token_ids),
            ("sorted_expert_ids", sorted_expert_ids),
            ("num_valid_ids", num_valid_ids),
        ):
            c.dtype(what, ids, "int32")
        sorted_size = min(tokens * topk * block_m, sorted_token_ids.shape[0])
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

        chosen = self.module.choose(stage, block_m, n if stage == 1 else k, kernelName or "")
        buffers = {
            "a": states,
            "a_scale": a_scale,
            "b": weight,
            "b_scale": w_scale,
            "sorted_token_ids": sorted_token_ids,
            "sorted_expert_ids": sorted_expert_ids,
            "num_valid_ids": num_valid_ids,
            "sorted_weights": sorted_weights,
            "out": out,
        }
        pointers = [None if t is None else t.data_ptr() for t in buffers.values()]
        sizes = (tokens, topk, sorted_size, n, k, splitk, int(bool(non_temporal_load)))
        return StageCall(chosen, Problem(*pointers, *sizes), device, buffers)


class _Checker:
    """Checks that name the argument."""

    def __init__(self, where: str, host_memory: bool) -> None:
        self._where = where
        self._host_memory = host_memory

    def fail(self, argument: str, problem: str, hint: str | None = None) -> None:
        raise UsageError(f"{argument} {problem}", where=self._where, hint=hint)

    def number(self, name: str, value: int) -> None:
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

    def tensors(self, **tensors: Any) -> int:
        """One device, contiguous, aligned; the device's index, -1 for host memory."""
        reference = tensors["out"].device
        for name, tensor in tensors.items():
            if tensor is None:
                continue
            if tensor.device != reference:
                self.fail(name, f"is on {tensor.device}, but out is on {reference}")
            # Scales may be a transposed view: AITER keeps some of them column by column.
            if not name.endswith("_scale") and not tensor.is_contiguous():
                self.fail(name, f"is not contiguous (strides {tuple(tensor.stride())})")
            if tensor.data_ptr() == 0:
                self.fail(name, "has no memory (it is empty)")
            aligned = _ALIGNMENT if name in ("out", "states", "w1", "w2") else tensor.element_size()
            if tensor.data_ptr() % aligned:
                self.fail(
                    name, f"is not aligned to {aligned} bytes", "pass a whole tensor, not a slice"
                )
        if reference.type == "cuda":
            return reference.index or 0
        if not self._host_memory:
            self.fail("out", f"is on {reference}, not on a GPU")
        return -1

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


def current_stream(device: int) -> int:
    """Handle of torch's current stream on a device; the default stream in host memory."""
    torch = sys.modules.get("torch")
    if device < 0 or torch is None:
        return 0
    return int(torch.cuda.current_stream(device).cuda_stream)
