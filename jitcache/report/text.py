"""The report as text: the verdict first, then what it rests on. Pure."""

from __future__ import annotations

from jitcache.buildlog.kernelnames import printable
from jitcache.report import kerneltext
from jitcache.report.model import Edge, Report
from jitcache.text import seconds, size, table

BAR = 30
"""Width of the timeline bar, in characters."""

_LABEL = 64
_NAMED = 4

_REASONS = {
    "input": "needs what the one above made",
    "slot": "waited for a free job",
    "pool": "waited for room in its pool",
    "start": "from the start",
}


def verdict(report: Report) -> str:
    """One sentence: the wall time, the critical path, and what could not beat it."""
    wall = seconds(report.wall_s)
    path = seconds(report.critical_path_s)
    how = "estimated critical path" if report.guessed else "critical path"
    first = "a cold build would take" if report.predicted else "wall"
    text = f"{first} {wall}; the {how} is {path}: {path_text(report)}"
    if report.guessed:
        return text
    return f"{text}; infinite jobs could not beat {seconds(report.bounds.infinite_jobs_s)}"


def path_text(report: Report) -> str:
    """The critical path in words; of a long one the longest commands."""
    by_output = {e.output: e for e in report.edges}
    path = [by_output[o] for o in report.critical_path]
    if not path:
        return "nothing took any time"
    longest = max(path, key=lambda e: e.duration_s)
    shown = path
    if len(path) > _NAMED:
        keep = sorted(path, key=lambda e: -e.duration_s)[: _NAMED - 1]
        shown = [e for e in path if e in keep]
    words = []
    for e in shown:
        share = ""
        if e is longest and report.critical_path_s:
            share = f" ({e.duration_s / report.critical_path_s * 100:.1f} %)"
        words.append(f"{shortened(e.label)} {seconds(e.duration_s)}{share}")
    rest = len(path) - len(shown)
    return " then ".join(words) + (f", and {rest} more" if rest else "")


def render(report: Report, *, top: int = 20) -> str:
    """The whole report.

    Args:
        report: what to show.
        top: rows of the table; 0 for all.
    """
    terms = report.kernels
    parts = [verdict(report), _origin(report), _edges(report, top)]
    if terms is not None:
        parts.append(kerneltext.render(report, terms, top=top))
    if any(k.reason in ("slot", "pool") or k.gap_s >= 0.1 for k in report.chain):
        parts.append(_chain(report))
    parts += [_efficiency(report), _bounds(report), _remarks(report)]
    return "\n\n".join(p for p in parts if p)


def bar(start_s: float, end_s: float, wall_s: float, width: int = BAR) -> str:
    """Where a command ran on the time axis of the build: at least one mark wide."""
    if wall_s <= 0:
        return ""
    left = min(int(start_s / wall_s * width), width - 1)
    right = max(left + 1, min(width, round(end_s / wall_s * width)))
    return "." * left + "#" * (right - left) + "." * (width - right)


def shortened(label: str, most: int = _LABEL) -> str:
    """A label no longer than a column: its middle is left out."""
    if len(label) <= most:
        return label
    left = (most - 3) // 2
    return f"{label[:left]}...{label[-(most - 3 - left) :]}"


def _origin(report: Report) -> str:
    run = "predicted" if report.predicted else f"run {report.run} of {report.runs}"
    began = (
        f", began {report.began.replace('T', ' ').replace('+00:00', ' UTC')}"
        if report.began
        else ""
    )
    version = f"ninja log v{report.log_version}" if report.log_version else "log without header"
    return f"{printable(report.directory)}: {run}{began}, {version}, {len(report.edges)} commands"


