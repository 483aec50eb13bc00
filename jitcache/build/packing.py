"""Which kernels share one front end, so that the build ends earliest. Pure.

Translation units of one family instantiate much of the same. Compiled in one front end, each
further kernel is cheaper; but the front end runs on one core, so the path gets longer. On two
cores that pays, on many it doesn't: the plan with the shortest simulated build wins, and
without a gain nothing is packed.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# Measured with clang 22 (docs/compile-time.md).
_TILE_SHARE = 0.4
"""Of the cheapest kernel's cost: what a further tile of the family doesn't pay again."""
_VARIANT_SHARE = 0.55
"""Of its own cost: what a further kernel of the same instance doesn't pay again."""
_SPLIT = 0.02
"""Of the pack's cost, per kernel: taking its part out of the pack's bitcode."""
_MEMORY_SHARE = 0.25
"""Of its own peak: what each further kernel adds to the front end's."""

MOST = 4
"""Kernels in a pack: what fails or is killed costs all of them."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A kernel to compile.

    Attributes:
        key: its action key.
        family: kernels of different families share nothing; "" shares with nobody.
        instance: kernels of one instance share most.
        cost_s: CPU seconds when compiled alone.
        memory: peak bytes when compiled alone.
    """

    key: str
    family: str
    instance: str
    cost_s: float
    memory: int


@dataclass(frozen=True, slots=True)
class Pack:
    """Kernels that are compiled together, or one alone.

    Attributes:
        units: the kernels.
    """

    units: tuple[Unit, ...]

    @property
    def cost_s(self) -> float:
        """CPU seconds for all of them, one step after the other."""
        alone = sum(u.cost_s for u in self.units)
        if len(self.units) == 1:
            return alone
        cheapest = min(u.cost_s for u in self.units)
        saved = 0.0
        seen = {self.units[0].instance}
        for unit in self.units[1:]:
            if unit.instance in seen:
                saved += unit.cost_s * _VARIANT_SHARE
            else:
                saved += cheapest * _TILE_SHARE
                seen.add(unit.instance)
        return alone * (1 + _SPLIT * len(self.units)) - saved

    @property
    def memory(self) -> int:
        """Peak bytes of the front end."""
        largest, *others = sorted((u.memory for u in self.units), reverse=True)
        return largest + round(_MEMORY_SHARE * sum(others))


def wall(packs: Sequence[Pack], jobs: int) -> float:
    """Seconds until the last ends, with so many at once and the longest started first."""
    free = [0.0] * max(1, min(jobs, len(packs)))
    for cost in sorted((p.cost_s for p in packs), reverse=True):
        heapq.heapreplace(free, free[0] + cost)
    return max(free)


def plan_packs(units: Sequence[Unit], jobs_for: Callable[[Sequence[int]], int]) -> tuple[Pack, ...]:
    """The packs with the shortest simulated build; each unit alone where packing gains nothing.

    Each family in turn is divided into every number of packs, and the best is kept while it
    makes the build shorter: so the plan is never worse than no packs.

    Args:
        units: what to compile.
        jobs_for: how many compilers may run at once, given the memory of each.
    """

    def time_of(packs: Sequence[Pack]) -> float:
        return wall(packs, jobs_for([p.memory for p in packs])) if packs else 0.0

    families: dict[str, list[Unit]] = {}
    for unit in units:
        families.setdefault(unit.family, []).append(unit)
    plan = {family: [Pack((u,)) for u in members] for family, members in families.items()}
    best = time_of([p for packs in plan.values() for p in packs])
    improved = True
    while improved:
        improved = False
        for family, members in families.items():
            if not family:
                continue
            others = [p for f, packs in plan.items() if f != family for p in packs]
            # From many packs to few, and only for a real gain: the fewest that are packed.
            for count in range(len(members) - 1, 0, -1):
                packs = _divide(members, count)
                if packs is not None and (time := time_of([*others, *packs])) < best * 0.99:
                    best, plan[family], improved = time, packs, True
    return tuple(p for packs in plan.values() for p in packs)


def _divide(units: Sequence[Unit], count: int) -> list[Pack] | None:
    """The units in so many packs of about equal cost; None if a pack would be too large."""
    instances: dict[str, list[Unit]] = {}
    for unit in units:
        instances.setdefault(unit.instance, []).append(unit)
    packs: list[Pack | None] = [None] * count
    # Kernels of one instance follow each other, so that they end up together where it pays.
    groups = sorted(instances.values(), key=lambda g: -sum(u.cost_s for u in g))
    for unit in (u for group in groups for u in sorted(group, key=lambda u: -u.cost_s)):
        at = min(range(count), key=lambda i: _with(packs[i], unit).cost_s)
        packs[at] = _with(packs[at], unit)
    full = [p for p in packs if p is not None]
    return full if all(len(p.units) <= MOST for p in full) else None


def _with(pack: Pack | None, unit: Unit) -> Pack:
    return Pack((unit,) if pack is None else (*pack.units, unit))
