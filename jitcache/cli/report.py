"""`jitcache report`: what bounded a build."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jitcache.cli.output import emit_json, json_option, out, say
from jitcache.errors import InputError, JitcacheError, UsageError

if TYPE_CHECKING:
    from jitcache.report.compare import Comparison
    from jitcache.report.gate import Gate
    from jitcache.report.insidetu import InsideTus
    from jitcache.report.model import Report
    from jitcache.report.source import BuildFiles

_NAMES = 10
"""Rows of the tables of names inside translation units, unless --top asks for fewer."""

_FILE = click.Path(path_type=Path, dir_okay=False, allow_dash=False)


class _Command(click.Command):
    """click would take the word behind a bare `--time-trace` for its number."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, [f"{a}=1" if a == "--time-trace" else a for a in args])


@click.command("report", cls=_Command, short_help="Show the critical path of a build.")
@click.argument("build_dir", required=False, type=click.Path(path_type=Path))
@click.option(
    "--run",
    "which",
    metavar="N|last|all|cold",
    help="Which run of the log: a number, the last, a line for each, or a cold build predicted.",
)
@click.option(
    "--jobs", type=click.IntRange(1, 100_000), help="Jobs that the build had, or would have."
)
@click.option(
    "--what-if",
    "wished",
    multiple=True,
    metavar="NAME=HOW",
    help="Simulate other durations: NAME=0 (gone), NAME=0.5x, NAME=12s; may be repeated.",
)
@click.option(
    "--top",
    default=20,
    show_default=True,
    type=click.IntRange(0),
    help="Rows of the table; 0 for all.",
)
@click.option("--compare", "base_file", type=_FILE, help="A report's JSON to compare with.")
@click.option("--budget", metavar="TIME", help="Time the build may take: 300s, 5m, 1h30m.")
@click.option("--fail-over", is_flag=True, help="Fail where the budget is exceeded.")
@click.option(
    "--fail-if-slower-than", "slower_file", type=_FILE, help="A report's JSON; fail if slower."
)
@click.option("--by", metavar="PERCENT", help="How much slower is tolerated (default 10%).")
@click.option(
    "--time-trace",
    "traced",
    type=click.IntRange(1, 1000),
    metavar="[=N]",
    help="Look inside the N slowest translation units (1): clang's -ftime-trace.",
)
@click.option("--html", type=_FILE, help="Also write a page that needs no network.")
@click.option("--trace", type=_FILE, help="Also write Chrome trace JSON (Perfetto).")
@click.option("--svg", type=_FILE, help="Also write the timeline as a picture.")
@click.option("--markdown", is_flag=True, help="Print Markdown, for a comment in CI.")
@json_option
def command(
    build_dir: Path | None,
    which: str | None,
    jobs: int | None,
    wished: tuple[str, ...],
    top: int,
    base_file: Path | None,
    budget: str | None,
    fail_over: bool,
    slower_file: Path | None,
    by: str | None,
    traced: int | None,
    html: Path | None,
    trace: Path | None,
    svg: Path | None,
    markdown: bool,
    as_json: bool,
) -> None:
    """Show what a build spent its time on, and its critical path.

    BUILD_DIR is any directory in which ninja ran: of jitcache, AITER, a PyTorch extension,
    CMake. Without it, the last build of jitcache is shown.
    """
    if fail_over and budget is None:
        raise UsageError("--fail-over needs a --budget")
    if by is not None and slower_file is None:
        raise UsageError("--by needs --fail-if-slower-than")
    if as_json and markdown:
        raise UsageError("--json and --markdown exclude each other")
    from jitcache.report.source import default_build_dir, read_build

    build = read_build(build_dir if build_dir is not None else default_build_dir())
    if which == "all":
        others = (wished, budget, slower_file, base_file, traced, html, trace, svg, markdown)
        if any(others):
            raise UsageError("--run all only lists the runs", hint="choose one with --run N")
        _list_runs(build, jobs, as_json=as_json)
        return
    # A watchdog waits for a cold build with so many jobs, so that is what is judged.
    which = which or ("cold" if budget and jobs and build.graph else "last")
    found = _Found(_report(build, which, jobs, wished))
    _judge(found, budget, slower_file, by)
    _compare(found, base_file or slower_file)
    if traced is not None:
        from jitcache.report.insidetu import collect

        found.inside = collect(build, found.report, traced, say=say)
    _write_files(found, html, trace, svg)
    if as_json:
        emit_json(_json(found))
    elif markdown:
        _print_markdown(found, top)
    else:
        _print_text(found, top)
    _fail(found, fail_over=fail_over)


