"""Writing files so that they are whole or absent, whatever happens in between.

The order is always: unique temporary file, write, fsync, chmod, rename (or link), fsync of
the directory. A reader never sees a part, and what was published survives a power cut. All
failures of the disk become `StoreError` here, with what to do about them.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from jitcache.errors import StoreError

_CHUNK = 1 << 20

# link() is refused by some file systems (FAT, some FUSE and network ones).
_NO_LINK = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL}

_HINTS = {
    errno.ENOSPC: "the disk is full: free some space, `jitcache rm` what is no longer needed,"
    " or point JITCACHE_DIR at another disk",
    errno.EDQUOT: "your disk quota is used up: `jitcache rm` what is no longer needed,"
    " or point JITCACHE_DIR elsewhere",
    errno.EFBIG: "the file size limit (ulimit -f) is too small for a kernel",
    errno.EROFS: "the file system is read-only: point JITCACHE_DIR at a writable directory",
    errno.EACCES: "no permission: point JITCACHE_DIR at a directory of yours,"
    " or have its owner grant write access",
    errno.EPERM: "no permission: point JITCACHE_DIR at a directory of yours",
    errno.ENOTDIR: "a part of the path is a file: point JITCACHE_DIR at a directory",
    errno.ELOOP: "a part of the path is a symbolic link where a directory or file is expected",
    errno.EIO: "the disk reports an error: check it before you trust this store again",
}


def store_error(e: OSError, doing: str, path: Path) -> StoreError:
    """The error for people that an OSError stands for."""
    return StoreError(
        f"can't {doing} ({e.strerror or e})",
        where=str(path),
        hint=_HINTS.get(e.errno or 0, "`jitcache doctor` checks the store"),
    )


@contextlib.contextmanager
def explained(doing: str, path: Path) -> Iterator[None]:
    """Turn every OSError of the block into a `StoreError`."""
    try:
        yield
    except OSError as e:
        raise store_error(e, doing, path) from e


def make_dir(path: Path) -> None:
    """Create a directory and its parents, each made durable in its own parent.

    Raises:
        OSError: it can't be created, or a file has its name.
    """
    try:
        # Without group and world write, whatever the umask: a record that somebody planted
        # would be run as a kernel.
        os.mkdir(path, 0o755)  # noqa: PTH102
    except FileExistsError:
        if not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path) from None
    except FileNotFoundError:
        make_dir(path.parent)
        make_dir(path)
    else:
        fsync_dir(path.parent)


def fsync_dir(path: Path) -> None:
    """Make the names in a directory durable.

    Raises:
        OSError: the disk failed.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return  # a parent that we may enter but not read: it stood before us
    try:
        os.fsync(fd)
    except OSError as e:
        # Some network and FUSE file systems can't sync a directory; there rename is all.
        if e.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
    finally:
        os.close(fd)


def write_temp(directory: Path, data: bytes, mode: int, *, durable: bool = True) -> Path:
    """Write bytes to a new temporary file, durably unless they are only a hint.

    Raises:
        OSError: it can't be written; nothing is left behind.
    """
    path, fd = _new_temp(directory)
    with _discarded_on_error(path, fd):
        _write_all(fd, data)
        if durable:
            os.fsync(fd)
        os.fchmod(fd, mode)
    return path


def copy_temp(directory: Path, source: Path, mode: int) -> tuple[Path, str, int]:
    """Copy a file to a new temporary file while hashing it.

    Returns:
        The temporary file, and digest and size of exactly the bytes that are in it.

    Raises:
        OSError: it can't be read or written; nothing is left behind.
    """
    path, fd = _new_temp(directory)
    with _discarded_on_error(path, fd):
        hasher = hashlib.sha256()
        size = 0
        with source.open("rb", buffering=0) as f:
            while chunk := f.read(_CHUNK):
                hasher.update(chunk)
                _write_all(fd, chunk)
                size += len(chunk)
        os.fsync(fd)
        os.fchmod(fd, mode)
    return path, "sha256:" + hasher.hexdigest(), size


def publish_new(temp: Path, final: Path) -> bool:
    """Give a temporary file its name, unless the name is taken; the temporary is gone after.

    Returns:
        Whether the name was free. Where the file system has no hard links, two simultaneous
        winners can both be told so; the later one's bytes stay.

    Raises:
        OSError: it can't be published.
    """
    try:
        _in_made_dir(os.link, temp, final)
    except FileExistsError:
        discard(temp)
        return False
    except OSError as e:
        if e.errno not in _NO_LINK:
            discard(temp)
            raise
        if final.exists():
            discard(temp)
            return False
        publish_over(temp, final)
        return True
    discard(temp)
    fsync_dir(final.parent)
    return True


def publish_over(temp: Path, final: Path, *, durable: bool = True) -> None:
    """Give a temporary file its name, replacing what had it.

    Raises:
        OSError: it can't be published; the temporary is gone.
    """
    try:
        _in_made_dir(os.rename, temp, final)
    except OSError:
        discard(temp)
        raise
    if durable:
        fsync_dir(final.parent)


def discard(path: Path) -> None:
    """Remove a file of ours, if it is still there and can be removed."""
    with contextlib.suppress(OSError):
        path.unlink()


def replace_file(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace a file's content in one step, from a temporary file beside it.

    Raises:
        StoreError: it can't be written; the old content stands.
    """
    with explained("write the file", path):
        make_dir(path.parent)
        publish_over(write_temp(path.parent, data, mode), path)


def _in_made_dir(operation: Callable[[Path, Path], None], temp: Path, final: Path) -> None:
    # Fan-out directories are made when first needed: the common case is one call.
    try:
        operation(temp, final)
    except FileNotFoundError:
        make_dir(final.parent)
        operation(temp, final)


def _new_temp(directory: Path) -> tuple[Path, int]:
    path = directory / f".{os.getpid()}-{os.urandom(8).hex()}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return path, os.open(path, flags, 0o600)


@contextlib.contextmanager
def _discarded_on_error(path: Path, fd: int) -> Iterator[None]:
    try:
        yield
    except BaseException:
        os.close(fd)
        discard(path)
        raise
    try:
        os.close(fd)
    except OSError:  # a network file system may report a failed write only here
        discard(path)
        raise


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
