"""Reading a pack that anybody may have made: nothing is believed until it is verified.

The archive is read by a strict reader of its own: regular files and directories of the
layout, each once, and nothing else. No name of the archive ever becomes a path: blobs are
staged under names of ours, and the store files them by digest.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from jitcache.errors import DamagedError, InputError
from jitcache.jsonread import ShapeError
from jitcache.lockfile import Lock, parse_lock
from jitcache.pack.model import (
    BLOB_NAME,
    BLOCK,
    DIRECTORY_NAME,
    LOCK_NAME,
    RECORD_NAME,
    TAG_NAME,
    WINDOW_LOG,
    Limits,
    Unpacked,
)
from jitcache.pack.write import lock_name
from jitcache.store import durable
from jitcache.store.layout import Bucket
from jitcache.store.model import ActionRecord
from jitcache.store.records import decode, problem
from jitcache.store.store import Store

_CHUNK = 1 << 20
_INPUT = 1 << 11
"""Compressed bytes taken at a time: even of a bomb that is some 64 MB in memory."""

_FRAME_HEADER = 18
"""Bytes of the largest header of a zstd frame."""

_NO_SIZE = (2**64 - 1, 2**64 - 2)
"""What zstandard says of a frame that doesn't state its size."""


@dataclass(slots=True)
class _Contents:
    """What was read so far; blobs are staged files, by digest."""

    records: dict[str, ActionRecord] = field(default_factory=dict)
    blobs: dict[str, Path] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    locks: dict[str, Lock] = field(default_factory=dict)


def unpack(path: Path, store: Store, *, digest: str = "", limits: Limits | None = None) -> Unpacked:
    """Verify a pack as a whole, then put what it holds into a store, with its lock file.

    Args:
        path: the pack.
        store: where to put it; any directory can be one.
        digest: `sha256:...` that the file must have; "" for any.
        limits: what it may take at most.

    Raises:
        InputError: the file can't be read, or is not a pack that jitcache could have written.
        DamagedError: bytes don't match a digest.
        StoreError: the store can't be written.
    """
    staging = store.layout.bucket(Bucket.TMP)
    contents = _Contents()
    try:
        with durable.explained("write to the store", staging):
            durable.make_dir(staging)
        with contextlib.ExitStack() as stack:
            try:
                f = stack.enter_context(path.open("rb"))
            except OSError as e:
                raise InputError(f"can't read the pack ({e.strerror})", where=str(path)) from None
            if digest:
                _check_whole(f, digest, path)
            _read(_Archive(f, path, limits or Limits()), contents, staging)
        lock = _check(contents, path)
        for record in contents.records.values():
            store.put(record, {o.name: contents.blobs[o.digest] for o in record.outputs})
        from jitcache.lockfile import write_lock

        write_lock(store.layout.root / lock_name(lock), lock)
    finally:
        for staged in contents.blobs.values():
            durable.discard(staged)
    return Unpacked(lock, len(contents.records), len(contents.blobs), sum(contents.sizes.values()))


class _Archive:
    """The bytes inside of a pack: never more than it states, and never more than allowed."""

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


def _read(archive: _Archive, contents: _Contents, staging: Path) -> None:
    seen: set[str] = set()
    for info in _headers(archive):
        name = info.name.rstrip("/") if info.type == tarfile.DIRTYPE else info.name
        if name in seen:
            raise archive.refuse(f"names {name!r} twice")
        if len(seen) >= archive.limits.members:
            raise archive.refuse(f"has more than {archive.limits.members} members")
        seen.add(name)
        if info.type == tarfile.DIRTYPE:
            if not DIRECTORY_NAME.fullmatch(name) or info.size:
                raise archive.refuse(f"holds a directory that no store has: {name!r}")
        elif info.type != tarfile.REGTYPE:
            raise archive.refuse(
                f"holds {name!r}, which is neither a file nor a directory (type {info.type!r})"
            )
        else:
            _member(archive, info, contents, staging)
            if any(archive.read(-info.size % BLOCK)):
                raise archive.refuse(f"has data between its members, after {name!r}")


