"""Making records and looking at stores, for the store's tests."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from jitcache import digest
from jitcache.store.layout import Bucket
from jitcache.store.model import ActionRecord, Output
from jitcache.store.store import Store


@contextlib.contextmanager
def memory_dir() -> Iterator[Path]:
    """A directory in memory, where there is one: these tests sync thousands of times."""
    shm = Path("/dev/shm")
    place = shm if os.access(shm, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="jitcache-test-", dir=place) as name:
        yield Path(name)


def make(
    directory: Path,
    name: str = "one",
    outputs: dict[str, bytes] | None = None,
    *,
    target: str = "gfx950",
    toolchain: str = "llvm-22",
    mode: int = 0o444,
) -> tuple[ActionRecord, dict[str, Path]]:
    """A record whose inputs hold `name`, and the files of its outputs."""
    contents = outputs if outputs is not None else {"kernel.co": f"code of {name}".encode()}
    directory.mkdir(parents=True, exist_ok=True)
    files = {}
    for file_name, data in contents.items():
        path = directory / f"{name}-{digest.of_bytes(data)[7:15]}-{file_name}"
        path.write_bytes(data)
        files[file_name] = path
    inputs = {"instance": name, "flags": ["-O3"], "schema": 1}
    record = ActionRecord(
        key=digest.of_json(inputs),
        inputs=inputs,
        outputs=tuple(
            Output(n, digest.of_bytes(contents[n]), len(contents[n]), mode)
            for n in sorted(contents)
        ),
        target=target,
        toolchain=toolchain,
        label=f"gemm {name}",
        created=1_790_000_000,
        facts={"vgprs": 128},
    )
    return record, files


def stored(store: Store, directory: Path, name: str = "one") -> ActionRecord:
    """Put one record and hand it back."""
    record, files = make(directory, name)
    return store.put(record, files)


def tree(root: Path) -> list[str]:
    """Every file below a directory, relative, sorted."""
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if not p.is_dir())


def temps(store: Store) -> list[Path]:
    """Temporary files that are still there."""
    bucket = store.layout.bucket(Bucket.TMP)
    return sorted(bucket.iterdir()) if bucket.exists() else []


def age(path: Path, seconds: float) -> None:
    """Make a file look older."""
    st = path.stat()
    os.utime(path, (st.st_atime - seconds, st.st_mtime - seconds))


def age_all(store: Store, seconds: float = 10_000) -> None:
    """Make every record and blob look older, so that no grace protects it."""
    for bucket in (Bucket.AC, Bucket.CAS):
        for path in store.layout.bucket(bucket).rglob("*"):
            age(path, seconds)


def overwrite(path: Path, data: bytes) -> None:
    """Change a read-only file in place, as a failing disk or a careless user would."""
    path.chmod(0o644)
    path.write_bytes(data)


def run_and_exit(work: Callable[[], object]) -> NoReturn:
    """In a child: do something and end with 0, or with 1 after an exception."""
    try:
        work()
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def in_child(work: Callable[[], object]) -> int:
    """Run something in a forked process.

    Returns:
        Its exit status: 0 if it returned, 1 after an exception, negative if it was killed.
    """
    pid = os.fork()
    if pid == 0:
        run_and_exit(work)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


STEPS = ("open", "write", "fsync", "fchmod", "link", "rename", "unlink", "mkdir")
"""The system calls of a put, by their name in `os`."""


def die_at(step: int, *, after: bool) -> None:
    """In a child: be killed at the n-th of our system calls, just before or just after it."""
    count = 0

    def wrap(real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            nonlocal count
            count += 1
            mine = count == step
            if mine and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = real(*args, **kwargs)
            if mine:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    for name in STEPS:
        setattr(os, name, wrap(getattr(os, name)))


def kill_points(work: Callable[[], object], limit: int = 200) -> Iterator[tuple[int, bool, int]]:
    """Run `work` once for each point at which it can be killed, until it survives.

    Yields:
        (step, whether killed after the call, exit status).
    """
    for after in (False, True):
        for step in range(1, limit):

            def run(step: int = step, after: bool = after) -> None:
                die_at(step, after=after)
                work()

            status = in_child(run)
            yield step, after, status
            if status == 0:
                break
        else:
            raise AssertionError("the work has more steps than expected")
