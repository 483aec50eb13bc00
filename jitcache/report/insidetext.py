"""What was spent inside translation units, as text and as Markdown. Pure."""

from __future__ import annotations

from jitcache.buildlog.kernelnames import printable
from jitcache.buildlog.tutime import PHASES, Cost, TuTime
from jitcache.report.insidetu import AGAIN, InsideTus, UnitTime, costliest
from jitcache.report.markdown import escape, markdown_table
from jitcache.report.text import shortened
from jitcache.text import seconds, table

_NAME = 88
_HEADERS = "headers, while innermost open"


def render(inside: InsideTus, *, top: int = 10) -> str:
    """The phases of each unit, then the names that cost most over all units.

    Args:
        inside: what was collected.
        top: rows of each table; 0 for all.
    """
    parts = [
        f"inside {_count(inside)}: {seconds(inside.together.total_us / 1e6)}, {_phrase(inside)}",
        table(
            ["translation unit", "total", *PHASES],
            [[shortened(name), *cells] for name, cells in _phases(inside)],
            right="l" + "r" * (len(PHASES) + 1),
        ),
    ]
    for title, rows in _lists(inside.together, top):
        cells = [
            [f"{c.self_us / 1e6:.3f}", f"{c.total_us / 1e6:.3f}", str(c.count), _name(title, n)]
            for n, c in rows
        ]
        parts.append(table(["self", "total", "count", title], cells, right="rrrl"))
    parts.append(_remarks(inside))
    return "\n\n".join(p for p in parts if p)


def render_markdown(inside: InsideTus, *, top: int = 5) -> str:
    """The same for a comment in CI."""
    parts = [
        f"Inside {escape(_count(inside))}: {_phrase(inside)}",
        markdown_table(
            ["translation unit", "total", *PHASES],
            [[escape(shortened(name)), *cells] for name, cells in _phases(inside)],
        ),
    ]
    for title, rows in _lists(inside.together, top):
        cells = [
            [
                escape(_name(title, name)),
                f"{c.self_us / 1e6:.3f} s",
                f"{c.total_us / 1e6:.3f} s",
                str(c.count),
            ]
            for name, c in rows
        ]
        parts.append(markdown_table([title, "self", "total", "count"], cells))
    return "\n\n".join([*parts, *(f"Note: {escape(n)}" for n in _notes(inside))])


def _count(inside: InsideTus) -> str:
    if len(inside.units) == 1:
        return inside.units[0].label
    return f"the {len(inside.units)} slowest translation units"


def _phrase(inside: InsideTus) -> str:
    sources = {u.source for u in inside.units}
    if sources == {AGAIN}:
        return "compiled again with a time trace"
    return "time traces " + " or ".join(sorted(sources))


def _phases(inside: InsideTus) -> list[tuple[str, list[str]]]:
    rows = [(u.label, _cells(u.time)) for u in inside.units]
    if len(rows) > 1:
        rows.append(("together", _cells(inside.together)))
    return rows


def _cells(time: TuTime) -> list[str]:
    total = time.total_us or 1
    shares = [f"{us / 1e6:.1f} s {us / total * 100:3.0f} %" for us in time.phases.values()]
    return [f"{time.total_us / 1e6:.1f} s", *shares]


def _lists(time: TuTime, top: int) -> list[tuple[str, list[tuple[str, Cost]]]]:
    activities = [(f"{name} ({phase})", c) for (phase, name), c in costliest(time.activities)]
    found = [
        ("templates, by self time", costliest(time.templates)),
        (_HEADERS, costliest(time.headers)),
        ("what the compiler did", activities),
    ]
    return [
        (title, [(printable(n), c) for n, c in (rows[:top] if top else rows)])
        for title, rows in found
        if rows
    ]


def _name(title: str, name: str) -> str:
    """A name no longer than a column; of a path the end is kept."""
    if title == _HEADERS and len(name) > _NAME:
        return f"...{name[-(_NAME - 3) :]}"
    return shortened(name, _NAME)


def _notes(inside: InsideTus) -> list[str]:
    notes = [f"{u.label}: {note}" for u in inside.units for note in _unit_notes(u)]
    return notes + [f"no trace of {label}: {why}" for label, why in inside.left_out]


def _unit_notes(unit: UnitTime) -> list[str]:
    several = [f"passes for {', '.join(unit.targets)}"] if len(unit.targets) > 1 else []
    return several + list(unit.notes)


def _remarks(inside: InsideTus) -> str:
    return "\n".join(f"note: {printable(n)}" for n in _notes(inside))
