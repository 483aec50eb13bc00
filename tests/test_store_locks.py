"""Per-action locks: they exclude, end with their holder, and are never needed."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import time
from pathlib import Path

import pytest

from jitcache import digest
from jitcache.errors import BusyError, ExitCode, InputError
from jitcache.store.locks import Acquired, Busy, timeout_from_environment
from jitcache.store.store import Store
from tests.store_help import make, run_and_exit

KEY = digest.of_bytes(b"key")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def holder_in_child(store: Store, until: Path) -> int:
    """Fork a process that holds the lock; returns its pid once it does."""
    ready_read, ready_write = os.pipe()
    pid = os.fork()
    if pid == 0:

        def hold() -> None:
            with store.lock(KEY):
                os.write(ready_write, b"x")
                while not until.exists():
                    time.sleep(0.005)

        run_and_exit(hold)
    os.close(ready_write)
    assert os.read(ready_read, 1) == b"x"
    os.close(ready_read)
    return pid


def test_a_held_lock_is_busy_and_says_by_whom(store: Store, tmp_path: Path) -> None:
    pid = holder_in_child(store, tmp_path / "go")
    try:
        found = store.try_lock(KEY)
        assert isinstance(found, Busy)
        assert found.path == store.layout.lock(KEY)
        assert f"process {pid} on " in found.holder
        told: list[Busy] = []
        with pytest.raises(BusyError) as e:
            store.lock(KEY, timeout=0.1, on_wait=told.append)
        assert len(told) == 1, "told once, and then every ten seconds"
        message = str(e.value)
        for part in (str(found.path), f"process {pid}", "JITCACHE_LOCK_TIMEOUT"):
            assert part in message
        assert e.value.exit_code == ExitCode.BUSY
    finally:
        (tmp_path / "go").touch()
        os.waitpid(pid, 0)
    with store.lock(KEY, timeout=1) as got:
        assert got.unlocked is None
    assert store.notices == []


def test_a_waiter_gets_the_lock_when_its_holder_is_killed(store: Store, tmp_path: Path) -> None:
    pid = holder_in_child(store, tmp_path / "never")
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with store.lock(KEY, timeout=5):
        assert f"process {os.getpid()} " in store.layout.lock(KEY).read_text()


def test_the_file_stays_and_is_emptied(store: Store) -> None:
    with store.lock(KEY):
        inode = store.layout.lock(KEY).stat().st_ino
    assert store.layout.lock(KEY).stat().st_ino == inode
    assert store.layout.lock(KEY).read_bytes() == b""
    got = store.try_lock(KEY)
    assert isinstance(got, Acquired)
    got.release()
    got.release()
    assert store.layout.lock(KEY).stat().st_ino == inode


def test_locks_of_different_keys_are_independent(store: Store) -> None:
    with store.lock(KEY):
        other = store.try_lock(digest.of_bytes(b"other"))
        assert isinstance(other, Acquired)
        other.release()


@pytest.mark.parametrize("garbage", [b"\x00\xff\x1b[31m" * 100, b"process 1 on nowhere\n"])
def test_garbage_in_a_lock_file_locks_nothing(store: Store, garbage: bytes) -> None:
    path = store.layout.lock(KEY)
    path.parent.mkdir(parents=True)
    path.write_bytes(garbage)
    with store.lock(KEY, timeout=1) as got:
        assert got.unlocked is None


def test_a_holder_s_note_can_not_upset_a_terminal(store: Store, tmp_path: Path) -> None:
    pid = holder_in_child(store, tmp_path / "go")
    try:
        store.layout.lock(KEY).write_bytes(b"\x1b[31mred\x00" * 1000)
        found = store.try_lock(KEY)
        assert isinstance(found, Busy)
        assert found.holder.isprintable()
        assert len(found.holder) <= 200
    finally:
        (tmp_path / "go").touch()
        os.waitpid(pid, 0)


@pytest.mark.parametrize("error", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_without_flock_the_work_goes_on_with_a_notice(
    store: Store, monkeypatch: pytest.MonkeyPatch, error: int, tmp_path: Path
) -> None:
    def no_flock(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(fcntl, "flock", no_flock)
    record, files = make(tmp_path / "src")
    with store.lock(record.key) as got:
        assert got.unlocked is not None
        assert "no flock" in got.unlocked
        store.put(record, files)
    (notice,) = store.notices
    assert notice.kind == "unlocked"
    assert "no flock" in notice.detail
    assert [p.kind for p in store.problems()] == ["no-flock"]


@pytest.mark.parametrize("kind", ["directory", "link"])
def test_something_else_at_the_lock_s_path_costs_a_notice(
    store: Store, tmp_path: Path, kind: str
) -> None:
    path = store.layout.lock(KEY)
    path.parent.mkdir(parents=True)
    if kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "elsewhere")
    with store.lock(KEY) as got:
        assert got.unlocked is not None
    assert [n.kind for n in store.notices] == ["unlocked"]
    assert not (tmp_path / "elsewhere").exists()


def test_the_timeout_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JITCACHE_LOCK_TIMEOUT", raising=False)
    assert timeout_from_environment() == 1800
    monkeypatch.setenv("JITCACHE_LOCK_TIMEOUT", "2.5")
    assert timeout_from_environment() == 2.5
    for bad in ("soon", "-1", "nan", "inf"):
        monkeypatch.setenv("JITCACHE_LOCK_TIMEOUT", bad)
        with pytest.raises(InputError, match="JITCACHE_LOCK_TIMEOUT"):
            timeout_from_environment()


def test_eight_builders_of_one_action_build_it_once(store: Store, tmp_path: Path) -> None:
    record, files = make(tmp_path / "src")
    log = tmp_path / "built"
    log.touch()
    go = tmp_path / "go"

    def builder() -> None:
        while not go.exists():
            time.sleep(0.001)
        with store.lock(record.key, timeout=20):
            if store.lookup(record.key).__class__.__name__ == "Miss":
                time.sleep(0.05)  # the compile
                fd = os.open(log, os.O_WRONLY | os.O_APPEND)
                os.write(fd, b"x")
                store.put(record, files)

    pids = []
    for _ in range(8):
        pid = os.fork()
        if pid == 0:
            run_and_exit(builder)
        pids.append(pid)
    go.touch()
    assert [os.waitstatus_to_exitcode(os.waitpid(p, 0)[1]) for p in pids] == [0] * 8
    assert log.read_bytes() == b"x"


def test_putters_removers_and_lookers_never_see_a_part(tmp_path: Path) -> None:
    root = tmp_path / "store"
    made = [make(tmp_path / "src", n, {"kernel.co": n.encode() * 50_000}) for n in "abcd"]

    def worker(seed: int) -> None:
        from jitcache.store.model import Hit
        from jitcache.store.sweep import remove

        store = Store(root, hit_policy="full")
        for turn in range(60):
            record, files = made[(seed + turn) % len(made)]
            action = (seed * 7 + turn * 3) % 5
            if action < 2:
                assert store.put(record, files).outputs == record.outputs
            elif action == 2:
                # A grace far below the real one, to make collisions likely.
                remove(store.layout, store._actions, store._blobs, [record.key], grace_s=0.2)
            elif action == 3:
                found = store.lookup(record.key)
                if isinstance(found, Hit):
                    assert found.paths["kernel.co"].stat().st_size == 50_000
                else:
                    assert found.reason in {"absent", "blob-missing"}, found
            else:
                assert [d for d in store.verify().damage if d.kind != "blob-missing"] == []

    pids = []
    for seed in range(6):
        pid = os.fork()
        if pid == 0:
            run_and_exit(lambda seed=seed: worker(seed))  # type: ignore[misc]
        pids.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(p, 0)[1]) for p in pids] == [0] * 6
    final = Store(root, hit_policy="full")
    final.verify()
    for record, files in made:
        final.put(record, files)
    assert final.verify().damage == ()
