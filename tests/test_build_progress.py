"""What a build shows of itself."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from jitcache.build.model import (
    Compiled,
    CompileFailed,
    CompileJob,
    EdgeUsage,
    Failed,
    Finished,
    Started,
)
from jitcache.build.progress import Progress, remaining_s
from tests.build_help import job


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def ok(what: CompileJob, wall: float) -> Finished:
    return Finished(Compiled(what, Path("o"), (), EdgeUsage(0, wall, wall, 1)))


def test_lines_elsewhere_than_on_a_terminal() -> None:
    a, b = job("gemm1 256x128x128x128 v3 hot-even gfx950"), job("b")
    stream = io.StringIO()
    with Progress([a, b], 2, stream=stream) as progress:
        progress.event(Started(a, 0))
        progress.event(ok(a, 23.21))
        progress.event(Failed(CompileFailed(b, "x.hpp:1: error: no", Path("l"), "c", 1)))
        progress.line("note")
    assert stream.getvalue() == (
        "[1/2] 23.2 s  gemm1 256x128x128x128 v3 hot-even gfx950\n"
        "[2/2] FAILED  b: x.hpp:1: error: no\n"
        "note\n"
    )


def test_quiet_means_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for stream in (io.StringIO(), Terminal()):
        with Progress([job("a")], 1, stream=stream, quiet=True) as progress:
            progress.event(Started(job("a"), 0))
            progress.event(ok(job("a"), 1))
        assert stream.getvalue() == ""


def live(monkeypatch: pytest.MonkeyPatch, **env: str) -> str:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "70")
    monkeypatch.setenv("LINES", "24")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    now = [100.0]
    jobs = [job("a", cost_s=24), job("b", cost_s=10), job("c" * 100, cost_s=4)]
    stream = Terminal()
    progress = Progress(jobs, 1, stream=stream, clock=lambda: now[0])
    progress.event(Started(jobs[0], 0))
    now[0] += 14
    progress.event(Started(jobs[2], 14))
    progress.event(Failed(CompileFailed(jobs[2], "error: no", Path("l"), "c", 1)))
    progress.__exit__(None, None, None)
    return stream.getvalue()


def test_a_terminal_shows_what_runs_and_how_long_it_will_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = live(monkeypatch)
    assert "[0/3] 1 running, 2 waiting, about 38.0 s left\n     0.0 of 24 s  a\n" in text
    assert "    14.0 of 24 s  a\n" in text
    assert "[1/3] \x1b[31mFAILED\x1b[0m  " in text
    # 10 s of a, then b; c has gone.
    assert "[1/3] 1 running, 1 waiting, about 20.0 s left\n" in text
    assert max(len(line) for line in text.split("\n") if "FAILED" not in line) < 80
    # Each frame is wiped by as many lines as it drew, and nothing is left at the end.
    assert text.count("\x1b[2A\r\x1b[J") == 2
    assert text.count("\x1b[3A\r\x1b[J") == 1
    assert text.endswith("\r\x1b[J")


def test_no_color_and_dumb_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[31m" not in live(monkeypatch, NO_COLOR="1")
    assert "\x1b" not in live(monkeypatch, TERM="dumb")


def test_redraws_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("jitcache.build.progress._REDRAW_S", 0.01)
    stream = Terminal()
    a = job("a", cost_s=2)
    with Progress([a], 1, stream=stream) as progress:
        progress.event(Started(a, 0))
        assert progress._thread is not None
        while stream.getvalue().count("of 2 s") < 3:
            progress._closing.wait(0.005)
    assert not progress._thread.is_alive()


def test_a_closed_stream_ends_the_show_not_the_build() -> None:
    stream = io.StringIO()
    with Progress([job("a")], 1, stream=stream) as progress:
        stream.close()
        progress.event(ok(job("a"), 1))
        progress.event(ok(job("a"), 1))


def test_remaining_is_what_free_workers_take() -> None:
    assert remaining_s([], [], 4) == 0
    assert remaining_s([(5, 20)], [8, 4], 2) == 15
    assert remaining_s([(5, 20)], [8, 4], 1) == 27
    assert remaining_s([(30, 20)], [8], 1) == 8
    assert remaining_s([(5, 20)], [8], 2, pace=2.0) == 35
    assert remaining_s([(5, None)], [], 2) is None
    assert remaining_s([], [None], 2) is None


def test_unmeasured_jobs_count_as_the_mean_of_those_done() -> None:
    jobs = [job(n) for n in "abcd"]
    now = [0.0]
    progress = Progress(jobs, 1, stream=io.StringIO(), clock=lambda: now[0])
    assert progress.left_s() is None
    progress.event(Started(jobs[0], 0))
    progress.event(ok(jobs[0], 6))
    assert progress.left_s() == pytest.approx(18)
    progress.event(Started(jobs[1], 6))
    now[0] = 4
    assert progress.left_s() == pytest.approx(14)


def test_a_slower_machine_is_noticed() -> None:
    jobs = [job("a", cost_s=10), job("b", cost_s=5), job("u")]
    progress = Progress(jobs, 1, stream=io.StringIO(), clock=lambda: 0.0)
    progress.event(ok(jobs[0], 20))
    # Twice as slow as expected: b takes 10; u, of which nothing is known, 20 like a.
    assert progress.left_s() == pytest.approx(30)
