"""The report as one HTML file that needs no network. Pure.

The page (page.html) is a fixed text; the report goes into it as one JSON value that its
script reads, so names from a build can't become markup.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

from jitcache.report.compare import Comparison
from jitcache.report.insidetu import InsideTus
from jitcache.report.model import Report
from jitcache.report.text import verdict
from jitcache.report.trace import lanes

_DATA = "{{DATA}}"


def render(
    report: Report, comparison: Comparison | None = None, inside: InsideTus | None = None
) -> str:
    """The page.

    Args:
        report: what to show.
        comparison: with an earlier build, for a table of its own.
    """
    frame = resources.files("jitcache.report").joinpath("page.html").read_text("utf-8")
    data = json.dumps(page_data(report, comparison), separators=(",", ":"))
    # "</script>" and "<!--" would end or change the element that holds the data.
    return frame.replace(_DATA, data.replace("<", "\\u003c"))


def page_data(report: Report, comparison: Comparison | None = None) -> dict[str, Any]:
    """What the page's script reads; commands as rows, because there may be 20,000."""
    placed = {e.output: lane for lane, e in lanes(report.edges)}
    value = report.to_json()
    del value["graph"], value["pools"]
    value["edges"] = [
        [
            e.label,
            e.output,
            e.start_s,
            e.duration_s,
            e.slack_s,
            int(e.on_critical_path),
            placed[e.output],
            e.rule,
            e.cpu_s,
            e.peak_rss,
        ]
        for e in report.edges
    ]
    value["verdict"] = verdict(report)
    value["comparison"] = comparison.to_json() if comparison else None
    return value
