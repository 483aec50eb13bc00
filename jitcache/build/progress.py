"""Show a build while it runs: redrawn lines on a terminal, one line per TU elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import TextIO

from jitcache.build.model import CompileJob, Event, Failed, Finished, Started
from jitcache.text import seconds

_REDRAW_S = 0.25
_RED = "\x1b[31m"
_PLAIN = "\x1b[0m"


def remaining_s(
    running: Sequence[tuple[float, float | None]],
    waiting: Sequence[float | None],
    parallel: int,
    *,
    pace: float = 1.0,
) -> float | None:
    """Seconds until everything is done: each free worker takes the next waiting job.

    Args:
        running: elapsed and expected seconds of what runs.
        waiting: expected seconds of what waits, in starting order.
        parallel: workers.
        pace: measured over expected time so far.

    Returns:
        None where an expected time is missing.
    """
    ends = []
    for elapsed, expected in running:
        if expected is None:
            return None
        ends.append(max(0.0, expected * pace - elapsed))
    ends += [0.0] * (parallel - len(ends))
    for expected in waiting:
        if expected is None:
            return None
        first = min(range(len(ends)), key=ends.__getitem__)
        ends[first] += expected * pace
    return max(ends, default=0.0)


class Progress:
    """What a build shows of itself. Give `event` to `run` as its `on_event`, or call it there.

    Used in a `with` block: leaving it wipes the redrawn lines. A stream that can't be
    written to any more ends the show, never the build.

    Args:
        jobs: all jobs of the run, with their expected costs.
        parallel: how many run at once, for the time left.
        stream: where to write; stderr when not given.
        quiet: write nothing.
        live: redraw (True) or write lines (False); by default redraw on a terminal.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        jobs: Sequence[CompileJob],
        parallel: int,
        *,
        stream: TextIO | None = None,
        quiet: bool = False,
        live: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        if live is None:
            live = self._stream.isatty() and os.environ.get("TERM", "") != "dumb"
        self._colour = live and not os.environ.get("NO_COLOR")
        self._live = live and not quiet
        self._quiet = quiet
        self._parallel = parallel
        self._clock = clock
        self._total = len(jobs)
        # The order in which the run starts them (action.longest_first).
        unknown = float("inf")
        self._waiting = sorted(jobs, key=lambda j: -(unknown if j.cost_s is None else j.cost_s))
        self._running: dict[str, tuple[CompileJob, float]] = {}
        self._done = 0
        self._measured_s = 0.0
        self._expected_s = 0.0
        self._known: list[float] = []
        self._drawn = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Progress:
        if self._live:
            self._thread = threading.Thread(target=self._redraw, name="progress", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            self._write(self._wiped())

    def event(self, event: Event) -> None:
        """Take note of an event, and show it."""
        with self._lock:
            match event:
                case Started(job, _):
                    self._running[job.key] = (job, self._clock())
                    self._waiting = [j for j in self._waiting if j.key != job.key]
                    text = ""
                case Finished(compiled):
                    self._end(compiled.job, compiled.usage.wall_s)
                    text = f"{seconds(compiled.usage.wall_s)}  {compiled.job.label}"
                case Failed(failure):
                    self._end(failure.job, None)
                    word = f"{_RED}FAILED{_PLAIN}" if self._colour else "FAILED"
                    text = f"{word}  {failure.job.label}: {failure.first_error}"
            line = f"[{self._done}/{self._total}] {text}\n" if text else ""
            self._show(line)

    def line(self, text: str) -> None:
        """A line of the caller's own, above the redrawn ones."""
        with self._lock:
            self._show(text + "\n")

    def left_s(self) -> float | None:
        """Expected seconds until the end; None where nothing is known yet.

        Jobs without an expected cost count as the mean of those that have ended.
        """
        usual = sum(self._known) / len(self._known) if self._known else None
        pace = self._measured_s / self._expected_s if self._expected_s > 0 else 1.0
        now = self._clock()

        def expected(job: CompileJob) -> float | None:
            if job.cost_s is not None:
                return job.cost_s
            return None if usual is None else usual / pace

        return remaining_s(
            [(now - begin, expected(job)) for job, begin in self._running.values()],
            [expected(job) for job in self._waiting],
            self._parallel,
            pace=pace,
        )

    def _end(self, job: CompileJob, wall_s: float | None) -> None:
        self._running.pop(job.key, None)
        self._waiting = [j for j in self._waiting if j.key != job.key]
        self._done += 1
        if wall_s is not None:
            self._known.append(wall_s)
            if job.cost_s:
                self._measured_s += wall_s
                self._expected_s += job.cost_s

    def _redraw(self) -> None:
        while not self._closing.wait(_REDRAW_S):
            with self._lock:
                self._show("")

    def _show(self, permanent: str) -> None:
        if self._quiet:
            return
        if not self._live:
            self._write(permanent)
            return
        lines = self._frame()
        text = self._wiped() + permanent + "".join(f"{line}\n" for line in lines)
        self._drawn = len(lines)
        self._write(text)

    def _wiped(self) -> str:
        """Escape codes that remove what was drawn last."""
        drawn, self._drawn = self._drawn, 0
        return f"\x1b[{drawn}A\r\x1b[J" if drawn else ""

    def _frame(self) -> list[str]:
        if not self._running:
            return []
        width, height = shutil.get_terminal_size()
        left = self.left_s()
        head = f"[{self._done}/{self._total}] {len(self._running)} running"
        if self._waiting:
            head += f", {len(self._waiting)} waiting"
        if left is not None:
            head += f", about {seconds(left)} left"
        lines = [head]
        now = self._clock()
        shown = list(self._running.values())[: max(1, height - 3)]
        for job, begin in shown:
            spent = f"{now - begin:.1f}"
            of = f" of {job.cost_s:.0f}" if job.cost_s is not None else ""
            lines.append(f"  {spent:>6}{of} s  {job.label}")
        if len(shown) < len(self._running):
            lines.append(f"  and {len(self._running) - len(shown)} more")
        return [line[: max(1, width - 1)] for line in lines]

    def _write(self, text: str) -> None:
        if not text:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            self._quiet, self._live = True, False
