"""What a build would take: bounds, and a simulation of ninja with N jobs.

Pure functions over a `Network`; all times are whole milliseconds. The simulation starts
commands as ninja does: whenever a job is free, the ready command of highest priority whose
pool has room. Durations are taken as measured: commands that slowed one another down in the
measured build are simulated just as slow.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from jitcache.buildlog.network import Network
from jitcache.errors import InputError

Order = Literal["file", "depth", "longest"]
"""Which ready command goes first: `file`, the order of build.ninja (ninja 1.11 and older);
`depth`, the one with most commands behind it in a chain (ninja 1.12 and newer); `longest`,
the one with the longest time behind it."""

_FIT_TRIES = 64


def ninja_order(log_version: int) -> Order:
    """Whom the ninja starts first that wrote a log of this version.

    Version 5 is written by ninja up to 1.11, which takes the order of the file.
    """
    return "file" if log_version == 5 else "depth"


@dataclass(frozen=True, slots=True)
class Schedule:
    """A simulated build.

    Attributes:
        makespan_ms: from start to last end.
        start_ms: start of each command of the network.
        peak_jobs: most commands at one time.
        peak_memory: most memory at one time, in bytes; 0 where none was given.
    """

    makespan_ms: int
    start_ms: list[int]
    peak_jobs: int
    peak_memory: int


@dataclass(frozen=True, slots=True)
class WhatIf:
    """What a change of some durations would do.

    Attributes:
        makespan_ms: simulated makespan with the change.
        critical_path_ms: longest chain with the change.
    """

    makespan_ms: int
    critical_path_ms: int


def lower_bound(network: Network, jobs: int, critical_path_ms: int) -> int:
    """No schedule with `jobs` jobs is shorter: longest chain, and work shared evenly."""
    return max(critical_path_ms, -(-network.work_ms // jobs))


def simulate(
    network: Network,
    jobs: int,
    *,
    order: Order = "depth",
    memory: Sequence[int] | None = None,
    memory_limit: int | None = None,
) -> Schedule:
    """Run the network with N jobs.

    Args:
        network: what to run; commands that don't run take neither time nor a job.
        jobs: commands at one time, at least 1.
        order: who goes first.
        memory: bytes each command needs, by index.
        memory_limit: bytes all running commands may need together; a command that alone
            needs more runs alone.

    Raises:
        InputError: jobs below 1.
    """
    if jobs < 1:
        raise InputError(f"{jobs} jobs can't build anything", hint="give at least 1")
    return _Simulation(network, jobs, order, memory, memory_limit).run()


def what_if(
    network: Network, durations: dict[int, int], jobs: int, *, order: Order = "depth"
) -> WhatIf:
    """Simulate a change of durations (0 removes a command)."""
    changed = network.with_durations(durations)
    return WhatIf(
        simulate(changed, jobs, order=order).makespan_ms,
        max(_behind(changed, [c.duration_ms for c in changed.commands]), default=0),
    )


def _behind(network: Network, weights: list[int]) -> list[int]:
    """Heaviest chain that begins with each command."""
    chain = list(weights)
    after = [0] * len(weights)
    for i in reversed(network.order):
        chain[i] = weights[i] + after[i]
        for p in network.commands[i].preds:
            after[p] = max(after[p], chain[i])
    return chain


class _Simulation:
    def __init__(
        self,
        network: Network,
        jobs: int,
        order: Order,
        memory: Sequence[int] | None,
        memory_limit: int | None,
    ) -> None:
        self.commands = network.commands
        self.jobs = jobs
        self.memory = memory
        self.limit = memory_limit
        self.after = network.after
        self.waits = [len(c.preds) for c in self.commands]
        if order == "file":
            self.rank = [0] * len(self.commands)
        elif order == "depth":
            self.rank = _behind(network, [int(c.rule != "phony") for c in self.commands])
        else:
            self.rank = _behind(network, [c.duration_ms for c in self.commands])
        self.room = {name: depth for name, depth in network.pools.items() if depth > 0}
        self.pooled: dict[str, list[tuple[int, int]]] = {}
        self.ready: list[tuple[int, int]] = []
        self.running: list[tuple[int, int]] = []
        self.start = [0] * len(self.commands)
        self.used = self.peak_memory = self.peak_jobs = 0

    def run(self) -> Schedule:
        now = 0
        for i in range(len(self.commands)):
            if not self.commands[i].preds:
                self.release(i, now)
        while True:
            self.fill(now)
            if not self.running:
                break
            now, i = heapq.heappop(self.running)
            self.finish(i, now)
            while self.running and self.running[0][0] == now:
                self.finish(heapq.heappop(self.running)[1], now)
        return Schedule(now, self.start, self.peak_jobs, self.peak_memory)

    def release(self, first: int, now: int) -> None:
        """A command whose inputs are there; those that don't run are done at once."""
        stack = [first]
        while stack:
            i = stack.pop()
            if self.commands[i].ran:
                heapq.heappush(self.ready, (-self.rank[i], i))
                continue
            self.start[i] = now
            for s in self.after[i]:
                self.waits[s] -= 1
                if self.waits[s] == 0:
                    stack.append(s)

    def fill(self, now: int) -> None:
        aside: list[tuple[int, int]] = []
        while self.ready and len(self.running) < self.jobs and len(aside) < _FIT_TRIES:
            item = heapq.heappop(self.ready)
            i = item[1]
            pool = self.commands[i].pool
            if self.room.get(pool, 1) == 0:
                heapq.heappush(self.pooled.setdefault(pool, []), item)
                continue
            if not self.fits(i):
                aside.append(item)
                continue
            if pool in self.room:
                self.room[pool] -= 1
            if self.memory is not None:
                self.used += self.memory[i]
                self.peak_memory = max(self.peak_memory, self.used)
            self.start[i] = now
            heapq.heappush(self.running, (now + self.commands[i].duration_ms, i))
            self.peak_jobs = max(self.peak_jobs, len(self.running))
        for item in aside:
            heapq.heappush(self.ready, item)

    def fits(self, i: int) -> bool:
        if self.memory is None or self.limit is None or not self.running:
            return True
        return self.used + self.memory[i] <= self.limit

    def finish(self, i: int, now: int) -> None:
        pool = self.commands[i].pool
        if pool in self.room:
            self.room[pool] += 1
            if waiting := self.pooled.get(pool):
                heapq.heappush(self.ready, heapq.heappop(waiting))
        if self.memory is not None:
            self.used -= self.memory[i]
        for s in self.after[i]:
            self.waits[s] -= 1
            if self.waits[s] == 0:
                self.release(s, now)
