"""Two builds side by side: which commands changed, and what became of the wall time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import msgspec

from jitcache.buildlog.schedule import ninja_order
from jitcache.errors import InputError
from jitcache.report.dependencies import Node
from jitcache.report.model import Report
from jitcache.report.text import shortened
from jitcache.report.wallchange import Effect, NotExplained, Side, WallChange, explain
from jitcache.text import seconds, table

NOTICEABLE_S = 0.05
"""Smaller changes of one command are noise and aren't listed."""

MAX_BASE = 1 << 28
"""Largest file that is read as a base, in bytes."""

_Seconds = Annotated[float, msgspec.Meta(ge=0)]


class BaseEdge(msgspec.Struct, frozen=True):
    """What a comparison needs of one command of the earlier build."""

    output: str
    duration_s: _Seconds
    label: str = ""
    start_s: _Seconds = 0.0


class BaseJobs(msgspec.Struct, frozen=True):
    """How many commands the earlier build ran at one time."""

    jobs: Annotated[int, msgspec.Meta(ge=1)] = 1


class Base(msgspec.Struct, frozen=True):
    """The earlier build, as `jitcache report --json` wrote it; other keys are ignored."""

    wall_s: _Seconds
    critical_path_s: _Seconds
    edges: list[BaseEdge]
    graph: list[Node] = []
    pools: dict[str, Annotated[int, msgspec.Meta(ge=1)]] = {}
    efficiency: BaseJobs | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """One command in both builds; None where a build lacks it.

    Attributes:
        effect: what its change did to the wall time and the critical path, where it has a
            step of its own (`jitcache.report.wallchange`).
    """

    output: str
    label: str
    before_s: float | None
    after_s: float | None
    on_critical_path: bool
    effect: Effect | None = None

    @property
    def delta_s(self) -> float:
        """How much longer it takes now."""
        return (self.after_s or 0.0) - (self.before_s or 0.0)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What changed; `changes` holds the noticeable ones, largest first.

    Attributes:
        explained: what the change of the wall time is made of.
        base_edges: the earlier build's commands, by the outputs that the later one has.
    """

    wall_before_s: float
    wall_after_s: float
    path_before_s: float
    path_after_s: float
    changes: tuple[Change, ...]
    explained: WallChange | NotExplained
    base_edges: tuple[BaseEdge, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values in a stable order."""
        value = asdict(self)
        for row, change in zip(value["changes"], self.changes, strict=True):
            row["delta_s"] = round(change.delta_s, 6)
        value["explained"].pop("effects", None)
        del value["base_edges"]
        return value


def read_base(path: Path) -> Base:
    """The earlier build: a file that `jitcache report --json` wrote.

    Raises:
        InputError: it can't be read, or isn't a report.
    """
    hint = "write one with `jitcache report BUILD_DIR --json > base.json`"
    try:
        if path.is_file() and path.stat().st_size > MAX_BASE:
            raise InputError("larger than 256 MiB", where=str(path), hint=hint)
        base = msgspec.json.decode(path.read_bytes(), type=Base)
    except OSError as e:
        raise InputError(f"can't be read: {e.strerror or e}", where=str(path), hint=hint) from e
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as e:
        raise InputError(f"not a report: {e}", where=str(path), hint=hint) from e
    if any(not 0 <= p < len(base.graph) for n in base.graph for p in n.waits_for):
        raise InputError("not a report: its graph has loose ends", where=str(path), hint=hint)
    return base


def aligned(base: Base, report: Report) -> Base:
    """The base with the run's outputs where only directories of actions tell them apart.

    jitcache compiles below a directory that is named by the action's key, so the same kernel
    has another output after any change. Commands that have no partner by output are matched
    by label, where each build has one such command.
    """
    here, there = {e.output for e in report.edges}, {e.output for e in base.edges}
    mine = _single({e.output: e.label for e in report.edges if e.output not in there})
    theirs = _single({e.output: e.label for e in base.edges if e.output not in here})
    names = {theirs[label]: output for label, output in mine.items() if label in theirs}
    return msgspec.structs.replace(
        base,
        edges=[
            msgspec.structs.replace(e, output=names.get(e.output, e.output)) for e in base.edges
        ],
        graph=[replace(n, output=names.get(n.output, n.output)) for n in base.graph],
    )


def _single(labels: dict[str, str]) -> dict[str, str]:
    """Outputs by label, for labels that one output has."""
    count = Counter(labels.values())
    return {label: output for output, label in labels.items() if label and count[label] == 1}


