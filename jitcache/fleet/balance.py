"""Shares of equal weight. Pure.

Longest first, each to whoever has least so far (LPT; Graham 1969). Where that is not close to
the bound, which happens if a worker has only a few actions: a search for the smallest size of
a share into which everything fits, longest first, each where it leaves least room (MULTIFIT;
Coffman, Garey and Johnson 1978, with best fit). Not everywhere, because tightly packed shares
suffer more from costs that were expected wrongly.
"""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Sequence

from jitcache.fleet.model import PlannedAction

_CLOSE = 1.03
_ROUNDS = 20
"""Steps of the search: the last one is a millionth of the first."""


def shares(actions: Sequence[PlannedAction], count: int) -> list[list[PlannedAction]]:
    """The actions of each of `count` workers, longest first.

    Every worker computes all shares from the plan alone, so they need not speak with one
    another; equal plans and counts give equal shares.
    """
    ordered = sorted(actions, key=lambda a: (-a.cost_ms, a.key))
    return [[ordered[i] for i in part] for part in split([a.cost_ms for a in ordered], count)]


def split(costs: Sequence[int], count: int) -> list[list[int]]:
    """Indices of the costs in each of `count` parts, whose largest sum is small.

    Args:
        costs: longest first.
        count: at least 1.
    """
    best = _least_loaded(costs, count)
    low, high = bound_ms(costs, count), _largest(costs, best)
    if high <= _CLOSE * low:
        return best
    for _ in range(_ROUNDS):
        if low >= high:
            break
        size = (low + high) // 2
        fitting = _best_fit(costs, count, size)
        if fitting is None:
            low = size + 1
        else:
            best, high = fitting, _largest(costs, fitting)
    return best


def bound_ms(costs: Sequence[int], count: int) -> int:
    """No schedule is shorter: the longest action, and all work shared evenly."""
    return max(max(costs, default=0), -(-sum(costs) // count))


def _largest(costs: Sequence[int], parts: Sequence[Sequence[int]]) -> int:
    return max(sum(costs[i] for i in part) for part in parts)


def _least_loaded(costs: Sequence[int], count: int) -> list[list[int]]:
    parts: list[list[int]] = [[] for _ in range(count)]
    heap = [(0, part) for part in range(count)]
    for i, cost in enumerate(costs):
        load, part = heap[0]
        parts[part].append(i)
        heapq.heapreplace(heap, (load + cost, part))
    return parts


def _best_fit(costs: Sequence[int], count: int, size: int) -> list[list[int]] | None:
    """Everything in parts of at most `size`; None where it doesn't fit that way."""
    parts: list[list[int]] = [[] for _ in range(count)]
    loads = [(0, part) for part in range(count)]
    for i, cost in enumerate(costs):
        place = bisect.bisect_right(loads, (size - cost, count)) - 1
        if place < 0:
            return None
        load, part = loads.pop(place)
        parts[part].append(i)
        bisect.insort(loads, (load + cost, part))
    return parts
