"""Limits for CI: a budget in seconds, and how much slower than a base is too slow. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from jitcache.errors import UsageError
from jitcache.report.compare import Base, change_text
from jitcache.report.model import Report
from jitcache.text import seconds

_PARTS = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?:in)?)?(?:(\d+(?:\.\d+)?)s?)?")
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%?")


@dataclass(frozen=True, slots=True)
class Gate:
    """A limit and what became of it.

    Attributes:
        kind: `budget` or `slower`.
        ok: whether the build keeps it.
        limit_s: the limit.
        actual_s: what was compared with it.
        text: one sentence.
    """

    kind: str
    ok: bool
    limit_s: float
    actual_s: float
    text: str


def parse_budget(text: str) -> float:
    """Seconds of `300s`, `300`, `5m`, `1h30m`, `2m30s`.

    Raises:
        UsageError: it is none of these, or no time at all.
    """
    m = _PARTS.fullmatch(text.strip())
    total = 0.0
    if m is not None and len(text) < 20:
        total = int(m[1] or 0) * 3600 + int(m[2] or 0) * 60 + float(m[3] or 0)
    if total <= 0:
        raise UsageError(f"{text!r} is no budget", hint="write 300s, 5m or 1h30m")
    return total


def parse_percent(text: str) -> float:
    """The share of `10%` or `10`: 0.1.

    Raises:
        UsageError: it is no percentage.
    """
    m = _PERCENT.fullmatch(text.strip())
    if m is None or len(text) > 12:
        raise UsageError(f"--by {text!r} is no percentage", hint="write 10%")
    return float(m[1]) / 100


def budget_gate(report: Report, budget_s: float) -> Gate:
    """Whether the wall time, measured or predicted, fits a watchdog's patience."""
    ok = report.wall_s <= budget_s
    what = "predicted cold build" if report.predicted else "measured build"
    text = f"budget {seconds(budget_s)}: {what} takes {seconds(report.wall_s)}"
    if ok:
        text += f", {seconds(budget_s - report.wall_s)} to spare"
    else:
        text += f", {seconds(report.wall_s - budget_s)} over"
        if report.critical_path_s > budget_s and not report.guessed:
            path = seconds(report.critical_path_s)
            text += f"; no number of jobs helps, the critical path alone takes {path}"
    return Gate("budget", ok, budget_s, report.wall_s, text)


def slower_gate(report: Report, base: Base, by: float) -> Gate:
    """Whether the wall time is at most `1 + by` times the base's."""
    limit = base.wall_s * (1 + by)
    ok = report.wall_s <= limit
    text = (
        f"wall {change_text(base.wall_s, report.wall_s)}: "
        f"{'within' if ok else 'more than'} {by * 100:g} % over the base"
    )
    return Gate("slower", ok, limit, report.wall_s, text)