def compare(base: Base, report: Report) -> Comparison:
    """Compare a build with an earlier one, command by command."""
    base = aligned(base, report)
    before = {e.output: e for e in base.edges}
    after = {e.output: e for e in report.edges}
    changes = []
    for output in _both(before, after):
        old, new = before.get(output), after.get(output)
        changes.append(
            Change(
                output,
                new.label if new else (old.label if old else "") or output,
                old.duration_s if old else None,
                new.duration_s if new else None,
                bool(new and new.on_critical_path),
            )
        )
    noticeable = [c for c in changes if abs(c.delta_s) >= NOTICEABLE_S]
    noticeable.sort(key=lambda c: (-abs(c.delta_s), c.output))
    largest_first = [c.output for c in noticeable]
    order = ninja_order(report.log_version)
    explained = explain(*_sides(base, report), largest_first, order=order)
    if isinstance(explained, WallChange):
        noticeable = [replace(c, effect=explained.effects.get(c.output)) for c in noticeable]
    return Comparison(
        base.wall_s,
        report.wall_s,
        base.critical_path_s,
        report.critical_path_s,
        tuple(noticeable),
        explained,
        tuple(base.edges),
    )


def _sides(base: Base, report: Report) -> tuple[Side, Side]:
    jobs = report.efficiency.jobs
    before = Side(
        {e.output: e.duration_s for e in base.edges},
        base.graph,
        base.pools,
        base.efficiency.jobs if base.efficiency else jobs,
        base.wall_s,
        base.critical_path_s,
    )
    after = Side(
        {e.output: e.duration_s for e in report.edges},
        report.graph,
        report.pools,
        jobs,
        report.wall_s,
        report.critical_path_s,
    )
    return before, after


def change_text(before_s: float, after_s: float) -> str:
    """`54.9 s -> 24.1 s (-56.1 %)`."""
    share = f" ({(after_s / before_s - 1) * 100:+.1f} %)" if before_s else ""
    return f"{seconds(before_s)} -> {seconds(after_s)}{share}"


def render(comparison: Comparison, *, top: int = 20) -> str:
    """The comparison as text; `top` rows, 0 for all."""
    c = comparison
    path = change_text(c.path_before_s, c.path_after_s)
    wall = change_text(c.wall_before_s, c.wall_after_s)
    lines = [f"compared with the base: wall {wall}; critical path {path}"]
    shown = c.changes[:top] if top else c.changes
    if shown:
        rows = [["*" if k.on_critical_path else " ", *change_cells(k)] for k in shown]
        lines.append(table(["", *CHANGE_COLUMNS], rows, right="llrrrrr"))
    else:
        lines.append(f"no command changed by {NOTICEABLE_S} s or more")
    if len(shown) < len(c.changes):
        lines.append(f"   {len(c.changes) - len(shown)} smaller changes (--top 0 shows all)")
    return "\n".join([*lines, explanation(c)])


CHANGE_COLUMNS = ("command", "before", "after", "change", "wall", "path")
"""Titles of `change_cells`; all times in seconds."""


def change_cells(change: Change) -> list[str]:
    """A row for people: the command, its two durations, and what their difference did."""
    k, effect = change, change.effect
    return [
        shortened(k.label),
        "new" if k.before_s is None else f"{k.before_s:.3f}",
        "gone" if k.after_s is None else f"{k.after_s:.3f}",
        f"{k.delta_s:+.3f}",
        f"{effect.wall_s:+.3f}" if effect else "",
        f"{effect.path_s:+.3f}" if effect else "",
    ]


def explanation(comparison: Comparison) -> str:
    """One sentence: what the change of the wall time is made of, and what remains."""
    e, c = comparison.explained, comparison
    if isinstance(e, NotExplained):
        return f"what each change did to the wall time isn't known: {e.reason}"
    own = sum(k.effect.wall_s for k in c.changes if k.effect)
    parts = [f"{own:+.3f} s by the commands listed"]
    if e.others_count:
        parts.append(f"{e.others.wall_s:+.3f} s by {e.others_count} others")
    if e.jobs.wall_s:
        parts.append(f"{e.jobs.wall_s:+.3f} s by another number of jobs")
    parts.append(f"{e.remainder.wall_s:+.3f} s that the simulation doesn't explain")
    return f"of the wall's {c.wall_after_s - c.wall_before_s:+.3f} s: {', '.join(parts)}"


def _both(before: Iterable[str], after: Iterable[str]) -> list[str]:
    return list(dict.fromkeys([*after, *before]))
