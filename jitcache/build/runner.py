"""Compile jobs with ninja, and hand every output over the moment it is there."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from jitcache.build import depfile, failure
from jitcache.build.action import (
    ACTIONS,
    TEMPORARY,
    Action,
    actions_of,
    clean_environment,
    reproduce_command,
)
from jitcache.build.capacity import choose_jobs, read_machine
from jitcache.build.edge import EVENTS
from jitcache.build.events import RUN_END, EdgeEnd, EdgeStart, EventTail
from jitcache.build.interrupt import Interrupts
from jitcache.build.model import (
    Compiled,
    CompileFailed,
    CompileJob,
    EdgeUsage,
    Event,
    Failed,
    Finished,
    NotRun,
    Outcome,
    RunResult,
    Started,
)
from jitcache.build.ninjabin import find_ninja
from jitcache.build.ninjafile import render
from jitcache.build.rundir import storage_error
from jitcache.errors import BuildError, StoreError

BUILD_FILE = "build.ninja"

_HERE = Path(__file__).parent
_EDGE = _HERE / "edge.py"
_TETHER = _HERE / "tether.py"
_LOOK_S = 0.1
_PATIENCE_S = 5.0
_TAIL = 1 << 14
_STORAGE_ERRORS = (
    "No space left on device",
    "Disk quota exceeded",
    "Read-only file system",
    "Permission denied",
)


def run(
    jobs: Sequence[CompileJob],
    *,
    directory: Path,
    parallel: int | None,
    keep_going: bool,
    on_event: Callable[[Event], None],
    stop: threading.Event | None = None,
) -> RunResult:
    """Compile all jobs, longest expected first.

    Args:
        jobs: what to compile; their keys are distinct.
        directory: a fresh directory from `new_run_directory`.
        parallel: how many compilers at once; None: as many as cores, quota and memory allow.
        keep_going: after a failure, still build everything else; otherwise start nothing
            new, and let what runs come to its end.
        on_event: called in this thread for every start and end, as soon as it is seen.
        stop: set it to end the run: compilers are killed, and what had not ended is `NotRun`.

    Returns:
        One outcome per job, in their order.

    Raises:
        KeyboardInterrupt: Ctrl-C; no compiler runs any more.
        Terminated: SIGTERM; likewise.
        StoreError: the directory can't be written: full, read-only, not ours.
        ToolchainError: no ninja.
        BuildError: ninja itself failed.
    """
    actions = actions_of(jobs)
    if parallel is None:
        parallel = choose_jobs(read_machine(), [job.memory for job in jobs]).jobs
    result = RunResult(directory=directory, jobs=max(1, min(parallel, len(jobs) or 1)))
    if not jobs:
        return result
    ninja = find_ninja()
    directory = directory.absolute()
    try:
        _prepare(actions, directory)
    except OSError as e:
        raise storage_error(e, "can't write the run directory", directory) from e

    argv = [str(ninja), "-j", str(result.jobs), "-k", "0" if keep_going else "1"]
    begin = time.monotonic()
    collector = _Collector(actions, directory, begin, result.jobs, on_event)
    try:
        code, said = _drive(argv, directory, collector, stop)
    finally:
        result.wall_s = time.monotonic() - begin
        _mark_end(directory, begin)
    if not collector.stopped:
        collector.judge(code, said)
    result.outcomes = collector.outcomes()
    result.cpu_s = collector.cpu_s
    return result


def _prepare(actions: Sequence[Action], directory: Path) -> None:
    """Write sources and build.ninja."""
    (directory / TEMPORARY).mkdir(exist_ok=True)
    for action in actions:
        (directory / ACTIONS / action.id).mkdir(parents=True)
        (directory / action.source).write_text(action.job.source, encoding="utf-8")
    (directory / EVENTS).write_bytes(b"")
    text = render(actions, python=sys.executable, edge=_EDGE)
    (directory / BUILD_FILE).write_text(text, encoding="utf-8", errors="surrogateescape")


def _mark_end(directory: Path, begin: float) -> None:
    """Note that the run came to its end; without it the directory counts as abandoned."""
    now = time.monotonic()
    try:
        with (directory / EVENTS).open("a") as f:
            f.write(f'{{"event":"{RUN_END}","at":{now:.6f},"begin":{begin:.6f}}}\n')
    except OSError:
        return  # a full disk has been reported already; the mark only spares the directory


def _drive(
    argv: list[str],
    directory: Path,
    collector: _Collector,
    stop: threading.Event | None,
) -> tuple[int, str]:
    """Run ninja and deliver events until it ends: its exit status and its last words."""
    said = b""
    with EventTail(directory / EVENTS) as tail, Interrupts() as interrupts:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_TETHER), str(os.getpid()), *argv],
            cwd=directory,
            env=clean_environment(os.environ, str(directory)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # Ctrl-C is for us alone; we pass it on.
            start_new_session=True,
        )
        pipe = process.stdout
        assert pipe is not None  # noqa: S101
        ended = False
        try:
            while not ended:
                if select.select([pipe], [], [], _LOOK_S)[0]:
                    chunk = os.read(pipe.fileno(), _TAIL)
                    ended = not chunk
                    said = (said + chunk)[-_TAIL:]
                for event in tail.read():
                    collector.take(event)
                if interrupts.received is not None or (stop is not None and stop.is_set()):
                    collector.stopped = True
                    break
        finally:
            # By whatever way we leave, ninja and its compilers are gone afterwards.
            if not ended:
                _terminate(process)
            pipe.close()
            code = process.wait()
        for event in tail.read():
            collector.take(event)
        interrupts.raise_received()
    return code, said.decode(errors="replace")


def _terminate(process: subprocess.Popen[bytes]) -> None:
    """Ask ninja to stop its edges, each of which kills its group; insist where it doesn't."""
    process.terminate()
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE_S)
    finally:
        process.kill()


