"""Edge events become outcomes."""

from __future__ import annotations

from pathlib import Path

import pytest

from jitcache.build.action import action_of
from jitcache.build.collector import Collector
from jitcache.build.events import EdgeEnd, EdgeStart
from jitcache.build.model import Compiled, CompileFailed, Failed, Finished, NotRun, Started
from jitcache.errors import StoreError
from tests.build_help import Log, job


def end(ident: str, status: int = 0, *, full: bool = False) -> EdgeEnd:
    return EdgeEnd(ident, 12.0, 1.5, 1.25, 4096, status, full, None)


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def collector(tmp_path: Path, log: Log) -> Collector:
    made = Collector([action_of(job("a")), action_of(job("b"))], tmp_path, 10.0, 2, log.append)
    for name in ("a", "b"):
        action = action_of(job(name))
        depfile = tmp_path / action.depfile
        depfile.parent.mkdir(parents=True)
        depfile.write_text(f"o: {action.source} {tmp_path}/h.hpp\n")
    return made


A, B = action_of(job("a")).id, action_of(job("b")).id


def test_times_count_from_the_start_of_the_run(collector: Collector, log: Log) -> None:
    collector.take(EdgeStart(A, 10.5))
    collector.take(end(A))
    started, finished = log
    assert started == Started(job("a"), 0.5)
    assert isinstance(finished, Finished)
    assert finished.compiled.usage.start_s == 0.5
    # The source is no header.
    assert [h.name for h in finished.compiled.headers] == ["h.hpp"]
    assert collector.cpu_s == 1.25


def test_each_event_is_told_once(collector: Collector, log: Log) -> None:
    for event in (EdgeStart(A, 10.5), EdgeStart(A, 10.6), end(A), end(A, 1), EdgeStart(A, 11.0)):
        collector.take(event)
    collector.take(EdgeStart("0" * 16, 10.0))
    collector.take(end("0" * 16))
    assert [type(e) for e in log] == [Started, Finished]
    assert [type(o) for o in collector.outcomes()] == [Compiled, NotRun]


def test_what_we_kill_has_not_failed_and_what_was_done_counts(
    collector: Collector, log: Log
) -> None:
    collector.stopped = True
    collector.take(end(A, -15))
    collector.take(end(B))
    assert [type(e) for e in log] == [Finished]
    assert [type(o) for o in collector.outcomes()] == [NotRun, Compiled]


def test_a_full_disk_ends_the_run(collector: Collector, log: Log) -> None:
    with pytest.raises(StoreError, match="the disk is full"):
        collector.take(end(A, 1, full=True))
    assert log == []


def test_an_edge_that_vanished_failed(collector: Collector, log: Log) -> None:
    collector.take(EdgeStart(A, 10.5))
    collector.judge(1, "FAILED: x\n")
    assert [type(e) for e in log] == [Started, Failed]
    assert [type(o) for o in collector.outcomes()] == [CompileFailed, NotRun]
