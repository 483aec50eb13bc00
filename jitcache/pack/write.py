"""Writing a pack: equal stores and locks give equal bytes, on every machine and at any time."""

from __future__ import annotations

import hashlib
import os
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

from jitcache.errors import DamagedError, InputError, StoreError
from jitcache.lockfile import Lock, dump_lock
from jitcache.pack.model import BLOCK, LOCK_NAME, TAG_NAME, WINDOW_LOG, Member, Packed
from jitcache.pack.signed import lock_file_name, signature_members
from jitcache.sign.keys import SecretKey
from jitcache.store.durable import explained, fsync_dir
from jitcache.store.layout import CACHEDIR_TAG, Bucket, Layout
from jitcache.store.model import ActionRecord, Hit
from jitcache.store.records import encode
from jitcache.store.store import Store

_CHUNK = 1 << 20
_ROOT = Layout(Path())
_END = 2 * BLOCK
"""A tar archive ends in two empty blocks."""


def lock_name(lock: Lock) -> str:
    """Where a pack or store keeps a lock file.

    Raises:
        InputError: the manifest's name can't be part of a file name.
    """
    name = f"{Bucket.LOCKS.value}/{lock_file_name(lock)}"
    if not LOCK_NAME.fullmatch(name):
        raise InputError(
            f"the manifest's name {lock.manifest!r} can't be part of a file name",
            hint="rename the manifest and run `jitcache prebuild` again",
        )
    return name


def gather(store: Store, lock: Lock) -> list[tuple[ActionRecord, dict[str, Path]]]:
    """The records of a lock, and where the bytes of their outputs are.

    Raises:
        StoreError: some are in neither the store nor its seeds, or aren't what the lock says.
    """
    found, bad = [], []
    for action in lock.actions():
        hit = store.lookup(action.key)
        if not isinstance(hit, Hit):
            bad.append(f"{action.key}: {hit.reason} {hit.detail}".rstrip())
        elif not action.given_by(hit.record):
            bad.append(f"{action.key}: the store holds other bytes than the lock names")
        else:
            found.append((hit.record, hit.paths))
    if bad:
        raise StoreError(
            f"{len(bad)} actions of the lock can't be packed",
            where=f"lock of {lock.manifest} for {lock.arch}",
            details=tuple(bad),
            hint="`jitcache prebuild` builds what is missing and writes the lock anew",
        )
    return found


def contents(store: Store, lock: Lock, signers: Sequence[SecretKey] = ()) -> list[Member]:
    """Every file of a pack, sorted by name.

    Args:
        store: where the results are looked up, seeds included.
        lock: what has to be in the pack.
        signers: who sign its records and its lock.

    Raises:
        StoreError: something is missing from the store.
    """
    found = gather(store, lock)
    return members(lock, found, signature_members(store, lock, (r for r, _ in found), signers))


def members(
    lock: Lock,
    found: Iterable[tuple[ActionRecord, dict[str, Path]]],
    signatures: Iterable[Member] = (),
) -> list[Member]:
    """Every file of a pack, sorted by name, each once; the order of `found` doesn't matter."""
    by_name = {m.name: m for m in signatures}

    def add(member: Member) -> None:
        by_name[member.name] = member

    tag, text = CACHEDIR_TAG.encode(), dump_lock(lock)
    add(Member(TAG_NAME, tag, len(tag), 0o444))
    add(Member(lock_name(lock), text, len(text), 0o444))
    for record, paths in found:
        data = encode(record)
        add(Member(str(_ROOT.record(record.key)), data, len(data), 0o444))
        for output in record.outputs:
            name = str(_ROOT.blob(output.digest))
            # One blob may be an output of several actions; it may be run if any says so.
            mode = max(output.mode, by_name[name].mode if name in by_name else 0)
            add(Member(name, paths[output.name], output.size, mode, output.digest))
    return [by_name[name] for name in sorted(by_name)]