@dataclass(slots=True)
class _Found:
    """What is shown: the report, and what else was asked for."""

    report: Report
    gates: list[Gate] = field(default_factory=list)
    comparison: Comparison | None = None
    inside: InsideTus | None = None


def _judge(found: _Found, budget: str | None, slower_file: Path | None, by: str | None) -> None:
    if budget is not None:
        from jitcache.report.gate import budget_gate, parse_budget

        found.gates.append(budget_gate(found.report, parse_budget(budget)))
    if slower_file is not None:
        from jitcache.report.compare import read_base
        from jitcache.report.gate import parse_percent, slower_gate

        share = parse_percent(by or "10%")
        found.gates.append(slower_gate(found.report, read_base(slower_file), share))


def _compare(found: _Found, base_file: Path | None) -> None:
    if base_file is not None:
        from jitcache.report.compare import compare, read_base

        found.comparison = compare(read_base(base_file), found.report)


def _write_files(found: _Found, html: Path | None, trace: Path | None, svg: Path | None) -> None:
    if html is not None:
        from jitcache.report import page

        _write(html, page.render(found.report, found.comparison, found.inside))
    if trace is not None:
        from jitcache.report.trace import trace as chrome_trace

        _write(trace, json.dumps(chrome_trace(found.report)))
    if svg is not None:
        from jitcache.report.svg import render as render_svg

        _write(svg, render_svg(found.report))


def _json(found: _Found) -> dict[str, Any]:
    return {
        **found.report.to_json(),
        "gates": [asdict(g) for g in found.gates],
        "comparison": found.comparison.to_json() if found.comparison else None,
        "time_trace": found.inside.to_json() if found.inside else None,
    }


def _print_markdown(found: _Found, top: int) -> None:
    from jitcache.report.markdown import render

    out(render(found.report, gates=found.gates, comparison=found.comparison, top=top))
    if found.inside is not None:
        from jitcache.report.insidetext import render_markdown

        out("\n" + render_markdown(found.inside))


def _print_text(found: _Found, top: int) -> None:
    from jitcache.report.text import render

    out(render(found.report, top=top))
    if found.comparison is not None:
        from jitcache.report import compare

        out("\n" + compare.render(found.comparison, top=top))
    if found.inside is not None:
        from jitcache.report import insidetext

        out("\n" + insidetext.render(found.inside, top=min(top, _NAMES)))
    if found.gates:
        out("\n" + "\n".join(g.text for g in found.gates))


def _fail(found: _Found, *, fail_over: bool) -> None:
    failed = [g for g in found.gates if not g.ok and (g.kind != "budget" or fail_over)]
    if failed:
        raise JitcacheError(
            "the build takes too long",
            where=found.report.directory,
            details=tuple(g.text for g in failed),
            hint="the commands marked * are those to cut or speed up",
        )


def _list_runs(build: BuildFiles, jobs: int | None, *, as_json: bool) -> None:
    from jitcache.report.assemble import report_run
    from jitcache.report.text import verdict

    reports = [
        report_run(build, n, jobs=jobs, simulate_jobs=False)
        for n in range(1, max(len(build.log.runs), 1) + 1)
    ]
    if as_json:
        emit_json({"runs": [r.to_json() for r in reports]})
    else:
        for r in reports:
            out(f"run {r.run}: {verdict(r)}")


def _report(build: BuildFiles, which: str, jobs: int | None, wished: tuple[str, ...]) -> Report:
    from jitcache.report.assemble import report_cold, report_run
    from jitcache.report.whatif import parse_wish

    wishes = tuple(parse_wish(w) for w in wished)
    if which == "cold":
        return report_cold(build, jobs=jobs, wishes=wishes)
    try:
        number = -1 if which == "last" else int(which)
    except ValueError:
        raise UsageError(
            f"--run {which!r} is neither a number nor last, all or cold",
            hint="`jitcache report --run all` lists the runs",
        ) from None
    return report_run(build, number, jobs=jobs, wishes=wishes)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as e:
        raise InputError(f"can't be written: {e.strerror or e}", where=str(path)) from e
