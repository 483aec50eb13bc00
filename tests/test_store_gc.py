"""Collecting: least recently used first, never what is pinned, in use or shared."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitcache import digest
from jitcache.errors import InputError
from jitcache.store.actions import Actions
from jitcache.store.gcplan import Choice, Entry, Limits, choose, total_size
from jitcache.store.layout import Bucket
from jitcache.store.model import ActionRecord, Hit
from jitcache.store.pins import DamagedPin, Pin, pin, pins, unpin
from jitcache.store.sealed import seal
from jitcache.store.store import Store
from tests.store_help import age, kill_points, make, memory_dir, overwrite, run_and_exit, stored

NOW = 1_000_000.0
DAY = 86400.0


def entry(name: str, days: float, size: int = 100, *blobs: str, **kwargs: str) -> Entry:
    named = tuple((b, 1000) for b in blobs or (name,))
    return Entry(name, NOW - days * DAY, size, named, **kwargs)


class TestPlan:
    def test_the_least_recently_used_go_until_ninety_percent(self) -> None:
        entries = [entry(str(n), days=n + 1) for n in range(10)]  # 11,000 bytes
        choice = choose(entries, Limits(max_size=10_000), now=NOW)
        # One too many would do for 10,000; 9,000 needs two.
        assert choice.victims == ["9", "8"]
        assert choice.after == 8800
        assert choose(entries, Limits(max_size=11_000), now=NOW).victims == []

    def test_what_is_not_named_counts_as_well(self) -> None:
        entries = [entry("a", 1), entry("b", 2)]
        assert choose(entries, Limits(max_size=2200), now=NOW).victims == []
        assert choose(entries, Limits(max_size=2200), now=NOW, loose=1).victims == ["b"]

    def test_a_shared_blob_is_freed_with_its_last_record(self) -> None:
        entries = [entry("a", 3, 100, "x"), entry("b", 2, 100, "x"), entry("c", 1, 100, "y")]
        choice = choose(entries, Limits(max_size=2250), now=NOW)  # 2,300 bytes; goal 2,025
        assert choice.victims == ["a", "b"]
        assert choice.after == 1100

    def test_age(self) -> None:
        entries = [entry("a", 29.9), entry("b", 30.1)]
        assert choose(entries, Limits(max_age_s=30 * DAY), now=NOW).victims == ["b"]

    def test_the_pinned_and_the_recent_stay_and_are_named(self) -> None:
        entries = [entry("old", 3), entry("pinned", 9), entry("now", 0.001)]
        limits = Limits(max_size=0, pinned=frozenset({"pinned", "elsewhere"}))
        choice = choose(entries, limits, now=NOW)
        assert choice.victims == ["old"]
        assert (choice.kept_pinned, choice.kept_recent) == (["pinned"], ["now"])

    def test_filters(self) -> None:
        entries = [
            entry("a", 1, target="gfx942", toolchain="t1"),
            entry("b", 2, target="gfx950", toolchain="t1"),
            entry("c", 3, target="gfx950", toolchain="t2"),
        ]
        for limits, victims in (
            (Limits(), []),
            (Limits(target="gfx950"), ["c", "b"]),
            (Limits(target="gfx950", toolchain="t1"), ["b"]),
            (Limits(target="gfx942", max_age_s=2 * DAY), []),
            (Limits(toolchain="t1", max_size=0), ["b", "a"]),
        ):
            assert choose(entries, limits, now=NOW).victims == victims, limits

    @given(
        rows=st.lists(
            st.tuples(
                st.integers(0, 40),
                st.integers(0, 500),
                st.lists(st.sampled_from("uvwxyz"), min_size=1, max_size=3),
                st.booleans(),
            ),
            max_size=12,
        ),
        max_size=st.integers(0, 8000),
        loose=st.integers(0, 500),
    )
    def test_any_choice(
        self, rows: list[tuple[int, int, list[str], bool]], max_size: int, loose: int
    ) -> None:
        entries = [
            entry(str(i), days, size, *blobs) for i, (days, size, blobs, _) in enumerate(rows)
        ]
        pinned = frozenset(str(i) for i, row in enumerate(rows) if row[3])
        before = total_size(entries) + loose
        choice = choose(entries, Limits(max_size=max_size, pinned=pinned), now=NOW, loose=loose)
        left = [e for e in entries if e.key not in choice.victims]
        assert choice.after == total_size(left) + loose
        assert not pinned & set(choice.victims)
        if before <= max_size:
            assert choice.victims == []
        else:
            untouchable = [e for e in left if e.key not in pinned and NOW - e.used > 300]
            assert choice.after <= max_size * 9 // 10 or not untouchable
            # Nothing younger went while something older that could go stayed.
            used = {e.key: e.used for e in entries}
            for victim in choice.victims:
                assert all(used[victim] <= e.used for e in untouchable)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    with memory_dir() as path:
        yield path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def aged(store: Store, src: Path, name: str, days: float, size: int = 1000) -> ActionRecord:
    record, files = make(src, name, {"kernel.co": name.encode() * size})
    store.put(record, files)
    for path in (
        store.layout.record(record.key),
        *(store.blob_path(o.digest) for o in record.outputs),
    ):
        age(path, days * DAY)
    return record


def held(store: Store) -> set[str]:
    return {r.label[5:] for r in store.records() if isinstance(r, ActionRecord)}


class TestGc:
    def test_old_records_go_with_their_blobs(self, store: Store, tmp_path: Path) -> None:
        aged(store, tmp_path, "a", 40)
        aged(store, tmp_path, "b", 20)
        dry = store.gc(Limits(max_age_s=30 * DAY), dry_run=True)
        assert held(store) == {"a", "b"}
        report = store.gc(Limits(max_age_s=30 * DAY))
        assert report == dry
        assert (len(report.removed), report.blobs, report.within_limit) == (1, 1, True)
        assert held(store) == {"b"}
        clean = store.verify()
        assert (clean.damage, clean.unreferenced, clean.blobs) == ((), 0, 1)
        on_disk = sum(
            p.stat().st_size
            for b in (Bucket.AC, Bucket.CAS)
            for p in store.layout.bucket(b).rglob("*")
            if p.is_file()
        )
        assert report.after_bytes == on_disk

    def test_without_the_directory_for_temporary_files(self, store: Store, tmp_path: Path) -> None:
        aged(store, tmp_path, "a", 40)
        store.layout.bucket(Bucket.TMP).rmdir()
        report = store.gc(Limits(max_age_s=30 * DAY))
        assert (len(report.removed), report.blobs) == (1, 1)
        assert store.verify().unreferenced == 0

    def test_a_hit_saves_from_collection(self, store: Store, tmp_path: Path) -> None:
        a = aged(store, tmp_path, "a", 40)
        aged(store, tmp_path, "b", 35)
        assert isinstance(store.lookup(a.key), Hit)
        store.gc(Limits(max_age_s=30 * DAY))
        assert held(store) == {"a"}

    def test_a_record_used_at_the_last_moment_stays(
        self, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        record = aged(store, tmp_path, "a", 40)

        def choose_then_use(*args: Any, **kwargs: Any) -> Choice:
            choice = choose(*args, **kwargs)
            assert isinstance(store.lookup(record.key), Hit)
            return choice

        monkeypatch.setattr("jitcache.store.gc.choose", choose_then_use)
        report = store.gc(Limits(max_age_s=30 * DAY))
        assert (report.removed, report.blobs) == ((), 0)
        assert isinstance(Store(store.layout.root, hit_policy="full").lookup(record.key), Hit)

    def test_bytes_that_nobody_names_count_until_they_go(
        self, store: Store, tmp_path: Path
    ) -> None:
        aged(store, tmp_path, "old", 400)
        recent = stored(store, tmp_path, "recent")
        orphan, files = make(tmp_path, "orphan", {"kernel.co": b"x" * 50_000})
        store.put(orphan, files)
        store.layout.record(orphan.key).unlink()
        report = store.gc(Limits(max_size=40_000), dry_run=True)
        on_disk = sum(
            p.stat().st_size
            for b in (Bucket.AC, Bucket.CAS)
            for p in store.layout.bucket(b).rglob("*")
            if p.is_file()
        )
        assert report.before_bytes == on_disk
        assert len(report.removed) == 1, "the young orphan stays, so something else has to go"
        assert report.kept_recent == (recent.key,)
        assert not report.within_limit

    def test_without_limits_only_rubbish_goes(self, store: Store, tmp_path: Path) -> None:
        keep = aged(store, tmp_path, "keep", 400)
        lost = aged(store, tmp_path, "lost", 400)
        store.layout.record(lost.key).unlink()
        old, new = (store.layout.bucket(Bucket.QUARANTINE) / n for n in ("old", "new"))
        for incident in (old, new):
            incident.mkdir(parents=True)
            (incident / "why.json").write_text("{}")
        os.utime(old, (1, 1))
        dry = store.gc(Limits(), dry_run=True)
        report = store.gc(Limits())
        assert dry == report
        assert (report.removed, report.blobs, report.incidents) == ((), 1, 1)
        assert [p.name for p in store.layout.bucket(Bucket.QUARANTINE).iterdir()] == ["new"]
        assert isinstance(store.lookup(keep.key), Hit)

    def test_a_limit_that_can_not_be_met_is_said(self, store: Store, tmp_path: Path) -> None:
        stored(store, tmp_path)
        report = store.gc(Limits(max_size=10))
        assert not report.within_limit
        assert len(report.kept_recent) == 1

    def test_unreadable_records_keep_all_blobs(
        self, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        aged(store, tmp_path, "gone", 40)
        secret = aged(store, tmp_path, "secret", 40)
        real = os.open

        def refuse(path: str | Path, *args: int) -> int:
            if str(path) == str(store.layout.record(secret.key)):
                raise PermissionError(13, "Permission denied", path)
            return real(path, *args)

        monkeypatch.setattr(os, "open", refuse)
        report = store.gc(Limits(max_age_s=30 * DAY))
        assert (len(report.removed), report.blobs) == (1, 0)
        assert store.blob_path(secret.outputs[0].digest).exists()

    def test_gc_of_an_absent_store_makes_nothing(self, store: Store) -> None:
        assert store.gc(Limits(max_size=0), dry_run=True).removed == ()
        assert not store.layout.root.exists()

    @pytest.mark.slow
    def test_killed_at_every_step(self, store: Store, tmp_path: Path) -> None:
        keep = aged(store, tmp_path, "keep", 1)

        def work() -> None:
            store.gc(Limits(max_age_s=30 * DAY))

        killed = 0
        aged(store, tmp_path, "a", 40)
        aged(store, tmp_path, "b", 50)
        for _, _, status in kill_points(work):
            killed += status < 0
            assert store.verify(move_damaged=False).damage == ()
            assert isinstance(store.lookup(keep.key), Hit)
            aged(store, tmp_path, "a", 40)
            aged(store, tmp_path, "b", 50)
        assert killed > 10

    def test_builders_and_a_collector_side_by_side(self, store: Store, tmp_path: Path) -> None:
        made = [make(tmp_path, n, {"kernel.co": n.encode() * 9000}) for n in "abc"]
        stop = time.monotonic() + 0.7

        def build(seed: int) -> None:
            mine = Store(store.layout.root, hit_policy="full")
            turn = seed
            while time.monotonic() < stop:
                record, files = made[turn % 3]
                mine.put(record, files)
                # Just put, so within the grace of every collector: it must be there.
                assert isinstance(mine.lookup(record.key), Hit)
                turn += 1

        def gather() -> None:
            while time.monotonic() < stop:
                store.gc(Limits(max_size=0, grace_s=30))

        pids = []
        for job in (lambda: build(0), lambda: build(1), gather, gather):
            pid = os.fork()
            if pid == 0:
                run_and_exit(job)
            pids.append(pid)
        assert [os.waitstatus_to_exitcode(os.waitpid(p, 0)[1]) for p in pids] == [0] * 4
        assert store.verify().damage == ()


class TestIndex:
    LIMITS = Limits(max_age_s=1000 * DAY)

    def reads(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """Keys of the records that a collection reads."""
        read: list[str] = []
        real = Actions.get

        def get(self: Actions, key: str) -> object:
            read.append(key)
            return real(self, key)

        with monkeypatch.context() as patch:
            patch.setattr(Actions, "get", get)
            store.gc(self.LIMITS)
        return read

    def test_only_what_changed_is_read_again(
        self, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        records = [aged(store, tmp_path, n, 10) for n in "abc"]
        assert sorted(self.reads(store, monkeypatch)) == sorted(r.key for r in records)
        assert self.reads(store, monkeypatch) == []
        store.lookup(records[0].key)
        new = aged(store, tmp_path, "new", 5)
        assert sorted(self.reads(store, monkeypatch)) == sorted([records[0].key, new.key])
        store.layout.record(records[1].key).unlink()
        assert self.reads(store, monkeypatch) == []
        assert self.reads(store, monkeypatch) == []

    def test_another_record_in_the_same_place_is_read(self, store: Store, tmp_path: Path) -> None:
        first = aged(store, tmp_path, "a", 500)
        store.gc(self.LIMITS)
        path = store.layout.record(first.key)
        st = path.stat()
        second, files = make(tmp_path, "a", {"kernel.co": b"b" * 1000})
        path.unlink()
        store.put(second, files)
        # The same size and mtime, and as likely as not the same inode; ctime tells.
        assert path.stat().st_size == st.st_size
        os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns))
        age(store.blob_path(second.outputs[0].digest), 500 * DAY)
        store.gc(self.LIMITS)
        assert isinstance(Store(store.layout.root, hit_policy="full").lookup(second.key), Hit)
        assert not store.blob_path(first.outputs[0].digest).exists()

    @pytest.mark.parametrize("garbage", [b"", b"x", seal(b"[]"), seal(b"{}"), b"rows"])
    def test_garbage_is_nothing(
        self, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, garbage: bytes
    ) -> None:
        record = aged(store, tmp_path, "a", 10)
        store.gc(self.LIMITS)
        index = store.layout.bucket(Bucket.MEMO) / "index.json"
        if garbage == b"rows":
            garbage = seal(digest.canonical_json({record.key: 3, "x": None}))
        index.write_bytes(garbage)
        assert self.reads(store, monkeypatch) == [record.key]
        assert self.reads(store, monkeypatch) == []
        assert store.gc(Limits(max_age_s=DAY)).removed == (record.key,)

    def test_a_dry_run_writes_no_index(self, store: Store, tmp_path: Path) -> None:
        aged(store, tmp_path, "a", 10)
        store.gc(self.LIMITS, dry_run=True)
        assert not store.layout.bucket(Bucket.MEMO).exists()


class TestPins:
    KEYS = [digest.of_bytes(n.encode()) for n in "ab"]

    def test_pinned_actions_survive(self, store: Store, tmp_path: Path) -> None:
        a = aged(store, tmp_path, "a", 400)
        aged(store, tmp_path, "b", 400)
        made = pin(store.layout, "kimi.gfx950", [a.key])
        assert pins(store.layout) == [made]
        report = store.gc(Limits(max_age_s=DAY))
        assert report.kept_pinned == (a.key,)
        assert held(store) == {"a"}
        assert unpin(store.layout, "kimi.gfx950")
        assert not unpin(store.layout, "kimi.gfx950")
        store.gc(Limits(max_age_s=DAY))
        assert held(store) == set()

    def test_a_pin_is_replaced(self, store: Store) -> None:
        pin(store.layout, "x", self.KEYS)
        pin(store.layout, "x", self.KEYS[:1])
        (found,) = pins(store.layout)
        assert isinstance(found, Pin)
        assert found.keys == {self.KEYS[0]}

    @pytest.mark.parametrize("bad", ["", "../x", "a/b", ".hidden", "x" * 200, "a b"])
    def test_names_are_plain(self, store: Store, bad: str) -> None:
        with pytest.raises(InputError, match="letters, digits"):
            pin(store.layout, bad, self.KEYS)

    def test_a_damaged_pin_stops_collection_of_records(self, store: Store, tmp_path: Path) -> None:
        aged(store, tmp_path, "a", 400)
        pin(store.layout, "x", self.KEYS)
        overwrite(store.layout.bucket(Bucket.PINS) / "x.json", b"garbage")
        (found,) = pins(store.layout)
        assert isinstance(found, DamagedPin)
        assert store.gc(Limits(max_age_s=DAY)).removed == ()
        assert [n.kind for n in store.notices] == ["pin-damaged"]
        unpin(store.layout, "x")
        assert len(store.gc(Limits(max_age_s=DAY)).removed) == 1
