"""Dask: a task for each share, on the scheduler that is there already.

The plan travels with the task, so no file system is shared; everything else (remotes, keys,
credentials, the toolchain) is what the Dask worker's own environment has.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from jitcache.errors import InputError
from jitcache.fleet.engine import process
from jitcache.fleet.engine.job import RESTARTS, FleetJob
from jitcache.fleet.engine.process import Ended
from jitcache.fleet.planfile import dump_plan


class WorkerKilledError(RuntimeError):
    """A worker ended in a way after which starting it again helps."""


def run_worker(plan: bytes, words: tuple[str, ...]) -> Ended:
    """Run one worker on a Dask worker; called by Dask.

    Args:
        plan: bytes of the plan file.
        words: command line of the worker, `{plan}` in place of the file.

    Raises:
        WorkerKilledError: it should be started again.
    """
    with tempfile.TemporaryDirectory(prefix="jitcache-dask-") as directory:
        path = Path(directory, "plan.json")
        path.write_bytes(plan)
        ended = process.finish(process.start([str(path) if w == "{plan}" else w for w in words]))
    if ended.again:
        raise WorkerKilledError(f"exit code {ended.code}")
    return ended


def run(job: FleetJob, scheduler: str) -> list[Ended]:
    """Run all workers on a scheduler, to their end.

    Args:
        job: what to run.
        scheduler: its address, `tcp://HOST:8786`.

    Raises:
        InputError: `distributed` isn't installed, or the scheduler doesn't answer.
    """
    try:
        from distributed import Client
    except ImportError:
        raise InputError(
            "the engine dask needs the package distributed", hint="pip install 'jitcache[dask]'"
        ) from None
    try:
        client: Any = Client(scheduler, timeout=20)
    except (OSError, ValueError) as e:
        raise InputError(f"the Dask scheduler doesn't answer ({e})", where=scheduler) from None
    with client:
        plan = client.scatter(dump_plan(job.plan), broadcast=True)
        futures = [
            client.submit(
                run_worker, plan, job.words("{plan}", shard), pure=False, retries=RESTARTS
            )
            for shard in range(job.workers)
        ]
        return [_end(future) for future in futures]


def _end(future: Any) -> Ended:
    error = future.exception()
    return Ended(-1, None) if error is not None else future.result()
