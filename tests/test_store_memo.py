"""Hints: they are right or absent, and a broken one is as good as none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jitcache import digest
from jitcache.store.layout import Bucket, Layout
from jitcache.store.memo import STAT_LIMIT, Memo, MemoEntry, MemoHeader, StatMemo
from jitcache.store.sealed import SealError, seal, unseal

DIRECT = digest.of_bytes(b"direct")
ENTRY = MemoEntry(
    digest.of_bytes(b"key"),
    (
        MemoHeader("ck/ck/ck.hpp", "/opt/ck/ck/ck.hpp", digest.of_bytes(b"1")),
        MemoHeader("a/first.h", "/a/first.h", digest.of_bytes(b"2")),
    ),
)
LONG_AGO = 1_000_000_000


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "store")


def files(layout: Layout) -> list[Path]:
    return sorted(p for p in layout.bucket(Bucket.MEMO).rglob("*") if p.is_file())


class TestMemo:
    def test_what_was_put_is_there_in_order_and_the_latest_wins(self, layout: Layout) -> None:
        assert Memo(layout).get(DIRECT) is None
        Memo(layout).put(DIRECT, ENTRY)
        assert Memo(layout).get(DIRECT) == ENTRY
        later = MemoEntry(digest.of_bytes(b"later"), ENTRY.headers[:1])
        Memo(layout).put(DIRECT, later)
        assert Memo(layout).get(DIRECT) == later

    def test_a_header_set_is_stored_once(self, layout: Layout) -> None:
        memo = Memo(layout)
        for n in range(3):
            memo.put(digest.of_bytes(bytes([n])), ENTRY)
        assert [p.parent.parent.name for p in files(layout)] == ["direct"] * 3 + ["headers"]

    @pytest.mark.parametrize("garbage", [b"", b"{}", b"null", b"\xff", seal(b"[1,2]"), seal(b"x")])
    def test_garbage_is_nothing(self, layout: Layout, garbage: bytes) -> None:
        for n in (0, 1):
            Memo(layout).put(DIRECT, ENTRY)
            files(layout)[n].write_bytes(garbage)
            assert Memo(layout).get(DIRECT) is None
        for path in files(layout):
            path.unlink()
        Memo(layout).put(DIRECT, ENTRY)
        assert Memo(layout).get(DIRECT) == ENTRY

    def test_an_unwritable_place_is_not_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "store").write_text("a file")
        memo = Memo(Layout(tmp_path / "store"))
        memo.put(DIRECT, ENTRY)
        assert Memo(Layout(tmp_path / "store")).get(DIRECT) is None


class TestStatMemo:
    @pytest.fixture
    def header(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        path = tmp_path / "header.h"
        path.write_bytes(b"#pragma once")
        self.clock(monkeypatch, path, 10.0)
        return path

    @staticmethod
    def clock(monkeypatch: pytest.MonkeyPatch, path: Path, seconds: float) -> None:
        """Make it `seconds` after the file's last change."""
        now = path.stat().st_ctime_ns + int(seconds * 1e9)
        monkeypatch.setattr("jitcache.store.memo.time.time_ns", lambda: now)

    @staticmethod
    def forbid_reading(monkeypatch: pytest.MonkeyPatch) -> None:
        def read(*_: object) -> None:
            raise AssertionError("the file was read")

        monkeypatch.setattr(StatMemo, "_read", read)

    def test_an_unchanged_file_is_not_read_again(
        self, layout: Layout, header: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = StatMemo(layout)
        want = digest.of_bytes(b"#pragma once")
        assert first.digest(str(header)) == want
        first.save()
        self.forbid_reading(monkeypatch)
        assert first.digest(str(header)) == want
        assert StatMemo(layout).digest(str(header)) == want

    def test_an_edit_of_the_same_length_and_mtime_is_seen(
        self, layout: Layout, header: Path
    ) -> None:
        os.utime(header, (LONG_AGO, LONG_AGO))
        memo = StatMemo(layout)
        memo.digest(str(header))
        memo.save()
        header.write_bytes(b"#pragma ONCE")
        os.utime(header, (LONG_AGO, LONG_AGO))
        assert StatMemo(layout).digest(str(header)) == digest.of_bytes(b"#pragma ONCE")

    def test_another_file_moved_into_place_is_seen(
        self, layout: Layout, header: Path, tmp_path: Path
    ) -> None:
        memo = StatMemo(layout)
        memo.digest(str(header))
        other = tmp_path / "other.h"
        other.write_bytes(b"#pragma ONCE")
        st = header.stat()
        os.utime(other, ns=(st.st_atime_ns, st.st_mtime_ns))
        other.rename(header)
        assert memo.digest(str(header)) == digest.of_bytes(b"#pragma ONCE")

    @pytest.mark.parametrize(("seconds", "remembered"), [(0.1, False), (1.9, False), (2.1, True)])
    def test_a_recent_file_is_not_remembered(
        self,
        layout: Layout,
        header: Path,
        monkeypatch: pytest.MonkeyPatch,
        seconds: float,
        remembered: bool,
    ) -> None:
        # It could change again within the same timestamp, and nobody would see.
        self.clock(monkeypatch, header, seconds)
        memo = StatMemo(layout)
        memo.digest(str(header))
        memo.save()
        assert (files(layout) != []) is remembered
        self.forbid_reading(monkeypatch)
        if remembered:
            StatMemo(layout).digest(str(header))
        else:
            with pytest.raises(AssertionError, match="was read"):
                StatMemo(layout).digest(str(header))

    def test_an_mtime_in_the_future_is_not_remembered(self, layout: Layout, header: Path) -> None:
        os.utime(header, (4_000_000_000, 4_000_000_000))
        memo = StatMemo(layout)
        memo.digest(str(header))
        memo.save()
        assert files(layout) == []

    @pytest.mark.parametrize(
        "garbage", [b"", b"garbage", b"[]", seal(b"[]"), seal(b"null"), b"number", b"short"]
    )
    def test_garbage_is_nothing(self, layout: Layout, header: Path, garbage: bytes) -> None:
        path = layout.bucket(Bucket.MEMO) / "stat.json"
        path.parent.mkdir(parents=True)
        # Sealed, but not what a StatMemo writes.
        odd = {b"number": 3, b"short": [1, 2]}
        if garbage in odd:
            garbage = seal(digest.canonical_json({str(header): odd[garbage]}))
        path.write_bytes(garbage)
        memo = StatMemo(layout)
        assert memo.digest(str(header)) == digest.of_bytes(b"#pragma once")
        memo.save()
        assert StatMemo(layout).digest(str(header)) == digest.of_bytes(b"#pragma once")

    def test_two_writers_keep_each_other_s_entries(
        self, layout: Layout, header: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other = tmp_path / "other.h"
        other.write_bytes(b"2")
        self.clock(monkeypatch, other, 10)
        one, two = StatMemo(layout), StatMemo(layout)
        one.digest(str(header))
        two.digest(str(other))
        one.save()
        two.save()
        self.forbid_reading(monkeypatch)
        both = StatMemo(layout)
        both.digest(str(header))
        both.digest(str(other))

    def test_the_number_of_entries_is_bounded_and_the_new_ones_stay(
        self, layout: Layout, header: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = layout.bucket(Bucket.MEMO) / "stat.json"
        path.parent.mkdir(parents=True)
        many = {f"/{n:06}": [0, 0, 0, 0, "x"] for n in range(STAT_LIMIT)}
        path.write_bytes(seal(digest.canonical_json(many)))
        memo = StatMemo(layout)
        memo.digest(str(header))
        memo.save()
        import json

        entries = json.loads(unseal(path.read_bytes()))
        assert len(entries) == STAT_LIMIT
        assert str(header) in entries

    def test_a_missing_file_is_an_os_error(self, layout: Layout, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            StatMemo(layout).digest(str(tmp_path / "absent.h"))


def test_seals() -> None:
    assert unseal(seal(b'{"a":1}')) == b'{"a":1}'
    for bad in (b"", seal(b"1")[:-1], seal(b"1") + b"x", seal(b"1").replace(b"1}", b"2}")):
        with pytest.raises(SealError):
            unseal(bad)
