"""Which kernels there are to test, and what came of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from jitcache.codegen.catalog import Variant, find
from jitcache.errors import UnsupportedError, UsageError
from jitcache.lockfile import LockedInstance, LockedVariant
from jitcache.runtime.module import Module

Status = Literal["ok", "wrong", "failed", "skipped"]


class CannotTestError(UnsupportedError):
    """No kernel can be tested here.

    Attributes:
        reason: `no-runtime`, `no-device` or `forked` (see `hip.Unavailable`); `other-arch`,
            `other-rocm` or `old-rocm` (see `policy.Refusal`); `no-torch`, `no-numpy`: these
            can't be imported; `all-skipped`: no kernel is one that can be compared.
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
            launched, or broke off; `skipped`: there is nothing to compare it with, or it has an
            instruction that the emulator doesn't know.
        reason: why, unless it is `ok`.
        error: largest difference relative to the largest expected value; infinity if the
            result holds NaN or infinity; None where nothing was compared.
        tolerance: the largest error that is `ok`.
        ms: from the launch to the result in host memory, loading the code object included; on
            the emulator, how long that took.
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