def _edges(report: Report, top: int) -> str:
    rows = report.edges[:top] if top else report.edges
    costs = any(e.cpu_s is not None for e in rows)
    header = ["", "command", "start", "time", "share", "slack"]
    header += ["cpu", "memory"] if costs else []
    text = table(
        [*header, f"0 s{seconds(report.wall_s):>{BAR - 3}}"],
        [_row(e, report.wall_s, costs=costs) for e in rows],
        right="llrrrr" + ("rr" if costs else ""),
    )
    left = report.edges[len(rows) :]
    if left:
        rest = seconds(sum(e.duration_s for e in left))
        text += f"\n   {len(left)} more commands, {rest} together (--top 0 shows all)"
    how = "estimated " if report.guessed else ""
    return (
        f"{text}\n   * on the {how}critical path; slack: how much longer without delaying the end"
    )


def _row(e: Edge, wall_s: float, *, costs: bool) -> list[str]:
    row = [
        "*" if e.on_critical_path else " ",
        shortened(e.label),
        f"{e.start_s:.3f}",
        f"{e.duration_s:.3f}",
        f"{e.share * 100:.1f} %",
        f"{e.slack_s:.3f}",
    ]
    if costs:
        row.append("" if e.cpu_s is None else f"{e.cpu_s:.1f}")
        row.append("" if e.peak_rss is None else size(e.peak_rss))
    return [*row, bar(e.start_s, e.end_s, wall_s)]


def _chain(report: Report) -> str:
    links = report.chain
    shown = links if len(links) <= 12 else sorted(links, key=lambda k: -k.duration_s)[:12]
    rows = []
    for k in links:
        if k in shown:
            gap = f"{k.gap_s:.3f}" if k.gap_s >= 0.001 else ""
            rows.append([shortened(k.label), f"{k.duration_s:.3f}", gap, _REASONS[k.reason]])
    text = table(
        ["what the clock waited for", "time", "gap before", "why it began then"], rows, right="lrrl"
    )
    return text + (
        f"\n{len(links) - len(rows)} shorter ones left out" if len(rows) < len(links) else ""
    )


def _efficiency(report: Report) -> str:
    e = report.efficiency
    jobs = f"{e.jobs} jobs" if e.jobs_given else f"the {e.jobs} jobs seen at one time"
    text = (
        f"parallel: {e.average_jobs:.1f} commands at one time on average, {e.peak_jobs} at most; "
        f"{e.efficiency * 100:.0f} % of {jobs} in use, {seconds(e.idle_s)} of job time idle"
    )
    waits = []
    if e.alone_s:
        waits.append(f"one command alone for {seconds(e.alone_s)}")
    if e.nothing_s:
        waits.append(f"none for {seconds(e.nothing_s)}")
    return "; ".join([text, *waits])


def _bounds(report: Report) -> str:
    b = report.bounds
    lines = []
    if not report.guessed:
        lines.append(
            f"bounds: {seconds(b.infinite_jobs_s)} with infinite jobs; "
            f"{seconds(b.work_over_jobs_s)} for all work shared evenly by "
            f"{report.efficiency.jobs} jobs; so no less than {seconds(b.lower_bound_s)}"
        )
    if b.simulated_s:
        steps = ", ".join(f"-j{n} {seconds(s)}" for n, s in sorted(b.simulated_s.items()))
        enough = min(b.simulated_s.values()) <= b.infinite_jobs_s
        lines.append(f"simulated: {steps}{'; more jobs gain nothing' if enough else ''}")
    lines += [
        f"what if: without {shortened(s.label)} the build would take {seconds(s.without_s)}, "
        f"with it twice as fast {seconds(s.half_s)}"
        for s in report.savings
    ]
    if w := report.what_if:
        lines.append(
            f"as wished, with {len(w.changed)} commands changed: {seconds(w.before_s)} -> "
            f"{seconds(w.after_s)} with {report.efficiency.jobs} jobs, "
            f"critical path {seconds(report.critical_path_s)} -> {seconds(w.path_s)}"
        )
    return "\n".join(lines)


def _remarks(report: Report) -> str:
    lines = [f"note: {printable(n)}" for n in report.notes]
    if report.unfinished:
        lines.append(
            f"note: {report.unfinished} commands of build.ninja never finished in any logged run"
        )
    lines += [f"skipped {n} lines of the log: {why}" for why, n in report.skipped_lines.items()]
    return "\n".join(lines)
