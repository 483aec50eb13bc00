"""What bounded a build: critical path, slack, the blocking chain, efficiency.

Pure functions over a `Network`. The *critical path* is the longest chain of commands that
wait for one another: no number of jobs beats it. The *blocking chain* is what the clock saw
under the real number of jobs: going back from the last command, who kept each from
starting. All times are whole milliseconds.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Literal

from jitcache.buildlog.network import Network

_AT_ONCE_MS = 10
"""Ninja starts what is ready within this time if it has a job free."""

Reason = Literal["input", "pool", "slot", "start"]


@dataclass(frozen=True, slots=True)
class CriticalPath:
    """The longest chain, and how far every command is from being on one.

    Attributes:
        length_ms: sum of the durations on the path.
        path: indices of its commands that ran, first to last.
        slack_ms: per command of the network: how much longer it could take without making
            the longest chain longer.
    """

    length_ms: int
    path: tuple[int, ...]
    slack_ms: list[int]


@dataclass(frozen=True, slots=True)
class Link:
    """One command of the blocking chain.

    Attributes:
        index: the command.
        reason: what kept it from starting earlier: `input` (the previous link made what it
            needs), `slot` (the previous link held the job it got), `pool` (the same, and its
            pool was full), `start` (nothing before it).
        gap_ms: time between the end of the previous link and its start.
    """

    index: int
    reason: Reason
    gap_ms: int


@dataclass(frozen=True, slots=True)
class Usage:
    """How well the jobs were used.

    Attributes:
        peak_jobs: most commands at one time.
        at_ms: milliseconds during which exactly that many commands ran, by number.
    """

    peak_jobs: int
    at_ms: dict[int, int]

    @property
    def busy_ms(self) -> int:
        """Sum of all durations."""
        return sum(n * ms for n, ms in self.at_ms.items())

    @property
    def alone_ms(self) -> int:
        """Time with exactly one command."""
        return self.at_ms.get(1, 0)

    @property
    def nothing_ms(self) -> int:
        """Time with no command at all."""
        return self.at_ms.get(0, 0)

    @property
    def wall_ms(self) -> int:
        """From the start of ninja to the last end."""
        return sum(self.at_ms.values())

    def efficiency(self, jobs: int) -> float:
        """Share of `wall x jobs` in which commands ran; 1 where nothing took any time."""
        return self.busy_ms / (self.wall_ms * jobs) if self.wall_ms else 1.0


def critical_path(network: Network) -> CriticalPath:
    """The longest chain of the network, by duration."""
    commands = network.commands
    head = [0] * len(commands)  # longest chain up to and including the command
    came: list[int] = [-1] * len(commands)
    for i in network.order:
        best, best_key = -1, (0, -1, 0)
        for p in commands[i].preds:
            # Of equally long chains take the one that really finished last.
            key = (head[p], commands[p].end_ms or 0, -p)
            if best < 0 or key > best_key:
                best, best_key = p, key
        came[i] = best
        head[i] = best_key[0] + commands[i].duration_ms
    tail = [0] * len(commands)  # longest chain after the command
    for i in reversed(network.order):
        through = tail[i] + commands[i].duration_ms
        for p in commands[i].preds:
            tail[p] = max(tail[p], through)
    length = max(head, default=0)
    ends = [
        (commands[i].end_ms or 0, n, i) for n, i in enumerate(network.order) if head[i] == length
    ]
    at = max(ends)[2] if ends else -1
    path: list[int] = []
    while at >= 0:
        if commands[at].ran:
            path.append(at)
        at = came[at]
    slack = [length - h - t for h, t in zip(head, tail, strict=True)]
    return CriticalPath(length, tuple(reversed(path)), slack)


def ready_times(network: Network) -> list[tuple[int, int]]:
    """When each command's inputs were all there, and which command made the last (or -1)."""
    ready: list[tuple[int, int]] = [(0, -1)] * len(network.commands)
    for i in network.order:
        best = (0, -1)
        for p in network.commands[i].preds:
            end = network.commands[p].end_ms
            best = max(best, ready[p] if end is None else (end, p))
        ready[i] = best
    return ready


def contradictions(network: Network) -> list[int]:
    """Commands that started before their inputs were there: log and graph don't agree."""
    ready = ready_times(network)
    return [
        i
        for i, c in enumerate(network.commands)
        if c.start_ms is not None and c.start_ms + _AT_ONCE_MS < ready[i][0]
    ]


def blocking_chain(network: Network) -> tuple[Link, ...]:
    """Who kept whom from starting, from the first command to the last one to finish."""
    commands = network.commands
    finished = sorted((c.end_ms, i) for i, c in enumerate(commands) if c.end_ms is not None)
    if not finished:
        return ()
    ready = ready_times(network)
    chain: list[Link] = []
    seen: set[int] = set()
    at = finished[-1][1]
    while True:
        seen.add(at)
        start = commands[at].start_ms or 0
        input_end, by = ready[at]
        slot = bisect_right(finished, (start, len(commands))) - 1
        while slot >= 0 and finished[slot][1] in seen:
            slot -= 1
        reason: Reason = "input"
        if by < 0 or by in seen or start - input_end > _AT_ONCE_MS:
            before = finished[slot] if slot >= 0 else (0, -1)
            if before[0] > input_end or by in seen:
                input_end, by = before
                same_pool = by >= 0 and commands[at].pool and commands[by].pool == commands[at].pool
                reason = "pool" if same_pool else "slot"
        if by < 0:
            chain.append(Link(at, "start", start))
            return tuple(reversed(chain))
        chain.append(Link(at, reason, max(0, start - input_end)))
        at = by


def usage(network: Network) -> Usage:
    """How many commands ran at each moment."""
    events: list[tuple[int, int]] = []
    for c in network.commands:
        if c.start_ms is not None and c.end_ms is not None and c.end_ms > c.start_ms:
            events += [(c.start_ms, 1), (c.end_ms, -1)]
    at_ms: dict[int, int] = {}
    running = peak = now = 0
    for moment, change in sorted(events):
        if moment > now:
            at_ms[running] = at_ms.get(running, 0) + moment - now
            now = moment
        running += change
        peak = max(peak, running)
    return Usage(peak, dict(sorted(at_ms.items())))
