"""Seeds, counters, installing and explaining: what stands around the local store."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
import threading
from pathlib import Path

import pytest

from jitcache import digest
from jitcache.errors import InputError, StoreError
from jitcache.store.counters import load
from jitcache.store.explain import Difference, differences, nearest
from jitcache.store.install import install
from jitcache.store.layout import Bucket
from jitcache.store.model import ActionRecord, Hit, Miss
from jitcache.store.store import Store
from tests.store_help import make, overwrite, stored, tree


@pytest.fixture
def seeded(tmp_path: Path) -> tuple[Store, Store, Store]:
    """A local store and two seeds it looks at."""
    one, two = Store(tmp_path / "seed1"), Store(tmp_path / "seed2")
    local = Store(tmp_path / "store", seeds=[one.layout.root, two.layout.root])
    return local, one, two


def snapshot(root: Path) -> list[tuple[str, int, int]]:
    return [(p, (s := (root / p).stat()).st_mtime_ns, s.st_mode) for p in tree(root)]


class TestSeeds:
    def test_the_first_layer_that_has_it_gives_it(
        self, seeded: tuple[Store, Store, Store], tmp_path: Path
    ) -> None:
        local, one, two = seeded
        a, files = make(tmp_path / "src", "a")
        b = stored(two, tmp_path / "src", "b")
        one.put(a, files)
        two.put(a, files)
        found = local.lookup(a.key)
        assert isinstance(found, Hit)
        assert found.layer == f"seed {one.layout.root}"
        assert found.paths["kernel.co"].is_relative_to(one.layout.root)
        second = local.lookup(b.key)
        assert isinstance(second, Hit)
        assert second.layer == f"seed {two.layout.root}"
        assert local.read(b.outputs[0].digest) == b"code of b"
        local.put(a, files)
        third = local.lookup(a.key)
        assert isinstance(third, Hit)
        assert third.layer == "local"

    def test_a_seed_is_never_written(
        self, seeded: tuple[Store, Store, Store], tmp_path: Path
    ) -> None:
        local, one, _ = seeded
        good, bad = (stored(one, tmp_path / "src", n) for n in ("good", "bad"))
        overwrite(one.layout.record(bad.key), b"garbage")
        for path in one.layout.root.rglob("*"):
            os.utime(path, (1_000_000_000, 1_000_000_000))
        before = snapshot(one.layout.root)
        assert isinstance(local.lookup(good.key), Hit)
        assert isinstance(local.lookup(bad.key), Miss)
        assert snapshot(one.layout.root) == before
        assert not local.layout.root.exists()

    def test_every_byte_of_a_seed_is_checked_and_the_next_seed_asked(
        self, seeded: tuple[Store, Store, Store], tmp_path: Path
    ) -> None:
        local, one, two = seeded
        record, files = make(tmp_path / "src", "a")
        one.put(record, files)
        overwrite(one.blob_path(record.outputs[0].digest), b"CODE of a")
        found = local.lookup(record.key)
        assert isinstance(found, Miss)
        assert found.reason == "blob-damaged"
        assert str(one.layout.root) in found.detail
        two.put(record, files)
        again = local.lookup(record.key)
        assert isinstance(again, Hit)
        assert again.layer == f"seed {two.layout.root}"
        assert {n.kind for n in local.notices} == {"seed-damaged"}
        assert local.read(record.outputs[0].digest) == b"code of a"

    def test_the_local_reason_is_told_before_a_seed_s_absence(
        self, seeded: tuple[Store, Store, Store], tmp_path: Path
    ) -> None:
        local, _, _ = seeded
        record = stored(local, tmp_path / "src", "a")
        local.blob_path(record.outputs[0].digest).unlink()
        found = local.lookup(record.key)
        assert isinstance(found, Miss)
        assert found.reason == "blob-missing"

    def test_a_seed_that_anybody_can_write_is_not_believed(
        self, seeded: tuple[Store, Store, Store], tmp_path: Path
    ) -> None:
        local, one, _ = seeded
        record = stored(one, tmp_path / "src", "a")
        one.layout.root.chmod(0o777)
        found = local.lookup(record.key)
        assert isinstance(found, Miss)
        assert found.reason == "untrusted"
        with pytest.raises(StoreError):
            local.read(record.outputs[0].digest)
        kinds = {(p.kind, p.where) for p in local.problems()}
        assert ("world-writable", str(one.layout.root)) in kinds

    def test_an_absent_seed_is_a_problem_for_doctor_only(
        self, seeded: tuple[Store, Store, Store], tmp_path: Path
    ) -> None:
        local, _, _ = seeded
        found = local.lookup(digest.of_bytes(b""))
        assert isinstance(found, Miss)
        assert found.reason == "absent"
        assert [p.kind for p in local.problems()] == ["seed-unusable"] * 2

    def test_from_the_environment(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        seed = Store(tmp_path / "seed")
        record = stored(seed, tmp_path / "src")
        monkeypatch.setenv("JITCACHE_DIR", str(tmp_path / "local"))
        monkeypatch.setenv("JITCACHE_SEEDS", f":{tmp_path}/none:{tmp_path}/seed")
        assert isinstance(Store.of_user().lookup(record.key), Hit)
        monkeypatch.setenv("JITCACHE_HIT_POLICY", "always")
        with pytest.raises(InputError, match="JITCACHE_HIT_POLICY: must be one of size"):
            Store.of_user()


class TestCounters:
    def put(self, store: Store, src: Path, name: str, cost: object) -> ActionRecord:
        record, files = make(src, name)
        return store.put(dataclasses.replace(record, facts={"cpu_ms": cost}), files)

    def test_hits_misses_and_savings(self, tmp_path: Path) -> None:
        store = Store(tmp_path / "store")
        a = self.put(store, tmp_path / "src", "a", 23_000)
        b = self.put(store, tmp_path / "src", "b", "unknown")
        missing, files = make(tmp_path / "src", "missing")
        for key in (a.key, b.key, a.key, missing.key, digest.of_bytes(b"")):
            store.lookup(key)
        store.put(missing, files)
        store.lookup(missing.key)  # built by another meanwhile, for all we know: now a hit
        counts = store.counters.counts()
        assert counts.hits == {"local": 3}
        assert counts.misses == {"absent": 1}
        assert counts.hit_bytes == len("code of a") * 2 + len("code of missing")
        assert counts.saved_ms == 23_000
        store.save_counters()
        store.save_counters()
        assert load(store.layout).to_json() == counts.to_json()

    def test_processes_add_up_and_torn_lines_do_no_harm(self, tmp_path: Path) -> None:
        store = Store(tmp_path / "store")
        record = self.put(store, tmp_path / "src", "a", 5)

        def one() -> None:
            mine = Store(store.layout.root)
            mine.lookup(record.key)
            mine.save_counters()

        threads = [threading.Thread(target=one) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (file,) = store.layout.bucket(Bucket.STATS).iterdir()
        torn = [b'{"time": 1, "hits"', b"[]", b'{"time":1,"hits":[],"misses":{}}', b"\xff\n"]
        with file.open("ab") as f:
            f.write(b"\n".join(torn) + json.dumps({"time": "x"}).encode())
        one()
        assert load(store.layout).to_json() == {
            "hits": {"local": 11},
            "misses": {},
            "hit_bytes": 99,
            "saved_ms": 55,
        }
        assert load(store.layout, since=4e9).hits == {}

    def test_nothing_is_written_where_nothing_was_looked_up_or_can_be(self, tmp_path: Path) -> None:
        store = Store(tmp_path / "store")
        store.save_counters()
        assert not store.layout.root.exists()
        (tmp_path / "file").write_text("")
        blocked = Store(tmp_path / "file")
        blocked.lookup(digest.of_bytes(b""))
        blocked.save_counters()
        assert load(blocked.layout).misses == {}


class TestInstall:
    @pytest.fixture
    def blob(self, tmp_path: Path) -> Path:
        path = tmp_path / "blob"
        path.write_bytes(b"code")
        path.chmod(0o444)
        return path

    def test_content_and_mode(self, blob: Path, tmp_path: Path) -> None:
        target = tmp_path / "deep" / "er" / "kernel.co"
        for mode in (0o444, 0o555):
            assert install(blob, target, mode=mode) in {"reflink", "hard link", "copy"}
            assert target.read_bytes() == b"code"
            assert stat.S_IMODE(target.stat().st_mode) == mode
            assert stat.S_IMODE(blob.stat().st_mode) == 0o444
        assert tree(tmp_path / "deep") == ["er/kernel.co"]

    def test_a_link_only_where_the_mode_is_the_same(
        self, blob: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def no_reflink(*_: object) -> None:
            raise OSError(95, "Operation not supported")

        monkeypatch.setattr("fcntl.ioctl", no_reflink)
        assert install(blob, tmp_path / "a", mode=0o444) == "hard link"
        assert install(blob, tmp_path / "a", mode=0o444) == "hard link"
        assert (tmp_path / "a").stat().st_ino == blob.stat().st_ino
        assert install(blob, tmp_path / "b", mode=0o555) == "copy"
        assert (tmp_path / "b").stat().st_ino != blob.stat().st_ino

        def no_link(*_: object) -> None:
            raise OSError(18, "Invalid cross-device link")

        monkeypatch.setattr(os, "link", no_link)
        assert install(blob, tmp_path / "c", mode=0o444) == "copy"
        assert tree(tmp_path) == ["a", "b", "blob", "c"]

    def test_a_failure_leaves_the_old_file(self, blob: Path, tmp_path: Path) -> None:
        target = tmp_path / "target"
        target.write_bytes(b"old")
        with pytest.raises(StoreError, match="No such file"):
            install(tmp_path / "absent", target)
        assert tree(tmp_path) == ["blob", "target"]
        assert target.read_bytes() == b"old"


class TestExplain:
    INPUTS = {
        "flags": ["-O3", "-mllvm", "-x=1", "-mllvm", "-y=2"],
        "parts": {"clang": "sha256:1", "ck": "sha256:2"},
        "headers": "sha256:a",
        "source": "sha256:s",
    }

    def record(self, name: str, created: int = 1, **changes: object) -> ActionRecord:
        inputs = {**self.INPUTS, **changes, "salt": name}
        base = make(Path("/tmp"), "x", {})[0]
        return dataclasses.replace(
            base, key=digest.of_json(inputs), inputs=inputs, created=created, label="gemm1"
        )

    def test_differences_by_kind(self) -> None:
        now = {
            "flags": ["-O2", "-mllvm", "-x=1", "-mllvm", "-y=2"],
            "parts": {"clang": "sha256:9", "lld": "sha256:3"},
            "headers": "sha256:b",
            "source": "sha256:s",
            "fresh": 1,
        }
        assert differences(now, self.INPUTS) == [
            Difference("flags", "-O3", "-O3", None),
            Difference("flags", "-O2", None, "-O2"),
            Difference("fresh", "", None, "1"),
            Difference("headers", "", "sha256:a", "sha256:b"),
            Difference("parts", "ck", "sha256:2", None),
            Difference("parts", "clang", "sha256:1", "sha256:9"),
            Difference("parts", "lld", None, "sha256:3"),
        ]
        swapped = {**self.INPUTS, "flags": ["-mllvm", "-O3", "-x=1", "-mllvm", "-y=2"]}
        (order,) = differences(swapped, self.INPUTS)
        assert order.name == "order"
        assert differences(self.INPUTS, self.INPUTS) == []

    def test_the_nearest_has_the_fewest_differences_then_is_the_newest(self) -> None:
        mine = self.record("mine")
        far = self.record("far", source="sha256:t", headers="sha256:b")
        near = self.record("near", source="sha256:t")
        newer = self.record("newer", created=2, source="sha256:u")
        other = dataclasses.replace(self.record("other"), label="gemm2")
        found = nearest(mine, [mine, far, near, newer, other], lambda _: None)
        assert found is not None
        assert found.record == newer
        assert [d.what for d in found.differences] == ["salt", "source"]
        only = nearest(mine, [mine, other], lambda _: None)
        assert only is not None, "with none of its label, any will do"
        assert nearest(mine, [mine], lambda _: None) is None

    def test_headers_are_named_where_both_listings_are_there(self) -> None:
        mine, other = self.record("mine", headers="sha256:b"), self.record("other")
        listings = {
            mine.key: {"ck/a.hpp": "1", "ck/b.hpp": "2", "ck/new.hpp": "3"},
            other.key: {"ck/a.hpp": "1", "ck/b.hpp": "9", "ck/old.hpp": "4"},
        }
        found = nearest(mine, [other], lambda r: listings[r.key])
        assert found is not None
        assert [d for d in found.differences if d.what != "salt"] == [
            Difference("header", "ck/b.hpp", "9", "2"),
            Difference("header", "ck/new.hpp", None, "3"),
            Difference("header", "ck/old.hpp", "4", None),
        ]
        lost = nearest(mine, [other], lambda r: None if r is other else listings[r.key])
        assert lost is not None
        assert lost.differences[0] == Difference("headers", "", "sha256:a", "sha256:b")
