"""What the store holds: blobs by digest, and action records that name them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Output:
    """One output of an action.

    Attributes:
        name: file name within the action, e.g. `kernel.co`.
        digest: `sha256:...` of its bytes.
        size: bytes.
        mode: permission bits, 0o444 or 0o555.
    """

    name: str
    digest: str
    size: int
    mode: int = 0o444


@dataclass(frozen=True, slots=True)
class ActionRecord:
    """An action's result: which outputs the inputs behind a key gave.

    Attributes:
        key: action key, `sha256:...` of the canonical JSON of `inputs`.
        inputs: the canonical record the key was computed over (jitcache.action.keys).
        outputs: sorted by name.
        target: `gfx950`, or `host` for a host shim.
        toolchain: toolchain id.
        label: for people.
        created: seconds since the epoch.
        facts: what is worth showing and isn't an input: cost, peak memory, registers, LDS;
            JSON values without floats.
    """

    key: str
    inputs: dict[str, Any]
    outputs: tuple[Output, ...]
    target: str
    toolchain: str
    label: str
    created: int
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hit:
    """A usable result: the record, and a path to each output's bytes, by output name."""

    record: ActionRecord
    paths: dict[str, Path]
    layer: str = "local"


@dataclass(frozen=True, slots=True)
class Miss:
    """No usable result, and why.

    Attributes:
        key: the action key that was looked up.
        reason: `absent`, `record-damaged`, `blob-missing`, `blob-damaged`, `untrusted`...
        detail: what exactly, for people.
    """

    key: str
    reason: str
    detail: str = ""


Lookup = Hit | Miss


@dataclass(frozen=True, slots=True)
class DamagedRecord:
    """A file where a record should be, that isn't one.

    Attributes:
        path: the file.
        detail: what is wrong with it.
        readable: False where the disk or a permission kept us from even reading it.
    """

    path: Path
    detail: str
    readable: bool = True


@dataclass(frozen=True, slots=True)
class Notice:
    """Something the store dealt with and its user should hear of.

    Attributes:
        kind: `quarantined`, `divergent` (the same inputs gave other bytes than before),
            `unlocked` (the work goes on without a lock).
        where: path or key.
        detail: what happened, one sentence.
    """

    kind: str
    where: str
    detail: str
