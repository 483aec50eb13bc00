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


class Swept:
    """What a sweep removed (`blobs`, `size`) and left as too young (`recent`, `recent_size`)."""

    def __init__(self) -> None:
        self.blobs = self.size = self.recent = self.recent_size = 0


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
                    layout.signatures(key).unlink(missing_ok=True)
            except FileNotFoundError:
                absent.append(key)
                continue
            gone.append(key)
            freed += size
        now = clock(layout, dry_run=dry_run)
        named = referenced(actions, excluded=gone)
        swept = Swept()
        if named is not None:
            swept = sweep_blobs(layout, blobs, named, young=now - grace_s, dry_run=dry_run)
        if not dry_run:
            sweep_temps(layout, now)
    return RemoveReport(tuple(gone), tuple(absent), swept.blobs, freed + swept.size, swept.recent)


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


def sweep_blobs(
    layout: Layout, blobs: Blobs, named: Collection[str], *, young: float, dry_run: bool
) -> Swept:
    """Remove the blobs that no record names.

    Args:
        layout: of the store.
        blobs: of the store.
        named: digests that records name. A record that was published after these were
            collected does no harm: its blobs are young.
        young: blobs used since then stay, in seconds since the epoch.
        dry_run: only count.

    Raises:
        OSError: something can't be read or removed.
    """
    swept = Swept()
    if not dry_run and layout.root.exists():
        durable.make_dir(layout.bucket(Bucket.TMP))
    for path, blob_digest in blobs.each():
        if blob_digest is None or blob_digest in named:
            continue
        with contextlib.suppress(FileNotFoundError):
            st = os.lstat(path)
            if st.st_mtime > young or not (dry_run or _unlink_old(layout, path, young)):
                swept.recent += 1
                swept.recent_size += st.st_size
            else:
                swept.blobs += 1
                swept.size += st.st_size
    return swept


def _unlink_old(layout: Layout, path: str, young: float) -> bool:
    aside = f"{layout.bucket(Bucket.TMP)}/.{os.getpid()}-{os.urandom(8).hex()}.tmp"
    os.rename(path, aside)  # noqa: PTH104
    if os.lstat(aside).st_mtime > young:
        # Somebody relies on it since we looked. Whoever wrote it anew meanwhile wrote the
        # same bytes, so either may stay.
        durable.publish_new(Path(aside), Path(path))
        return False
    os.unlink(aside)  # noqa: PTH108
    return True


def clock(layout: Layout, *, dry_run: bool) -> float:
    """The time on the clock that stamps the store's files: a file server's may be wrong."""
    import time

    if not dry_run:
        with contextlib.suppress(OSError):
            temp = durable.write_temp(layout.bucket(Bucket.TMP), b"", 0o600, durable=False)
            try:
                return os.lstat(temp).st_mtime
            finally:
                durable.discard(temp)
    return time.time()


def sweep_temps(layout: Layout, now: float) -> None:
    """Remove temporary files that killed processes left."""
    with contextlib.suppress(FileNotFoundError):
        for path in layout.bucket(Bucket.TMP).iterdir():
            with contextlib.suppress(FileNotFoundError):
                if os.lstat(path).st_mtime < now - _ABANDONED_S:
                    path.unlink()
