"""Call AITER's own stage functions on CPU tensors: `aiter_driver.py ROOT KIND BLOCK_M STAGE...`.

ROOT holds AITER's package. Its `aiter/__init__.py` imports far more than the MoE ops and needs
a GPU for some, so the package is entered below it; `aiter/jit/core.py` (the loader) and
`aiter/ops/moe_op.py` (the ops) are AITER's, unchanged. Its enums come from a module that has
to be compiled, hence a stand-in.

DRIVER_KERNEL is a kernel name to call with; DRIVER_BUILDER a program that jitcache is to run in
place of Python where it builds.
"""

from __future__ import annotations

import enum
import importlib
import importlib.machinery
import inspect
import json
import logging
import os
import sys
import types
from pathlib import Path


class QuantType(enum.IntEnum):
    No, per_Tensor, per_Token, per_1x32, per_1x128, per_128x128 = range(6)  # noqa: N815

    def __str__(self) -> str:
        return f"QuantType.{self.name}"


class ActivationType(enum.IntEnum):
    No, Silu, Gelu, Swiglu = range(-1, 3)

    def __str__(self) -> str:
        return f"ActivationType.{self.name}"


def aiter_ops(root: Path) -> types.ModuleType:
    """AITER's moe_op module, with its real loader."""
    import torch

    # AITER reads it where it builds; torch for CPUs has none.
    torch.version.hip = "7.1.25424"
    package = types.ModuleType("aiter")
    package.__path__ = [str(root / "aiter")]
    package.__file__ = str(root / "aiter" / "__init__.py")
    package.__spec__ = importlib.machinery.ModuleSpec("aiter", None, is_package=True)
    package.__spec__.submodule_search_locations = package.__path__
    package.__spec__.origin = package.__file__
    package.logger = logging.getLogger("aiter")
    package.getLogger = lambda: package.logger
    sys.modules["aiter"] = package
    enums = types.ModuleType("aiter.ops.enum")
    enums.QuantType, enums.ActivationType, enums.Enum = QuantType, ActivationType, int
    sys.modules["aiter.ops.enum"] = enums
    sys.path[:0] = [str(root), str(root / "aiter" / "jit" / "utils")]
    core = importlib.import_module("aiter.jit.core")
    core.check_numa = lambda: None
    return importlib.import_module("aiter.ops.moe_op")


def call(ops: types.ModuleType, kind: str, block_m: int, stage: int) -> dict[str, int]:
    """One call as AITER's host makes it (aiter/fused_moe.py); the problem that must be launched."""
    import torch

    from tests.test_runtime_stages import arguments, problem_of

    given = arguments(kind, stage) | {"block_m": block_m}
    given["kernelName"] = os.environ.get("DRIVER_KERNEL", "")
    if kind == "fp4":
        for name in ("states", "w1", "w2"):
            given[name] = given[name].view(torch.float4_e2m1fn_x2)
    for name in ("w1", "w2"):
        given[name].is_shuffled = True
    function = getattr(ops, f"ck_moe_stage{stage}_fwd")
    words = {
        ("hidden_states" if stage == 1 else "inter_states"): given["states"],
        f"w{stage}_scale": given["w_scale"],
        f"a{stage}_scale": given["a_scale"],
        "quant_type": ops.QuantType(given["quant_type"]),
        "activation": ops.ActivationType(given["activation"]),
        "splitk": given["splitk"] if given["splitk"] > 1 else 0,
        "use_non_temporal_load": True,
        "dst_type": torch.bfloat16,
    }
    known = inspect.signature(function).parameters
    problem = problem_of(given, stage)
    # Older AITER has fewer arguments.
    if "use_non_temporal_load" in known:
        problem["non_temporal"] = 1
    function(**{name: value for name, value in (given | words).items() if name in known})
    return problem


def main(root: str, kind: str, block_m: str, *stages: str) -> None:
    ops = aiter_ops(Path(root))
    sys.executable = os.environ.get("DRIVER_BUILDER", sys.executable)
    for stage in map(int, stages):
        problem = call(ops, kind, int(block_m), stage)
        print("called", json.dumps(problem), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
