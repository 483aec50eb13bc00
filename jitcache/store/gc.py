"""Collecting what is no longer used, while others use the store."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import replace

from jitcache.store import durable
from jitcache.store.actions import Actions
from jitcache.store.blobs import Blobs
from jitcache.store.gcplan import Choice, Entry, Limits, choose, total_size
from jitcache.store.index import scan
from jitcache.store.layout import Layout
from jitcache.store.model import Notice
from jitcache.store.pins import DamagedPin, pins
from jitcache.store.quarantine import incidents
from jitcache.store.reports import GcReport
from jitcache.store.sweep import clock, sweep_blobs, sweep_temps

INCIDENT_DAYS = 30
"""How long the quarantine keeps evidence."""


def collect(
    layout: Layout,
    actions: Actions,
    blobs: Blobs,
    notices: list[Notice],
    limits: Limits,
    *,
    dry_run: bool = False,
) -> GcReport:
    """Remove records as `limits` ask, then every old blob that no record names.

    A record that is used between our look and its turn stays. What a damaged pin protects
    can't be known, so nothing but unreferenced blobs is collected then.

    Raises:
        StoreError: something can't be read or removed.
    """
    with durable.explained("collect garbage in the store", layout.root):
        now = clock(layout, dry_run=dry_run)
        entries, complete = scan(layout, actions, save=not dry_run)
        named = {d for e in entries.values() for d, _ in e.blobs}
        young = now - limits.grace_s
        # What nobody names is counted, not yet removed: a removed record's blobs go with it.
        loose = sweep_blobs(layout, blobs, named, young=young, dry_run=True)
        choice = Choice()
        if (kept := _pinned(layout, notices)) is not None:
            limits = replace(limits, pinned=limits.pinned | kept)
            choice = choose(list(entries.values()), limits, now=now, loose=loose.recent_size)
        removed = [k for k in choice.victims if dry_run or _remove(layout, entries[k])]
        freed = sum(entries[k].size for k in removed)
        blob_count = 0
        if complete:
            gone = set(removed)
            named = {d for k, e in entries.items() if k not in gone for d, _ in e.blobs}
            swept = sweep_blobs(layout, blobs, named, young=young, dry_run=dry_run)
            blob_count, freed = swept.blobs, freed + swept.size
        before = total_size(entries.values()) + loose.size + loose.recent_size
        report = GcReport(
            removed=tuple(removed),
            blobs=blob_count,
            freed_bytes=freed,
            before_bytes=before,
            after_bytes=before - freed,
            kept_pinned=tuple(choice.kept_pinned),
            kept_recent=tuple(choice.kept_recent),
            within_limit=limits.max_size is None or before - freed <= limits.max_size,
            incidents=_old_incidents(layout, now, dry_run=dry_run),
        )
        if not dry_run:
            sweep_temps(layout, now)
    return report


def _pinned(layout: Layout, notices: list[Notice]) -> frozenset[str] | None:
    keys: set[str] = set()
    sound = True
    for pin in pins(layout):
        if isinstance(pin, DamagedPin):
            notices.append(
                Notice(
                    "pin-damaged",
                    str(pin.path),
                    f"{pin.detail}; no record is collected until it is made again or removed",
                )
            )
            sound = False
        else:
            keys |= pin.keys
    return frozenset(keys) if sound else None


def _remove(layout: Layout, entry: Entry) -> bool:
    path = layout.record(entry.key)
    try:
        if os.lstat(path).st_mtime != entry.used:
            return False  # somebody has just used it
        path.unlink()
    except FileNotFoundError:
        return False
    layout.signatures(entry.key).unlink(missing_ok=True)
    return True


def _old_incidents(layout: Layout, now: float, *, dry_run: bool) -> int:
    count = 0
    for incident in list(incidents(layout)):
        with contextlib.suppress(OSError):
            if os.lstat(incident).st_mtime < now - INCIDENT_DAYS * 86400:
                count += 1
                if not dry_run:
                    shutil.rmtree(incident)
    return count
