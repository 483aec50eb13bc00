"""Why a compiler call failed, in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from jitcache.build.failure import build_error, explain, first_error, reason, was_killed
from jitcache.build.model import Compiled, CompileFailed, EdgeUsage, NotRun, RunResult
from tests.build_help import job

CLANG = b"""In file included from actions/aa/tu.cu:3:
warning: unknown error: not one
csrc/a.hpp:12:5: \x1b[31merror: \x1b[0mno member named 'x'
csrc/a.hpp:13:5: error: second
2 errors generated.
"""


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (CLANG.replace(b"unknown error: ", b""), "csrc/a.hpp:12:5: error: no member named 'x'"),
        (
            b"x.cu:1:10: fatal error: 'ck/ck.hpp' file not found\n",
            "x.cu:1:10: fatal error: 'ck/ck.hpp' file not found",
        ),
        (b"1 warning\nld.lld: error: undefined symbol: f\n", "ld.lld: error: undefined symbol: f"),
        (b"LLVM ERROR: out of registers\n", "LLVM ERROR: out of registers"),
        (b"\n\n  only this\n", "only this"),
        (b"bad \xff byte\n", "bad \N{REPLACEMENT CHARACTER} byte"),
        (b"", "the compiler said nothing"),
    ],
)
def test_first_error(said: bytes, line: str) -> None:
    assert first_error(said) == line


def test_a_template_name_of_a_page_is_cut() -> None:
    assert len(first_error(b"error: " + b"x" * 10_000)) == 400


def why(status: int, said: bytes = b"", peak: int = 2 << 30, jobs: int = 8) -> str:
    return reason(status, said, peak_rss=peak, jobs=jobs)


@pytest.mark.parametrize(
    ("status", "said"),
    [(-9, b""), (137, b""), (1, b"clang: error: unable to execute command: Killed\n")],
)
def test_the_memory_killer_is_named_with_a_way_out(status: int, said: bytes) -> None:
    assert why(status, said) == ("killed, probably out of memory: peak RSS 2.00 GiB, try --jobs 4")


def test_advice_never_asks_for_no_jobs() -> None:
    assert why(-9, jobs=1) == (
        "killed, probably out of memory: peak RSS 2.00 GiB, with one job already"
    )
    assert why(-9, peak=0, jobs=3) == "killed, probably out of memory, try --jobs 1"


def test_other_ends() -> None:
    assert why(1, b"a: error: b\n") == "a: error: b"
    assert why(2) == "exit status 2, the compiler said nothing"
    assert why(-11) == "killed by SIGSEGV, the compiler said nothing"
    assert why(-11, b"Stack dump:\n") == "killed by SIGSEGV: Stack dump:"
    assert why(139, b"Stack dump:\n") == "exit status 139 (SIGSEGV): Stack dump:"
    assert not was_killed(0, b"unable to execute command: Killed")


def test_build_error_says_all() -> None:
    usage = EdgeUsage(0, 1, 1, 1)
    bad = CompileFailed(job("bad"), "a: error: b", Path("/r/log"), "cd /r && cc", 1)
    result = RunResult(Path("/r"), [Compiled(job("ok"), Path("/r/o"), (), usage), bad])
    error = build_error(result)
    assert error is not None
    assert error.what == "1 of 2 translation units failed to compile"
    assert error.details == explain(bad)
    assert error.details == ("bad: a: error: b", "  log: /r/log", "  reproduce: cd /r && cc")
    assert error.hint is None

    result.outcomes.append(NotRun(job("late")))
    error = build_error(result)
    assert error is not None
    assert error.what.endswith("1 of 3 translation units failed to compile, 1 were not started")
    assert error.hint is not None
    result.outcomes = result.outcomes[:1]
    assert build_error(result) is None
