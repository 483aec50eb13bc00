"""Where damaged and divergent things go: out of the way, but kept for whoever asks why.

An incident is one directory in the quarantine bucket with a `why.json` beside what was moved
or copied there. Moving is guarded against the race with somebody who has just mended the
same path: the moved file is looked at again, and put back if it is sound after all.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from jitcache.store import durable
from jitcache.store.layout import Bucket, Layout
from jitcache.store.model import Notice


def quarantine(
    layout: Layout, path: Path, kind: str, detail: str, *, still_bad: Callable[[Path], bool]
) -> Path | None:
    """Move a damaged file out of its bucket.

    Args:
        layout: of the store.
        path: the file (or whatever stands at its place).
        kind: what is wrong, one word.
        detail: what is wrong, one sentence.
        still_bad: asked about the moved file; when it says no, somebody replaced the
            damaged file before we moved it, and the sound one is put back.

    Returns:
        Where it is now; None where it could not be moved (read-only store), was gone
        already, or was sound.
    """
    try:
        incident = _new_incident(layout, kind, path.name)
    except OSError:
        return None
    moved = incident / path.name
    try:
        path.rename(moved)
    except OSError:
        _forget(incident)
        return None
    try:
        bad = still_bad(moved)
    except OSError:
        bad = True
    if not bad:
        durable.publish_new(moved, path)
        _forget(incident)
        return None
    _explain(incident, kind, detail, str(path))
    return incident


def keep_evidence(
    layout: Layout, key: str, kind: str, detail: str, record: bytes, files: Mapping[str, Path]
) -> Path | None:
    """Keep a record that lost against an earlier one, with copies of its outputs.

    Returns:
        The incident's directory, or None where it could not be written.
    """
    import shutil

    try:
        incident = _new_incident(layout, kind, layout.record(key).name)
        (incident / "record.json").write_bytes(record)
        for name, path in files.items():
            shutil.copyfile(path, incident / f"output-{name}")
    except OSError:
        return None
    _explain(incident, kind, detail, "")
    return incident


def incidents(layout: Layout) -> Iterator[Path]:
    """Directories of the quarantine, oldest first."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        yield from sorted(layout.bucket(Bucket.QUARANTINE).iterdir())


def incidents_of(layout: Layout, key: str) -> list[Path]:
    """Incidents about the record of a key, oldest first."""
    mark = f"-{layout.record(key).name[:12]}-"
    return [path for path in incidents(layout) if mark in path.name]


def notice(path: Path, detail: str, incident: Path | None) -> Notice:
    """What to tell about a damaged file."""
    if incident is None:
        return Notice("quarantined", str(path), f"{detail}; it could not be moved away")
    return Notice("quarantined", str(path), f"{detail}; moved to {incident}")


def _new_incident(layout: Layout, kind: str, name: str) -> Path:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    incident = layout.bucket(Bucket.QUARANTINE) / (
        f"{stamp}-{kind}-{name[:12]}-{os.urandom(4).hex()}"
    )
    durable.make_dir(incident)
    return incident


def _forget(incident: Path) -> None:
    with contextlib.suppress(OSError):
        incident.rmdir()


def _explain(incident: Path, kind: str, detail: str, origin: str) -> None:
    why = {"kind": kind, "detail": detail, "from": origin, "when": int(time.time())}
    with contextlib.suppress(OSError):
        (incident / "why.json").write_text(json.dumps(why, indent=2) + "\n")
