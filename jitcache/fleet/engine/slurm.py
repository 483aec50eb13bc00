"""Slurm: one array, a task for each share. The script is pure text."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence

from jitcache.errors import InputError, ToolchainError
from jitcache.fleet.engine.job import AGAIN, RESTARTS, FleetJob
from jitcache.fleet.shard import COUNT_VARIABLE


def script(job: FleetJob, extra: Sequence[str] = ()) -> str:
    """The batch script of the array.

    A task whose worker was killed or lost its remote puts itself back into the queue.

    Args:
        job: what to run.
        extra: further options of sbatch (`--partition=cpu`, `--time=2:00:00`).

    Raises:
        InputError: an option would not stay on its line.
    """
    for option in extra:
        if not option.startswith("-") or not option.isprintable():
            raise InputError(f"{option!r} is no option of sbatch", hint="for instance -pcpu")
    options = [
        f"--job-name={job.name}",
        f"--array=0-{job.workers - 1}",
        f"--cpus-per-task={job.cpus}",
        f"--mem={-(-job.memory >> 20)}M",
        "--requeue",
        "--open-mode=append",
        f"--output={job.name}-%A_%a.log",
        *extra,
    ]
    again = "|".join(map(str, AGAIN))
    lines = [
        "#!/bin/sh",
        *(f"#SBATCH {option}" for option in options),
        f"export {COUNT_VARIABLE}={job.workers}",
        shlex.join(job.words(job.plan_path)),
        "code=$?",
        "case $code in",
        f"{again})",
        f'    if [ "${{SLURM_RESTART_COUNT:-0}}" -lt {RESTARTS} ]; then',
        '        exec scontrol requeue "$SLURM_JOB_ID"',
        "    fi ;;",
        "esac",
        "exit $code",
    ]
    return "\n".join(lines) + "\n"


def submit(text: str) -> str:
    """Give a batch script to sbatch; the job's id.

    Raises:
        ToolchainError: there is no sbatch here.
        InputError: sbatch refuses it.
    """
    try:
        done = subprocess.run(
            ["sbatch", "--parsable"], input=text, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise ToolchainError(
            "there is no sbatch on this machine",
            hint="submit from a login node; --dry-run prints the script",
        ) from None
    if done.returncode:
        raise InputError("sbatch refuses the job", details=tuple(done.stderr.splitlines()[:10]))
    return done.stdout.strip().partition(";")[0]
