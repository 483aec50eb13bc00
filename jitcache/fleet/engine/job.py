"""What is asked of an engine, whichever it is. Pure."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from jitcache.errors import ExitCode
from jitcache.fleet.model import FleetPlan

RESTARTS = 3
"""How often a worker that was killed, or lost what it needs, is started again."""

AGAIN = (int(ExitCode.AGAIN), 128 + 9)
"""Exit codes after which starting again helps: something was lost, or a kill -9 came."""

HOPELESS = tuple(
    int(code)
    for code in (
        ExitCode.USAGE,
        ExitCode.INPUT,
        ExitCode.TOOLCHAIN,
        ExitCode.UNSUPPORTED,
        ExitCode.FORBIDDEN,
        ExitCode.UNTRUSTED,
    )
)
"""Exit codes that every worker of the job would end with."""

_ROOM = 256 << 20
"""Bytes for the worker itself and what it moves."""


@dataclass(frozen=True, slots=True)
class FleetJob:
    """Workers to run.

    Attributes:
        plan: the plan.
        plan_path: where its file is, for engines whose workers see it.
        name: of the job.
        workers: how many.
        cpus: CPUs, and compilers at once, of each.
        program: words that start jitcache where the workers run.
        options: further words for each worker (`--lease`, `--launcher`, ...).
    """

    plan: FleetPlan
    plan_path: str
    name: str
    workers: int
    cpus: int
    program: tuple[str, ...]
    options: tuple[str, ...] = ()

    @property
    def memory(self) -> int:
        """Bytes for one worker: its largest actions at once, and itself."""
        largest = heapq.nlargest(self.cpus, (a.memory for a in self.plan.actions))
        return sum(largest) + _ROOM

    def words(self, plan_path: str, shard: int | None = None) -> tuple[str, ...]:
        """The command line of a worker.

        Args:
            plan_path: where it finds the plan.
            shard: which share; None where the scheduler tells the worker.
        """
        share = () if shard is None else ("--shard", f"{shard}/{self.workers}")
        jobs = ("--jobs", str(self.cpus))
        worker = ("worker", "--plan", plan_path, *share, *jobs, *self.options, "--json")
        return (*self.program, *worker)
