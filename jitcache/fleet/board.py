"""Where workers leave word for one another: a shared directory, or a bucket.

Three operations carry the whole protocol: create unless there (by link, or If-None-Match),
replace what is one's own, and read. Lists only save questions: nothing is decided by one.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from jitcache.errors import InputError
from jitcache.remote.chain import Bounds
from jitcache.remote.directory import DirectoryObjects
from jitcache.remote.interface import Absent, Failed, Found, Got, Put, Stored
from jitcache.remote.objects import BucketObjects
from jitcache.store import durable

DEADLINE_S = 20.0
"""Seconds for one operation; after that the board counts as lost."""

_LARGEST = 1 << 16
_BUCKETS = ("s3://", "gs://", "az://")


class Place(Protocol):
    """Named bytes that can also be replaced and listed."""

    def get(self, path: str, limit: int) -> Got:
        """The bytes of an object."""

    def put(self, path: str, data: bytes) -> Put:
        """Create an object unless there is one of that name."""

    def replace(self, path: str, data: bytes) -> Stored | Failed:
        """Write an object, whether there is one or not."""

    def listing(self, space: str) -> dict[str, str] | Failed:
        """The objects directly below `space/`: a text for each name that changes with it."""

    def creates_once(self) -> bool | Failed:
        """Whether of two creations of one name the second is refused."""


class DirectoryPlace(DirectoryObjects):
    """A directory that all workers see."""

    def replace(self, path: str, data: bytes) -> Stored | Failed:
        """Write a file in one step."""
        final = self._root / path
        try:
            self._mounted()
            durable.make_dir(final.parent)
            temp = durable.write_temp(final.parent, data, 0o444, durable=False)
            temp.replace(final)
        except OSError as e:
            return self._failed(e)
        return Stored()

    def listing(self, space: str) -> dict[str, str] | Failed:
        """The files of a directory; each is told from its successors by inode and time."""
        try:
            self._mounted()
            with os.scandir(self._root / space) as entries:
                return {e.name: _version(e) for e in entries}
        except FileNotFoundError as e:
            return {} if self._root.is_dir() else self._failed(e)
        except OSError as e:
            return self._failed(e)


class BucketPlace(BucketObjects):
    """A prefix of a bucket."""

    def replace(self, path: str, data: bytes) -> Stored | Failed:
        """Write an object."""
        try:
            self._obstore.put(self._store, path, data, use_multipart=False)
        except Exception as e:  # noqa: BLE001 -- obstore's errors share no base class
            return self._failed(e)
        return Stored()

    def listing(self, space: str) -> dict[str, str] | Failed:
        """The objects below a prefix, each with its entity tag; one request for a thousand."""
        try:
            pages = self._obstore.list(self._store, prefix=f"{space}/", chunk_size=1000)
            return {
                meta["path"].rpartition("/")[2]: str(meta["e_tag"])
                for page in pages
                for meta in page
            }
        except Exception as e:  # noqa: BLE001
            return self._failed(e)


class Board(Bounds):
    """A place within bounds: below a prefix, and lost once it has failed for too long.

    Args:
        place: where objects are.
        prefix: above all names, so that several plans can share a place.
        deadline_s: seconds for one operation.
    """

    def __init__(self, place: Place, prefix: str, deadline_s: float = DEADLINE_S) -> None:
        super().__init__(deadline_s)
        self._place = place
        self._prefix = prefix

    def get(self, path: str) -> bytes | Failed | None:
        """The bytes of an object, None where there is none."""
        got = self.run(lambda: self._place.get(self._path(path), _LARGEST), 0)
        if isinstance(got, Found):
            return got.data
        return None if isinstance(got, Absent) else got

    def create(self, path: str, data: bytes) -> Put:
        """Create an object unless there is one of that name."""
        return self.run(lambda: self._place.put(self._path(path), data), len(data))

    def replace(self, path: str, data: bytes) -> Stored | Failed:
        """Write an object."""
        return self.run(lambda: self._place.replace(self._path(path), data), len(data))

    def listing(self, space: str) -> dict[str, str] | Failed:
        """The objects directly below `space/`: a text for each name that changes with it."""
        return self.run(lambda: self._place.listing(self._path(space)), 0)

    def _path(self, path: str) -> str:
        return f"{self._prefix}/{path}"


def _version(entry: os.DirEntry[str]) -> str:
    try:
        state = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return ""  # replaced this very moment: alive
    return f"{state.st_ino}-{state.st_mtime_ns}"


def open_board(where: str, plan: str) -> Board:
    """The board of a plan.

    Args:
        where: a directory that exists, or `s3://BUCKET/PREFIX` (`gs://`, `az://`).
        plan: id of the plan.

    Raises:
        InputError: it can't be reached, or doesn't create an object once only.
    """
    place: Place
    if where.startswith(_BUCKETS):
        place = BucketPlace(where, DEADLINE_S)
    else:
        place = DirectoryPlace(Path(where))
    once = Bounds(DEADLINE_S).run(place.creates_once, 0)
    if isinstance(once, Failed):
        raise InputError(
            f"no leases can be kept here: {once.detail}",
            where=where,
            hint="--lease takes a directory that exists and that all workers see, or a bucket",
        )
    if not once:
        raise InputError(
            "no leases can be kept here: of two creations of one object both succeed",
            where=where,
            hint="take a server that knows If-None-Match, or a file system with hard links",
        )
    return Board(place, plan.removeprefix("sha256:")[:32])
