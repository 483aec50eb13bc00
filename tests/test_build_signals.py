"""Ctrl-C, SIGTERM and kill -9: nothing runs on, nothing half-written counts."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from jitcache.build import edge, tether
from jitcache.build.interrupt import Interrupts
from jitcache.build.rundir import clean_runs
from jitcache.errors import ExitCode

# Runs a build whose first job ends at once and whose two others would run for minutes: one
# deaf to signals, one a driver with a child; both have written their output already.
BUILDER = """
import dataclasses, json, sys
from pathlib import Path
from jitcache.build.model import Finished, Failed, Started
from jitcache.build.rundir import new_run_directory
from jitcache.build.runner import run
from jitcache.errors import JitcacheError
from tests.build_help import job

root, marker = Path(sys.argv[1]), sys.argv[2]
directory = new_run_directory(root)
shell = 'echo half > {output}; echo o: s > {depfile}; exec "$@"'
def half(name, *words):
    base = job(name, *words, "say=" + marker, "sleep=300", cost_s=1)
    return dataclasses.replace(base, argv=("sh", "-c", shell, "sh", *base.argv))
jobs = [job("quick", cost_s=9), half("deaf", "deaf=1"), half("driver", "child=300")]

def on_event(event):
    kind = type(event).__name__
    inner = getattr(event, "compiled", None) or getattr(event, "failure", event)
    print(json.dumps([kind, inner.job.label]), flush=True)

try:
    run(jobs, directory=directory, parallel=3, keep_going=True, on_event=on_event)
except KeyboardInterrupt:
    print(json.dumps(["end", "KeyboardInterrupt"]), flush=True)
    sys.exit(130)
except JitcacheError as e:
    print(json.dumps(["end", type(e).__name__]), flush=True)
    sys.exit(int(e.exit_code))
