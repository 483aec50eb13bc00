"""The archive inside of a pack, read strictly: one zstd frame of stated size, plain headers."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from jitcache.errors import DamagedError, InputError
from jitcache.pack.model import BLOCK, WINDOW_LOG, Limits

_CHUNK = 1 << 20
_INPUT = 1 << 11
"""Compressed bytes taken at a time: even of a bomb that is some 64 MB in memory."""

_FRAME_HEADER = 18
"""Bytes of the largest header of a zstd frame."""

_NO_SIZE = (2**64 - 1, 2**64 - 2)
"""What zstandard says of a frame that doesn't state its size."""


class Archive:
    """The bytes inside of a pack: never more than it states, and never more than allowed.

    Args:
        f: the pack, opened.
        path: of the pack, for errors.
        limits: what it may take at most.

    Attributes:
        left: bytes that it still has to give, as it states.
    """

    def __init__(self, f: IO[bytes], path: Path, limits: Limits) -> None:
        import zstandard

        self.path, self.limits = path, limits
        self._error = zstandard.ZstdError
        self._file = f
        head = f.read(_FRAME_HEADER)
        f.seek(0)
        try:
            frame = zstandard.get_frame_parameters(head)
        except zstandard.ZstdError as e:
            raise self.refuse(f"is not a zstd file ({e})") from None
        if frame.content_size in _NO_SIZE:
            raise self.refuse("does not state how large it is inside")
        if frame.content_size > limits.total:
            raise self.refuse(
                f"states {frame.content_size} bytes inside; at most {limits.total} are read"
            )
        if frame.window_size > 1 << WINDOW_LOG:
            raise self.refuse(f"asks for a window of {frame.window_size} bytes of memory")
        self.left = frame.content_size
        self._frame = zstandard.ZstdDecompressor(max_window_size=1 << WINDOW_LOG).decompressobj()
        self._ready = memoryview(b"")

    def refuse(self, why: str) -> InputError:
        """The error of a pack that isn't one."""
        return InputError(
            f"the pack {why}",
            where=str(self.path),
            hint="get it again from where it was published, and make sure of its digest",
        )

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes."""
        if size > self.left:
            raise self.refuse("ends within a member")
        data = bytearray()
        while len(data) < size:
            piece = self._some(size - len(data))
            if not piece:
                raise self.refuse("was cut short")
            data += piece
        self.left -= size
        return bytes(data)

    def headers(self) -> Iterator[tarfile.TarInfo]:
        """The header of every member; its content has to be read before the next."""
        while True:
            block = self.read(BLOCK)
            if not any(block):
                self.end()
                return
            try:
                info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
            except (tarfile.HeaderError, UnicodeDecodeError) as e:
                raise self.refuse(f"has a damaged member header ({e})") from None
            if info.size < 0 or info.size > self.left:
                raise self.refuse(f"has a member of {info.size} bytes, {info.name!r}: too many")
            yield info

    def end(self) -> None:
        """Make sure that only empty blocks follow, and no second frame.

        Reading to the end is also what makes zstd compare its own checksum.
        """
        while self.left:
            if any(self.read(min(self.left, _CHUNK))):
                raise self.refuse("has data after its end")
        if self._some(1):
            raise self.refuse("holds more than it states")
        if self._frame.unused_data or self._file.read(1):
            raise self.refuse("is followed by other data")

    def _some(self, size: int) -> bytes:
        try:
            while not self._ready and not self._frame.eof:
                chunk = self._file.read(_INPUT)
                if not chunk:
                    break
                self._ready = memoryview(self._frame.decompress(chunk))
        except self._error as e:
            raise DamagedError(
                f"the compressed data is damaged ({e})", where=str(self.path), hint="get it again"
            ) from None
        except OSError as e:
            raise InputError(f"can't be read ({e.strerror})", where=str(self.path)) from None
        piece, self._ready = self._ready[:size], self._ready[size:]
        return bytes(piece)
