"""Choosing what `gc` removes. Pure.

Least recently used first; never what is pinned or was used within the grace period. A size
limit is met with room to spare (90 %), so that the next build doesn't collect again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

STOP_AT = (9, 10)
"""Once the limit is passed, collect down to this fraction of it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What matters about a record.

    Attributes:
        key: action key.
        used: last use, in seconds since the epoch.
        size: bytes of the record's own file.
        blobs: (digest, size) of its outputs.
        target: `gfx950`, `host`...
        toolchain: toolchain id.
    """

    key: str
    used: float
    size: int
    blobs: tuple[tuple[str, int], ...]
    target: str = ""
    toolchain: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the user asks for.

    Attributes:
        max_size: bytes that records and blobs may take; None: any.
        max_age_s: seconds since the last use; None: any.
        toolchain: consider only what this toolchain built; None: all.
        target: consider only this target; None: all.
        pinned: keys to keep.
        grace_s: what was used within this time is kept.
    """

    max_size: int | None = None
    max_age_s: float | None = None
    toolchain: str | None = None
    target: str | None = None
    pinned: frozenset[str] = frozenset()
    grace_s: float = 300.0


@dataclass(slots=True)
class Choice:
    """What to remove, and what had to stay.

    Attributes:
        victims: keys, least recently used first.
        after: bytes that are left.
        kept_pinned: keys that would have gone but for a pin.
        kept_recent: keys that would have gone but were used just now.
    """

    victims: list[str] = field(default_factory=list)
    after: int = 0
    kept_pinned: list[str] = field(default_factory=list)
    kept_recent: list[str] = field(default_factory=list)


def choose(entries: Sequence[Entry], limits: Limits, *, now: float, loose: int = 0) -> Choice:
    """Choose the records to remove.

    Without `max_size` and `max_age_s`, everything that `toolchain` and `target` select goes;
    without those either, nothing does.

    Args:
        entries: all records.
        limits: what the user asks for.
        now: seconds since the epoch, on the clock that stamped the files.
        loose: bytes that no record names and that stay.
    """
    references = Counter(digest for e in entries for digest in dict(e.blobs))
    size = loose + total_size(entries)
    choice = Choice(after=size)
    everything = limits.max_size is None and limits.max_age_s is None
    selective = limits.toolchain is not None or limits.target is not None
    candidates = sorted(
        (
            e
            for e in entries
            if limits.toolchain in (None, e.toolchain) and limits.target in (None, e.target)
        ),
        key=lambda e: (e.used, e.key),
    )
    goal = None
    if limits.max_size is not None and size > limits.max_size:
        goal = limits.max_size * STOP_AT[0] // STOP_AT[1]
    for entry in candidates:
        too_old = limits.max_age_s is not None and now - entry.used > limits.max_age_s
        too_much = goal is not None and choice.after > goal
        if not (too_old or too_much or (everything and selective)):
            continue
        if entry.key in limits.pinned:
            choice.kept_pinned.append(entry.key)
        elif now - entry.used <= limits.grace_s:
            choice.kept_recent.append(entry.key)
        else:
            choice.victims.append(entry.key)
            choice.after -= entry.size
            for digest, blob_size in dict(entry.blobs).items():
                references[digest] -= 1
                if references[digest] == 0:
                    choice.after -= blob_size
    return choice


def total_size(entries: Collection[Entry]) -> int:
    """Bytes of records and of the blobs they name, each blob once."""
    blobs = {digest: size for e in entries for digest, size in e.blobs}
    return sum(e.size for e in entries) + sum(blobs.values())
