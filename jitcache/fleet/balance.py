"""Shares of equal weight: longest first, each to whoever has least so far. Pure.

Graham's bound for this rule: never more than 4/3 of the best possible schedule.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from jitcache.fleet.model import PlannedAction


def shares(actions: Sequence[PlannedAction], count: int) -> list[list[PlannedAction]]:
    """The actions of each of `count` workers, longest first.

    Every worker computes all shares from the plan alone, so they need not speak with one
    another; equal plans and counts give equal shares.
    """
    shared: list[list[PlannedAction]] = [[] for _ in range(count)]
    heap = [(0, worker) for worker in range(count)]
    for action in sorted(actions, key=lambda a: (-a.cost_ms, a.key)):
        load, worker = heap[0]
        shared[worker].append(action)
        heapq.heapreplace(heap, (load + action.cost_ms, worker))
    return shared


def bound_ms(costs_ms: Sequence[int], count: int) -> int:
    """No schedule is shorter: the longest action, and all work shared evenly."""
    return max(max(costs_ms, default=0), -(-sum(costs_ms) // count))
