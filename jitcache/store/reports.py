"""What the store's slower operations tell: verify, remove, problems, writable.

Apart from the model, because each dataclass costs a warm lookup half a millisecond of import.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Damage:
    """One thing that `verify` found wrong.

    Attributes:
        kind: `record-damaged`, `blob-damaged`, `blob-missing` (a record names a blob that
            isn't there), `stray` (a file that has no place in its bucket), `unreadable`.
        where: path below the root.
        detail: what is wrong, one sentence.
        quarantined: where it was put, or None where it was left in place.
    """

    kind: str
    where: str
    detail: str
    quarantined: Path | None = None


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What `verify` saw.

    Attributes:
        records: whole records.
        blobs: blobs that match their digest.
        blob_bytes: their size.
        unreferenced: blobs among them that no record names (`rm` and `gc` sweep them).
        damage: everything that is wrong.
        incidents: directories in the quarantine, this run's included.
    """

    records: int
    blobs: int
    blob_bytes: int
    unreferenced: int
    damage: tuple[Damage, ...]
    incidents: int


@dataclass(frozen=True, slots=True)
class RemoveReport:
    """What `remove` did, or would do.

    Attributes:
        records: keys of the removed records.
        absent: keys that had no record.
        blobs: blobs removed because no record names them any more.
        freed_bytes: size of the removed records and blobs.
        kept_recent: unreferenced blobs left alone because somebody may be publishing a
            record that names them: they are younger than the grace period.
    """

    records: tuple[str, ...]
    absent: tuple[str, ...]
    blobs: int
    freed_bytes: int
    kept_recent: int


@dataclass(frozen=True, slots=True)
class Problem:
    """Something about the store's directory that its user should know or mend.

    Attributes:
        kind: `not-a-directory`, `unreadable`, `read-only`, `world-writable`,
            `foreign-owner`, `exposed-parent`, `noexec`, `no-flock`, `seed-unusable`.
        fatal: whether nothing can be looked up or nothing can be trusted because of it.
        where: the path.
        detail: what is the matter.
        hint: what to do.
    """

    kind: str
    fatal: bool
    where: str
    detail: str
    hint: str


@dataclass(frozen=True, slots=True)
class Writable:
    """The store can be written, as far as permissions tell; true."""

    def __bool__(self) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class NotWritable:
    """The store can't be written, and why; false."""

    detail: str

    def __bool__(self) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class GcReport:
    """What `gc` did, or would do.

    Attributes:
        removed: keys of the removed records, least recently used first.
        blobs: blobs removed because no record names them any more.
        freed_bytes: size of the removed records and blobs.
        before_bytes: size of all records and blobs before.
        after_bytes: the same after.
        kept_pinned: records that would have gone but for a pin.
        kept_recent: records that would have gone but were used just now.
        within_limit: whether the size limit is met.
        incidents: old incidents removed from the quarantine.
    """

    removed: tuple[str, ...]
    blobs: int
    freed_bytes: int
    before_bytes: int
    after_bytes: int
    kept_pinned: tuple[str, ...]
    kept_recent: tuple[str, ...]
    within_limit: bool
    incidents: int
