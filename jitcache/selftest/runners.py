"""What runs a kernel: a GPU, or the emulator."""

from __future__ import annotations

import ctypes
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from jitcache.emulator.replay import replay, require_emulator
from jitcache.errors import JitcacheError, UnsupportedError, UsageError
from jitcache.runtime import capsule
from jitcache.runtime.hip import Hip, UnavailableError, require_hip
from jitcache.runtime.memory import held
from jitcache.runtime.module import Module
from jitcache.runtime.shim import Problem, Unsupported
from jitcache.runtime.stages import StageCall
from jitcache.selftest.model import CannotTestError, Kernel


class Runner(Protocol):
    """Runs a kernel once."""

    def run(self, kernel: Kernel, call: StageCall) -> tuple[bytes, float]:
        """The bytes of `out` after a launch, and how long that took in milliseconds.

        Args:
            kernel: the one that must run.
            call: the checked call, with tensors in host memory.

        Raises:
            JitcacheError: it can't be launched, or something goes wrong on the way.
        """

    def to_json(self) -> dict[str, Any]:
        """What it is, as plain JSON."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU.

    Attributes:
        hip: the runtime.
        device: device index.
    """

    hip: Hip
    device: int

    def run(self, kernel: Kernel, call: StageCall) -> tuple[bytes, float]:
        """See `Runner`."""
        contents = {name: host_bytes(t) for name, t in call.buffers.items() if t is not None}
        with held(self.hip, self.device, contents) as addresses:
            problem = Problem.from_buffer_copy(call.problem)
            for name, address in addresses.items():
                setattr(problem, name, address)
            prepared = kernel.module.prepare(call.name, problem)
            if isinstance(prepared, Unsupported):
                raise UnsupportedError(f"CK refuses the sizes: {prepared.reason}")
            symbol, _ = kernel.module.kernel(call.name, prepared)
            _expect(kernel, symbol)
            begin = time.perf_counter()
            with warnings.catch_warnings():
                # That AITER may ask a GPU with other compute units for other kernels is no news.
                warnings.simplefilter("ignore", RuntimeWarning)
                kernel.module.launch(call.name, problem, device=self.device)
            # The copy waits for the default stream, so what is read is what the kernel wrote.
            found = self.hip.read(addresses["out"], len(contents["out"]))
            return found, (time.perf_counter() - begin) * 1000

    def to_json(self) -> dict[str, Any]:
        """See `Runner`."""
        arch, version = self.hip.arch(self.device), self.hip.version
        return {"index": self.device, "arch": arch, "hip": list(version)}


@dataclass(frozen=True, slots=True)
class Emulator:
    """The emulator of the modules' architecture.

    Attributes:
        objdump: the disassembler that it reads kernels with.
        arch: which architecture it is for these modules.
    """

    objdump: Path
    arch: str

    def run(self, kernel: Kernel, call: StageCall) -> tuple[bytes, float]:
        """See `Runner`."""
        made = capsule.capture(
            kernel.module, call.name, call.problem, call.buffers, read=ctypes.string_at
        )
        _expect(kernel, made.symbol)
        begin = time.perf_counter()
        after = replay(made, self.objdump)
        return after["out"], (time.perf_counter() - begin) * 1000

    def to_json(self) -> dict[str, Any]:
        """See `Runner`."""
        return {"emulator": True, "arch": self.arch}


def gpu(modules: Sequence[Module], device: int) -> Gpu:
    """The HIP runtime, if one of its GPUs can run the modules and be compared with torch.

    Raises:
        CannotTestError: it can't.
        UsageError: there is no device of that number.
    """
    # Before HIP is opened: torch may bring its own, and then it has to be that one.
    lacking = _import_torch()
    arches = " or ".join(sorted({m.lock.arch for m in modules}))
    try:
        hip = require_hip()
    except UnavailableError as e:
        hint = f"{e.hint}; or run this on a machine with a {arches} GPU, or with --emulate"
        raise CannotTestError(e.why.reason, e.what, hint) from None
    count = hip.device_count()
    if isinstance(count, int) and not 0 <= device < count:
        raise UsageError(f"there is no device {device}: {count} can be seen, from 0")
    for module in modules:
        if refusal := module.check(device):
            hint = f"run this where the GPU is {arches}, or with --emulate, or build for this one"
            raise CannotTestError(refusal.reason, f"{refusal.what} {refusal.detail}", hint)
    if lacking:
        raise lacking
    return Gpu(hip, device)


def emulator(modules: Sequence[Module]) -> Emulator:
    """The emulator, if it can run here and its results be compared with torch.

    Raises:
        CannotTestError: torch or numpy can't be imported.
        ToolchainError: there is no disassembler.
    """
    if lacking := _import_torch():
        raise lacking
    try:
        objdump = require_emulator()
    except UnsupportedError as e:
        raise CannotTestError("no-numpy", e.what, e.hint) from None
    return Emulator(objdump, modules[0].lock.arch)


def _import_torch() -> CannotTestError | None:
    """Import torch; what to say where that fails."""
    try:
        import torch  # noqa: F401
    except (ImportError, OSError) as e:
        return CannotTestError(
            "no-torch",
            f"torch, which makes inputs and expected results, can't be imported ({e})",
            "install it, for example with `pip install 'jitcache[torch]'`;"
            " a build of it without ROCm will do",
        )
    return None


def _expect(kernel: Kernel, symbol: str) -> None:
    if symbol != kernel.variant.kernel:
        raise JitcacheError(f"these sizes run another kernel, {symbol}")


def host_bytes(tensor: Any) -> bytes:
    """The bytes of a tensor in host memory."""
    whole = tensor.contiguous()
    return ctypes.string_at(whole.data_ptr(), whole.numel() * whole.element_size())
