"""The store: what is put is looked up whole, and nothing damaged is ever handed out."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jitcache import digest
from jitcache.errors import DamagedError, ExitCode, StoreError
from jitcache.store import durable
from jitcache.store.actions import Actions
from jitcache.store.blobs import Blobs
from jitcache.store.layout import Bucket, Layout, store_root
from jitcache.store.model import ActionRecord, DamagedRecord, Hit, Miss, Output
from jitcache.store.records import canonical, decode, encode
from jitcache.store.reports import NotWritable, Writable
from jitcache.store.store import Store
from tests.store_help import age_all, in_child, make, overwrite, stored, temps, tree

AS_USER = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")


@pytest.fixture
def src(tmp_path: Path) -> Path:
    return tmp_path / "src"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def hit(store: Store, record: ActionRecord) -> Hit:
    found = store.lookup(record.key)
    assert isinstance(found, Hit), found
    return found


def miss(store: Store, record: ActionRecord) -> Miss:
    found = store.lookup(record.key)
    assert isinstance(found, Miss), found
    return found


def incidents(store: Store) -> list[str]:
    bucket = store.layout.bucket(Bucket.QUARANTINE)
    return sorted(p.name.split("-", 1)[1] for p in bucket.iterdir()) if bucket.exists() else []


class TestPutAndLookup:
    def test_what_was_put_is_found_with_its_bytes(self, store: Store, src: Path) -> None:
        record, files = make(src, outputs={"kernel.co": b"\x7fELF", "notes.txt": b""})
        assert store.put(record, files) == record
        found = hit(store, record)
        assert found.record == record
        assert found.layer == "local"
        assert {n: p.read_bytes() for n, p in found.paths.items()} == {
            "kernel.co": b"\x7fELF",
            "notes.txt": b"",
        }

    def test_layout_modes_and_cachedir_tag(self, store: Store, src: Path) -> None:
        record, files = make(src, mode=0o555)
        old = os.umask(0o077)
        try:
            store.put(record, files)
        finally:
            os.umask(old)
        key, blob = record.key[7:], record.outputs[0].digest[7:]
        assert tree(store.layout.root) == [
            "CACHEDIR.TAG",
            f"ac-v1/{key[:2]}/{key[2:]}.json",
            f"cas-v1/{blob[:2]}/{blob[2:]}",
        ]
        assert store.layout.blob(record.outputs[0].digest).stat().st_mode & 0o777 == 0o555
        assert store.layout.record(record.key).stat().st_mode & 0o777 == 0o444
        tag = store.layout.cachedir_tag().read_text()
        assert tag.startswith("Signature: 8a477f597d28d172789f06886806bc55")

    def test_no_directory_is_world_writable_whatever_the_umask(
        self, store: Store, src: Path
    ) -> None:
        old = os.umask(0)
        try:
            stored(store, src)
        finally:
            os.umask(old)
        for path in (store.layout.root, *store.layout.root.rglob("*")):
            assert path.stat().st_mode & 0o022 == 0, path

    def test_lookup_in_a_store_that_is_not_there_makes_nothing(
        self, store: Store, src: Path
    ) -> None:
        record, _ = make(src)
        assert miss(store, record).reason == "absent"
        assert not store.layout.root.exists()
        assert list(store.records()) == []
        assert store.verify().records == 0

    def test_put_again_changes_nothing(self, store: Store, src: Path) -> None:
        record, files = make(src)
        store.put(record, files)
        before = {p: (store.layout.root / p).stat().st_ino for p in tree(store.layout.root)}
        later = dataclasses.replace(record, created=record.created + 5, facts={})
        assert store.put(later, files) == record
        after = {p: (store.layout.root / p).stat().st_ino for p in tree(store.layout.root)}
        assert after == before
        assert store.notices == []

    def test_other_bytes_for_the_same_inputs_are_evidence_not_a_replacement(
        self, store: Store, src: Path
    ) -> None:
        first = stored(store, src)
        second, files = make(src, outputs={"kernel.co": b"other bytes"})
        assert second.key == first.key
        assert store.put(second, files) == first
        assert hit(store, first).record == first
        assert [n.kind for n in store.notices] == ["divergent"]
        assert "kernel.co" in store.notices[0].detail
        (incident,) = store.layout.bucket(Bucket.QUARANTINE).iterdir()
        assert decode((incident / "record.json").read_bytes()) == second
        assert (incident / "output-kernel.co").read_bytes() == b"other bytes"
        assert json.loads((incident / "why.json").read_text())["kind"] == "divergent"
        assert not store.blob_path(second.outputs[0].digest).exists()

    def test_a_first_record_whose_bytes_are_lost_gives_way(self, store: Store, src: Path) -> None:
        first = stored(store, src)
        store.blob_path(first.outputs[0].digest).unlink()
        second, files = make(src, outputs={"kernel.co": b"other bytes"})
        assert store.put(second, files) == second
        assert hit(store, second).paths["kernel.co"].read_bytes() == b"other bytes"

    def test_a_file_that_is_not_what_the_record_says_is_refused(
        self, store: Store, src: Path
    ) -> None:
        record, files = make(src)
        files["kernel.co"].write_bytes(b"changed after hashing")
        with pytest.raises(DamagedError) as e:
            store.put(record, files)
        assert e.value.exit_code == ExitCode.DAMAGED
        assert str(files["kernel.co"]) in str(e.value)
        assert tree(store.layout.root) == ["CACHEDIR.TAG"]

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"key": digest.of_bytes(b"")}, "not the digest of the inputs"),
            ({"inputs": {"x": 0.5}}, "canonical form"),
            ({"outputs": ()}, "at least one output"),
            ({"facts": {"x": float("nan")}}, "canonical form"),
            ({"label": "two\nlines"}, "control characters"),
            ({"outputs": (Output("../up", digest.of_bytes(b""), 0),)}, "plain file name"),
            ({"outputs": (Output("x", digest.of_bytes(b""), 0, 0o666),)}, "0444"),
            ({"created": -1}, "between 0"),
            ({"inputs": {"x": (1, 2)}}, "changes when it is written"),
        ],
    )
    def test_a_malformed_record_is_refused(
        self, store: Store, src: Path, change: dict[str, object], says: str
    ) -> None:
        record, files = make(src)
        if "inputs" in change and says != "canonical form":
            change["key"] = digest.of_json(change["inputs"])
        with pytest.raises(ValueError, match=says):
            store.put(dataclasses.replace(record, **change), files)  # type: ignore[arg-type]
        assert not store.layout.root.exists()

    def test_a_file_must_be_given_for_every_output(self, store: Store, src: Path) -> None:
        record, _ = make(src)
        with pytest.raises(ValueError, match=r"kernel\.co"):
            store.put(record, {})

    def test_one_blob_of_two_actions_is_stored_once(self, store: Store, src: Path) -> None:
        one, files = make(src, "one", {"kernel.co": b"same"})
        two, files2 = make(src, "two", {"kernel.co": b"same"}, mode=0o555)
        store.put(one, files)
        store.put(two, files2)
        assert store.verify().blobs == 1
        path = store.blob_path(one.outputs[0].digest)
        assert path.stat().st_mode & 0o777 == 0o555, "wanted executable by the second"


class TestRaces:
    """What others do between two of our steps, made to happen there."""

    @pytest.mark.parametrize("links", [True, False])
    def test_of_two_simultaneous_records_the_first_stays(
        self, store: Store, src: Path, monkeypatch: pytest.MonkeyPatch, links: bool
    ) -> None:
        theirs, their_files = make(src, outputs={"kernel.co": b"theirs"})
        ours, our_files = make(src, outputs={"kernel.co": b"ours"})
        real = Blobs.add
        came: list[bool] = []

        def add(self: Blobs, output: Output, source: Path) -> None:
            real(self, output, source)
            if not came:
                came.append(True)
                Store(store.layout.root).put(theirs, their_files)

        monkeypatch.setattr(Blobs, "add", add)
        if not links:

            def no_link(*_: object) -> None:
                raise PermissionError(1, "Operation not permitted")

            monkeypatch.setattr(os, "link", no_link)
        assert store.put(ours, our_files) == theirs
        assert hit(store, ours).paths["kernel.co"].read_bytes() == b"theirs"
        assert [n.kind for n in store.notices] == ["divergent"]

    def test_a_blob_removed_just_before_the_record_is_published_is_written_again(
        self, store: Store, src: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        record, files = make(src)
        real = Actions.add

        def add(self: Actions, record: ActionRecord) -> bool:
            if not store.layout.record(record.key).exists():
                store.blob_path(record.outputs[0].digest).unlink()
            return real(self, record)

        monkeypatch.setattr(Actions, "add", add)
        assert store.put(record, files) == record
        hit(store, record)

    def test_a_store_that_keeps_losing_the_record_is_given_up(
        self, store: Store, src: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        record, files = make(src)
        monkeypatch.setattr(Actions, "add", lambda *_: True)
        with pytest.raises(StoreError, match="does not stay"):
            store.put(record, files)

    def test_a_record_that_can_not_be_read_is_not_replaced(
        self, store: Store, src: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        record, files = make(src)
        store.put(record, files)
        path = store.layout.record(record.key)
        real = os.open

        def refuse(what: str | Path, *args: int) -> int:
            if str(what) == str(path):
                raise PermissionError(13, "Permission denied", what)
            return real(what, *args)

        with monkeypatch.context() as patch:
            patch.setattr(os, "open", refuse)
            assert miss(store, record).reason == "unreadable"
            with pytest.raises(StoreError, match="Permission denied"):
                store.put(record, files)
        hit(store, record)


class TestDamage:
    def test_a_truncated_blob_is_a_miss_and_put_mends_it(self, store: Store, src: Path) -> None:
        record, files = make(src)
        store.put(record, files)
        blob = store.blob_path(record.outputs[0].digest)
        overwrite(blob, b"half")
        found = miss(store, record)
        assert found.reason == "blob-damaged"
        assert "has 4 bytes, not 11" in found.detail
        assert not blob.exists()
        assert incidents(store)[0].startswith("blob-damaged-")
        assert miss(store, record).reason == "blob-missing"
        assert store.put(record, files) == record
        assert hit(store, record).paths["kernel.co"].read_bytes() == b"code of one"

    @pytest.mark.parametrize(
        ("policy", "sample", "sees"),
        [
            ("size", True, False),
            ("sampled", True, True),
            ("sampled", False, False),
            ("full", False, True),
        ],
    )
    def test_a_flipped_bit_is_seen_as_closely_as_the_policy_looks(
        self, tmp_path: Path, src: Path, policy: str, sample: bool, sees: bool
    ) -> None:
        store = Store(tmp_path / "s", hit_policy=policy, sample=lambda: sample)  # type: ignore[arg-type]
        record = stored(store, src)
        overwrite(store.blob_path(record.outputs[0].digest), b"code of ONE")
        assert isinstance(store.lookup(record.key), Miss) is sees

    def test_put_mends_a_flipped_bit_that_lookups_did_not_see(
        self, store: Store, src: Path
    ) -> None:
        record, files = make(src)
        store.put(record, files)
        overwrite(store.blob_path(record.outputs[0].digest), b"code of ONE")
        store.put(record, files)
        assert store.read(record.outputs[0].digest) == b"code of one"

    def test_read_verifies(self, store: Store, src: Path) -> None:
        record = stored(store, src)
        blob = record.outputs[0].digest
        assert store.read(blob) == b"code of one"
        overwrite(store.blob_path(blob), b"code of ONE")
        with pytest.raises(DamagedError):
            store.read(blob)
        with pytest.raises(StoreError, match="not in the store"):
            store.read(blob)

    @pytest.mark.parametrize(
        "garbage",
        [
            b"",
            b"{}",
            b"\xff\xfe",
            b"[" * 100_000,
            b'{"digest":"sha256:' + b"0" * 64 + b'","content":{}}\n',
            "cut",
            "flip",
            "other key",
        ],
    )
    def test_garbage_in_a_record_is_a_miss_and_goes_to_quarantine(
        self, store: Store, src: Path, garbage: bytes | str
    ) -> None:
        record, files = make(src)
        store.put(record, files)
        path = store.layout.record(record.key)
        whole = path.read_bytes()
        if garbage == "cut":
            garbage = whole[:-20]
        elif garbage == "flip":
            garbage = whole.replace(b"gfx950", b"gfx942")
        elif garbage == "other key":
            garbage = encode(make(src, "two")[0])
        assert isinstance(garbage, bytes)
        overwrite(path, garbage)
        assert miss(store, record).reason == "record-damaged"
        assert not path.exists()
        assert incidents(store)[0].startswith("record-damaged-")
        assert miss(store, record).reason == "absent"
        store.put(record, files)
        hit(store, record)

    def test_put_over_a_damaged_record_replaces_it(self, store: Store, src: Path) -> None:
        record, files = make(src)
        store.put(record, files)
        overwrite(store.layout.record(record.key), b"garbage")
        assert store.put(record, files) == record
        hit(store, record)

    def test_a_link_of_the_right_size_is_still_not_a_blob(self, store: Store, src: Path) -> None:
        record = stored(store, src)
        path = store.blob_path(record.outputs[0].digest)
        path.unlink()
        path.symlink_to("x" * record.outputs[0].size)
        assert miss(store, record).reason == "blob-damaged"

    @pytest.mark.parametrize("kind", ["link", "directory", "fifo"])
    def test_what_is_not_a_regular_file_is_never_followed(
        self, store: Store, src: Path, tmp_path: Path, kind: str
    ) -> None:
        record, files = make(src)
        store.put(record, files)
        for path in (store.layout.record(record.key), store.blob_path(record.outputs[0].digest)):
            elsewhere = tmp_path / "elsewhere"
            elsewhere.write_bytes(path.read_bytes())
            path.unlink()
            if kind == "link":
                path.symlink_to(elsewhere)
            elif kind == "directory":
                path.mkdir()
            else:
                os.mkfifo(path)
            assert miss(store, record).reason in {"record-damaged", "blob-damaged"}
            assert store.put(record, files) == record
            hit(store, record)

    def test_a_record_mended_just_before_quarantine_is_put_back(
        self, store: Store, src: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        record = stored(store, src)
        path = store.layout.record(record.key)
        # We judged an earlier, damaged file; what is moved is already the good one.
        assert store._actions.quarantine(path, "record-damaged", "seen earlier") is None
        hit(store, record)
        assert store._blobs.quarantine(record.outputs[0].digest, "seen earlier") is None
        hit(store, record)
        assert incidents(store) == []

    def test_records_lists_the_good_and_the_damaged(self, store: Store, src: Path) -> None:
        good = stored(store, src, "one")
        bad = stored(store, src, "two")
        overwrite(store.layout.record(bad.key), b"garbage")
        (store.layout.bucket(Bucket.AC) / "README").write_text("what is this")
        found = list(store.records())
        assert [r for r in found if isinstance(r, ActionRecord)] == [good]
        assert {d.path.name for d in found if isinstance(d, DamagedRecord)} == {
            "README",
            store.layout.record(bad.key).name,
        }


class TestVerify:
    def test_finds_moves_and_is_clean_after(self, store: Store, src: Path) -> None:
        keep, flipped, cut, lost = (stored(store, src, n) for n in ("keep", "flip", "cut", "lost"))
        overwrite(store.blob_path(flipped.outputs[0].digest), b"code of FLIP")
        overwrite(store.layout.record(cut.key), b'{"digest"')
        store.blob_path(lost.outputs[0].digest).unlink()
        (store.layout.bucket(Bucket.CAS) / "ab").mkdir(exist_ok=True)
        (store.layout.bucket(Bucket.CAS) / "ab" / "core").write_bytes(b"")
        (store.layout.bucket(Bucket.CAS) / "ab" / ".nfs0001").write_bytes(b"")
        expected = [
            "blob-damaged",
            "blob-missing",  # the record of the flipped blob, once that is moved away
            "blob-missing",
            "record-damaged",
            "stray",
        ]
        looked = store.verify(move_damaged=False)
        assert sorted(d.kind for d in looked.damage) == expected
        assert all(d.quarantined is None for d in looked.damage)
        moved = store.verify()
        assert sorted(d.kind for d in moved.damage) == expected
        assert all(d.quarantined and d.quarantined.is_dir() for d in moved.damage)
        clean = store.verify()
        assert clean.damage == ()
        assert (clean.records, clean.incidents) == (1, 5)
        assert clean.unreferenced == 1, "the blob of the cut record"
        hit(store, keep)

    def test_a_sealed_record_with_a_wrong_key_is_found(self, store: Store, src: Path) -> None:
        record, _ = make(src)
        forged = dataclasses.replace(record, inputs={"instance": "another"})
        path = store.layout.record(record.key)
        path.parent.mkdir(parents=True)
        path.write_bytes(encode(forged))
        (damage,) = store.verify().damage
        assert damage.kind == "record-damaged"
        assert "not the digest of the inputs" in damage.detail
        assert damage.quarantined is not None
        assert store.verify().damage == ()

    def test_a_record_whose_outputs_come_back_while_it_is_moved_is_put_back(
        self, store: Store, src: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        record, files = make(src)
        store.put(record, files)
        store.blob_path(record.outputs[0].digest).unlink()
        real = os.rename

        def rename(source: str | Path, target: str | Path) -> None:
            if str(source) == str(store.layout.record(record.key)):
                monkeypatch.setattr(os, "rename", real)
                store._blobs.add(record.outputs[0], files["kernel.co"])
            real(source, target)

        monkeypatch.setattr(os, "rename", rename)
        report = store.verify()
        assert (report.damage, report.records) == ((), 1)
        hit(store, record)
        assert incidents(store) == []


class TestRemove:
    def test_blobs_shared_with_another_record_stay(self, store: Store, src: Path) -> None:
        one, f1 = make(src, "one", {"a": b"shared", "b": b"mine"})
        two, f2 = make(src, "two", {"a": b"shared"})
        store.put(one, f1)
        store.put(two, f2)
        age_all(store)
        report = store.remove([one.key])
        assert (report.records, report.blobs, report.kept_recent) == ((one.key,), 1, 0)
        assert miss(store, one).reason == "absent"
        hit(store, two)
        assert store.verify().damage == ()
        assert store.verify().unreferenced == 0

    def test_what_is_young_stays_for_now_and_goes_later(self, store: Store, src: Path) -> None:
        record = stored(store, src)
        dry = store.remove([record.key], dry_run=True)
        report = store.remove([record.key])
        assert (len(report.records), report.blobs, report.kept_recent) == (1, 0, 1)
        assert dry == report
        age_all(store)
        report = store.remove([record.key])
        assert (report.records, report.absent, report.blobs) == ((), (record.key,), 1)
        assert tree(store.layout.root) == ["CACHEDIR.TAG"]

    def test_a_hit_makes_a_blob_young_again(self, store: Store, src: Path) -> None:
        record = stored(store, src)
        age_all(store)
        hit(store, record)
        assert store.remove([record.key]).kept_recent == 1

    def test_dry_run_says_the_same_and_removes_nothing(self, store: Store, src: Path) -> None:
        record = stored(store, src)
        age_all(store)
        before = tree(store.layout.root)
        dry = store.remove([record.key], dry_run=True)
        assert tree(store.layout.root) == before
        assert store.remove([record.key]) == dry

    def test_blobs_stay_while_a_record_can_not_be_read(
        self, store: Store, src: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gone, secret = stored(store, src, "gone"), stored(store, src, "secret")
        age_all(store)
        real = os.open

        def refuse(path: str | Path, *args: int) -> int:
            if str(path) == str(store.layout.record(secret.key)):
                raise PermissionError(13, "Permission denied", path)
            return real(path, *args)

        monkeypatch.setattr(os, "open", refuse)
        assert store.remove([gone.key]).blobs == 0
        assert store.blob_path(gone.outputs[0].digest).exists()

    def test_a_blob_touched_while_it_is_removed_is_put_back(
        self, store: Store, src: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        record = stored(store, src)
        blob = store.blob_path(record.outputs[0].digest)
        store.layout.record(record.key).unlink()
        age_all(store)
        real = os.rename

        def rename_late(source: str | Path, target: str | Path) -> None:
            if str(source) == str(blob):
                os.utime(source)  # a put came between the look and the rename
            real(source, target)

        monkeypatch.setattr(os, "rename", rename_late)
        report = store.remove([])
        assert (report.blobs, report.kept_recent) == (0, 1)
        assert blob.read_bytes() == b"code of one"

    def test_what_killed_processes_left_is_swept_after_an_hour(
        self, store: Store, src: Path
    ) -> None:
        stored(store, src)
        old, new = (store.layout.bucket(Bucket.TMP) / n for n in (".1-a.tmp", ".2-b.tmp"))
        old.write_bytes(b"")
        new.write_bytes(b"")
        os.utime(old, (1, 1))
        store.remove([])
        assert temps(store) == [new]


class TestUnusableStores:
    @pytest.mark.parametrize("full_at", range(4))  # tag, two blobs, record
    def test_full_disk_leaves_nothing_half_published(
        self, store: Store, src: Path, monkeypatch: pytest.MonkeyPatch, full_at: int
    ) -> None:
        record, files = make(src, outputs={"a": b"first", "b": b"second" * 1000})
        real = os.write
        writes = 0

        def write(fd: int, data: bytes) -> int:
            nonlocal writes
            writes += 1
            if writes > full_at:
                real(fd, data[:3])  # a part still fits
                raise OSError(28, "No space left on device")
            return real(fd, data)

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", write)
            with pytest.raises(StoreError) as e:
                store.put(record, files)
        assert "No space left" in str(e.value)
        assert "JITCACHE_DIR" in str(e.value)
        assert e.value.exit_code == ExitCode.STORE
        assert miss(store, record).reason == "absent"
        assert temps(store) == []
        assert store.verify().damage == ()
        store.put(record, files)
        hit(store, record)

    def test_a_file_size_limit_is_explained(self, store: Store, src: Path) -> None:
        import resource

        record, files = make(src, outputs={"kernel.co": bytes(100_000)})

        def limited() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
            with pytest.raises(StoreError, match="ulimit"):
                store.put(record, files)

        assert in_child(limited) == 0
        assert miss(store, record).reason == "absent"
        assert temps(store) == []
        assert store.verify().damage == ()

    @pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small tmpfs")
    def test_a_really_full_disk(self, tmp_path: Path, src: Path) -> None:
        disk = tmp_path / "disk"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "none", str(disk)]
        if subprocess.run(mount, capture_output=True).returncode != 0:
            pytest.skip("this machine does not let root mount a tmpfs")
        try:
            store = Store(disk / "s")
            small, small_files = make(src, "small")
            store.put(small, small_files)
            big, big_files = make(src, "big", {"kernel.co": os.urandom(200_000)})
            with pytest.raises(StoreError, match="disk is full"):
                store.put(big, big_files)
            hit(store, small)
            assert miss(store, big).reason == "absent"
            assert temps(store) == []
            assert store.verify().damage == ()
        finally:
            subprocess.run(["umount", "-l", str(disk)], check=True)

    @needs_root
    def test_a_read_only_store_gives_hits_and_refuses_puts(self, tmp_path: Path) -> None:
        # Below a directory that the other user can enter, which pytest's own is not.
        import shutil
        import tempfile

        top = Path(tempfile.mkdtemp())
        try:
            top.chmod(0o755)
            store = Store(top / "s")
            import filelock  # noqa: F401  # the other user may not be able to read it

            record, files = make(top / "src")
            store.put(record, files)
            other, other_files = make(top / "src", "other")
            broken = stored(store, top / "src", "broken")
            overwrite(store.layout.record(broken.key), b"garbage")

            def as_user() -> None:
                os.setuid(AS_USER)
                hit(store, record)
                assert miss(store, broken).reason == "record-damaged"
                state = store.writable()
                assert isinstance(state, NotWritable)
                assert not state
                assert "no permission" in state.detail
                with pytest.raises(StoreError, match="no permission"):
                    store.put(other, other_files)
                with pytest.raises(StoreError):
                    store.remove([record.key])
                assert [d.quarantined for d in store.verify().damage] == [None]
                assert {p.kind for p in store.problems()} == {"read-only"}
                got = store.lock(record.key)
                assert got.unlocked is not None
                got.release()

            assert in_child(as_user) == 0
            assert store.layout.record(broken.key).exists()
        finally:
            shutil.rmtree(top)

    def test_a_file_in_place_of_the_root(self, tmp_path: Path, src: Path) -> None:
        (tmp_path / "store").write_text("in the way")
        store = Store(tmp_path / "store")
        record, files = make(src)
        assert miss(store, record).reason == "unreadable"
        assert not store.writable()
        assert [p.kind for p in store.problems() if p.fatal] == ["not-a-directory"]
        with pytest.raises(StoreError, match="Not a directory"):
            store.put(record, files)

    def test_a_world_writable_root_is_not_believed_unless_the_user_says_so(
        self, store: Store, src: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        record, files = make(src)
        store.put(record, files)
        root = store.layout.root
        root.chmod(0o777)
        again = Store(root)
        assert miss(again, record).reason == "untrusted"
        with pytest.raises(StoreError, match="every user can write"):
            again.put(record, files)
        assert not again.writable()
        (problem,) = [p for p in again.problems() if p.fatal]
        assert problem.kind == "world-writable"
        assert "JITCACHE_TRUST_STORE=1" in problem.hint
        monkeypatch.setenv("JITCACHE_TRUST_STORE", "1")
        hit(Store(root), record)
        monkeypatch.delenv("JITCACHE_TRUST_STORE")
        root.chmod(0o755)
        store.layout.bucket(Bucket.AC).chmod(0o1777)
        assert miss(Store(root), record).reason == "untrusted"

    def test_a_world_writable_mode_on_a_read_only_mount_is_harmless(
        self, store: Store, src: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        record = stored(store, src)
        store.layout.root.chmod(0o777)
        real = os.statvfs

        def statvfs(path: Path) -> os.statvfs_result:
            values = list(real(path))
            values[8] |= os.ST_RDONLY
            return os.statvfs_result(values)

        monkeypatch.setattr(os, "statvfs", statvfs)
        again = Store(store.layout.root)
        hit(again, record)
        state = again.writable()
        assert isinstance(state, NotWritable)
        assert "read-only file system" in state.detail

    @needs_root
    def test_a_foreign_root_is_reported(self, store: Store, src: Path) -> None:
        stored(store, src)
        os.chown(store.layout.root, 1234, 1234)
        assert {p.kind for p in store.problems()} == {"foreign-owner"}

    def test_an_exposed_parent_is_reported(self, tmp_path: Path) -> None:
        parent = tmp_path / "shared"
        parent.mkdir()
        parent.chmod(0o777)
        problems = Store(parent / "s").problems()
        assert [(p.kind, p.where) for p in problems] == [("exposed-parent", str(parent))]
        parent.chmod(0o1777)
        assert Store(parent / "s").problems() == []

    def test_a_linked_root_works(self, tmp_path: Path, src: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to("real")
        store = Store(tmp_path / "link")
        record = stored(store, src)
        hit(Store(tmp_path / "real"), record)
        assert store.verify().damage == ()

    def test_a_dangling_link_as_root_is_explained(self, tmp_path: Path, src: Path) -> None:
        (tmp_path / "link").symlink_to("nowhere")
        store = Store(tmp_path / "link")
        record, files = make(src)
        assert miss(store, record).reason == "absent"
        assert not store.writable()
        with pytest.raises(StoreError):
            store.put(record, files)

    def test_a_healthy_store_has_no_problems_and_is_writable(self, store: Store, src: Path) -> None:
        assert isinstance(store.writable(), Writable)
        assert store.problems() == []
        stored(store, src)
        assert store.writable()
        assert store.problems() == []

    def test_a_file_system_without_hard_links(
        self, store: Store, src: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def no_link(*_: object) -> None:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(os, "link", no_link)
        record, files = make(src)
        assert store.put(record, files) == record
        hit(store, record)
        other, other_files = make(src, outputs={"kernel.co": b"other"})
        assert store.put(other, other_files) == record
        assert temps(store) == []

    def test_a_disk_that_fails_to_sync_publishes_nothing(
        self, store: Store, src: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        record, files = make(src)
        stored(store, src, "before")

        def broken(_: int) -> None:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(os, "fsync", broken)
        with pytest.raises(StoreError, match="check it before you trust"):
            store.put(record, files)
        assert miss(store, record).reason == "absent"
        assert temps(store) == []


class TestRecords:
    def test_the_canonical_bytes_are_pinned(self) -> None:
        # Signatures and stored records rest on these bytes: a change needs a new schema.
        record = ActionRecord(
            key=digest.of_json({"a": 1}),
            inputs={"a": 1},
            outputs=(Output("kernel.co", digest.of_bytes(b"x"), 1, 0o555),),
            target="gfx950",
            toolchain="t",
            label="ü",
            created=5,
        )
        assert canonical(record).decode() == (
            '{"created":5,"facts":{},"inputs":{"a":1},'
            '"key":"sha256:015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862",'
            '"label":"ü","outputs":[{"digest":"sha256:2d711642b726b04401627ca9fbac32f5c8530fb1'
            '903cc4db02258717921a4881","mode":"0555","name":"kernel.co","size":1}],"schema":1,'
            '"target":"gfx950","toolchain":"t"}'
        )
        assert decode(encode(record)) == record
        assert json.loads(encode(record))["content"]["key"] == record.key


class TestLayout:
    def test_root_from_the_environment(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("HOME", "/home/x")
        monkeypatch.delenv("JITCACHE_DIR", raising=False)
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        assert store_root() == Path("/home/x/.cache/jitcache")
        monkeypatch.setenv("XDG_CACHE_HOME", "relative")
        assert store_root() == Path("/home/x/.cache/jitcache")
        monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
        assert store_root() == Path("/xdg/jitcache")
        monkeypatch.setenv("JITCACHE_DIR", "~/mine")
        assert store_root() == Path("/home/x/mine")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("JITCACHE_DIR", "mine")
        assert store_root() == tmp_path / "mine"

    @pytest.mark.parametrize("bad", ["", "../../etc", "sha256:xyz", "sha256:" + "A" * 64])
    def test_nothing_but_a_digest_becomes_a_path(self, bad: str) -> None:
        with pytest.raises(ValueError, match="not a digest"):
            Layout(Path("/s")).blob(bad)

    def test_the_store_costs_little_to_import(self) -> None:
        code = (
            "import sys, jitcache.store.store as s\n"
            "heavy = {'click','msgspec','filelock','shutil','subprocess','tempfile',"
            "'jinja2','zstandard','asyncio','socket','logging'} & set(sys.modules)\n"
            "sys.exit(repr(heavy) if heavy else 0)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_replace_file_explains_and_keeps_the_old_content(tmp_path: Path) -> None:
    target = tmp_path / "new" / "file"
    durable.replace_file(target, b"one")
    durable.replace_file(target, b"two")
    assert target.read_bytes() == b"two"
    assert tree(tmp_path) == ["new/file"]
    with pytest.raises(StoreError, match="Not a directory"):
        durable.replace_file(target / "below", b"three")
    assert target.read_bytes() == b"two"
