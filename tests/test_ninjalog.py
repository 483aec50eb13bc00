"""The reader of .ninja_log: versions, runs, recompaction, damage, size."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jitcache.buildlog.log import NinjaLog, group_outputs, parse_log, read_log
from jitcache.errors import InputError, JitcacheError

SMALL = Path(__file__).parent / "data" / "ninja" / "small"
ALL_OUTPUTS = {"pair.c", "pair.h", "pair.log", "gen.h", "a.o", "b.o", "c.o", "app"}
SECOND = 1_000_000_000
EPOCH = 1_770_000_000 * SECOND


def parse(text: str | bytes, **kwargs: int) -> NinjaLog:
    data = text.encode() if isinstance(text, str) else text
    return parse_log(io.BytesIO(data), where="log", **kwargs)


def line(output: str, start: int, end: int, began: int = EPOCH, command: str = "ab") -> str:
    return f"{start}\t{end}\t{began + start * 1_000_000}\t{output}\t{command}\n"


def outputs(log: NinjaLog) -> list[list[str]]:
    return [[e.output for e in r.entries] for r in log.runs]


@pytest.mark.parametrize("version", [5, 6, 7])
def test_real_logs_of_two_runs(version: int) -> None:
    log = read_log(SMALL / f"v{version}-two-runs.log")
    assert log.version == version
    assert [set(r) for r in outputs(log)] == [ALL_OUTPUTS, ALL_OUTPUTS]
    assert log.skipped == {}
    assert log.notes == []
    first, second = log.runs
    assert first.began_ns is not None
    assert second.began_ns is not None
    assert 1.1 < (second.began_ns - first.began_ns) / SECOND < 1.3


def test_a_recompacted_version_7_log_is_sorted_out_by_its_stamps() -> None:
    log = read_log(SMALL / "v7-recompacted.log")
    assert [set(r) for r in outputs(log)] == [
        {"gen.h", "a.o"},
        ALL_OUTPUTS - {"gen.h", "a.o"},
    ]
    assert [e.end_ms for e in log.runs[1].entries] == sorted(e.end_ms for e in log.runs[1].entries)
    assert "recompacted" in log.notes[0]


def test_a_recompacted_version_5_log_is_one_mixed_run() -> None:
    log = read_log(SMALL / "v5-recompacted.log")
    assert [set(r) for r in outputs(log)] == [ALL_OUTPUTS]
    assert log.runs[0].mixed
    assert "recompacted" in log.notes[0]


def test_runs_after_a_recompaction_stay_apart() -> None:
    rng = random.Random(7)
    old = [line(f"o{i}", i, 10 * i + 1, began=0) for i in range(60)]
    rng.shuffle(old)
    new = [line("o1", 0, 5, began=0), line("o2", 0, 9, began=0), line("o1", 0, 3, began=0)]
    log = parse("# ninja log v5\n" + "".join(old + new))
    assert log.runs[0].mixed
    assert len(log.runs[0].entries) == 60
    assert outputs(log)[1:] == [["o1", "o2"], ["o1"]]


def test_many_short_runs_of_version_5_are_not_taken_for_a_recompaction() -> None:
    text = "# ninja log v5\n"
    for i in range(30):
        text += line("a.o", 0, 100 - i) + line("app", 100 - i, 130 - i)
    log = parse(text)
    assert len(log.runs) == 30
    assert not any(r.mixed for r in log.runs)


def test_stamps_part_runs_whose_end_times_keep_rising() -> None:
    later = EPOCH + 60 * SECOND
    log = parse("# ninja log v7\n" + line("a", 0, 100) + line("b", 0, 900, began=later))
    assert outputs(log) == [["a"], ["b"]]
    # Version 5 stamps outputs, not starts, so there the same two lines are one run.
    assert outputs(parse("# ninja log v5\n" + line("a", 0, 100) + line("b", 0, 900))) == [
        ["a", "b"]
    ]


def test_a_failed_start_and_a_long_edge_after_it_are_two_runs() -> None:
    later = EPOCH + 2 * SECOND
    log = parse("# ninja log v7\n" + line("a", 0, 1000) + line("b", 0, 50_000, began=later))
    assert outputs(log) == [["a"], ["b"]]


def test_a_restat_edge_belongs_to_the_run_it_was_written_in() -> None:
    # Its stamp is the time of its output, here 900 ms into a command of 1 s.
    restat = f"500\t1500\t{EPOCH + 1_400_000_000}\tgen.h\tcd\n"
    log = parse("# ninja log v7\n" + line("a", 0, 400) + restat + line("b", 1500, 1600))
    assert outputs(log) == [["a", "gen.h", "b"]]


def test_two_ninjas_at_once_are_two_runs() -> None:
    other = EPOCH + SECOND
    text = "# ninja log v7\n"
    for i in range(10):
        text += line(f"a{i}", i * 500, i * 500 + 400)
        text += line(f"b{i}", i * 300, i * 300 + 200, began=other)
    log = parse(text)
    assert outputs(log) == [[f"a{i}" for i in range(10)], [f"b{i}" for i in range(10)]]


def test_stamps_that_are_no_starts_are_not_believed() -> None:
    text = "# ninja log v7\n"
    for i in range(40):
        text += f"{i}\t{i + 1}\t{EPOCH + i * 86_400 * SECOND}\to{i}\tab\n"
    assert [len(r) for r in outputs(parse(text))] == [40]


def test_lines_without_stamp_stay_with_their_neighbours() -> None:
    later = EPOCH + 60 * SECOND
    text = line("a", 0, 100) + "5\t110\t0\tb\tcd\n" + line("a", 0, 90, began=later)
    assert outputs(parse("# ninja log v7\n" + text)) == [["a", "b"], ["a"]]


def test_outputs_of_one_edge_are_grouped() -> None:
    log = read_log(SMALL / "v7-two-runs.log")
    groups = group_outputs(log.runs[0].entries)
    assert [e.output for e in groups[0]] == ["pair.c", "pair.h", "pair.log"]
    assert len(groups) == len(ALL_OUTPUTS) - 2


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("1\t2\t3\n", "fewer than five columns"),
        ("1\t2\t3\to\tab\tx\n", "more than five columns"),
        ("x\t2\t3\to\tab\n", "times, output or hash unreadable"),
        ("1\t2\t3\t\tab\n", "times, output or hash unreadable"),
        ("9\t2\t3\to\tab\n", "ends before it starts"),
        ("-5\t2\t3\to\tab\n", "impossible time"),
        ("5\t99999999999999\t3\to\tab\n", "impossible time"),
        ("5\t6\t3\t" + "o" * 70_000 + "\tab\n", "line longer than 64 KiB"),
        ("\x00\x01\x02\n", "fewer than five columns"),
    ],
)
def test_bad_lines_are_counted_and_left_out(bad: str, why: str) -> None:
    good = line("a", 0, 100)
    log = parse("# ninja log v7\n" + good + bad + bad + line("b", 100, 200))
    assert log.skipped == {why: 2}
    assert outputs(log) == [["a", "b"]]


def test_a_cut_last_line_is_told_and_a_whole_one_kept() -> None:
    log = read_log(SMALL / "v7-truncated.log")
    assert log.skipped == {"cut off at the end of the file": 1}
    assert "a.o" not in outputs(log)[1]
    whole = parse("# ninja log v7\n" + line("a", 0, 1).rstrip("\n"))
    assert outputs(whole) == [["a"]]


def test_a_lost_header_is_noted() -> None:
    log = parse(line("a", 0, 1))
    assert log.version == 0
    assert "no header" in log.notes[0]
    assert outputs(log) == [["a"]]


def test_a_newer_version_is_read_with_a_note() -> None:
    log = parse("# ninja log v9\n" + line("a", 0, 1))
    assert outputs(log) == [["a"]]
    assert "version 9" in log.notes[0]


def test_concatenated_logs_are_parted_at_the_header() -> None:
    log = parse(2 * "# ninja log v5\n".join(["", line("a", 0, 5), line("b", 0, 9)]))
    assert len(log.runs) >= 2


@pytest.mark.parametrize(
    "text", ["", "\n\n", "hello\n", "<html>\n" * 50, "\x00" * 9000, "# ninja\n1\t2\n"]
)
def test_what_is_no_log_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="not a ninja log"):
        parse(text)


def test_an_old_version_is_refused_with_the_way_out() -> None:
    with pytest.raises(InputError, match="version 4 is too old") as e:
        parse("# ninja log v4\n" + line("a", 0, 1))
    assert e.value.hint is not None


def test_a_header_alone_is_a_log_without_runs() -> None:
    assert parse("# ninja log v7\n").runs == []


def test_missing_files_and_directories_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such log"):
        read_log(tmp_path / ".ninja_log")
    with pytest.raises(InputError, match="not a regular file"):
        read_log(tmp_path)


def test_only_the_newest_entries_of_a_huge_log_are_kept() -> None:
    text = "# ninja log v5\n" + "".join(line(f"o{i}", i, i + 1) for i in range(1000))
    log = parse(text, max_entries=10)
    assert outputs(log) == [[f"o{i}" for i in range(990, 1000)]]
    assert any("990 oldest" in n or "991 oldest" in n for n in log.notes)


def test_only_the_end_of_a_huge_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / ".ninja_log"
    path.write_text("# ninja log v7\n" + "".join(line(f"o{i}", i, i + 1) for i in range(1000)))
    log = read_log(path, max_bytes=2048)
    assert log.version == 7
    assert log.skipped == {}
    (names,) = outputs(log)
    assert 40 < len(names) < 100
    assert names[-1] == "o999"
    assert "only its last 2 KiB were read" in log.notes[0]
    assert len(read_log(path).runs[0].entries) == 1000


class Endless(io.RawIOBase):
    """A stream of lines far larger than memory ought to be, made while it is read."""

    def __init__(self, chunks: int) -> None:
        self.left = chunks

    def read(self, size: int = -1) -> bytes:
        if self.left == 0:
            return b""
        self.left -= 1
        return b"x" * size


def test_a_gigabyte_without_a_newline_is_one_skipped_line() -> None:
    with pytest.raises(InputError, match="not a ninja log"):
        parse_log(Endless(1024), where="log")  # type: ignore[arg-type]


@settings(max_examples=150)
@given(st.binary(max_size=400), st.booleans(), st.sampled_from([b"5", b"7", b"12"]))
def test_any_bytes_give_a_log_or_a_clear_error(data: bytes, header: bool, version: bytes) -> None:
    try:
        log = parse(b"# ninja log v" + version + b"\n" + data if header else data)
    except JitcacheError:
        return
    assert all(r.entries for r in log.runs)


fields = st.tuples(
    st.integers(0, 2000), st.integers(0, 2000), st.sampled_from("abcdefgh"), st.integers(0, 3)
)


@settings(max_examples=150)
@given(st.lists(fields, max_size=40), st.sampled_from([5, 6, 7]), st.integers(0, 3))
def test_no_entry_is_lost_or_doubled(
    rows: list[tuple[int, int, str, int]], version: int, cut: int
) -> None:
    text = f"# ninja log v{version}\n" + "".join(
        line(o, s, s + d, began=EPOCH + run * 10 * SECOND) for s, d, o, run in rows
    )
    log = parse(text)
    found = sorted((e.output, e.start_ms, e.end_ms) for r in log.runs for e in r.entries)
    assert found == sorted((o, s, s + d) for s, d, o, _ in rows)
    for run in log.runs:
        if not run.mixed:
            names = [e.output for e in run.entries]
            assert len(names) == len(set(names))
            assert [e.end_ms for e in run.entries] == sorted(e.end_ms for e in run.entries)
