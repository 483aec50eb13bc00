"""The build as Chrome trace JSON, for Perfetto and chrome://tracing. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import Any, Protocol, TypeVar

from jitcache.report.model import Edge, Report

_ROUNDING_S = 1e-6
"""Logs have whole milliseconds; a sum of two such floats can be off by far less than this."""


class Placed(Protocol):
    """A command with its place in time."""

    @property
    def output(self) -> str:
        """Names it."""

    @property
    def label(self) -> str:
        """Its name for people, or ""."""

    @property
    def start_s(self) -> float:
        """When it began."""

    @property
    def duration_s(self) -> float:
        """How long it took."""


P = TypeVar("P", bound=Placed)


def lanes(edges: Iterable[P]) -> list[tuple[int, P]]:
    """A worker for each command: the lowest that is free when it starts.

    ninja doesn't log which job ran what; this draws as few rows as commands ran at once.

    Returns:
        (worker, command) by start.
    """
    free: list[int] = []
    busy: list[tuple[float, int]] = []
    found = []
    count = 0
    for e in sorted(edges, key=lambda e: (e.start_s, -e.duration_s, e.output)):
        while busy and busy[0][0] <= e.start_s + _ROUNDING_S:
            heapq.heappush(free, heapq.heappop(busy)[1])
        if free:
            lane = heapq.heappop(free)
        else:
            lane = count
            count += 1
        found.append((lane, e))
        heapq.heappush(busy, (e.start_s + e.duration_s, lane))
    return found


def trace(report: Report) -> dict[str, Any]:
    """The trace: one thread per worker, the critical path once more in a thread of its own."""
    placed = lanes(report.edges)
    workers = max((lane for lane, _ in placed), default=-1) + 1
    events: list[dict[str, Any]] = [
        _name("process_name", 0, report.directory),
        *(_name("thread_name", n, f"worker {n + 1}") for n in range(workers)),
        _name("thread_name", workers, "critical path"),
    ]
    for lane, e in placed:
        events.append(_event(e, lane))
        if e.on_critical_path:
            events.append(_event(e, workers))
    return {"displayTimeUnit": "ms", "traceEvents": events}


def _name(kind: str, thread: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": 1, "tid": thread, "args": {"name": name}}


def _event(e: Edge, thread: int) -> dict[str, Any]:
    # The format counts in microseconds.
    return {
        "ph": "X",
        "name": e.label,
        "cat": "critical" if e.on_critical_path else e.rule or "command",
        "pid": 1,
        "tid": thread,
        "ts": round(e.start_s * 1e6),
        "dur": round(e.duration_s * 1e6),
        "args": {"output": e.output, "rule": e.rule, "slack_s": e.slack_s},
    }