class _Collector:
    """Turns edge events into outcomes and calls back.

    Attributes:
        stopped: whether the run was ended from outside.
        cpu_s: CPU seconds of all compilers so far.
    """

    def __init__(
        self,
        actions: Sequence[Action],
        directory: Path,
        begin: float,
        jobs: int,
        on_event: Callable[[Event], None],
    ) -> None:
        self.stopped = False
        self.cpu_s = 0.0
        self._actions = {action.id: action for action in actions}
        self._directory = directory
        self._begin = begin
        self._jobs = jobs
        self._on_event = on_event
        self._started: dict[str, float] = {}
        self._outcomes: dict[str, Compiled | CompileFailed] = {}

    def take(self, event: EdgeStart | EdgeEnd) -> None:
        """One event of the file; ones of unknown or already ended actions change nothing."""
        action = self._actions.get(event.id)
        if action is None or event.id in self._outcomes:
            return
        if isinstance(event, EdgeStart):
            if event.id not in self._started:
                self._started[event.id] = event.at - self._begin
                self._on_event(Started(action.job, event.at - self._begin))
            return
        if self.stopped and not event.good:
            return  # we killed it
        usage = event.usage(self._begin)
        self.cpu_s += usage.cpu_s
        if event.full:
            self._outcomes[event.id] = self._failure(action, event.status, usage)
            raise self._no_room(failure.first_error(self._diagnostics(action)))
        outcome = self._good(action, usage) if event.good else self._bad(action, event, usage)
        self._outcomes[event.id] = outcome
        if isinstance(outcome, Compiled):
            self._on_event(Finished(outcome))
        else:
            self._on_event(Failed(outcome))

    def _good(self, action: Action, usage: EdgeUsage) -> Compiled | CompileFailed:
        headers: tuple[str, ...] = ()
        if action.needs_depfile:
            try:
                found = depfile.parse((self._directory / action.depfile).read_bytes())
            except (OSError, depfile.DepfileError) as e:
                return self._failure(action, 0, usage, f"unreadable dependency file: {e}")
            headers = depfile.resolve(
                tuple(name for name in found if name != action.source), str(self._directory)
            )
        output = self._directory / action.output
        return Compiled(action.job, output, tuple(Path(h) for h in headers), usage)

    def _bad(self, action: Action, event: EdgeEnd, usage: EdgeUsage) -> CompileFailed:
        if event.missing is not None:
            name = (action.output, action.depfile)[min(event.missing, 1)]
            text = f"the compiler ended well, but {name} is missing or empty"
            return self._failure(action, event.status, usage, text)
        return self._failure(action, event.status, usage)

    def _failure(
        self, action: Action, status: int, usage: EdgeUsage | None, text: str | None = None
    ) -> CompileFailed:
        if text is None:
            peak = 0 if usage is None else usage.peak_rss
            said = self._diagnostics(action)
            text = failure.reason(status, said, peak_rss=peak, jobs=self._jobs)
        return CompileFailed(
            job=action.job,
            first_error=text,
            log=self._directory / action.diagnostics,
            command=reproduce_command(action, str(self._directory)),
            exit_status=status,
            usage=usage,
        )

    def _diagnostics(self, action: Action) -> bytes:
        return failure.read_diagnostics(self._directory / action.diagnostics)

    def _no_room(self, said: str) -> StoreError:
        return StoreError(
            f"the disk is full: {said}",
            where=str(self._directory),
            hint="free some space, or set JITCACHE_DIR to a larger file system",
        )

    def judge(self, code: int, said: str) -> None:
        """Once ninja has ended by itself: edges that vanished, and errors of its own.

        Raises:
            StoreError: something could not be written.
            BuildError: ninja failed, and no compiler did.
        """
        if code == 0 and len(self._outcomes) == len(self._actions):
            return
        storage = [
            line
            for line in said.splitlines()
            if line.startswith(("edge: ", "ninja: ")) and any(e in line for e in _STORAGE_ERRORS)
        ]
        vanished = [i for i in self._started if i not in self._outcomes]
        failed = any(isinstance(o, CompileFailed) for o in self._outcomes.values())
        if storage:
            raise StoreError(
                "the build could not write its files",
                where=str(self._directory),
                hint="free some space, or set JITCACHE_DIR to a writable directory",
                details=tuple(storage[:3]),
            )
        if code < 0:
            raise BuildError(
                f"ninja was killed by signal {-code}",
                where=str(self._directory),
                hint="start the command again: what was finished is not built twice",
            )
        for ident in vanished:
            action = self._actions[ident]
            lost = self._failure(action, -9, None)
            self._outcomes[ident] = lost
            self._on_event(Failed(lost))
        if not failed and not vanished:
            raise BuildError(
                f"ninja ended with status {code} and no compiler failed",
                where=str(self._directory),
                hint="run ninja there by hand to see more",
                details=_last_lines(said),
            )

    def outcomes(self) -> list[Outcome]:
        """One per job, in the order of the jobs."""
        return [
            self._outcomes.get(action.id) or NotRun(action.job) for action in self._actions.values()
        ]


def _last_lines(said: str) -> tuple[str, ...]:
    return tuple(line for line in said.splitlines() if line.strip())[-5:]
