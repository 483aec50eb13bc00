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
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from jitcache.errors import DamagedError, InputError
from jitcache.jsonread import ShapeError
from jitcache.lockfile import Lock, parse_lock, write_lock
from jitcache.pack.archive import Archive
from jitcache.pack.model import (
    BLOB_NAME,
    BLOCK,
    DIRECTORY_NAME,
    LOCK_NAME,
    LOCK_SIGNATURES_NAME,
    RECORD_NAME,
    RECORD_SIGNATURES_NAME,
    TAG_NAME,
    Limits,
    Unpacked,
)
from jitcache.pack.signed import Belief, lock_file_name, require_belief
from jitcache.pack.write import lock_name
from jitcache.sign import beside
from jitcache.sign.envelope import Envelope, read_signatures
from jitcache.sign.keys import Signature
from jitcache.store import durable
from jitcache.store.layout import Bucket
from jitcache.store.model import ActionRecord
from jitcache.store.records import canonical, decode, problem
from jitcache.store.store import Store

_CHUNK = 1 << 20


@dataclass(slots=True)
class _Contents:
    """What was read so far; blobs are staged files, by digest."""

    records: dict[str, ActionRecord] = field(default_factory=dict)
    blobs: dict[str, Path] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    locks: dict[str, Lock] = field(default_factory=dict)
    signatures: dict[str, tuple[Signature, ...]] = field(default_factory=dict)
    lock_signatures: dict[str, tuple[Signature, ...]] = field(default_factory=dict)

    def envelopes(self) -> dict[str, Envelope]:
        """Every record with its signatures, by key."""
        return {
            key: Envelope(record, canonical(record), self.signatures.get(key, ()))
            for key, record in self.records.items()
        }


def unpack(
    path: Path,
    store: Store,
    belief: Belief,
    *,
    digest: str = "",
    limits: Limits | None = None,
) -> Unpacked:
    """Verify a pack as a whole, then put what it holds into a store, with its lock file.

    Args:
        path: the pack.
        store: where to put it; any directory can be one.
        belief: whose signatures count.
        digest: `sha256:...` that the file must have; "" for any.
        limits: what it may take at most.

    Raises:
        InputError: the file can't be read, or is not a pack that jitcache could have written.
        DamagedError: bytes don't match a digest.
        UntrustedError: nobody who is believed has signed all of it, or some was disowned.
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
            _read(Archive(f, path, limits or Limits()), contents, staging)
        lock = _check(contents, path)
        envelopes = contents.envelopes()
        by = contents.lock_signatures.get(lock_file_name(lock), ())
        require_belief(belief, lock, by, envelopes, path)
        _publish(contents, lock, envelopes, store)
        beside.keep(beside.of_lock(store.layout, lock_file_name(lock)), by)
    finally:
        for staged in contents.blobs.values():
            durable.discard(staged)
    return Unpacked(lock, len(contents.records), len(contents.blobs), sum(contents.sizes.values()))


def _publish(
    contents: _Contents, lock: Lock, envelopes: Mapping[str, Envelope], store: Store
) -> None:
    for key, envelope in envelopes.items():
        record = envelope.record
        kept = store.put(record, {o.name: contents.blobs[o.digest] for o in record.outputs})
        if kept == record:
            beside.keep(store.layout.signatures(key), envelope.signatures)
    write_lock(store.layout.root / lock_name(lock), lock)


def _read(archive: Archive, contents: _Contents, staging: Path) -> None:
    seen: set[str] = set()
    for info in archive.headers():
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


def _member(archive: Archive, info: tarfile.TarInfo, contents: _Contents, staging: Path) -> None:
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
    elif found := RECORD_SIGNATURES_NAME.fullmatch(name):
        contents.signatures[f"sha256:{found[1]}{found[2]}"] = _signatures(data, archive, name)
    elif found := LOCK_SIGNATURES_NAME.fullmatch(name):
        contents.lock_signatures[found[1]] = _signatures(data, archive, name)
    elif name != TAG_NAME:
        raise archive.refuse(f"holds a file that no store has: {name!r}")


def _record(data: bytes, key: str, archive: Archive, name: str) -> ActionRecord:
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


def _signatures(data: bytes, archive: Archive, name: str) -> tuple[Signature, ...]:
    try:
        return read_signatures(data)
    except ShapeError as e:
        raise DamagedError(
            f"{name}: {e.path} {e.problem}", where=str(archive.path), hint="get it again"
        ) from None


def _stage(archive: Archive, digest: str, size: int, contents: _Contents, staging: Path) -> None:
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
    bad += [f"{k}: signatures of no record" for k in contents.signatures if k not in wanted]
    others = contents.lock_signatures.keys() - {lock_file_name(lock)}
    bad += [f"{n}: signatures of no lock file" for n in sorted(others)]
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
