"""Two builds side by side: which commands changed, and what became of the wall time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from jitcache.errors import InputError
from jitcache.report.model import Report
from jitcache.report.text import shortened
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


class Base(msgspec.Struct, frozen=True):
    """The earlier build, as `jitcache report --json` wrote it; other keys are ignored."""

    wall_s: _Seconds
    critical_path_s: _Seconds
    edges: list[BaseEdge]


@dataclass(frozen=True, slots=True)
class Change:
    """One command in both builds; None where a build lacks it."""

    output: str
    label: str
    before_s: float | None
    after_s: float | None
    on_critical_path: bool

    @property
    def delta_s(self) -> float:
        """How much longer it takes now."""
        return (self.after_s or 0.0) - (self.before_s or 0.0)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What changed; `changes` holds the noticeable ones, largest first."""

    wall_before_s: float
    wall_after_s: float
    path_before_s: float
    path_after_s: float
    changes: tuple[Change, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values in a stable order."""
        value = asdict(self)
        for row, change in zip(value["changes"], self.changes, strict=True):
            row["delta_s"] = round(change.delta_s, 6)
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
        return msgspec.json.decode(path.read_bytes(), type=Base)
    except OSError as e:
        raise InputError(f"can't be read: {e.strerror or e}", where=str(path), hint=hint) from e
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as e:
        raise InputError(f"not a report: {e}", where=str(path), hint=hint) from e


def compare(base: Base, report: Report) -> Comparison:
    """Compare a build with an earlier one, command by command (matched by output)."""
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
    return Comparison(
        base.wall_s, report.wall_s, base.critical_path_s, report.critical_path_s, tuple(noticeable)
    )


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
        rows = [
            [
                "*" if k.on_critical_path else " ",
                shortened(k.label),
                "new" if k.before_s is None else f"{k.before_s:.3f}",
                "gone" if k.after_s is None else f"{k.after_s:.3f}",
                f"{k.delta_s:+.3f}",
            ]
            for k in shown
        ]
        lines.append(table(["", "command", "before", "after", "change"], rows, right="llrrr"))
    else:
        lines.append(f"no command changed by {NOTICEABLE_S} s or more")
    if len(shown) < len(c.changes):
        lines.append(f"   {len(c.changes) - len(shown)} smaller changes (--top 0 shows all)")
    return "\n".join(lines)


def _both(before: Iterable[str], after: Iterable[str]) -> list[str]:
    return list(dict.fromkeys([*after, *before]))
