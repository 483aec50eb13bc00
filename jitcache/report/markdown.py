"""The report as Markdown, for a comment in CI. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from jitcache.buildlog.kernelnames import printable
from jitcache.report.compare import (
    CHANGE_COLUMNS,
    Comparison,
    change_cells,
    change_text,
    explanation,
)
from jitcache.report.gate import Gate
from jitcache.report.kernels import KernelTerms
from jitcache.report.kerneltext import HEADER, heading, saved_text, unit_cells, used_columns
from jitcache.report.model import Report
from jitcache.report.text import shortened, verdict
from jitcache.text import seconds

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>()#+!|~&@])")


def render(
    report: Report,
    *,
    gates: Sequence[Gate] = (),
    comparison: Comparison | None = None,
    top: int = 10,
) -> str:
    """The verdict, the limits, what changed and the longest commands.

    Args:
        report: what to show.
        gates: limits that were judged.
        comparison: with an earlier build.
        top: rows of each table; 0 for all.
    """
    parts = [f"**Build:** {escape(verdict(report))}"]
    if report.kernels is not None and report.kernels.bound:
        parts.append(f"{escape(report.kernels.bound)}.")
    if gates:
        parts.append(
            "\n".join(f"- {'kept' if g.ok else '**FAILED**'}: {escape(g.text)}" for g in gates)
        )
    if comparison is not None:
        parts.append(_changes(comparison, top))
    rows = report.edges[:top] if top else report.edges
    parts.append(
        markdown_table(
            ["command", "time", "share", "slack", "critical"],
            [
                [
                    escape(shortened(e.label)),
                    f"{e.duration_s:.3f} s",
                    f"{e.share * 100:.1f} %",
                    f"{e.slack_s:.3f} s",
                    "yes" if e.on_critical_path else "",
                ]
                for e in rows
            ],
        )
    )
    rest = report.edges[len(rows) :]
    if rest:
        total = seconds(sum(e.duration_s for e in rest))
        parts.append(f"{len(rest)} more commands, {total} together.")
    if report.kernels is not None:
        parts += _kernels(report.kernels, top)
    parts += [f"Note: {escape(n)}" for n in report.notes]
    return "\n\n".join(parts)


def _kernels(terms: KernelTerms, top: int) -> list[str]:
    """The units in kernel terms, and what pruning saved."""
    rows = [unit_cells(u) for u in (terms.units[:top] if top else terms.units)]
    used = used_columns(rows)
    # The label has the tile already.
    used.remove(HEADER.index("tile"))
    parts = []
    # Names and families alone tell nothing that the commands don't.
    if len(used) > 2:
        cells = [[escape(row[i]) for i in used] for row in rows]
        parts.append(f"**{escape(heading(terms))}**")
        parts.append(markdown_table([HEADER[i] for i in used], cells))
    if saved := saved_text(terms):
        parts.append(f"{escape(saved)}.")
    return parts


def escape(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return _SPECIAL.sub(r"\\\1", printable(text))


def _changes(c: Comparison, top: int) -> str:
    head = (
        f"Against the base: wall {change_text(c.wall_before_s, c.wall_after_s)}, "
        f"critical path {change_text(c.path_before_s, c.path_after_s)}"
    )
    shown = c.changes[:top] if top else c.changes
    if not shown:
        return head
    rows = [[escape(cell) for cell in change_cells(k)] for k in shown]
    changes = markdown_table(list(CHANGE_COLUMNS), rows)
    return f"{head}\n\n{changes}\n\nSeconds; {escape(explanation(c))}."


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """A table; the first column is aligned left, the others right. Cells are escaped already."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
