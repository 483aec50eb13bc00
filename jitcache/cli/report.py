"""`jitcache report`: what bounded a build."""

from __future__ import annotations

from pathlib import Path

import click

from jitcache.cli.output import emit_json, json_option, out
from jitcache.errors import UsageError


@click.command("report", short_help="Show the critical path of a build.")
@click.argument("build_dir", required=False, type=click.Path(path_type=Path))
@click.option(
    "--run",
    "which",
    default="last",
    metavar="N|last|all|cold",
    help="Which run of the log: a number, the last, a line for each, or a cold build predicted.",
)
@click.option(
    "--jobs", type=click.IntRange(1, 100_000), help="Jobs that the build had, or would have."
)
@click.option(
    "--top",
    default=20,
    show_default=True,
    type=click.IntRange(0),
    help="Rows of the table; 0 for all.",
)
@json_option
def command(build_dir: Path | None, which: str, jobs: int | None, top: int, as_json: bool) -> None:
    """Show what a build spent its time on, and its critical path.

    BUILD_DIR is any directory in which ninja ran: of jitcache, AITER, a PyTorch extension,
    CMake. Without it, the last build of jitcache is shown.
    """
    from jitcache.report.assemble import report_cold, report_run
    from jitcache.report.source import default_build_dir, read_build
    from jitcache.report.text import render, verdict

    build = read_build(build_dir if build_dir is not None else default_build_dir())
    if which == "all":
        reports = [
            report_run(build, n, jobs=jobs, simulate_jobs=False)
            for n in range(1, max(len(build.log.runs), 1) + 1)
        ]
        if as_json:
            emit_json({"runs": [r.to_json() for r in reports]})
        else:
            for r in reports:
                out(f"run {r.run}: {verdict(r)}")
        return
    if which == "cold":
        report = report_cold(build, jobs=jobs)
    else:
        report = report_run(build, _number(which), jobs=jobs)
    if as_json:
        emit_json(report.to_json())
    else:
        out(render(report, top=top))


def _number(which: str) -> int:
    if which == "last":
        return -1
    try:
        return int(which)
    except ValueError:
        raise UsageError(
            f"--run {which!r} is neither a number nor last, all or cold",
            hint="`jitcache report --run all` lists the runs",
        ) from None
