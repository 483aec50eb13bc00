"""Which launches stand for a family: the smallest tile of each stage, and tiny sizes. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from jitcache.codegen.catalog import (
    Instance,
    ModuleSpec,
    Quant,
    Stage,
    Variant,
    all_families,
    check_arch,
    instances,
    k_per_block,
    variant_for,
)
from jitcache.errors import UnsupportedError, UsageError

_BF16 = ModuleSpec("b16", "b16", "b16", Quant.NO, "silu", 2, preshuffle=True)
_FP8 = ModuleSpec("f8", "f8", "b16", Quant.PER_TOKEN, "silu", 2, preshuffle=True)
_MXFP4 = ModuleSpec("fp4x2", "fp4x2", "b16", Quant.PER_1X32, "silu", 2, preshuffle=True)

MODULES: dict[str, ModuleSpec] = {
    "a16w16": _BF16,
    "a16w16_gfx950": _BF16,
    "a8w8": _FP8,
    "a8w8_gfx950": _FP8,
    "a8w8blkscale": ModuleSpec("f8", "f8", "b16", Quant.PER_1X128, "silu", 2, preshuffle=True),
    "a8w4": ModuleSpec("f8", "i4", "b16", Quant.PER_TOKEN, "silu", 2, preshuffle=True),
    "a4w4": _MXFP4,
    "a4w4_bns": ModuleSpec("fp4x2", "fp4x2", "b16", Quant.PER_1X32, "silu", 2, preshuffle=False),
}
"""The module that stands for each family: its usual types, routed weights in stage 2."""

STEPS = 4
"""Loop steps along K by default: the fewest that run the kernel with the hot loop and an even
tail, which is the one that real model dims run."""

_STAGES: tuple[Stage, Stage] = (1, 2)
_N_BLOCKS = 2
_SCALE_BLOCK = 128
"""Rows of the weights that share a scale in per_1x128."""
_MOST_STEPS = 6


@dataclass(frozen=True, slots=True)
class Launch:
    """One launch of an instance: its sizes.

    Attributes:
        instance: the kernel's instance.
        n: columns of the result: inter_dim in stage 1, model_dim in stage 2, in elements.
        k: depth: model_dim in stage 1, inter_dim in stage 2, in elements.
        tokens: rows of the activations.
        topk: experts per token.
        experts: experts in all.
        non_temporal: ask for non-temporal loads of the weights.
    """

    instance: Instance
    n: int
    k: int
    tokens: int = 5
    topk: int = 2
    experts: int = 3
    non_temporal: bool = False

    @property
    def variant(self) -> Variant:
        """Which of the instance's kernels these sizes run."""
        return variant_for(self.instance, self.k, self.non_temporal)

    @property
    def model_dim(self) -> int:
        """Width of the hidden states."""
        return self.k if self.instance.stage == 1 else self.n

    @property
    def inter_dim(self) -> int:
        """Width between the two projections."""
        return self.n if self.instance.stage == 1 else self.k


@dataclass(frozen=True, slots=True)
class Choice:
    """A family on one architecture.

    Attributes:
        family: its tag.
        arch: the architecture.
        spec: the module that stands for it.
        launches: of stage 1 and 2.
    """

    family: str
    arch: str
    spec: ModuleSpec
    launches: tuple[Launch, ...]


def choose(
    families: Sequence[str] = (), arches: Sequence[str] = (), *, steps: int = STEPS
) -> tuple[Choice, ...]:
    """Launches for families on architectures.

    Args:
        families: tags; all when empty.
        arches: architectures; all that AITER generates and runs a family for when empty.
        steps: loop steps along K: which of an instance's kernels runs follows from it.

    Raises:
        UsageError: there is no family of that tag.
        UnsupportedError: an architecture is unknown, or none of the families runs on any.
    """
    for tag in families:
        if tag not in MODULES:
            raise UsageError(
                f"there is no family {tag}", hint=f"there are {', '.join(sorted(MODULES))}"
            )
    for arch in arches:
        check_arch(arch)
    found = tuple(
        Choice(family.tag, arch, MODULES[family.tag], _launches(family.tag, arch, steps))
        for family in all_families()
        for arch in family.arches
        if family.tag in (families or MODULES)
        and arch in (arches or family.arches)
        and arch in family.runs_on
    )
    if not found:
        raise UnsupportedError(
            f"none of the families {', '.join(families)} runs on {', '.join(arches)}"
        )
    return found


def _launches(family: str, arch: str, steps: int) -> tuple[Launch, Launch]:
    of_module = instances(MODULES[family], arch)
    first, second = (
        min((i for i in of_module if i.stage == stage), key=_work) for stage in _STAGES
    )
    return _launch(first, steps), _launch(second, steps)


def _work(instance: Instance) -> tuple[int, int]:
    tile = instance.tile
    return tile.m * tile.n * tile.k, tile.pipeline


def launch_for(instance: Instance, variant: Variant) -> Launch | None:
    """A launch that runs just this kernel of an instance, or None if no depth does.

    Its loop goes round more than once, where the kernel has one.
    """
    for steps in range(_MOST_STEPS, 0, -1):
        launch = _launch(instance, steps, non_temporal=bool(variant.non_temporal))
        if launch.variant == variant:
            return launch
    return None


def _launch(instance: Instance, steps: int, *, non_temporal: bool = False) -> Launch:
    n = _N_BLOCKS * instance.tile.n
    if instance.module.quant is Quant.PER_1X128:
        n = math.lcm(n, _SCALE_BLOCK)
    return Launch(instance, n, steps * k_per_block(instance), non_temporal=non_temporal)
