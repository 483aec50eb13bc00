"""Call AITER's own stage functions on CPU tensors: `aiter_driver.py ROOT KIND STAGE`.

ROOT holds AITER's package. Its `aiter/__init__.py` imports far more than the MoE ops and needs
a GPU for some, so the package is entered below it; `aiter/jit/core.py` (the loader) and
`aiter/ops/moe_op.py` (the ops) are AITER's, unchanged. Its enums come from a module that has
to be compiled, hence a stand-in.
"""

from __future__ import annotations

import enum
import importlib
import importlib.machinery
import inspect
import logging
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


def main(root: str, kind: str, stage: str) -> None:
    import torch

    from tests.test_runtime_stages import arguments

    ops = aiter_ops(Path(root))
    function = getattr(ops, f"ck_moe_stage{stage}")
    call = list(arguments(kind, int(stage)).values())
    if kind == "fp4":
        call[:3] = [t.view(torch.float4_e2m1fn_x2) for t in call[:3]]
    # Older AITER takes its tensors' attribute and fewer arguments.
    for weight in call[1:3]:
        weight.is_shuffled = True
    count = len(inspect.signature(ops.cmdGenFunc_ck_moe_stage).parameters)
    function(*call[:count])
    print("called", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
