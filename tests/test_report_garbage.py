"""Logs that make no sense: a clear message, or a partial report that says what it skipped."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from jitcache.cli.report import command
from jitcache.errors import JitcacheError

GOOD = "0\t1000\t0\ta.o\tab\n1000\t3000\t0\tb.o\tcd\n"
HEADER = "# ninja log v7\n"
_MEMORY = """
import sys
from jitcache.errors import JitcacheError
from jitcache.report.source import read_build
from pathlib import Path
try:
    print(len(read_build(Path(sys.argv[1])).log.runs))
except JitcacheError as e:
    print(e)
# Not ru_maxrss, which a process has from the one that started it.
print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])
"""


def report(tmp_path: Path, log: str | bytes) -> dict[str, Any]:
    data = log if isinstance(log, bytes) else log.encode()
    (tmp_path / ".ninja_log").write_bytes(data)
    result = CliRunner().invoke(command, [str(tmp_path), "--json"], catch_exceptions=False)
    value: dict[str, Any] = json.loads(result.stdout)
    return value


@pytest.mark.parametrize(
    "bad",
    [
        "5000\t4000\t0\tnegative.o\tef\n",
        "-9\t4000\t0\tbefore.o\tef\n",
        "0\t99999999999999\t0\ta-clock-jump.o\tef\n",
        "0\t1000\t0\tint2000\t3000\t0\terleaved.o\tef\n",
        "\x00\x01\xff\n",
        "x" * 70_000 + "\n",
    ],
    ids=["negative", "before-start", "clock-jump", "interleaved", "binary", "long-line"],
)
def test_a_bad_line_is_left_out_and_counted(tmp_path: Path, bad: str) -> None:
    value = report(tmp_path, HEADER + GOOD + bad)
    assert value["wall_s"] == 3.0
    assert sorted(e["output"] for e in value["edges"]) == ["a.o", "b.o"]
    assert sum(value["skipped_lines"].values()) == 1


def test_a_log_cut_in_a_line_is_reported_as_far_as_it_goes(tmp_path: Path) -> None:
    value = report(tmp_path, HEADER + GOOD + "3000\t40")
    assert value["wall_s"] == 3.0
    assert value["skipped_lines"]


@pytest.mark.parametrize("header", [HEADER, ""])
def test_gigabytes_take_bounded_memory(tmp_path: Path, header: str) -> None:
    path = tmp_path / ".ninja_log"
    with path.open("wb") as f:
        f.write(header.encode())
        f.truncate(4 << 30)
    done = subprocess.run(
        [sys.executable, "-c", _MEMORY, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout.split()[-1]) < 200 << 10  # kilobytes


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([GOOD, "\t", "-1", "9" * 30, "\n", "\x00", HEADER, "é"]), max_size=12)
)
def test_whatever_a_log_holds_there_is_no_traceback(parts: list[str]) -> None:
    runner = CliRunner()
    with tempfile.TemporaryDirectory() as place:
        Path(place, ".ninja_log").write_bytes((HEADER + "".join(parts)).encode())
        for how in ("--json", "--markdown"):
            error = runner.invoke(command, [place, how]).exception
            assert error is None or isinstance(error, JitcacheError)
