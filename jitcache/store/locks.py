"""Per-action locks: they save double work, and nothing rests on them.

A lock is `flock` on a file that is never unlinked (unlinking would split waiters over two
inodes), so a killed holder frees it at once and no process id has to be asked about. What is
correct without locks stays correct when they are missing: publishing is atomic, and two
builders of one action are merely one too many. Hence a file system without `flock`, or a
directory that can't be written, costs a notice and not the build.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jitcache.errors import BusyError, InputError
from jitcache.store.durable import make_dir

if TYPE_CHECKING:
    from filelock import BaseFileLock

TIMEOUT_VARIABLE = "JITCACHE_LOCK_TIMEOUT"
DEFAULT_TIMEOUT_S = 1800.0
"""Longer than any one kernel takes to compile."""

REPEAT_S = 10.0
"""How often a waiter is told that it still waits."""

_POLL_S = 0.05


class Acquired:
    """A lock that is ours until `release`; also a context manager.

    Attributes:
        path: the lock file.
        unlocked: why there is no lock although we go on; None where there is one.
    """

    __slots__ = ("_lock", "path", "unlocked")

    def __init__(self, path: Path, lock: BaseFileLock | None, unlocked: str | None) -> None:
        self.path = path
        self.unlocked = unlocked
        self._lock = lock

    def release(self) -> None:
        """Give the lock back; more than once does no harm."""
        lock, self._lock = self._lock, None
        if lock is not None:
            _write_owner(self.path, "")
            # A network file system may fail to unlock; closing the file frees it anyway.
            with contextlib.suppress(OSError):
                lock.release()

    def __enter__(self) -> Acquired:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


@dataclass(frozen=True, slots=True)
class Busy:
    """Somebody else has the lock.

    Attributes:
        path: the lock file.
        holder: who, as far as the holder's own note tells (for people only).
        waited_s: how long we have waited so far.
    """

    path: Path
    holder: str
    waited_s: float = 0.0


def try_acquire(path: Path) -> Acquired | Busy:
    """Take a lock if it is free."""
    from filelock import FileLock, Timeout

    try:
        make_dir(path.parent)
        lock = FileLock(path, thread_local=False, fallback_to_soft=False)
        lock.acquire(blocking=False)
    except Timeout:
        return Busy(path, _read_owner(path))
    except NotImplementedError:
        return Acquired(path, None, "the file system has no flock")
    except OSError as e:
        missing = e.errno in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
        why = "the file system has no flock" if missing else "the lock file can't be used"
        return Acquired(path, None, f"{why} ({e.strerror or e})")
    _write_owner(path, _owner())
    return Acquired(path, lock, None)


def acquire(
    path: Path, *, timeout: float | None = None, on_wait: Callable[[Busy], None] | None = None
) -> Acquired:
    """Take a lock, waiting for it.

    Args:
        path: the lock file.
        timeout: seconds; None means what `JITCACHE_LOCK_TIMEOUT` says, else 30 minutes.
        on_wait: told at the start of a wait and every ten seconds from then on.

    Raises:
        BusyError: it was not free in time.
        InputError: `JITCACHE_LOCK_TIMEOUT` is not a number of seconds.
    """
    limit = timeout_from_environment() if timeout is None else timeout
    start = time.monotonic()
    told_at = -REPEAT_S
    while True:
        got = try_acquire(path)
        if isinstance(got, Acquired):
            return got
        waited = time.monotonic() - start
        if waited >= limit:
            raise BusyError(
                f"the lock was not free within {limit:g} s; its holder is {got.holder}",
                where=str(path),
                hint="the holder is most likely still compiling: let it finish, or wait longer"
                f" with {TIMEOUT_VARIABLE}=<seconds>; deleting the lock file does not help",
            )
        if on_wait is not None and waited - told_at >= REPEAT_S:
            told_at = waited
            on_wait(Busy(path, got.holder, waited))
        time.sleep(min(_POLL_S, limit - waited))


def timeout_from_environment() -> float:
    """Seconds to wait for a lock.

    Raises:
        InputError: the variable is not a number of seconds.
    """
    text = os.environ.get(TIMEOUT_VARIABLE)
    if not text:
        return DEFAULT_TIMEOUT_S
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise InputError(
            f"must be a number of seconds, but is {text!r}",
            where=TIMEOUT_VARIABLE,
            hint=f"for example {TIMEOUT_VARIABLE}=600",
        )
    return value


def _owner() -> str:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return f"process {os.getpid()} on {socket.gethostname()} since {stamp}\n"


def _write_owner(path: Path, text: str) -> None:
    # Through a descriptor of its own: flock belongs to the one that filelock opened.
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.ftruncate(fd, 0)
            os.pwrite(fd, text.encode(), 0)
        finally:
            os.close(fd)


def _read_owner(path: Path) -> str:
    try:
        with path.open("rb") as f:
            text = f.read(200).decode(errors="replace").strip()
    except OSError:
        text = ""
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text or "unknown"
