"""Signatures that lie beside what they are over: in packs, in seeds, in stores filled from them.

    sig-v1/<2>/<62>.json                     of an action record
    sig-v1/<manifest>.<arch>.lock.json       of a lock file

Each is the second line of `jitcache.sign.envelope`. A record is signed in its canonical bytes,
a lock file in the bytes of the file. So kernels can travel on without the key that signed
them, and a mounted pack can be checked as one that was unpacked.
"""

from __future__ import annotations

from pathlib import Path

from jitcache.jsonread import ShapeError
from jitcache.sign.envelope import Envelope, dump_signatures, read_signatures
from jitcache.sign.keys import Signature
from jitcache.store.durable import replace_file
from jitcache.store.layout import Bucket, Layout
from jitcache.store.model import ActionRecord
from jitcache.store.records import canonical


def of_lock(layout: Layout, name: str) -> Path:
    """Where the signatures of a lock file lie.

    Args:
        layout: of the store.
        name: the lock's file name, `<manifest>.<arch>.lock.json`.
    """
    return layout.bucket(Bucket.SIGNATURES) / name


def read(path: Path) -> tuple[Signature, ...]:
    """The signatures in a file; none where there is no such file, or where it is malformed."""
    try:
        return read_signatures(path.read_bytes())
    except (OSError, ShapeError):
        return ()


def keep(path: Path, signatures: tuple[Signature, ...]) -> None:
    """Write what `read` reads, unless there is nothing to write.

    Raises:
        StoreError: it can't be written.
    """
    if signatures:
        replace_file(path, dump_signatures(signatures), 0o444)


def envelope(layout: Layout, record: ActionRecord) -> Envelope:
    """A record of a store, and the signatures that lie beside it."""
    return Envelope(record, canonical(record), read(layout.signatures(record.key)))
