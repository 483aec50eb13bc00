"""Records and blobs as named objects: the layout of directories, WebDAV servers and buckets.

    ac/<2>/<62>         the signed record of an action
    cas/<2>/<62>        a blob
    cas/<2>/<62>.zst    a blob compressed with zstd, where that saves a tenth or more

The hex digits are those of the action key and of the blob's own digest.
"""

from __future__ import annotations

import io

from jitcache.remote.interface import (
    MAX_RECORD,
    Absent,
    Exists,
    Failed,
    Found,
    Got,
    Objects,
    Put,
    Stored,
)

_LEVEL = 3
_WORTH_TRYING = 512
"""Bytes below which a blob is never compressed."""


class KeyedRemote:
    """A remote made of named objects."""

    def __init__(self, objects: Objects, where: str) -> None:
        self._objects = objects
        self._where = where

    def get_record(self, key: str) -> Got:
        """The object of an action."""
        return self._objects.get(_path("ac", key), MAX_RECORD)

    def put_record(self, key: str, data: bytes, blobs: tuple[tuple[str, int], ...]) -> Put:  # noqa: ARG002
        """Create the object of an action."""
        return self._objects.put(_path("ac", key), data)

    def get_blob(self, digest: str, size: int) -> Got:
        """A blob, unpacked to no more than its size and verified."""
        from jitcache.remote.oci import verified

        got: Got = Absent()
        if size >= _WORTH_TRYING:
            got = self._objects.get(_path("cas", digest) + ".zst", size)
            if isinstance(got, Found):
                got = _unpacked(got.data, size, self._where)
        if isinstance(got, Absent):
            got = self._objects.get(_path("cas", digest), size)
        return verified(got.data, digest, size, self._where) if isinstance(got, Found) else got

    def put_blob(self, digest: str, data: bytes) -> Put:
        """Create a blob, compressed where it pays."""
        path = _path("cas", digest)
        if len(data) >= _WORTH_TRYING:
            import zstandard

            packed = zstandard.ZstdCompressor(level=_LEVEL).compress(data)
            if len(packed) * 10 <= len(data) * 9:
                return self._objects.put(path + ".zst", packed)
        return self._objects.put(path, data)

    def creates_once(self) -> bool | Failed:
        """What the server does with a second creation."""
        return self._objects.creates_once()


def try_twice(objects: Objects, path: str) -> bool | Failed:
    """Create a probe twice, and see whether the second is refused and the first stays."""
    first = objects.put(path, b"first")
    second = objects.put(path, b"second")
    for put in (first, second):
        if isinstance(put, Failed):
            return put
    stays = objects.get(path, 16)
    if isinstance(stays, Failed):
        return stays
    return isinstance(first, Stored) and isinstance(second, Exists) and stays == Found(b"first")


def _unpacked(data: bytes, size: int, where: str) -> Got:
    import zstandard

    # Read through a stream with a bound, never as the frame's own header says.
    try:
        with zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(
            io.BytesIO(data)
        ) as stream:
            parts = []
            left = size + 1
            while left and (chunk := stream.read(min(left, 1 << 20))):
                parts.append(chunk)
                left -= len(chunk)
    except zstandard.ZstdError as e:
        return Failed("damaged", f"{where} sent something that is no zstd ({e})")
    if not left:
        return Failed("damaged", f"{where} sent what unpacks to more than {size} bytes")
    return Found(b"".join(parts))


def _path(space: str, digest: str) -> str:
    name = digest.removeprefix("sha256:")
    return f"{space}/{name[:2]}/{name[2:]}"
