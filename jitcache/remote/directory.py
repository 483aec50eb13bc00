"""`file://`: a directory on a local or network disk.

Objects are created by linking a finished file to its name, so that a reader sees a whole
object or none and the first creation wins. No lock is taken, so NFS does as well.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from jitcache.remote.interface import Absent, Exists, Failed, FailureKind, Found, Got, Put, Stored
from jitcache.remote.keyed import try_twice
from jitcache.store import durable

_ABSENT = {errno.ENOENT, errno.ENOTDIR}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}


class DirectoryObjects:
    """Objects that are files below a directory."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def get(self, path: str, limit: int) -> Got:
        """The content of a regular file; a link, FIFO or device in its place is damage."""
        try:
            # Not blocking, because a FIFO would wait for its writer for ever.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            fd = os.open(self._root / path, flags)
        except OSError as e:
            if e.errno in _ABSENT:
                return self._absent()
            if e.errno in {errno.ELOOP, errno.ENXIO}:
                return Failed("damaged", f"{self._root / path} is no regular file")
            return self._failed(e)
        try:
            with os.fdopen(fd, "rb") as f:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    return Failed("damaged", f"{self._root / path} is no regular file")
                data = f.read(limit + 1)
        except OSError as e:
            return self._failed(e)
        if len(data) > limit:
            return Failed("damaged", f"{self._root / path} has more than {limit} bytes")
        return Found(data)

    def put(self, path: str, data: bytes) -> Put:
        """Create a file, durably."""
        final = self._root / path
        try:
            if final.exists():
                return Exists()
            self._mounted()
            durable.make_dir(final.parent)
            temp = durable.write_temp(final.parent, data, 0o444)
            return Stored() if durable.publish_new(temp, final) else Exists()
        except OSError as e:
            return self._failed(e)

    def creates_once(self) -> bool | Failed:
        """Tried out: file systems without hard links can't promise it."""
        return try_twice(self, f"probe/{os.urandom(16).hex()}")

    def _mounted(self) -> None:
        # The root is never made: below a mount point that isn't mounted it would be a trap.
        if not self._root.is_dir():
            raise NotADirectoryError(errno.ENOENT, os.strerror(errno.ENOENT), self._root)

    def _absent(self) -> Got:
        if self._root.is_dir():
            return Absent()
        return Failed("unavailable", f"there is no directory {self._root}")

    def _failed(self, e: OSError) -> Failed:
        kind: FailureKind = "denied" if e.errno in _DENIED else "unavailable"
        return Failed(kind, f"{self._root}: {e.strerror or e}")
