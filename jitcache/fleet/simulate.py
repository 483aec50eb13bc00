"""How long a fleet takes, and what it asks of its servers. Pure.

The model: each worker compiles one action at a time on a CPU of its own; an action takes its
measured CPU time, times a factor that nobody could foresee; a worker is ready only after a
start-up. With shares, who builds what is fixed by the expected costs. With leases, whoever is
free takes the next one. Moving a result takes its bytes through one shared link, and
the server answers so many requests in a second.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from jitcache.fleet.balance import bound_ms, split

Mode = Literal["shares", "leases"]
Limit = Literal["longest action", "work", "bandwidth", "requests", "start-up"]

REQUESTS: dict[Mode, int] = {"shares": 5, "leases": 7}
"""Requests to a bucket for one action. Two questions for the record, two blobs and the record
(counted); with leases besides: the lease and its end. A registry takes twice as many."""

_LISTS = 4
_BEATS_PER_S = 4 / 60
"""Heartbeats of one worker with leases that expire after a minute."""
_LOOKS_PER_S = 1 / 15
"""How often an idle worker reads the lists."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a fleet runs in.

    Attributes:
        start_ms: from the start of a worker to its first compile.
        result_bytes: bytes that one action pushes.
        bandwidth: bytes a second that the servers take from all workers together.
        requests_per_s: what the servers answer.
        spread: standard deviation of the logarithm of measured over expected cost.
    """

    start_ms: int
    result_bytes: int
    bandwidth: float
    requests_per_s: float
    spread: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run would be.

    Attributes:
        makespan_ms: until the last action is published.
        bound_ms: no schedule of the real costs is shorter.
        requests_per_s: asked of the servers, on average.
        bytes_per_s: pushed, on average.
        limit: what to change to make it shorter.
    """

    makespan_ms: int
    bound_ms: int
    requests_per_s: float
    bytes_per_s: float
    limit: Limit


def real_costs(expected_ms: Sequence[int], spread: float, seed: int = 1) -> list[int]:
    """What the actions take in the end: expected costs times random factors around 1."""
    chance = random.Random(seed)  # noqa: S311 -- a simulation that has to be repeatable
    return [max(1, round(c * chance.lognormvariate(0, spread))) for c in expected_ms]


def schedule_ms(
    expected_ms: Sequence[int], real_ms: Sequence[int], workers: int, mode: Mode
) -> int:
    """Time until the last worker is through, longest expected first."""
    order = sorted(range(len(expected_ms)), key=lambda i: -expected_ms[i])
    real = [real_ms[i] for i in order]
    if mode == "shares":
        # Who builds what is fixed by what was expected.
        parts = split([expected_ms[i] for i in order], workers)
        return max(sum(real[i] for i in part) for part in parts)
    ends = [0] * workers
    for cost in real:
        heapq.heapreplace(ends, ends[0] + cost)
    return max(ends)


def simulate(expected_ms: Sequence[int], workers: int, mode: Mode, around: Surroundings) -> Outcome:
    """One run.

    Args:
        expected_ms: expected costs of all actions; at least one.
        workers: how many workers.
        mode: how the work is shared.
        around: start-up, link and servers.
    """
    real_ms = real_costs(expected_ms, around.spread)
    count = len(real_ms)
    requests = count * REQUESTS[mode]
    compiling_ms = schedule_ms(expected_ms, real_ms, workers, mode)
    moving_ms = round(count * around.result_bytes / around.bandwidth * 1000)
    asking_ms = round(requests / around.requests_per_s * 1000)
    makespan_ms = around.start_ms + max(compiling_ms, moving_ms, asking_ms)
    steady = 0.0
    if mode == "leases":
        idle = max(0, workers - count)
        # Every worker reads the lists when it starts, and when its own share is done.
        requests += 2 * _LISTS * workers
        steady = workers * _BEATS_PER_S + idle * _LISTS * _LOOKS_PER_S
    return Outcome(
        makespan_ms=makespan_ms,
        bound_ms=bound_ms(real_ms, workers),
        requests_per_s=requests * 1000 / makespan_ms + steady,
        bytes_per_s=count * around.result_bytes * 1000 / makespan_ms,
        limit=_limit(real_ms, workers, compiling_ms, moving_ms, asking_ms, around.start_ms),
    )


def _limit(
    real_ms: Sequence[int],
    workers: int,
    compiling_ms: int,
    moving_ms: int,
    asking_ms: int,
    start_ms: int,
) -> Limit:
    if max(moving_ms, asking_ms) > compiling_ms:
        return "bandwidth" if moving_ms >= asking_ms else "requests"
    if start_ms > compiling_ms:
        return "start-up"
    # Within a tenth of the longest action, more workers change nothing.
    alone = max(real_ms) * 10 >= compiling_ms * 9
    return "longest action" if alone and workers > 1 else "work"
