"""AITER's heuristic dispatch: which instance runs when no tuned row names one.

Source: AITER 9bab8388, gen_instances.py (`*_heuristic_dispatch` texts).
"""

from __future__ import annotations

import msgspec

from .family import Arch
from .model import Instance, ModuleSpec, Stage
from .select import emitted, family_of, instance


class Unsupported(msgspec.Struct, frozen=True):
    """The dispatch raises.

    Attributes:
        reason: why, one sentence without a final period.
    """

    reason: str


def dispatch(
    spec: ModuleSpec, arch: Arch, stage: Stage, block_m: int, inter_dim: int
) -> Instance | Unsupported:
    """The instance that the heuristic picks, or why it raises.

    Args:
        spec: the module.
        arch: the architecture.
        stage: 1 or 2.
        block_m: rows per block, as the host passes it.
        inter_dim: this rank's inter_dim (N of stage 1, K of stage 2), in elements.

    Raises:
        UnsupportedError: as `catalog.family_of`.
    """
    family = family_of(spec, arch)
    if arch not in family.runs_on:
        return Unsupported(f"the {family.tag} dispatch is empty on {arch}")
    if emitted(spec) != spec:
        return Unsupported(
            f"the {family.tag} dispatch expects {emitted(spec).a} activations, not {spec.a}"
        )
    rows = family.rows(stage)
    for index, row in enumerate(rows):
        if row.tile.m == block_m and row.when.holds(inter_dim):
            return instance(spec, family, stage, index)
    known = sorted({r.tile.m for r in rows if r.when.rule != "never"})
    return Unsupported(
        f"{family.tag} stage {stage} has no kernel for block_m {block_m} "
        f"(there are {', '.join(map(str, known))})"
    )


def why_not_dispatched(found: Instance, arch: Arch, block_m: int, inter_dim: int) -> str:
    """Why the heuristic doesn't pick an instance at a block_m and inter_dim, for people."""
    tile = found.tile
    if tile.m != block_m:
        return f"made for block_m {tile.m}, not {block_m}"
    family = family_of(found.module, arch)
    when = next(r.when for r in family.rows(found.stage) if r.tile == tile)
    return when.why_not(inter_dim)
