"""An index of the records, so that collecting 100,000 of them needn't read each.

It is a hint and never the truth: an entry is believed only while the record's file has the
inode, size, mtime and ctime that it had when it was read; anything else is read again. The
index may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from jitcache.store import durable
from jitcache.store.actions import Actions, key_of
from jitcache.store.blobs import entries
from jitcache.store.gcplan import Entry
from jitcache.store.layout import Bucket, Layout
from jitcache.store.model import ActionRecord, DamagedRecord
from jitcache.store.sealed import SealError, seal, unseal


def scan(layout: Layout, actions: Actions, *, save: bool) -> tuple[dict[str, Entry], bool]:
    """What matters about every record.

    Args:
        layout: of the store.
        actions: of the store.
        save: whether to keep what had to be read anew.

    Returns:
        Entries by key, and whether every record could be read (damaged ones count as read).

    Raises:
        OSError: a directory can't be read.
    """
    file = layout.bucket(Bucket.MEMO) / "index.json"
    known = _load(file)
    rows: dict[str, Any] = {}
    found: dict[str, Entry] = {}
    complete = True
    bucket = layout.bucket(Bucket.AC)
    for fan, name in entries(bucket):
        key = key_of(fan, name)
        if key is None:
            continue
        try:
            st = os.lstat(f"{bucket}/{fan}/{name}")
        except FileNotFoundError:
            continue
        stamp = [st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns]
        row = known.get(key)
        entry = None if row is None else _entry(key, st, stamp, row)
        if entry is None:
            record = actions.get(key)
            if isinstance(record, DamagedRecord):
                complete = complete and record.readable
            if not isinstance(record, ActionRecord):
                continue
            row = [*stamp, record.target, record.toolchain]
            row.append([[o.digest, o.size] for o in record.outputs])
            entry = _entry(key, st, stamp, row)
        if entry is not None:
            rows[key] = row
            found[key] = entry
    if save and rows != known:
        _save(file, rows)
    return found, complete


def _entry(key: str, st: os.stat_result, stamp: list[int], row: Any) -> Entry | None:
    if type(row) is not list or len(row) != 7 or row[:4] != stamp:
        return None
    target, toolchain, outputs = row[4:]
    blobs = tuple((digest, size) for digest, size in outputs)
    return Entry(key, st.st_mtime, st.st_size, blobs, target, toolchain)


def _load(file: Path) -> dict[str, Any]:
    try:
        rows = json.loads(unseal(file.read_bytes()))
    except (OSError, SealError, ValueError, RecursionError):
        return {}
    return rows if isinstance(rows, dict) else {}


def _save(file: Path, rows: dict[str, Any]) -> None:
    content = json.dumps(rows, separators=(",", ":")).encode()
    with contextlib.suppress(OSError):
        durable.make_dir(file.parent)
        temp = durable.write_temp(file.parent, seal(content), 0o644, durable=False)
        durable.publish_over(temp, file, durable=False)
