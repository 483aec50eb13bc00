"""Every kernel of a loaded module, run on a GPU and compared with the reference.

Inputs and expected results are made by `jitcache.capture`, with torch in host memory; device
memory, the launch and the result's way back are HIP's. So a torch without ROCm will do.
"""

from __future__ import annotations

import ctypes
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from jitcache.capture.choice import Launch, launch_for
from jitcache.codegen.catalog import Variant, find
from jitcache.errors import JitcacheError, UnsupportedError, UsageError
from jitcache.lockfile import LockedInstance, LockedVariant
from jitcache.runtime.compare import worst
from jitcache.runtime.hip import Hip, UnavailableError, require_hip
from jitcache.runtime.memory import held
from jitcache.runtime.module import Module
from jitcache.runtime.shim import Problem, Unsupported
from jitcache.runtime.stages import StageCall, Stages

if TYPE_CHECKING:
    from jitcache.capture.case import Case

Status = Literal["ok", "wrong", "failed", "skipped"]


class CannotTestError(UnsupportedError):
    """No kernel can be tested here.

    Attributes:
        reason: `no-runtime`, `no-device` or `forked` (see `hip.Unavailable`); `other-arch`,
            `other-rocm` or `old-rocm` (see `policy.Refusal`); `no-torch`: torch can't be
            imported; `all-skipped`: no kernel is one that can be compared.
    """

    def __init__(self, reason: str, why: str, hint: str | None) -> None:
        super().__init__(f"no kernel was tested: {why}", hint=hint)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel of a loaded module.

    Attributes:
        module: the module.
        instance: the instance that it is a kernel of.
        variant: which one.
    """

    module: Module
    instance: LockedInstance
    variant: LockedVariant

    @property
    def which(self) -> Variant:
        """The variant in the catalog's words."""
        v = self.variant
        return Variant(v.hot_loop, v.tail, v.non_temporal)

    @property
    def label(self) -> str:
        """A short name for people."""
        known = find(self.instance.name, self.module.spec, self.module.lock.arch)
        return f"{known.short if known else self.instance.name} {self.which}"


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one kernel.

    Attributes:
        kernel: the kernel.
        status: `ok`: as the reference has it; `wrong`: not so; `failed`: it couldn't be
            launched; `skipped`: there is nothing to compare it with.
        reason: why, unless it is `ok`.
        error: largest difference relative to the largest expected value; infinity if the
            result holds NaN or infinity; None where nothing was compared.
        tolerance: the largest error that is `ok`.
        ms: from the launch to the result in host memory, loading the code object included.
    """

    kernel: Kernel
    status: Status
    reason: str = ""
    error: float | None = None
    tolerance: float | None = None
    ms: float | None = None


def kernels(modules: Sequence[Module], text: str = "") -> tuple[Kernel, ...]:
    """The kernels of modules, those whose instance's name or label holds a text.

    Raises:
        UsageError: there is none.
    """
    every = [Kernel(m, i, v) for m in modules for i in m.instances for v in i.variants]
    found = tuple(k for k in every if text in k.instance.name or text in k.label)
    if not found:
        labels = ", ".join(k.label for k in every) or "(none)"
        raise UsageError(f"no kernel's name holds {text!r}", hint=f"there are {labels}")
    return found


def gpu(modules: Sequence[Module], device: int) -> Hip:
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
        hint = f"{e.hint}; or run this on a machine with a {arches} GPU"
        raise CannotTestError(e.why.reason, e.what, hint) from None
    count = hip.device_count()
    if isinstance(count, int) and not 0 <= device < count:
        raise UsageError(f"there is no device {device}: {count} can be seen, from 0")
    for module in modules:
        if refusal := module.check(device):
            hint = f"run this where the GPU is {arches}, or build for this one"
            raise CannotTestError(refusal.reason, f"{refusal.what} {refusal.detail}", hint)
    if lacking:
        raise CannotTestError(
            "no-torch",
            f"torch, which makes inputs and expected results, can't be imported ({lacking})",
            "install it, for example with `pip install 'jitcache[torch]'`;"
            " a build of it without ROCm will do",
        )
    return hip


def _import_torch() -> str:
    try:
        import torch  # noqa: F401
    except (ImportError, OSError) as e:
        return str(e)
    return ""


def check(
    kernel: Kernel, hip: Hip, device: int, *, seed: int = 0, tolerance: float | None = None
) -> Result:
    """Run a kernel once on random inputs, and compare.

    Args:
        kernel: the kernel.
        hip: the runtime, from `gpu`.
        device: device index.
        seed: another seed gives other inputs.
        tolerance: largest error; by default what rounding to the output's type explains.
    """
    launch = _launch(kernel)
    if not isinstance(launch, Launch):
        return launch
    from jitcache.capture.case import make_case

    try:
        case = make_case(launch, kernel.module.lock.arch, seed)
    except UnsupportedError as e:
        return Result(kernel, "skipped", e.what)
    try:
        call = Stages(kernel.module, host_memory=True).check(
            kernel.instance.stage, **case.arguments
        )
        found, ms = _run(kernel, call, hip, device)
    except JitcacheError as e:
        return Result(kernel, "failed", e.what)
    return _compared(kernel, case, found, ms, case.tolerance if tolerance is None else tolerance)


def _launch(kernel: Kernel) -> Launch | Result:
    instance = find(kernel.instance.name, kernel.module.spec, kernel.module.lock.arch)
    if instance is None:
        return Result(kernel, "skipped", "this jitcache's catalog doesn't know the instance")
    launch = launch_for(instance, kernel.which)
    return launch or Result(kernel, "skipped", "no small K runs this kernel")


def _run(kernel: Kernel, call: StageCall, hip: Hip, device: int) -> tuple[bytes, float]:
    """The bytes of `out` after a launch, and how long that took in milliseconds."""
    contents = {name: _bytes(t) for name, t in call.buffers.items() if t is not None}
    with held(hip, device, contents) as addresses:
        problem = Problem.from_buffer_copy(call.problem)
        for name, address in addresses.items():
            setattr(problem, name, address)
        prepared = kernel.module.prepare(call.name, problem)
        if isinstance(prepared, Unsupported):
            raise UnsupportedError(f"CK refuses the sizes: {prepared.reason}")
        symbol, _ = kernel.module.kernel(call.name, prepared)
        if symbol != kernel.variant.kernel:
            raise JitcacheError(f"these sizes run another kernel, {symbol}")
        begin = time.perf_counter()
        with warnings.catch_warnings():
            # That AITER may ask a GPU with other compute units for other kernels is no news here.
            warnings.simplefilter("ignore", RuntimeWarning)
            kernel.module.launch(call.name, problem, device=device)
        # The copy waits for the default stream, so what is read is what the kernel wrote.
        found = hip.read(addresses["out"], len(contents["out"]))
        return found, (time.perf_counter() - begin) * 1000


def _compared(kernel: Kernel, case: Case, found: bytes, ms: float, tolerance: float) -> Result:
    dtype = str(case.expected.dtype).removeprefix("torch.")
    error = worst(found, _bytes(case.expected), dtype)
    if error <= tolerance:
        return Result(kernel, "ok", "", error, tolerance, ms)
    reason = "differs from the reference"
    if error == float("inf"):
        reason = "the result holds NaN or infinity"
    return Result(kernel, "wrong", reason, error, tolerance, ms)


def _bytes(tensor: Any) -> bytes:
    whole = tensor.contiguous()
    return ctypes.string_at(whole.data_ptr(), whole.numel() * whole.element_size())
