"""Fresh private directories for runs, and the end of old ones.

A run directory is named by the moment it was made. While its process lives it holds a
flock on `run.lock`: the kernel releases it at any kind of death, so a free lock means that
nobody works there any more. No process id is ever looked at.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from jitcache.build.edge import EVENTS
from jitcache.build.events import run_ended
from jitcache.errors import StoreError

LOCK = "run.lock"

_RUN = re.compile(r"\d{8}T\d{6}\.\d{6}Z-[0-9a-f]{8}")
_NEW = ".new-"
_OLD = ".old-"
_ABANDONED_S = 3600.0

_held: dict[Path, int] = {}


def new_run_directory(runs_root: Path) -> Path:
    """Make a directory that is this process's own until `release_run_directory` or its end.

    Args:
        runs_root: `<store>/runs-v1`; made where it is missing.

    Raises:
        StoreError: it can't be made.
    """
    now = time.time()
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now)) + f"{now % 1:.6f}Z"[1:]
    name = f"{stamp}-{secrets.token_hex(4)}"
    root = runs_root.absolute()
    hidden, final = root / f"{_NEW}{name}", root / name
    try:
        root.mkdir(parents=True, exist_ok=True)
        hidden.mkdir(mode=0o755)
        fd = os.open(hidden / LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Visible to `clean_runs` only once the lock is held.
        hidden.rename(final)
    except OSError as e:
        raise storage_error(e, "can't make a run directory", root) from e
    _held[final] = fd
    return final


def release_run_directory(directory: Path) -> None:
    """Say that nobody needs the directory any more: `clean_runs` may remove it."""
    fd = _held.pop(directory, None)
    if fd is not None:
        os.close(fd)


@contextlib.contextmanager
def run_directory(runs_root: Path) -> Iterator[Path]:
    """A directory for one run, as the block's own; old ones are cleaned away first.

    Raises:
        StoreError: it can't be made.
    """
    clean_runs(runs_root)
    directory = new_run_directory(runs_root)
    try:
        yield directory
    finally:
        release_run_directory(directory)


def clean_runs(runs_root: Path, keep: int = 8) -> list[Path]:
    """Remove directories of killed processes, and of finished ones all but the newest.

    A directory whose lock is held is never touched. What can't be removed (another user's,
    a read-only store) stays; it does no harm.

    Args:
        runs_root: `<store>/runs-v1`.
        keep: how many finished runs stay, for `jitcache report` and for failure logs.

    Returns:
        What was removed.
    """
    try:
        entries = sorted(runs_root.iterdir(), reverse=True)
    except OSError:
        return []
    removed = []
    kept = 0
    for entry in entries:
        if entry.name.startswith((_NEW, _OLD)):
            # Left by a process that died between two calls, or that is just between them.
            if _age(entry) > _ABANDONED_S and _remove(entry):
                removed.append(entry)
        elif _RUN.fullmatch(entry.name):
            if run_ended(entry / EVENTS) and kept < keep:
                kept += 1
            elif _remove(entry):
                removed.append(entry)
    return removed


def _age(entry: Path) -> float:
    try:
        return time.time() - entry.lstat().st_mtime
    except OSError:
        return 0.0


def _remove(entry: Path) -> bool:
    try:
        fd = os.open(entry / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        fd = -1
    except OSError:
        return False
    try:
        if fd >= 0:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        doomed = entry.with_name(f"{_OLD}{entry.name.removeprefix(_OLD)}")
        entry.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)
    except OSError:
        return False
    finally:
        if fd >= 0:
            os.close(fd)
    return True


_HINTS = {
    errno.ENOSPC: "free some space, or set JITCACHE_DIR to a larger file system",
    errno.EDQUOT: "your quota is used up: free some space, or set JITCACHE_DIR elsewhere",
    errno.EROFS: "the file system is read-only: set JITCACHE_DIR to a writable directory",
    errno.EACCES: "set JITCACHE_DIR to a directory that you may write to",
    errno.EPERM: "set JITCACHE_DIR to a directory that you may write to",
}


def storage_error(e: OSError, what: str, where: Path) -> StoreError:
    """An operating system's error about the run directory, for people."""
    return StoreError(
        f"{what}: {e.strerror or e}",
        where=str(e.filename or where),
        hint=_HINTS.get(e.errno or 0, "set JITCACHE_DIR to another directory"),
    )
