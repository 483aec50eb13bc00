"""Whether a GPU can run a module, and whether the module was planned for it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from jitcache.lockfile import Lock
from jitcache.runtime.hip import Hip
from jitcache.runtime.objects import Loaded
from jitcache.runtime.policy import Refusal

CU_VARIABLE = "CU_NUM"
"""AITER's: how many compute units it is to see (9bab8388, aiter/jit/utils/chip_info.py:109)."""

# ELF's EI_ABIVERSION of AMDGPU code objects and the first ROCm major that loads them: code
# object version 4, 5 and 6 (LLVM's AMDGPUUsage, "ELF header").
_ABI_VERSION_AT = 8
_ROCM_OF_ABI = {2: 4, 3: 5, 4: 6}


@dataclass(frozen=True, slots=True)
class OtherCuNum:
    """A module was planned for another number of compute units than a device has.

    Its kernels are right there all the same. But AITER chooses the block height by that number
    (aiter/fused_moe.py:655) and looks its tuned rows up by it, so it may ask for kernels that
    were not planned.

    Attributes:
        device: device index.
        planned: compute units of the lock.
        found: compute units that AITER sees.
    """

    device: int
    planned: int
    found: int

    def __str__(self) -> str:
        return (
            f"device {self.device} has {self.found} compute units, but the kernels were planned"
            f" for {self.planned}: AITER may ask for others; add a target with `cu_num ="
            f" {self.found}` to the manifest"
        )


def refusal(lock: Lock, objects: Iterable[Loaded], driver: Hip, device: int) -> Refusal | None:
    """Why a device can't run what was built, or None if it can.

    Raises:
        HipError: there is no such device.
    """
    arch = driver.arch(device).partition(":")[0]
    if arch != lock.arch:
        return Refusal(
            "other-arch",
            f"device {device}",
            f"is {arch}, but the module was built for {lock.arch}",
        )
    major = driver.version[0]
    running = f"{major}.{driver.version[1]}"
    if lock.provider == "rocm" and lock.hip_version[0] != major:
        return Refusal(
            "other-rocm",
            f"HIP runtime {running}",
            f"the module was built with ROCm {lock.hip_version[0]}",
        )
    for item in objects:
        needed = _ROCM_OF_ABI.get(item.data[_ABI_VERSION_AT], 0)
        if major < needed:
            what = f"HIP runtime {running}"
            return Refusal("old-rocm", what, f"{item.name} needs ROCm {needed} or newer")
    return None


def other_cu_num(lock: Lock, driver: Hip, device: int) -> OtherCuNum | None:
    """Whether AITER sees another number of compute units there than was planned for.

    Raises:
        HipError: there is no such device.
    """
    told = os.environ.get(CU_VARIABLE, "")
    found = int(told) if told.isdecimal() and int(told) else driver.compute_units(device)
    return None if found == lock.cu_num else OtherCuNum(device, lock.cu_num, found)
