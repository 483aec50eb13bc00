"""The events file: read while it is written, and after any accident."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from jitcache.build.events import EdgeEnd, EdgeStart, EventTail, parse_line, run_ended

START = b'{"event":"start","id":"aa","at":1.500000}'
END = (
    b'{"event":"end","id":"aa","at":3.500000,"wall":2.000000,"cpu":1.900000,'
    b'"rss":4096,"status":0,"full":0}'
)
GOOD = EdgeEnd("aa", 3.5, 2.0, 1.9, 4096, 0, False, None)


def test_lines_are_read() -> None:
    assert parse_line(START) == EdgeStart("aa", 1.5)
    assert parse_line(END) == GOOD
    assert GOOD.good
    assert GOOD.usage(1.0).start_s == 0.5
    missing = parse_line(END[:-1] + b',"missing":0}')
    assert isinstance(missing, EdgeEnd)
    assert not missing.good


def test_no_shortened_line_passes_for_an_event() -> None:
    for line in (START, END):
        for cut in range(len(line)):
            assert parse_line(line[:cut]) is None
            assert cut == 0 or parse_line(line[cut:]) is None


def test_wrong_types_are_no_event() -> None:
    assert parse_line(END.replace(b'"status":0', b'"status":"0"')) is None
    assert parse_line(END.replace(b'"status":0', b'"status":false')) is None
    assert parse_line(END.replace(b'"rss":4096,', b"")) is None
    assert parse_line(b"[" * 100000) is None


@settings(max_examples=150)
@given(st.binary(max_size=120))
def test_any_bytes_are_an_event_or_nothing(data: bytes) -> None:
    assert parse_line(data) is None or data.strip().startswith(b"{")


def test_half_a_line_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "e"
    path.write_bytes(START + b"\n" + END[:30])
    with EventTail(path) as tail:
        assert list(tail.read()) == [EdgeStart("aa", 1.5)]
        assert list(tail.read()) == []
        with path.open("ab") as f:
            f.write(END[30:])
        assert list(tail.read()) == []
        with path.open("ab") as f:
            f.write(b"\n" + START + b"\n")
        assert list(tail.read()) == [GOOD, EdgeStart("aa", 1.5)]
        assert tail.skipped == 0


def test_garbage_is_passed_over_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "e"
    path.write_bytes(
        b"\x00\xff garbage\n"
        + START
        + b"\n"
        + b"x" * 300_000
        + b"\n"
        + END[:50]
        + START
        + b"\n\n"
        + END
        + b"\n"
    )
    with EventTail(path) as tail:
        assert list(tail.read()) == [EdgeStart("aa", 1.5), GOOD]
        assert tail.skipped == 3


def test_a_line_that_never_ends_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "e"
    path.write_bytes(b"{" * 3_000_000)
    with EventTail(path) as tail:
        assert list(tail.read()) == []
        assert len(tail._rest) < 10
        with path.open("ab") as f:
            f.write(b"\n" + END + b"\n")
        assert list(tail.read()) == [GOOD]


def test_end_of_run_is_seen_only_as_last_line(tmp_path: Path) -> None:
    path = tmp_path / "e"
    assert not run_ended(path)
    path.write_bytes(b"")
    assert not run_ended(path)
    path.write_bytes(START + b'\n{"event":"run-end","at":1.0}\n')
    assert run_ended(path)
    path.write_bytes(START + b"\n" + END + b"\n")
    assert not run_ended(path)
    path.write_bytes(b'{"event":"run-end","at":1')
    assert not run_ended(path)
