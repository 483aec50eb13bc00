"""What a pack is: its members, where each may stand, and the limits of reading one. Pure.

A pack is a tar archive in one zstd frame, laid out exactly as a store (docs/store.md), so
that unpacking or mounting it gives a seed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from jitcache.lockfile import Lock
from jitcache.store.layout import Bucket

WINDOW_LOG = 27
"""Window of 128 MiB: the largest that `zstd -d` accepts without being asked to."""

BLOCK = 512
"""Bytes of a tar header, and what every member is padded to."""

TAG_NAME = "CACHEDIR.TAG"

_FAN = "[0-9a-f]{2}"
_REST = "[0-9a-f]{62}"
RECORD_NAME = re.compile(rf"{Bucket.AC.value}/({_FAN})/({_REST})\.json")
BLOB_NAME = re.compile(rf"{Bucket.CAS.value}/({_FAN})/({_REST})")
LOCK_NAME = re.compile(rf"{Bucket.LOCKS.value}/[A-Za-z0-9_][A-Za-z0-9._+-]*\.lock\.json")
RECORD_SIGNATURES_NAME = re.compile(rf"{Bucket.SIGNATURES.value}/({_FAN})/({_REST})\.json")
LOCK_SIGNATURES_NAME = re.compile(rf"{Bucket.SIGNATURES.value}/([A-Za-z0-9_][^/]*\.lock\.json)")
DIRECTORY_NAME = re.compile(
    rf"({Bucket.AC.value}|{Bucket.CAS.value}|{Bucket.SIGNATURES.value})(/{_FAN})?"
    rf"|{Bucket.LOCKS.value}"
)


@dataclass(frozen=True, slots=True)
class Member:
    """One file of a pack.

    Attributes:
        name: path below the root of the seed.
        source: its bytes, or the file that holds them.
        size: bytes.
        mode: permission bits.
        digest: `sha256:...` that its bytes must have, "" where nothing names one.
    """

    name: str
    source: bytes | Path
    size: int
    mode: int
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Packed:
    """A pack that was written.

    Attributes:
        digest: `sha256:...` of the file.
        size: bytes of the file.
        tar_digest: digest of the archive inside, which OCI calls the layer's diff id.
        tar_size: bytes of that archive.
        records: number of action records.
        blobs: number of blobs.
        signed: whether the lock file and every record carry a signature.
    """

    digest: str
    size: int
    tar_digest: str
    tar_size: int
    records: int
    blobs: int
    signed: bool


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A pack that was read, verified and put into a store.

    Attributes:
        lock: the lock file that it was made for.
        records: action records that the store holds now.
        blobs: distinct blobs.
        size: bytes of the blobs.
    """

    lock: Lock
    records: int
    blobs: int
    size: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What a pack may take at most, whatever it says of itself.

    Attributes:
        total: bytes of the archive.
        small: bytes of one record or lock file.
        members: number of members.
    """

    total: int = 16 << 30
    small: int = 64 << 20
    members: int = 1_000_000
