"""Killed at every step, by us and by the kernel: a store is never left half-written."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jitcache.store.model import Hit, Miss
from jitcache.store.store import Store
from tests.store_help import age_all, kill_points, make, memory_dir, overwrite, stored

pytestmark = pytest.mark.slow

needs_strace = pytest.mark.skipif(
    shutil.which("strace") is None, reason="strace is not installed (apt-get install strace)"
)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    with memory_dir() as path:
        yield path


def check_whole(store: Store, *expected: str) -> None:
    """Nothing in the store is damaged, and the given records are hits."""
    full = Store(store.layout.root, hit_policy="full")
    assert full.verify(move_damaged=False).damage == ()
    for key in expected:
        assert isinstance(full.lookup(key), Hit)


def test_put_killed_at_every_step(tmp_path: Path) -> None:
    record, files = make(tmp_path / "src", outputs={"a": b"first", "b": b"second"})
    killed = 0
    store = Store(tmp_path / "store")
    for step, after, status in kill_points(lambda: store.put(record, files)):
        killed += status < 0
        check_whole(store)
        found = store.lookup(record.key)
        if isinstance(found, Miss):
            assert found.reason == "absent", (step, after)
        # Whatever was left, the next build succeeds and the store is whole.
        assert store.put(record, files) == record
        check_whole(store, record.key)
        shutil.rmtree(store.layout.root)
    assert killed > 40, "every step of a put was reached"


def test_put_over_damage_killed_at_every_step(tmp_path: Path) -> None:
    record, files = make(tmp_path / "src")
    pristine = tmp_path / "pristine"
    stored(Store(pristine), tmp_path / "src", "other")
    Store(pristine).put(record, files)
    overwrite(Store(pristine).blob_path(record.outputs[0].digest), b"code of ONE")
    overwrite(Store(pristine).layout.record(record.key), b"garbage")
    other = make(tmp_path / "src", "other")[0]
    work = Store(tmp_path / "work")
    shutil.copytree(pristine, work.layout.root)
    killed = 0
    for _, _, status in kill_points(lambda: work.put(record, files)):
        killed += status < 0
        found = Store(work.layout.root, hit_policy="full").lookup(record.key)
        if isinstance(found, Hit):
            assert found.paths["kernel.co"].read_bytes() == b"code of one"
        assert work.put(record, files) == record
        check_whole(work, record.key, other.key)
        shutil.rmtree(work.layout.root)
        shutil.copytree(pristine, work.layout.root)
    assert killed > 30


def test_remove_killed_at_every_step(tmp_path: Path) -> None:
    pristine = Store(tmp_path / "pristine")
    gone = [stored(pristine, tmp_path / "src", n) for n in ("one", "two")]
    kept = stored(pristine, tmp_path / "src", "three")
    age_all(pristine)
    work = Store(tmp_path / "work")
    shutil.copytree(pristine.layout.root, work.layout.root)
    killed = 0
    for _, _, status in kill_points(lambda: work.remove([r.key for r in gone])):
        killed += status < 0
        check_whole(work, kept.key)
        work.remove([r.key for r in gone])
        check_whole(work, kept.key)
        assert len(list(work.records())) == 1
        shutil.rmtree(work.layout.root)
        shutil.copytree(pristine.layout.root, work.layout.root)
    assert killed > 10


PUT = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from jitcache.errors import StoreError
from jitcache.store.store import Store
from tests.store_help import make
here = Path(sys.argv[2])
record, files = make(here / "src")
print("begin", flush=True)
try:
    Store(here / "store").put(record, files)
except StoreError as e:
    print(e, file=sys.stderr)
    sys.exit(6)
"""


def put_under_strace(here: Path, *options: str) -> subprocess.CompletedProcess[str]:
    repository = str(Path(__file__).parent.parent)
    command = [*("strace", "-f", "-qq", "--seccomp-bpf", "-o", str(here / "trace")), *options]
    return subprocess.run(
        [*command, sys.executable, "-c", PUT, repository, str(here)],
        capture_output=True,
        text=True,
    )


@needs_strace
def test_everything_is_synced_before_it_gets_its_name(tmp_path: Path) -> None:
    done = put_under_strace(tmp_path, "-y", "-e", "trace=write,fsync,link,rename")
    assert done.returncode == 0, done.stderr
    trace = (tmp_path / "trace").read_text()
    trace = trace[trace.index("begin") :]
    record, _ = make(tmp_path / "src")
    names = {"blob": record.outputs[0].digest[9:], "record": record.key[9:] + ".json"}
    done_at = {}
    for what, name in names.items():
        publish = re.search(rf'(link|rename)\("([^"]+)", "[^"]*{name}"\) += 0', trace)
        assert publish is not None, what
        temp = publish[2]
        written = trace.index(f"write({fd_of(trace, temp)}")
        synced = trace.index(f"fsync({fd_of(trace, temp)}")
        assert written < synced < publish.start(), what
        fan = re.search(rf'"([^"]*)/{name}"', publish[0])
        assert fan is not None
        after = trace.find(f"<{fan[1]}>)", publish.end())
        assert after > 0, f"the directory of the {what} is synced"
        done_at[what] = after
    record_published = trace.index(names["record"])
    assert done_at["blob"] < record_published, "blobs are durable before the record"


def fd_of(trace: str, temp: str) -> str:
    found = re.search(rf"write\((\d+<{re.escape(temp)}>)", trace)
    assert found is not None
    return found[1]


@needs_strace
@pytest.mark.parametrize(
    ("call", "fault"),
    [
        ("fsync", "error=EIO"),
        ("link", "error=ENOSPC"),
        ("rename", "error=ENOSPC"),
        ("fsync", "signal=KILL"),
        ("link", "signal=KILL"),
    ],
)
def test_faults_from_the_kernel(tmp_path: Path, call: str, fault: str) -> None:
    record, files = make(tmp_path / "src")
    store = Store(tmp_path / "store")
    stored(store, tmp_path / "src", "other")
    for when in range(1, 20):
        done = put_under_strace(tmp_path, "-e", f"inject={call}:{fault}:when={when}")
        check_whole(store)
        if done.returncode == 0:
            break
        if fault == "signal=KILL":
            assert done.returncode in (-9, 137)
        else:
            assert done.returncode == 6, done.stderr
            assert "hint: " in done.stderr
    assert when > 1, "the fault was reached at least once"
    store.put(record, files)
    check_whole(store, record.key)


@needs_strace
def test_interrupted_system_calls_do_no_harm(tmp_path: Path) -> None:
    done = put_under_strace(
        tmp_path,
        "-e",
        "inject=write:error=EINTR:when=2+3",
        "-e",
        "inject=fsync:error=EINTR:when=1+2",
    )
    assert done.returncode == 0, done.stderr
    check_whole(Store(tmp_path / "store"), make(tmp_path / "src")[0].key)
