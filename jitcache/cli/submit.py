"""`jitcache submit`: run a plan's workers with an engine that people have."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from jitcache.cli import output
from jitcache.cli.building import launcher_option
from jitcache.errors import ExitCode, JitcacheError, UsageError
from jitcache.fleet.engine import dask, k8s, local, slurm
from jitcache.fleet.engine.job import FleetJob
from jitcache.fleet.engine.process import Ended
from jitcache.fleet.planfile import load_plan

ENGINES = ("slurm", "k8s", "dask", "local")


@click.command()
@click.option("--plan", "plan_path", type=Path, required=True, help="The plan file.")
@click.option("--engine", type=click.Choice(ENGINES), required=True, help="Who runs the workers.")
@click.option("-n", "--workers", type=click.IntRange(1, 100_000), default=1, show_default=True)
@click.option("--cpus", type=click.IntRange(min=1), help="CPUs of each worker; 4, or a fair part.")
@click.option("--name", default="jitcache", show_default=True, help="Name of the job.")
@click.option("--lease", metavar="PLACE", help="As of `jitcache worker`.")
@click.option("--lease-expiry", type=click.FloatRange(1, 3600), help="As of `jitcache worker`.")
@launcher_option
@click.option("--program", metavar="WORDS", help="Starts jitcache where the workers run.")
@click.option("--sbatch", multiple=True, metavar="OPTION", help="slurm: an option of sbatch.")
@click.option("--image", help="k8s: image with jitcache and the toolchain.")
@click.option("--secret", help="k8s: Secret with remotes, signing key and credentials.")
@click.option("--namespace", help="k8s: where the job goes.")
@click.option("--scheduler", metavar="ADDRESS", help="dask: address of the scheduler.")
@click.option("--dry-run", is_flag=True, help="Print what would be submitted, and do nothing.")
@output.json_option
def command(
    plan_path: Path,
    engine: str,
    workers: int,
    cpus: int | None,
    name: str,
    lease: str | None,
    lease_expiry: float | None,
    launcher: str | None,
    program: str | None,
    sbatch: tuple[str, ...],
    image: str | None,
    secret: str | None,
    namespace: str | None,
    scheduler: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Run the workers of a plan with Slurm, Kubernetes or Dask, or on this machine.

    slurm and k8s hand the job over and return; dask and local wait for the workers.
    """
    options = [
        word
        for option, value in (
            ("--lease", lease),
            ("--lease-expiry", None if lease_expiry is None else f"{lease_expiry:g}"),
            ("--launcher", launcher),
        )
        if value is not None
        for word in (option, value)
    ]
    fair = max(1, len(os.sched_getaffinity(0)) // workers) if engine == "local" else 4
    job = FleetJob(
        load_plan(plan_path),
        str(plan_path.absolute()),
        name,
        workers,
        cpus or fair,
        _program(program, engine),
        tuple(options),
    )
    if engine == "slurm":
        text = slurm.script(job, sbatch)
        if dry_run:
            output.out(text.rstrip())
        else:
            _say_job(slurm.submit(text), as_json=as_json)
    elif engine == "k8s":
        value = k8s.manifest(job, k8s.Cluster(_needed(image, "--image"), secret, namespace))
        if dry_run:
            output.emit_json(value)
        else:
            _say_job(k8s.apply(value), as_json=as_json)
    elif dry_run:
        for shard in range(workers):
            output.out(shlex.join(job.words(job.plan_path, shard)))
    elif engine == "dask":
        _ended(dask.run(job, _needed(scheduler, "--scheduler")), as_json=as_json)
    else:
        _ended(local.run(job, _say_restart), as_json=as_json)


def _program(said: str | None, engine: str) -> tuple[str, ...]:
    """What starts jitcache there: here, the same that runs now."""
    if said is not None:
        return tuple(shlex.split(said))
    return (sys.executable, "-m", "jitcache") if engine == "local" else ("jitcache",)


def _needed(value: str | None, option: str) -> str:
    if value is None:
        raise UsageError(f"this engine needs {option}", hint="`jitcache submit --help`")
    return value


def _say_job(job: str, *, as_json: bool) -> None:
    if as_json:
        output.emit_json({"job": job})
    else:
        output.out(f"submitted: {job}")
        output.say("hint: `jitcache gather` checks the result when the workers are through")


def _say_restart(shard: int, code: int) -> None:
    output.say(f"worker {shard} ended with {code}, and is started again")


def _ended(ends: Sequence[Ended], *, as_json: bool) -> None:
    told = [end.told for end in ends if end.told is not None]
    counts = {
        name: sum(t[name] for t in told)
        for name in ("built", "fetched", "hits", "elsewhere", "duplicates", "pushed")
    }
    bad = [(i, end.code) for i, end in enumerate(ends) if end.code]
    if as_json:
        output.emit_json({**counts, "exit_codes": [end.code for end in ends], "workers": told})
    else:
        output.out(
            f"{len(ends)} workers: " + ", ".join(f"{v} {name}" for name, v in counts.items())
        )
    if bad:
        error = JitcacheError(
            f"{len(bad)} of {len(ends)} workers did not end well",
            details=tuple(f"worker {i}: exit code {code}" for i, code in bad),
            hint="the same command goes on from here: what was published isn't built again",
        )
        # What all of them say is what a caller has to know; of several, the first.
        error.exit_code = _exit_code(bad[0][1])
        raise error


def _exit_code(code: int) -> ExitCode:
    return ExitCode(code) if code in list(ExitCode) else ExitCode.FAILED
