"""Read the events that `edge.py` appends while a run goes on.

The file may be read at any moment and after any accident: half a line is waited for, a line
that makes no sense is passed over and counted.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jitcache.build.model import EdgeUsage

RUN_END = "run-end"
_LONGEST_LINE = 1 << 16
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class EdgeStart:
    """A compiler was started.

    Attributes:
        id: of the action.
        at: CLOCK_MONOTONIC seconds; the same clock for all processes of a machine.
    """

    id: str
    at: float


@dataclass(frozen=True, slots=True)
class EdgeEnd:
    """A compiler has ended.

    Attributes:
        id: of the action.
        at: CLOCK_MONOTONIC seconds.
        wall_s: wall-clock seconds.
        cpu_s: CPU seconds of the compiler and the processes it waited for.
        peak_rss: bytes.
        status: exit status, negative for a signal.
        full: whether the edge saw a full disk.
        missing: number of the first expected file that isn't there, for status 0.
    """

    id: str
    at: float
    wall_s: float
    cpu_s: float
    peak_rss: int
    status: int
    full: bool
    missing: int | None

    @property
    def good(self) -> bool:
        """Whether the output may be used."""
        return self.status == 0 and self.missing is None

    def usage(self, begin: float) -> EdgeUsage:
        """Cost, with the start counted from `begin` (CLOCK_MONOTONIC)."""
        return EdgeUsage(
            start_s=self.at - self.wall_s - begin,
            wall_s=self.wall_s,
            cpu_s=self.cpu_s,
            peak_rss=self.peak_rss,
        )


EdgeEvent = EdgeStart | EdgeEnd


def parse_line(line: bytes) -> EdgeEvent | None:
    """One line of the file; None for anything that is no complete edge event."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    match value.get("event"):
        case "start" if _has(value, id=str, at=float):
            return EdgeStart(value["id"], value["at"])
        case "end" if _has(
            value, id=str, at=float, wall=float, cpu=float, rss=int, status=int, full=int
        ) and isinstance(value.get("missing"), int | None):
            return EdgeEnd(
                id=value["id"],
                at=value["at"],
                wall_s=value["wall"],
                cpu_s=value["cpu"],
                peak_rss=value["rss"],
                status=value["status"],
                full=bool(value["full"]),
                missing=value.get("missing"),
            )
        case _:
            return None


def _has(value: dict[str, Any], **types: type) -> bool:
    return all(type(value.get(name)) is kind for name, kind in types.items())


class EventTail:
    """Follow an events file: each call of `read` gives what was added since the last.

    Used in a `with` block, which closes the file.

    Attributes:
        skipped: lines passed over because they make no sense.
    """

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._rest = b""
        self.skipped = 0

    def __enter__(self) -> EventTail:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def read(self) -> Iterator[EdgeEvent]:
        """Events that are complete by now.

        Raises:
            OSError: the file can't be read.
        """
        while chunk := os.read(self._fd, _CHUNK):
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            for line in lines:
                event = parse_line(line)
                if event is not None:
                    yield event
                elif line:
                    self.skipped += 1
            if len(self._rest) > _LONGEST_LINE:
                # No line of ours is that long; what follows the next newline may be one.
                self._rest = b"!"


def run_ended(path: Path) -> bool:
    """Whether the run behind an events file came to its end (rather than being killed)."""
    try:
        with path.open("rb") as f:
            f.seek(max(0, os.fstat(f.fileno()).st_size - _LONGEST_LINE))
            lines = f.read().splitlines()
    except OSError:
        return False
    if not lines:
        return False
    try:
        value = json.loads(lines[-1])
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and value.get("event") == RUN_END
