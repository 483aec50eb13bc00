"""A pack as a wheel: installed by pip, it is a seed that lookups find by themselves.

Source: the binary distribution format (PEP 427) and core metadata 2.1. The wheel holds no
Python: one directory below `jitcache_kernels/`, laid out as a store. Equal stores and locks
give equal bytes with equal versions of zlib.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import stat
import tempfile
import time
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from jitcache import digest
from jitcache._version import __version__
from jitcache.errors import UsageError
from jitcache.lockfile import Lock, dump_lock
from jitcache.pack.model import Member
from jitcache.pack.signed import signature_members
from jitcache.pack.write import content, gather, is_signed, members
from jitcache.sign.keys import SecretKey
from jitcache.store.durable import explained, fsync_dir
from jitcache.store.installed import PACKAGE
from jitcache.store.layout import Bucket
from jitcache.store.model import ActionRecord
from jitcache.store.store import Store

TAG = "py3-none-linux_x86_64"
"""Any Python 3; the host shims are for x86-64 Linux."""

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip archive can state."""

_VERSION = re.compile(
    r"\d+(\.\d+)*((a|b|rc)\d+)?(\.post\d+)?(\.dev\d+)?(\+[a-z0-9]+(\.[a-z0-9]+)*)?"
)


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel that was written.

    Attributes:
        path: the file.
        name: of the distribution.
        version: of the distribution.
        digest: `sha256:...` of the file.
        size: bytes of the file.
        records: number of action records.
        blobs: number of blobs.
        signed: whether the lock file and every record carry a signature.
    """

    path: Path
    name: str
    version: str
    digest: str
    size: int
    records: int
    blobs: int
    signed: bool


def write_wheel(
    store: Store,
    lock: Lock,
    directory: Path,
    *,
    version: str | None = None,
    signers: Sequence[SecretKey] = (),
) -> Wheel:
    """Write everything a lock needs as a wheel; a reader sees all of it or nothing.

    Args:
        store: where the results are looked up, seeds included.
        lock: what has to be in it.
        directory: where to write it; an equally named file there is replaced.
        version: of the distribution; by default the day of its newest kernel and a part of
            the lock's digest.
        signers: who sign what is in it.

    Raises:
        UsageError: the version isn't one.
        StoreError: something is missing from the store, or the file can't be written.
        DamagedError: a stored blob isn't what its digest says.
    """
    found = gather(store, lock)
    records = [record for record, _ in found]
    version = version or _version(lock, records)
    if not _VERSION.fullmatch(version):
        raise UsageError(f"{version!r} is not the version of a package", hint="e.g. 1.2.0")
    name = re.sub(r"[^a-z0-9]+", "-", f"jitcache-kernels-{lock.manifest}-{lock.arch}".lower())
    stem = name.replace("-", "_")
    files = members(lock, found, signature_members(store, lock, records, signers))
    root = f"{PACKAGE}/{stem.removeprefix(f'{PACKAGE}_')}"
    target = directory / f"{stem}-{version}-{TAG}.whl"
    with explained("write the wheel", target):
        directory.mkdir(parents=True, exist_ok=True)
        fd, temp_name = tempfile.mkstemp(prefix=".wheel-", dir=directory)
        temp = Path(temp_name)
        try:
            with os.fdopen(fd, "w+b") as f:
                _write(
                    f, files, root, f"{stem}-{version}.dist-info", _metadata(lock, name, version)
                )
                f.flush()
                os.fsync(f.fileno())
                os.fchmod(f.fileno(), 0o644)
            size, whole = temp.stat().st_size, digest.of_file(temp)
            temp.replace(target)
            fsync_dir(directory.absolute())
        finally:
            temp.unlink(missing_ok=True)
    blobs = sum(m.name.startswith(Bucket.CAS.value) for m in files)
    return Wheel(target, name, version, whole, size, len(records), blobs, is_signed(files))


def _version(lock: Lock, records: Sequence[ActionRecord]) -> str:
    day = time.gmtime(max((r.created for r in records), default=0))
    # With a letter in front: digits alone would be read as a number.
    return f"{day.tm_year}.{day.tm_mon}.{day.tm_mday}+g{digest.of_bytes(dump_lock(lock))[7:19]}"


def _metadata(lock: Lock, name: str, version: str) -> dict[str, str]:
    """The files of the `.dist-info` directory but for RECORD."""
    return {
        "METADATA": (
            "Metadata-Version: 2.1\n"
            f"Name: {name}\n"
            f"Version: {version}\n"
            f"Summary: Kernels of {lock.manifest} for {lock.arch}, which jitcache finds\n"
        ),
        "WHEEL": (
            "Wheel-Version: 1.0\n"
            f"Generator: jitcache {__version__}\n"
            "Root-Is-Purelib: false\n"
            f"Tag: {TAG}\n"
        ),
    }


def _write(
    f: IO[bytes], files: Sequence[Member], root: str, info: str, metadata: dict[str, str]
) -> None:
    rows = []
    with zipfile.ZipFile(f, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for member in files:
            name = f"{root}/{member.name}"
            rows.append(_add(archive, name, member.mode, member.size, content(member)))
        for name, text in metadata.items():
            data = text.encode()
            rows.append(_add(archive, f"{info}/{name}", 0o644, len(data), [data]))
        record = "".join(rows) + f"{info}/RECORD,,\n"
        _add(archive, f"{info}/RECORD", 0o644, len(record), [record.encode()])


def _add(archive: zipfile.ZipFile, name: str, mode: int, size: int, pieces: Iterable[bytes]) -> str:
    """Add a file; its line in RECORD."""
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = (stat.S_IFREG | mode) << 16
    entry.create_system = 3
    entry.file_size = size
    hasher = hashlib.sha256()
    with archive.open(entry, "w") as out:
        for piece in pieces:
            hasher.update(piece)
            out.write(piece)
    encoded = base64.urlsafe_b64encode(hasher.digest()).rstrip(b"=").decode()
    return f"{name},sha256={encoded},{size}\n"