"""


@dataclass
class Builder:
    """A child process in the middle of a build."""

    process: subprocess.Popen[str]
    marker: str
    root: Path
    events: list[list[str]]

    def running(self) -> list[int]:
        """Processes of the compilers and their children."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    words = (entry / "cmdline").read_bytes()
                    state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                except OSError:
                    continue
                if self.marker.encode() in words and b"-c\0" not in words[:64] and state != "Z":
                    found.append(int(entry.name))
        return [pid for pid in found if pid != self.process.pid]

    def wrappers(self) -> list[int]:
        """Those that are edge.py; for a moment after its fork, also what becomes a compiler."""
        found = []
        for pid in self.running():
            with contextlib.suppress(OSError):
                if b"edge.py" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
        return found

    def running_in(self, group: int) -> list[int]:
        """Those of one process group."""
        found = []
        for pid in self.running():
            with contextlib.suppress(ProcessLookupError):
                if os.getpgid(pid) == group:
                    found.append(pid)
        return found

    def ninja(self) -> int:
        """Process id of its ninja."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        assert len(children) == 1
        return int(children[0])

    def rest(self) -> None:
        """Read what it still says, until it ends."""
        assert self.process.stdout is not None
        self.events += [json.loads(line) for line in self.process.stdout]
        self.process.wait(30)

    def wait_until_nothing_runs(self) -> None:
        deadline = time.monotonic() + 20
        while self.running():
            assert time.monotonic() < deadline, f"still running: {self.running()}"
            time.sleep(0.02)


@pytest.fixture
def builder(tmp_path: Path) -> Iterator[Builder]:
    marker = f"marker-{secrets.token_hex(8)}"
    process = subprocess.Popen(
        [sys.executable, "-c", BUILDER, str(tmp_path / "runs"), marker],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent.parent,
        start_new_session=True,
    )
    assert process.stdout is not None
    made = Builder(process, marker, tmp_path / "runs", [])
    try:
        while ["Finished", "quick"] not in made.events or len(made.events) < 4:
            line = process.stdout.readline()
            assert line, "the builder ended early"
            made.events.append(json.loads(line))
        # Both long ones: wrapper, shell turned stub, and the driver's child.
        deadline = time.monotonic() + 20
        while len(made.running()) < 5 or len(made.wrappers()) != 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield made
    finally:
        process.kill()
        process.stdout.close()
        process.wait()
        for pid in made.running():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("sent", "raised", "status"),
    [
        (signal.SIGINT, "KeyboardInterrupt", ExitCode.INTERRUPTED),
        (signal.SIGTERM, "Terminated", ExitCode.TERMINATED),
    ],
)
def test_asked_to_stop(builder: Builder, sent: signal.Signals, raised: str, status: int) -> None:
    builder.process.send_signal(sent)
    builder.rest()
    # By the time run() raises, everything is gone, also what ignores signals.
    assert builder.running() == []
    assert builder.process.returncode == status
    assert builder.events[-1] == ["end", raised]
    finished = [label for kind, label in builder.events if kind in {"Finished", "Failed"}]
    assert finished == ["quick"]
    # It came to an orderly end: the directory is kept for its logs.
    assert clean_runs(builder.root) == []


def test_the_builder_is_killed(builder: Builder) -> None:
    builder.process.kill()
    builder.rest()
    builder.wait_until_nothing_runs()
    assert [e for e in builder.events if e[0] == "Finished"] == [["Finished", "quick"]]
    assert len(clean_runs(builder.root)) == 1


def test_ninja_is_killed(builder: Builder) -> None:
    os.kill(builder.ninja(), signal.SIGKILL)
    builder.rest()
    builder.wait_until_nothing_runs()
    assert builder.events[-1] == ["end", "BuildError"]
    assert [e for e in builder.events if e[0] == "Finished"] == [["Finished", "quick"]]


def test_a_wrapper_is_asked_to_stop(builder: Builder) -> None:
    """Whoever stops only an edge stops its compilers too; the others go on."""
    wrappers = builder.wrappers()
    os.kill(wrappers[0], signal.SIGTERM)
    deadline = time.monotonic() + 20
    while builder.running_in(wrappers[0]):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert builder.running_in(wrappers[1])


def test_an_edge_whose_builder_has_gone_does_not_start(tmp_path: Path) -> None:
    script = Path(edge.__file__)
    (tmp_path / "events.jsonl").touch()
    env = {**os.environ, edge.BUILDER: "1"}
    done = subprocess.run(
        [sys.executable, "-I", "-S", script, "aa", "log", "--", "touch", "ran"],
        cwd=tmp_path,
        env=env,
        start_new_session=True,
    )
    assert done.returncode == 143
    assert not (tmp_path / "ran").exists()


def test_an_edge_has_a_process_group_of_its_own(tmp_path: Path) -> None:
    """It ends its whole group when it is stopped: that may never be the caller's."""
    (tmp_path / "events.jsonl").touch()
    argv = [sys.executable, "-I", "-S", edge.__file__, "aa", "log", "--", "sleep", "300"]
    with subprocess.Popen(argv, cwd=tmp_path) as process:
        while not (tmp_path / "events.jsonl").stat().st_size:
            assert process.poll() is None
            time.sleep(0.01)
        assert os.getpgid(process.pid) == process.pid
        process.terminate()
        assert process.wait(20) == -signal.SIGKILL


def test_both_scripts_agree_on_the_variable() -> None:
    assert edge.BUILDER == tether.BUILDER


def test_a_tether_whose_parent_has_gone_starts_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", tether.__file__, "1", "/bin/touch", str(tmp_path / "ran")]
    )
    assert done.returncode == 0
    assert not (tmp_path / "ran").exists()


def test_second_signal_takes_its_usual_way() -> None:

    with Interrupts() as interrupts:
        signal.raise_signal(signal.SIGINT)
        assert interrupts.received is signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt):
        interrupts.raise_received()


def test_other_peoples_handlers_and_other_threads_are_left_alone() -> None:

    calls: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: calls.append(number))
    try:
        with Interrupts() as interrupts:
            signal.raise_signal(signal.SIGTERM)
        assert calls == [signal.SIGTERM]
        assert interrupts.received is None
    finally:
        signal.signal(signal.SIGTERM, before)

    def elsewhere() -> None:
        with Interrupts():
            calls.append(signal.getsignal(signal.SIGINT) is signal.default_int_handler)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert calls[1:] == [True]
