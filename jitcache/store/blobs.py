"""Immutable bytes by digest."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from jitcache import digest
from jitcache.store import durable
from jitcache.store.layout import Bucket, Layout
from jitcache.store.model import ActionRecord, Hit, Notice, Output
from jitcache.store.quarantine import notice, quarantine

_FAN = re.compile(r"[0-9a-f]{2}")
_REST = re.compile(r"[0-9a-f]{62}")

TOUCH_AFTER_S = 60.0
"""A file used within this time isn't touched again; well below the grace of removal."""


class Bad(NamedTuple):
    """What makes an output unusable.

    Attributes:
        reason: `blob-missing`, `blob-damaged` or `unreadable`.
        detail: one sentence.
        digest: of the blob.
    """

    reason: str
    detail: str
    digest: str


class Blobs:
    """The `cas` bucket.

    Args:
        layout: of the store.
        notices: what was dealt with is told here.
    """

    def __init__(self, layout: Layout, notices: list[Notice]) -> None:
        self._layout = layout
        self._notices = notices

    def path(self, blob_digest: str) -> Path:
        """Where a blob is, or would be."""
        return self._layout.blob(blob_digest)

    def size_problem(self, output: Output) -> tuple[str, str] | None:
        """What is wrong with an output's blob as far as its directory entry tells.

        Returns:
            Reason (`blob-missing`, `blob-damaged`, `unreadable`) and detail, or None.
        """
        path = self.path(output.digest)
        try:
            st = os.lstat(path)
        except FileNotFoundError:
            return "blob-missing", f"{output.name} ({output.digest}) is not in the store"
        except OSError as e:
            return "unreadable", f"{path}: {e.strerror}"
        if not stat.S_ISREG(st.st_mode):
            return "blob-damaged", f"{output.name}: {path} is not a regular file"
        if st.st_size != output.size:
            return "blob-damaged", (
                f"{output.name} ({output.digest}) has {st.st_size} bytes, not {output.size}"
            )
        return None

    def problem(self, blob_digest: str) -> tuple[str, str] | None:
        """What is wrong with a blob when it is read; as `size_problem`, for its whole content."""
        path = self.path(blob_digest)
        try:
            if not stat.S_ISREG(os.lstat(path).st_mode):
                return "blob-damaged", f"{path} is not a regular file"
            found = digest.of_file(path)
        except FileNotFoundError:
            return "blob-missing", f"{blob_digest} is not in the store"
        except OSError as e:
            return "unreadable", f"{path}: {e.strerror}"
        if found != blob_digest:
            return "blob-damaged", f"{blob_digest} holds bytes whose digest is {found}"
        return None

    def first_bad(self, record: ActionRecord, *, read_all: bool) -> Bad | None:
        """The first output of a record that can't be used; None where all can.

        Args:
            record: the record.
            read_all: compare every byte, not just sizes.
        """
        for output in record.outputs:
            bad = self.size_problem(output)
            if bad is None and read_all:
                bad = self.problem(output.digest)
            if bad is not None:
                return Bad(*bad, output.digest)
        return None

    def hit(self, record: ActionRecord, layer: str) -> Hit:
        """A hit on a record whose outputs are all here."""
        return Hit(record, {o.name: self.path(o.digest) for o in record.outputs}, layer)

    def quarantine(self, blob_digest: str, detail: str) -> Path | None:
        """Move a damaged blob away; the blob that somebody just mended stays."""
        path = self.path(blob_digest)

        def still_bad(moved: Path) -> bool:
            sound = stat.S_ISREG(os.lstat(moved).st_mode) and digest.of_file(moved) == blob_digest
            return not sound

        incident = quarantine(self._layout, path, "blob-damaged", detail, still_bad=still_bad)
        self._notices.append(notice(path, detail, incident))
        return incident

    def add(self, output: Output, source: Path) -> None:
        """Store a copy of a file, unless its bytes are there already.

        A blob that is there is read and, where damaged, replaced: the build that has just
        made the bytes again is the one that can mend it.

        Raises:
            ValueError: the file isn't what `output` says.
            OSError: it can't be read or written.
        """
        path = self.path(output.digest)
        found = self.problem(output.digest)
        if found is None:
            self.touch(output.digest, output.mode)
            if path.exists():  # not removed between the two
                return
        elif found[0] != "blob-missing":
            self.quarantine(output.digest, found[1])
        temp, copied, size = durable.copy_temp(self._layout.bucket(Bucket.TMP), source, output.mode)
        if (copied, size) != (output.digest, output.size):
            durable.discard(temp)
            raise ValueError(
                f"{output.name} holds {size} bytes with digest {copied}, but the record names"
                f" {output.size} bytes with digest {output.digest}"
            )
        durable.publish_over(temp, path)

    def touch(self, blob_digest: str, mode: int = 0) -> None:
        """Note that a blob is in use, so that removal leaves it alone; never fails."""
        path = self.path(blob_digest)
        with contextlib.suppress(OSError):
            os.utime(path)
            if mode & ~os.lstat(path).st_mode & 0o777:
                path.chmod(mode)  # the same bytes are also wanted executable

    def each(self) -> Iterator[tuple[str, str | None]]:
        """Everything in the bucket: a path, and the digest it stands for (None for strays).

        Raises:
            OSError: a directory can't be read.
        """
        for fan, name in entries(self._layout.bucket(Bucket.CAS)):
            sound = _FAN.fullmatch(fan) and _REST.fullmatch(name)
            path = f"{self._layout.root}/{Bucket.CAS.value}/{fan}"
            yield f"{path}/{name}" if name else path, f"sha256:{fan}{name}" if sound else None


def entries(bucket: Path) -> Iterator[tuple[str, str]]:
    """Files of a bucket with fan-out directories, sorted, as plain strings: there may be many.

    Yields:
        (name of the fan-out directory, file name); the latter is "" for what isn't a directory.
    """
    for fan in _names(str(bucket)):
        try:
            names = _names(f"{bucket}/{fan}")
        except NotADirectoryError:
            yield fan, ""
        else:
            # NFS keeps a removed file that is still open under the name .nfs<number>.
            yield from ((fan, name) for name in names if not name.startswith(".nfs"))


def _names(directory: str) -> list[str]:
    try:
        with os.scandir(directory) as found:
            return sorted(entry.name for entry in found)
    except FileNotFoundError:
        return []
