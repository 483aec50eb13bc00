"""A build in kernel terms, as text and Markdown. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jitcache.report.kernels import KernelTerms, UnitCost, rows_text
from jitcache.text import seconds, size

if TYPE_CHECKING:
    from jitcache.report.model import Report

HEADER = (
    "kernel",
    "family",
    "tile",
    "cpu",
    "memory",
    "object",
    "VGPR",
    "AGPR",
    "SGPR",
    "spills",
    "LDS",
    "rows that need it",
)
RIGHT = "lllrrrrrrrrl"
"""Alignment of the columns."""

_LISTED = 20
"""Of what was left out, how much the page lists."""


def unit_cells(unit: UnitCost) -> list[str]:
    """A unit as a row; what isn't known is left empty."""
    r = unit.registers
    registers = [""] * 5
    if r is not None:
        spills = f"{r.vgpr_spills}+{r.sgpr_spills}" if r.vgpr_spills or r.sgpr_spills else "0"
        registers = [str(r.vgprs), str(r.agprs), str(r.sgprs), spills, str(r.lds)]
    return [
        unit.label,
        unit.family,
        unit.tile,
        "" if unit.cpu_s is None else f"{unit.cpu_s:.1f}",
        "" if unit.peak_rss is None else size(unit.peak_rss),
        "" if unit.bytes is None else size(unit.bytes),
        *registers,
        rows_text(unit.rows) if unit.rows_known else "",
    ]


def used_columns(rows: Sequence[Sequence[str]]) -> list[int]:
    """Columns that say anything."""
    return [i for i in range(len(HEADER)) if i == 0 or any(row[i] for row in rows)]


def heading(terms: KernelTerms) -> str:
    """Whose kernels they are."""
    whose = f" of {terms.manifest} on {terms.arch}, scope {terms.scope}" if terms.manifest else ""
    return f"Kernels{whose}"


def saved_text(terms: KernelTerms) -> str:
    """What pruning left out; "" where it isn't known or nothing was."""
    if not terms.left_out:
        return ""
    whole = [p for p in terms.left_out if p.whole]
    kernels = sum(p.kernels for p in terms.left_out)
    bases = Counter(p.basis for p in terms.left_out)
    how = ", ".join(f"{name} {count}" for name, count in bases.most_common())
    return (
        f"pruning left out {len(whole)} instances and {kernels} kernels of the stock modules: "
        f"about {seconds(terms.saved_s)} of CPU for their device code (estimated by {how})"
    )


def left_out_lines(terms: KernelTerms, most: int) -> list[str]:
    """The dearest that was left out, a line each."""
    dearest = sorted(terms.left_out, key=lambda p: -p.cost_s)
    shown = dearest[:most] if most else dearest
    return [
        f"{p.label}: {'all' if p.whole else 'other'} {p.kernels} kernels, "
        f"{seconds(p.cost_s)}; {p.why}"
        for p in shown
    ]


def render(report: Report, terms: KernelTerms, *, top: int) -> str:
    """The section of the text report.

    Args:
        report: the report.
        terms: its kernels.
        top: rows; 0 for all.
    """
    from jitcache.text import table

    units = terms.units[:top] if top else terms.units
    rows = [unit_cells(u) for u in units]
    used = used_columns(rows)
    critical = set(report.critical_path)
    text = table(
        ["", *(HEADER[i] for i in used)],
        [
            ["*" if u.output in critical else " ", *(row[i] for i in used)]
            for u, row in zip(units, rows, strict=True)
        ],
        right="l" + "".join(RIGHT[i] for i in used),
    )
    more = len(terms.units) - len(units)
    parts = [
        terms.bound,
        heading(terms),
        text,
        f"   {more} more (--top 0 shows all)" if more else "",
    ]
    if saved := saved_text(terms):
        parts += [saved, *(f"   {line}" for line in left_out_lines(terms, min(top, 5)))]
    return "\n".join(p for p in parts if p)


def page_table(terms: KernelTerms) -> dict[str, Any]:
    """The section of the page, as its script reads it."""
    rows = [unit_cells(u) for u in terms.units]
    used = used_columns(rows)
    return {
        "heading": heading(terms),
        "bound": terms.bound,
        "columns": [HEADER[i] for i in used],
        "align": "".join(RIGHT[i] for i in used),
        "rows": [[row[i] for i in used] for row in rows],
        "saved": saved_text(terms),
        "left_out": left_out_lines(terms, _LISTED),
    }
