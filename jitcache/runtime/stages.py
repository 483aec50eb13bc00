"""AITER's `ck_moe_stage1` and `ck_moe_stage2` on a loaded module, checked before the launch.

A serving engine calls these for every layer of every step, so what can't change between calls of
the same shapes is examined once (`jitcache.runtime.arguments`), and addresses each time.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jitcache.errors import UsageError
from jitcache.runtime.arguments import Arguments, Examined, examine
from jitcache.runtime.shim import POINTERS, Problem

if TYPE_CHECKING:
    from jitcache.runtime.capsule import Capsule
    from jitcache.runtime.module import Module

CAPTURE_VARIABLE = "JITCACHE_CAPTURE"
"""A directory: the first launch of each instance is written there as a capsule."""

_KNOWN_CALLS = 4096
"""Signatures that are remembered; a serving engine has a few per batch size."""


@dataclass(frozen=True, slots=True)
class StageCall:
    """A checked call, not launched yet.

    Attributes:
        name: the instance that runs.
        problem: what its host shim is asked.
        device: device index; -1 for host memory.
        tensors: of the problem, in the order of `shim.POINTERS`; they keep the memory alive.
    """

    name: str
    problem: Problem
    device: int
    tensors: tuple[Any, ...]

    @property
    def buffers(self) -> dict[str, Any]:
        """Every tensor of the problem by its field."""
        return dict(zip(POINTERS, self.tensors, strict=True))


class Stages:
    """The two MoE stages of a module.

    Args:
        module: a loaded module.
        host_memory: accept tensors in host memory, which a GPU can read only where it shares
            the host's address space; by default they are refused.

    Attributes:
        module: the module.
    """

    def __init__(self, module: Module, *, host_memory: bool = False) -> None:
        self.module = module
        self._host_memory = host_memory
        self._known: dict[tuple[int, Hashable], tuple[str, Examined]] = {}
        self._capture_into = os.environ.get(CAPTURE_VARIABLE)
        self._captured: set[str] = set()

    def ck_moe_stage1(self, *arguments: Any, **named: Any) -> None:
        """Gate and up projection with activation; see `Arguments`."""
        self.launch(self.check(1, *arguments, **named))

    def ck_moe_stage2(self, *arguments: Any, **named: Any) -> None:
        """Down projection, added up over a token's experts; see `Arguments`."""
        self.launch(self.check(2, *arguments, **named))

    def launch(self, call: StageCall, *, stream: int | None = None) -> None:
        """Launch a checked call on a stream; torch's current one when not given.

        Raises:
            JitcacheError: as `Module.launch`.
        """
        if stream is None:
            stream = current_stream(call.device)
        if self._capture_into and call.name not in self._captured:
            self._captured.add(call.name)
            self._capture(call, Path(self._capture_into))
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

    def check(self, stage: int, *arguments: Any, **named: Any) -> StageCall:
        """Check a call and choose its instance.

        What doesn't change from one call to the next (shapes, types, devices, numbers) is
        examined once; addresses are looked at each time.

        Args:
            stage: 1 or 2.
            arguments: as `Arguments` has them, in AITER's order.
            named: likewise, by name.

        Raises:
            UsageError: an argument isn't what the kernels read.
            MissError: the kernel wasn't built.
            UnsupportedError: no kernel takes it.
        """
        given = Arguments(*arguments, **named)
        tensors = given.tensors(stage)
        try:
            signature = (stage, given.signature(tensors))
            known = self._known.get(signature)
        except AttributeError as e:
            where = f"ck_moe_stage{stage} of {self.module.name}"
            raise UsageError(f"an argument is not a tensor: {e}", where=where) from None
        if known is None:
            known = self._examine(stage, given)
            if len(self._known) >= _KNOWN_CALLS:
                self._known.clear()
            self._known[signature] = known
        name, examined = known
        addresses = [0 if t is None else t.data_ptr() for t in tensors]
        examined.check_addresses(addresses)
        problem = Problem(*addresses[:-1], *examined.sizes)
        return StageCall(name, problem, examined.device, tensors[:-1])

    def _examine(self, stage: int, given: Arguments) -> tuple[str, Examined]:
        spec = self.module.spec
        where = f"ck_moe_stage{stage} of {self.module.name}"
        found = examine(spec, where, stage, given, host_memory=self._host_memory)
        name = self.module.choose(stage, found.block_m, found.inter_dim, given.kernelName or "")
        return name, found


def current_stream(device: int) -> int:
    """Handle of torch's current stream on a device; the default stream in host memory."""
    torch = sys.modules.get("torch")
    if device < 0 or torch is None:
        return 0
    return int(torch.cuda.current_stream(device).cuda_stream)
