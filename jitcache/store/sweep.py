"""Removing records, and the blobs that nobody names any more, while others publish.

There is no lock. Records go first, so that no record ever dangles because of us. A blob goes
only when no record names it and it has not been used within the grace period, which is much
longer than a put takes between touching its blobs and publishing its record; and it is
renamed aside before its age is read, so that a put either sees it gone and writes it anew,
or has touched it in time for us to put it back.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable
from pathlib import Path

from jitcache.store import durable
from jitcache.store.actions import Actions
from jitcache.store.blobs import Blobs
from jitcache.store.layout import Bucket, Layout
from jitcache.store.model import DamagedRecord
from jitcache.store.reports import RemoveReport

GRACE_S = 300.0
"""How long an unreferenced blob is left alone after its last use."""

_ABANDONED_S = 3600.0


def remove(
    layout: Layout,
    actions: Actions,
    blobs: Blobs,
    keys: Iterable[str],
    *,
    dry_run: bool = False,
    grace_s: float = GRACE_S,
) -> RemoveReport:
    """Remove records, then every blob that no record names.

    Raises:
        StoreError: something can't be read or removed.
    """
    root = layout.root
    gone: list[str] = []
    absent: list[str] = []
    freed = 0
    with durable.explained("remove from the store", root):
        for key in dict.fromkeys(keys):
            path = layout.record(key)
            try:
                size = os.lstat(path).st_size
                if not dry_run:
                    path.unlink()
            except FileNotFoundError:
                absent.append(key)
                continue
            gone.append(key)
            freed += size
        count, blob_bytes, recent = _sweep_blobs(
            layout, actions, blobs, excluded=gone, dry_run=dry_run, grace_s=grace_s
        )
        if not dry_run:
            _sweep_temps(layout)
    return RemoveReport(tuple(gone), tuple(absent), count, freed + blob_bytes, recent)


def referenced(actions: Actions, *, excluded: Collection[str] = ()) -> set[str] | None:
    """Digests of the blobs that records name.

    Returns:
        The digests; None where a record could not be read, so that nobody can know.
    """
    found: set[str] = set()
    without = set(excluded)
    for record in actions.each():
        if isinstance(record, DamagedRecord):
            if not record.readable:
                return None
        elif record.key not in without:
            found.update(o.digest for o in record.outputs)
    return found


def _sweep_blobs(
    layout: Layout,
    actions: Actions,
    blobs: Blobs,
    *,
    excluded: Collection[str],
    dry_run: bool,
    grace_s: float,
) -> tuple[int, int, int]:
    named = referenced(actions, excluded=excluded)
    if named is None:
        return 0, 0, 0
    count = freed = recent = 0
    young = _clock(layout, dry_run=dry_run) - grace_s
    for path, blob_digest in blobs.each():
        if blob_digest is None or blob_digest in named:
            continue
        try:
            st = os.lstat(path)
            if st.st_mtime > young:
                recent += 1
                continue
            if not dry_run and not _unlink_unless_touched(layout, path, young):
                recent += 1
                continue
        except FileNotFoundError:
            continue
        count += 1
        freed += st.st_size
    return count, freed, recent


def _unlink_unless_touched(layout: Layout, path: Path, young: float) -> bool:
    aside = layout.bucket(Bucket.TMP) / f".{os.getpid()}-{os.urandom(8).hex()}.tmp"
    durable.make_dir(aside.parent)
    path.rename(aside)
    if os.lstat(aside).st_mtime > young:
        # Somebody relies on it since we looked. Whoever wrote it anew meanwhile wrote the
        # same bytes, so either may stay.
        durable.publish_new(aside, path)
        return False
    aside.unlink()
    return True


def _clock(layout: Layout, *, dry_run: bool) -> float:
    # Ages are compared with the clock that stamps the files: a file server's may differ.
    import time

    if not dry_run:
        with contextlib.suppress(OSError):
            temp = durable.write_temp(layout.bucket(Bucket.TMP), b"", 0o600, durable=False)
            try:
                return os.lstat(temp).st_mtime
            finally:
                durable.discard(temp)
    return time.time()


def _sweep_temps(layout: Layout) -> None:
    oldest = _clock(layout, dry_run=False) - _ABANDONED_S
    with contextlib.suppress(FileNotFoundError):
        for path in layout.bucket(Bucket.TMP).iterdir():
            with contextlib.suppress(FileNotFoundError):
                if os.lstat(path).st_mtime < oldest:
                    path.unlink()
