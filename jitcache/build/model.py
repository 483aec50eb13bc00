"""What the build is given and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class CompileJob:
    """One compiler call of a build.

    Attributes:
        key: action key (`sha256:...`): names the staging directory and the ninja edge.
        label: for people: `gemm1 256x128x128x128 v3 hot-even gfx950`.
        source_name: file name of the source in the staging directory.
        source: text of the translation unit.
        output_name: file name of the output in the staging directory.
        argv: compiler command line; `{source}`, `{output}` and `{depfile}` stand for the
            paths relative to the run directory, in which the compiler is started.
        cost_s: expected CPU seconds, from earlier builds; None where nothing is known.
        memory: expected peak RSS in bytes; None where nothing is known.
        env: variables that the compiler gets beside the clean environment (LD_PRELOAD of an
            allocator); what changes bytes belongs in the key as well.
    """

    key: str
    label: str
    source_name: str
    source: str
    output_name: str
    argv: tuple[str, ...]
    cost_s: float | None = None
    memory: int | None = None
    env: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class EdgeUsage:
    """What one compiler call cost.

    Attributes:
        start_s: start, in seconds since the start of the run.
        wall_s: wall-clock seconds.
        cpu_s: user + system seconds of the compiler and its children.
        peak_rss: largest resident set, in bytes.
    """

    start_s: float
    wall_s: float
    cpu_s: float
    peak_rss: int


@dataclass(frozen=True, slots=True)
class Compiled:
    """A job that succeeded: its output file still stands in the staging directory.

    Attributes:
        job: the job.
        output: path of the output.
        headers: absolute, resolved paths of every header that the compiler read.
        usage: what it cost.
    """

    job: CompileJob
    output: Path
    headers: tuple[Path, ...]
    usage: EdgeUsage


@dataclass(frozen=True, slots=True)
class CompileFailed:
    """A job that failed.

    Attributes:
        job: the job.
        first_error: the compiler's first error line, or what killed it.
        log: the complete diagnostics file.
        command: a shell command that reproduces the failure.
        exit_status: of the compiler (negative: killed by that signal).
        usage: what it cost; None where the measuring process was itself killed.
    """

    job: CompileJob
    first_error: str
    log: Path
    command: str
    exit_status: int
    usage: EdgeUsage | None = None


@dataclass(frozen=True, slots=True)
class NotRun:
    """A job that was never started, because an earlier one failed or the run was stopped."""

    job: CompileJob


Outcome = Compiled | CompileFailed | NotRun


@dataclass(frozen=True, slots=True)
class Started:
    """A compiler was started.

    Attributes:
        job: the job.
        start_s: when, in seconds since the start of the run.
    """

    job: CompileJob
    start_s: float


@dataclass(frozen=True, slots=True)
class Finished:
    """A job succeeded; its output can be published now."""

    compiled: Compiled


@dataclass(frozen=True, slots=True)
class Failed:
    """A job failed."""

    failure: CompileFailed


Event = Started | Finished | Failed
"""What `run` reports while it runs, each as soon as it happened."""


@dataclass(slots=True)
class RunResult:
    """Result of one ninja run.

    Attributes:
        directory: the run directory, with build.ninja and .ninja_log.
        outcomes: one per job, in the order of the jobs.
        wall_s: wall-clock seconds of the run.
        cpu_s: CPU seconds of all compiler calls.
        jobs: parallelism used.
    """

    directory: Path
    outcomes: list[Outcome] = field(default_factory=list)
    wall_s: float = 0.0
    cpu_s: float = 0.0
    jobs: int = 1
