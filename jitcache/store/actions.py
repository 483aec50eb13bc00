"""Action records by key: written once, and never trusted without their seal."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from jitcache.jsonread import ShapeError
from jitcache.store import durable
from jitcache.store.blobs import entries
from jitcache.store.layout import Bucket, Layout
from jitcache.store.model import ActionRecord, DamagedRecord, Notice
from jitcache.store.quarantine import notice, quarantine
from jitcache.store.records import decode, encode, problem

_FAN = re.compile(r"[0-9a-f]{2}")
_FILE = re.compile(r"[0-9a-f]{62}\.json")


class Actions:
    """The `ac` bucket.

    Args:
        layout: of the store.
        notices: what was dealt with is told here.
    """

    def __init__(self, layout: Layout, notices: list[Notice]) -> None:
        self._layout = layout
        self._notices = notices

    def get(self, key: str) -> ActionRecord | DamagedRecord | None:
        """The record of a key; None where there is none."""
        return self._read(self._layout.record(key), key)

    def add(self, record: ActionRecord) -> bool:
        """Publish a record, unless its key has one.

        Returns:
            Whether this one was published.

        Raises:
            OSError: it can't be written.
        """
        temp = durable.write_temp(self._layout.bucket(Bucket.TMP), encode(record), 0o444)
        return durable.publish_new(temp, self._layout.record(record.key))

    def quarantine(
        self,
        path: Path,
        kind: str,
        detail: str,
        *,
        usable: Callable[[ActionRecord], bool] = lambda _: True,
    ) -> Path | None:
        """Move a record away that is damaged, or whose outputs are gone for good.

        Args:
            path: the record's file.
            kind: what is wrong, one word.
            detail: what is wrong, one sentence.
            usable: asked about the moved record, if it is sound: somebody may have mended
                it, or its outputs, since we looked. Then it is put back.
        """

        def still_bad(moved: Path) -> bool:
            key = key_of(path.parent.name, path.name)
            found = None if key is None else self._read(moved, key)
            return not (
                isinstance(found, ActionRecord) and problem(found) is None and usable(found)
            )

        incident = quarantine(self._layout, path, kind, detail, still_bad=still_bad)
        self._notices.append(notice(path, detail, incident))
        return incident

    def each(self) -> Iterator[ActionRecord | DamagedRecord]:
        """Everything in the bucket, in the order of keys; what vanishes meanwhile is skipped.

        Raises:
            OSError: a directory can't be read.
        """
        bucket = self._layout.bucket(Bucket.AC)
        for fan, name in entries(bucket):
            key = key_of(fan, name)
            if key is None:
                path = bucket / fan / name
                yield DamagedRecord(path, "the file's name is not that of a record")
            elif (found := self.get(key)) is not None:
                yield found

    @staticmethod
    def _read(path: Path, key: str) -> ActionRecord | DamagedRecord | None:
        try:
            # A record is a small file of ours: a link, FIFO or device in its place is damage,
            # and must neither be followed nor block us.
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as e:
            return _unread(path, e)
        try:
            with os.fdopen(fd, "rb", buffering=0) as f:
                record = decode(f.read())
        except OSError as e:
            return _unread(path, e)
        except ShapeError as e:
            return DamagedRecord(path, f"{e.path} {e.problem}" if e.path != "$" else e.problem)
        if record.key != key:
            return DamagedRecord(path, f"holds the record of another key, {record.key}")
        return record


def key_of(fan: str, name: str) -> str | None:
    """The key that a fan-out directory and a file name stand for, or None for a stray file."""
    if _FAN.fullmatch(fan) and _FILE.fullmatch(name):
        return f"sha256:{fan}{name[:-5]}"
    return None


def _unread(path: Path, e: OSError) -> DamagedRecord:
    # A link or directory is certainly not a record; of anything else we can't tell.
    certain = e.errno in (errno.ELOOP, errno.EISDIR)
    return DamagedRecord(path, f"can't be read ({e.strerror})", readable=certain)
