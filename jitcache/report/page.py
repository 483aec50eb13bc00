"""The report as one HTML file that needs no network. Pure.

The page (page.html, page.css and the scripts) is a fixed text; the report goes into it as
one JSON value that its script reads, so names from a build can't become markup.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from importlib import resources
from typing import Any

from jitcache.buildlog.tutime import PHASES, Frame, pruned
from jitcache.report import kerneltext
from jitcache.report.advice import advise
from jitcache.report.compare import BaseEdge, Comparison, explanation
from jitcache.report.dependencies import direct
from jitcache.report.insidetu import InsideTus
from jitcache.report.model import Edge, Report
from jitcache.report.text import verdict
from jitcache.report.trace import lanes

_SCRIPTS = ("page.js", "timeline.js", "commands.js", "kernels.js", "compare.js", "flame.js")
_NAMED = 5
"""How many commands that another waits for are named."""
_LISTED = 60
_BARS = 1500
"""Bars of each build in the comparison, longest first; shorter ones would not be seen."""
_SMALLEST = 0.001
"""Frames below this share of a translation unit are brought together."""


def render(
    report: Report, comparison: Comparison | None = None, inside: InsideTus | None = None
) -> str:
    """The page.

    Args:
        report: what to show.
        comparison: with an earlier build, for a section of its own.
        inside: time traces of translation units, likewise.
    """
    data = json.dumps(page_data(report, comparison, inside), separators=(",", ":"))
    # "</script>" and "<!--" would end or change the element that holds the data.
    parts = {
        "{{STYLE}}": _text("page.css"),
        "{{SCRIPT}}": "".join(map(_text, _SCRIPTS)),
        "{{DATA}}": data.replace("<", "\\u003c"),
    }
    page = _text("page.html")
    for mark, text in parts.items():
        page = page.replace(mark, text)
    return page


def page_data(
    report: Report, comparison: Comparison | None = None, inside: InsideTus | None = None
) -> dict[str, Any]:
    """What the page's script reads; commands as rows, because there may be 20,000."""
    placed = {e.output: lane for lane, e in lanes(report.edges)}
    index = {e.output: i for i, e in enumerate(report.edges)}
    needs = direct(report.graph, _NAMED)
    value = report.to_json()
    del value["graph"], value["pools"]
    value["edges"] = []
    for e in report.edges:
        names, more = needs.get(e.output, ([], 0))
        known = [index[n] for n in names if n in index]
        row = [e.label, e.output, e.start_s, e.duration_s, e.slack_s, int(e.on_critical_path)]
        row += [placed[e.output], e.rule, e.cpu_s, e.peak_rss, known, more]
        value["edges"].append(row)
    value["verdict"] = verdict(report)
    value["advice"] = asdict(advise(report))
    value["comparison"] = _comparison(comparison, report) if comparison else None
    value["inside"] = _inside(inside) if inside else None
    value["kernels"] = kerneltext.page_table(report.kernels) if report.kernels else None
    return value


def _comparison(comparison: Comparison, report: Report) -> dict[str, Any]:
    """The comparison, and both builds' bars: label, start, time, row, what became of it."""
    changed = {c.output for c in comparison.changes}
    before, after = comparison.base_edges, report.edges
    mine, theirs = {e.output for e in after}, {e.output for e in before}

    def bars(edges: Iterable[Edge] | Iterable[BaseEdge], others: set[str]) -> list[list[Any]]:
        rows: list[list[Any]] = []
        for lane, e in lanes(edges):
            kind = 2 if e.output not in others else int(e.output in changed)
            rows.append([e.label or e.output, e.start_s, e.duration_s, lane, kind])
        return sorted(rows, key=lambda row: -row[2])[:_BARS]

    value = comparison.to_json()
    value["explanation"] = explanation(comparison)
    value["before"], value["after"] = bars(before, mine), bars(after, theirs)
    return value


def _inside(inside: InsideTus) -> dict[str, Any]:
    """The units, and their sum in front where there are several."""
    value = inside.to_json()
    units = value["units"]
    for shown, unit in zip(units, inside.units, strict=True):
        shown["flame"] = _frame(pruned(unit.time.flame, round(unit.time.total_us * _SMALLEST)))
    if len(units) > 1:
        together = value["together"]
        together["label"] = f"all {len(units)} together"
        together |= {"source": "sum", "targets": [], "notes": []}
        smallest = round(inside.together.total_us * _SMALLEST)
        together["flame"] = _frame(pruned(inside.together.flame, smallest))
        units.insert(0, together)
    for unit in units:
        for kind in ("templates", "headers", "activities"):
            unit[kind] = unit[kind][:_LISTED]
    return {"phases": list(PHASES), "units": units, "left_out": value["left_out"]}


def _frame(frame: Frame) -> list[Any]:
    """A frame as a row, the widest child first."""
    children = sorted(frame.children.values(), key=lambda f: (-f.total_us, f.name))
    row = [frame.name, PHASES.index(frame.phase), frame.count, frame.total_us, frame.self_us]
    return [*row, [_frame(c) for c in children]]


def _text(name: str) -> str:
    return resources.files("jitcache.report").joinpath(name).read_text("utf-8")
