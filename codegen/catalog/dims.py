"""Which dims CK refuses, and what K is for a kernel.

Source: CK device_moe_*.hpp, `IsSupportedArgument`: N must be a multiple of NPerBlock and K
of KPerBlock; the further conditions on vector widths follow from these two for every tile.
"""

from __future__ import annotations

from .model import Instance
from .select import family_by_tag


def k_per_block(instance: Instance) -> int:
    """Depth of one loop step, in elements (an fp4 pair counts as two)."""
    return instance.tile.k * family_by_tag(instance.family).packed


def rejects(instance: Instance, n: int, k: int) -> str | None:
    """CK's rule that a problem breaks, or None if the kernel takes it.

    Args:
        instance: the kernel.
        n: columns of the result: inter_dim in stage 1, model_dim in stage 2, in elements.
        k: depth: model_dim in stage 1, inter_dim in stage 2, in elements.
    """
    step = k_per_block(instance)
    names = ("inter_dim", "model_dim") if instance.stage == 1 else ("model_dim", "inter_dim")
    if n % instance.tile.n != 0:
        return f"N ({names[0]}) {n} is not a multiple of {instance.tile.n}"
    if k % step != 0:
        return f"K ({names[1]}) {k} is not a multiple of {step}"
    return None
