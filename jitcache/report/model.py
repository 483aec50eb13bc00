"""The report as data: one run of a build, analysed. Seconds are floats.

`Report.to_json` is the contract of `jitcache report --json` (docs/report.md).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from jitcache.report.dependencies import Node
from jitcache.report.kernels import KernelTerms


@dataclass(frozen=True, slots=True)
class Edge:
    """One command. Fields as in `--json`; shares are of the wall time."""

    output: str
    label: str
    start_s: float
    end_s: float
    duration_s: float
    share: float
    on_critical_path: bool
    slack_s: float
    rule: str
    pool: str
    outputs: tuple[str, ...]
    cpu_s: float | None
    peak_rss: int | None


@dataclass(frozen=True, slots=True)
class ChainLink:
    """One command of the blocking chain: see `jitcache.buildlog.critical.Link`."""

    output: str
    label: str
    reason: str
    gap_s: float
    duration_s: float


@dataclass(frozen=True, slots=True)
class Efficiency:
    """How well the jobs were used.

    Attributes:
        jobs: number that the others refer to: as given, else the most seen at one time.
        jobs_given: whether it was given.
        peak_jobs: most commands at one time.
        busy_s: sum of all durations.
        idle_s: job-seconds without a command: `jobs x wall - busy`.
        efficiency: busy share of `jobs x wall`.
        average_jobs: commands at one time, on average over the wall time.
        alone_s: time with a single command.
        nothing_s: time with none.
    """

    jobs: int
    jobs_given: bool
    peak_jobs: int
    busy_s: float
    idle_s: float
    efficiency: float
    average_jobs: float
    alone_s: float
    nothing_s: float


@dataclass(frozen=True, slots=True)
class Bounds:
    """What no schedule can beat, and what ninja would reach.

    Attributes:
        infinite_jobs_s: the longest chain.
        work_over_jobs_s: all work shared evenly among `Efficiency.jobs`.
        lower_bound_s: the larger of both.
        simulated_s: makespan by number of jobs, up to the number that reaches
            `infinite_jobs_s`; empty where dependencies are guessed.
    """

    infinite_jobs_s: float
    work_over_jobs_s: float
    lower_bound_s: float
    simulated_s: dict[int, float]


@dataclass(frozen=True, slots=True)
class Saving:
    """What it would bring if a command of the critical path took no time, or half.

    Attributes:
        output: the command.
        label: its short name.
        without_s: simulated makespan without it.
        half_s: simulated makespan if it took half the time.
        without_path_s: longest chain without it.
    """

    output: str
    label: str
    without_s: float
    half_s: float
    without_path_s: float


@dataclass(frozen=True, slots=True)
class Wished:
    """What the durations asked for by `--what-if` would give.

    Attributes:
        changed: outputs of the commands that would take another time.
        before_s: simulated makespan with the measured durations.
        after_s: simulated makespan with the wished ones.
        path_s: longest chain with the wished ones.
    """

    changed: tuple[str, ...]
    before_s: float
    after_s: float
    path_s: float


@dataclass(slots=True)
class Report:
    """A run, analysed; edges are sorted longest first. Fields as in `--json`."""

    directory: str
    log_version: int
    run: int
    runs: int
    predicted: bool
    guessed: bool
    began: str | None
    wall_s: float
    critical_path_s: float
    critical_path: list[str]
    edges: list[Edge]
    chain: list[ChainLink]
    efficiency: Efficiency
    bounds: Bounds
    savings: list[Saving]
    what_if: Wished | None
    unfinished: int
    graph: list[Node] = field(default_factory=list)
    pools: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    skipped_lines: dict[str, int] = field(default_factory=dict)
    kernels: KernelTerms | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values in a stable order."""
        head = ("wall_s", "critical_path_s")
        value = asdict(self)
        bounds = value["bounds"]
        bounds["simulated_s"] = {str(n): s for n, s in bounds["simulated_s"].items()}
        return {**{name: value.pop(name) for name in head}, **value}
