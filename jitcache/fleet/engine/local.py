"""Workers on this machine: several processes, and killed ones started again."""

from __future__ import annotations

import threading
from collections.abc import Callable

from jitcache.fleet.engine import process
from jitcache.fleet.engine.job import RESTARTS, FleetJob
from jitcache.fleet.engine.process import Ended


def run(job: FleetJob, on_restart: Callable[[int, int], None]) -> list[Ended]:
    """Run all workers to their end.

    Args:
        job: what to run.
        on_restart: told of a worker that is started again: which, and its exit code.

    Returns:
        The last end of each worker.
    """
    ends: dict[int, Ended] = {}

    def one(shard: int) -> None:
        for restart in range(RESTARTS + 1):
            ends[shard] = process.finish(process.start(job.words(job.plan_path, shard)))
            if not ends[shard].again or restart == RESTARTS:
                return
            on_restart(shard, ends[shard].code)

    threads = [threading.Thread(target=one, args=(i,)) for i in range(job.workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [ends[i] for i in range(job.workers)]
