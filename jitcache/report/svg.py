"""The build's timeline as SVG, for documents: one row per worker, the critical path lit. Pure."""

from __future__ import annotations

from xml.sax.saxutils import escape, quoteattr

from jitcache.report.model import Edge, Report
from jitcache.report.text import verdict
from jitcache.report.trace import lanes
from jitcache.text import seconds

WIDTH = 960
"""Width of the picture, in pixels."""

_ROW, _TOP, _MARGIN = 20, 48, 8
_LETTER = 6.2
_STYLE = """
text { font: 11px sans-serif; fill: #1b1f24 } .t { font-weight: bold; font-size: 12px }
.a { fill: #5b6470 } line { stroke: #d5dae0 } .b { fill: #9db7d8 } .h { fill: #e0803f }
.bg { fill: #ffffff }
@media (prefers-color-scheme: dark) { text { fill: #e6e9ed } .a { fill: #a0a9b5 }
line { stroke: #343b44 } .b { fill: #4f6f99 } .h { fill: #a3430f } .bg { fill: #14171b } }
"""


def render(report: Report) -> str:
    """The picture: title, time axis, and a bar for every command that shows at this width."""
    placed = lanes(report.edges)
    rows = max((lane for lane, _ in placed), default=0) + 1
    height = _TOP + rows * _ROW + _MARGIN
    scale = (WIDTH - 2 * _MARGIN) / (report.wall_s or 1.0)
    frame = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    spoken = quoteattr(verdict(report))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {frame} role="img" aria-label={spoken}>',
        f"<title>{escape(verdict(report))}</title><style>{_STYLE}</style>",
        f'<rect class="bg" width="{WIDTH}" height="{height}"/>',
        f'<text class="t" x="{_MARGIN}" y="16">{_cut(_title(report), WIDTH)}</text>',
    ]
    step = _step(report.wall_s or 1.0)
    ticks = int((report.wall_s or 1.0) / step + 1e-9) + 1
    for n in range(ticks):
        x = _MARGIN + n * step * scale
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="26" y2="{height - _MARGIN}"/>')
        parts.append(f'<text class="a" x="{x + 3:.1f}" y="38">{n * step:g} s</text>')
    # Bars narrower than half a pixel can't be seen; the critical path is drawn all the same.
    for hot in (False, True):
        parts += [
            _bar(lane, e, scale)
            for lane, e in placed
            if e.on_critical_path is hot and (hot or e.duration_s * scale >= 0.5)
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _title(report: Report) -> str:
    path = f"critical path {seconds(report.critical_path_s)}"
    return f"wall {seconds(report.wall_s)}, {path}, {len(report.edges)} commands"


def _bar(lane: int, e: Edge, scale: float) -> str:
    x, y = _MARGIN + e.start_s * scale, _TOP + lane * _ROW
    width = max(e.duration_s * scale - 0.5, 1.0)
    tip = escape(f"{e.label}: {seconds(e.duration_s)}, slack {seconds(e.slack_s)}")
    text = ""
    if width > 60:
        label = _cut(f"{e.label} {seconds(e.duration_s)}", width)
        text = f'<text x="{x + 4:.1f}" y="{y + 13}">{label}</text>'
    kind = "h" if e.on_critical_path else "b"
    return (
        f'<g><title>{tip}</title><rect class="{kind}" x="{x:.1f}" y="{y}" width="{width:.1f}"'
        f' height="{_ROW - 2}"/>{text}</g>'
    )


def _cut(text: str, width: float) -> str:
    most = max(1, int(width / _LETTER) - 1)
    return escape(text if len(text) <= most else text[: most - 1] + "\N{HORIZONTAL ELLIPSIS}")


def _step(wall_s: float) -> float:
    """The smallest round distance that gives at most ten ticks."""
    step = 0.001
    while True:
        for factor in (1, 2, 5):
            if wall_s / (step * factor) <= 10:
                return step * factor
        step *= 10