def _headers(archive: _Archive) -> Iterator[tarfile.TarInfo]:
    while True:
        block = archive.read(BLOCK)
        if not any(block):
            archive.end()
            return
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        except (tarfile.HeaderError, UnicodeDecodeError) as e:
            raise archive.refuse(f"has a damaged member header ({e})") from None
        if info.size < 0 or info.size > archive.left:
            raise archive.refuse(f"has a member of {info.size} bytes, {info.name!r}: too many")
        yield info


def _member(archive: _Archive, info: tarfile.TarInfo, contents: _Contents, staging: Path) -> None:
    name = info.name
    if found := BLOB_NAME.fullmatch(name):
        _stage(archive, f"sha256:{found[1]}{found[2]}", info.size, contents, staging)
        return
    if info.size > archive.limits.small:
        raise archive.refuse(f"has a member of {info.size} bytes, {name!r}: too many")
    data = archive.read(info.size)
    if found := RECORD_NAME.fullmatch(name):
        key = f"sha256:{found[1]}{found[2]}"
        contents.records[key] = _record(data, key, archive, name)
    elif LOCK_NAME.fullmatch(name):
        contents.locks[name] = parse_lock(data, where=f"{archive.path}: {name}")
    elif name != TAG_NAME:
        raise archive.refuse(f"holds a file that no store has: {name!r}")


def _record(data: bytes, key: str, archive: _Archive, name: str) -> ActionRecord:
    try:
        record = decode(data)
    except ShapeError as e:
        raise DamagedError(
            f"{name}: {e.path} {e.problem}", where=str(archive.path), hint="get it again"
        ) from None
    bad = "it is the record of another key" if record.key != key else problem(record)
    if bad:
        raise DamagedError(f"{name}: {bad}", where=str(archive.path), hint="get it again")
    return record


def _stage(archive: _Archive, digest: str, size: int, contents: _Contents, staging: Path) -> None:
    hasher = hashlib.sha256()
    with durable.explained("write to the store", staging):
        fd, name = tempfile.mkstemp(prefix=".unpack-", suffix=".tmp", dir=staging)
        contents.blobs[digest], contents.sizes[digest] = Path(name), size
        with os.fdopen(fd, "wb") as out:
            left = size
            while left:
                piece = archive.read(min(left, _CHUNK))
                left -= len(piece)
                hasher.update(piece)
                out.write(piece)
    if "sha256:" + hasher.hexdigest() != digest:
        raise DamagedError(
            f"the bytes of {digest} have the digest sha256:{hasher.hexdigest()}",
            where=str(archive.path),
            hint="get the pack again",
        )


def _check(contents: _Contents, path: Path) -> Lock:
    """The pack's lock, if the pack holds exactly what it names."""
    if len(contents.locks) != 1:
        raise InputError(f"the pack holds {len(contents.locks)} lock files, not 1", where=str(path))
    name, lock = contents.locks.popitem()
    wanted = {a.key: a for a in lock.actions()}
    bad = [] if name == lock_name(lock) else [f"{name} is the lock of {lock.manifest}"]
    bad += [f"no record of {key}" for key in wanted if key not in contents.records]
    named: set[str] = set()
    for key, record in contents.records.items():
        if key not in wanted:
            bad.append(f"{key}: a record that the lock doesn't name")
        elif not wanted[key].given_by(record):
            bad.append(f"{key}: other outputs than the lock names")
        if record.target not in (lock.arch, "host"):
            bad.append(f"{key}: built for {record.target}, not {lock.arch}")
        for output in record.outputs:
            named.add(output.digest)
            if contents.sizes.get(output.digest) != output.size:
                have = contents.sizes.get(output.digest, "no")
                bad.append(f"{key}: {output.name} has {have} bytes, not {output.size}")
    bad += [f"{d}: a blob that no record names" for d in contents.blobs if d not in named]
    if bad:
        raise DamagedError(
            "the pack does not hold what its lock file names",
            where=str(path),
            details=tuple(bad[:20]),
            hint="make it again with `jitcache pack`",
        )
    return lock


def _check_whole(f: IO[bytes], digest: str, path: Path) -> None:
    hasher = hashlib.sha256()
    while chunk := f.read(_CHUNK):
        hasher.update(chunk)
    f.seek(0)
    found = "sha256:" + hasher.hexdigest()
    if found != digest:
        raise DamagedError(
            f"the pack's digest is {found}, not {digest}",
            where=str(path),
            hint="get it again from where it was published",
        )
