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

from jitcache.build.action import ACTIONS, TEMPORARY, Action, actions_of
from jitcache.build.capacity import choose_jobs, read_machine
from jitcache.build.collector import Collector
from jitcache.build.edge import EVENTS
from jitcache.build.events import RUN_END, EventTail
from jitcache.build.interrupt import Interrupts
from jitcache.build.model import CompileJob, Event, RunResult
from jitcache.build.ninjabin import find_ninja
from jitcache.build.ninjafile import render
from jitcache.build.rundir import storage_error
from jitcache.toolchain.environment import clean_environment

BUILD_FILE = "build.ninja"

_HERE = Path(__file__).parent
_EDGE = _HERE / "edge.py"
_TETHER = _HERE / "tether.py"
_LOOK_MS = 100
_PATIENCE_S = 5.0
_TAIL = 1 << 14


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
    collector = Collector(actions, directory, begin, result.jobs, on_event)
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
    collector: Collector,
    stop: threading.Event | None,
) -> tuple[int, str]:
    """Run ninja and deliver events until it ends: its exit status and its last words."""
    said = b""
    with EventTail(directory / EVENTS) as tail, Interrupts() as interrupts:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_TETHER), str(os.getpid()), *argv],
            cwd=directory,
            env=clean_environment(os.environ, f"{directory}/{TEMPORARY}"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # Ctrl-C is for us alone; we pass it on.
            start_new_session=True,
        )
        pipe = process.stdout
        assert pipe is not None  # noqa: S101
        # Not select(): a serving process may have more than 1024 files open.
        poller = select.poll()
        poller.register(pipe, select.POLLIN)
        ended = False
        try:
            while not ended:
                if poller.poll(_LOOK_MS):
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