def write_pack(
    store: Store,
    lock: Lock,
    target: Path,
    *,
    level: int = 3,
    signers: Sequence[SecretKey] = (),
) -> Packed:
    """Write everything a lock needs as one file; a reader sees all of it or nothing.

    Args:
        store: where the results are looked up, seeds included.
        lock: what has to be in the pack.
        target: the file; one that is there is replaced.
        level: zstd level: 3 for every build, 19 for releases.
        signers: who sign what is in it.

    Raises:
        StoreError: something is missing from the store, or the file can't be written.
        DamagedError: a stored blob isn't what its digest says.
    """
    files = contents(store, lock, signers)
    with explained("write the pack", target):
        fd, name = tempfile.mkstemp(prefix=".pack-", dir=target.absolute().parent)
        temp = Path(name)
        try:
            with os.fdopen(fd, "wb") as f:
                packed = compress(files, f, level=level)
                f.flush()
                os.fsync(f.fileno())
                os.fchmod(f.fileno(), 0o644)
            temp.replace(target)
            fsync_dir(target.absolute().parent)
        finally:
            temp.unlink(missing_ok=True)
    return packed


def compress(files: list[Member], f: IO[bytes], *, level: int) -> Packed:
    """Write members as one zstd frame that states its size.

    Raises:
        DamagedError: a member's bytes aren't those of its digest and size.
        OSError: something can't be read or written.
    """
    import zstandard

    total = tar_size(files)
    # One thread: with several, the bytes would depend on their number.
    how = zstandard.ZstdCompressionParameters.from_level(
        level,
        window_log=WINDOW_LOG,
        enable_ldm=True,
        write_checksum=True,
        write_content_size=True,
        threads=0,
    )
    out = _Hashing(f)
    inner = hashlib.sha256()
    frame = zstandard.ZstdCompressor(compression_params=how).compressobj(size=total)
    for piece in tar_pieces(files):
        inner.update(piece)
        out.write(frame.compress(piece))
    out.write(frame.flush())
    return Packed(
        digest="sha256:" + out.hasher.hexdigest(),
        size=out.size,
        tar_digest="sha256:" + inner.hexdigest(),
        tar_size=total,
        records=sum(m.name.startswith(Bucket.AC.value) for m in files),
        blobs=sum(m.name.startswith(Bucket.CAS.value) for m in files),
        signed=is_signed(files),
    )


def is_signed(files: list[Member]) -> bool:
    """Whether the lock file and every record among the members carry a signature."""
    records = sum(m.name.startswith(Bucket.AC.value) for m in files)
    return sum(m.name.startswith(Bucket.SIGNATURES.value) for m in files) == records + 1


def tar_size(files: list[Member]) -> int:
    """Bytes of the archive of members, its directories and end included."""
    padded = sum(-(-m.size // BLOCK) * BLOCK for m in files)
    return BLOCK * (len(files) + len(_directories(files))) + padded + _END


def tar_pieces(files: list[Member]) -> Iterator[bytes]:
    """The archive of members: directories before what is in them, times and owners zero.

    Raises:
        DamagedError: a member's bytes aren't those of its digest and size.
        OSError: a file can't be read.
    """
    by_name: dict[str, Member | None] = {m.name: m for m in files}
    by_name |= dict.fromkeys(_directories(files))
    for name in sorted(by_name):
        member = by_name[name]
        if member is None:
            yield _header(name, tarfile.DIRTYPE, 0, 0o755)
            continue
        yield _header(name, tarfile.REGTYPE, member.size, member.mode)
        yield from content(member)
        yield bytes(-member.size % BLOCK)
    yield bytes(_END)


def _directories(files: list[Member]) -> set[str]:
    return {str(p) for m in files for p in Path(m.name).parents} - {"."}


def _header(name: str, kind: bytes, size: int, mode: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mode = kind, size, mode
    return info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict")


def content(member: Member) -> Iterator[bytes]:
    """The bytes of a member, in pieces.

    Raises:
        DamagedError: they aren't those of its digest and size.
        OSError: the file can't be read.
    """
    if isinstance(member.source, bytes):
        yield member.source
        return
    hasher, size = hashlib.sha256(), 0
    with member.source.open("rb", buffering=0) as f:
        while chunk := f.read(_CHUNK):
            hasher.update(chunk)
            size += len(chunk)
            if size > member.size:
                break
            yield chunk
    if size != member.size or "sha256:" + hasher.hexdigest() != member.digest:
        raise DamagedError(
            f"does not hold the bytes of {member.digest}",
            where=str(member.source),
            hint="`jitcache verify` finds damage; `jitcache prebuild` builds it again",
        )


class _Hashing:
    """A file that knows digest and size of what went into it."""

    def __init__(self, f: IO[bytes]) -> None:
        self._f = f
        self.hasher = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        self.hasher.update(data)
        self.size += len(data)
        self._f.write(data)
