"""One kernel: random inputs, a launch, and the comparison with the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jitcache.capture.choice import Launch, launch_for
from jitcache.codegen.catalog import find
from jitcache.emulator.program import UnknownError
from jitcache.errors import JitcacheError, UnsupportedError
from jitcache.runtime.compare import worst
from jitcache.runtime.stages import Stages
from jitcache.selftest.model import Kernel, Result
from jitcache.selftest.runners import Runner, host_bytes

if TYPE_CHECKING:
    from jitcache.capture.case import Case


def check(
    kernel: Kernel, runner: Runner, *, seed: int = 0, tolerance: float | None = None
) -> Result:
    """Run a kernel once on random inputs, and compare.

    Args:
        kernel: the kernel.
        runner: what runs it.
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
        found, ms = runner.run(kernel, call)
    except UnknownError as e:
        return Result(kernel, "skipped", e.what)
    except JitcacheError as e:
        return Result(kernel, "failed", e.what)
    return _compared(kernel, case, found, ms, case.tolerance if tolerance is None else tolerance)


def _launch(kernel: Kernel) -> Launch | Result:
    instance = find(kernel.instance.name, kernel.module.spec, kernel.module.lock.arch)
    if instance is None:
        return Result(kernel, "skipped", "this jitcache's catalog doesn't know the instance")
    launch = launch_for(instance, kernel.which)
    return launch or Result(kernel, "skipped", "no small K runs this kernel")


def _compared(kernel: Kernel, case: Case, found: bytes, ms: float, tolerance: float) -> Result:
    dtype = str(case.expected.dtype).removeprefix("torch.")
    error = worst(found, host_bytes(case.expected), dtype)
    if error <= tolerance:
        return Result(kernel, "ok", "", error, tolerance, ms)
    reason = "differs from the reference"
    if error == float("inf"):
        reason = "the result holds NaN or infinity"
    return Result(kernel, "wrong", reason, error, tolerance, ms)
