"""Checking everything that the store holds against what it should be."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from jitcache.store import durable
from jitcache.store.actions import Actions, key_of
from jitcache.store.blobs import Blobs
from jitcache.store.layout import Layout
from jitcache.store.model import ActionRecord, DamagedRecord
from jitcache.store.quarantine import incidents, quarantine
from jitcache.store.records import problem
from jitcache.store.reports import Damage, VerifyReport


def verify(
    layout: Layout, actions: Actions, blobs: Blobs, *, move_damaged: bool = True
) -> VerifyReport:
    """Read every blob and every record, and move what is damaged to the quarantine.

    Others may put and remove meanwhile: what vanishes while we look is not damage.

    Raises:
        StoreError: a directory of the store can't be read.
    """
    check = _Check(layout, actions, blobs, move_damaged)
    with durable.explained("read the store", layout.root):
        # Blobs first: a record whose blob turns out to be damaged is found wanting after it.
        sound, blob_bytes = check.all_blobs()
        named = check.all_records()
    return VerifyReport(
        records=check.records,
        blobs=len(sound),
        blob_bytes=blob_bytes,
        unreferenced=len(sound - named),
        damage=tuple(check.damage),
        incidents=sum(1 for _ in incidents(layout)),
    )


class _Check:
    def __init__(self, layout: Layout, actions: Actions, blobs: Blobs, move_damaged: bool) -> None:
        self.layout = layout
        self.actions = actions
        self.blobs = blobs
        self.move = move_damaged
        self.damage: list[Damage] = []
        self.records = 0
        self.bad: set[str] = set()

    def found(self, kind: str, path: Path, detail: str, incident: Path | None) -> None:
        where = os.path.relpath(path, self.layout.root)
        self.damage.append(Damage(kind, where, detail, incident))

    def stray(self, path: Path, detail: str) -> None:
        moved = None
        if self.move:
            moved = quarantine(self.layout, path, "stray", detail, still_bad=lambda _: True)
        self.found("stray", path, detail, moved)

    def all_blobs(self) -> tuple[set[str], int]:
        sound: set[str] = set()
        total = 0
        for name, blob_digest in self.blobs.each():
            path = Path(name)
            if blob_digest is None:
                self.stray(path, "the file's name is not that of a blob")
                continue
            bad = self.blobs.problem(blob_digest)
            if bad is None:
                try:
                    total += os.lstat(path).st_size
                except FileNotFoundError:
                    continue
                sound.add(blob_digest)
            elif bad[0] != "blob-missing":
                self.bad.add(blob_digest)
                moved = None
                if self.move and bad[0] == "blob-damaged":
                    moved = self.blobs.quarantine(blob_digest, bad[1])
                self.found(bad[0], path, bad[1], moved)
        return sound, total

    def all_records(self) -> set[str]:
        named: set[str] = set()
        for record in self.actions.each():
            if isinstance(record, DamagedRecord):
                self.damaged_record(record)
                continue
            if (bad := problem(record)) is not None:
                self.damaged_record(DamagedRecord(self.layout.record(record.key), bad))
                continue
            if self.whole(record) or not self.dangles(record):
                self.records += 1
                named.update(o.digest for o in record.outputs)
        return named

    def dangles(self, record: ActionRecord) -> bool:
        """Look again at a record that seemed to lack a blob, and move it if it still does.

        Removal takes records before blobs, and takes a blob aside for a moment before it
        decides to leave it: a record that is still there has no other excuse.
        """
        detail = "; ".join(self.wanting(record))
        if not detail or not isinstance(self.actions.get(record.key), ActionRecord):
            return not self.whole(record)
        path = self.layout.record(record.key)
        moved = None
        if self.move:
            moved = self.actions.quarantine(path, "blob-missing", detail, usable=self.whole)
            if moved is None and self.whole(record):
                return False  # mended meanwhile, and put back
        self.found("blob-missing", path, f"{record.label}: {detail}", moved)
        return True

    def whole(self, record: ActionRecord) -> bool:
        return not any(self.wanting(record))

    def wanting(self, record: ActionRecord) -> Iterator[str]:
        for output in record.outputs:
            bad = self.blobs.size_problem(output)
            if bad is not None:
                yield bad[1]
            elif output.digest in self.bad:
                yield f"{output.name} ({output.digest}) is damaged"

    def damaged_record(self, record: DamagedRecord) -> None:
        if not record.readable:
            self.found("unreadable", record.path, record.detail, None)
            return
        if key_of(record.path.parent.name, record.path.name) is None:
            self.stray(record.path, record.detail)
            return
        moved = None
        if self.move:
            moved = self.actions.quarantine(record.path, "record-damaged", record.detail)
        self.found("record-damaged", record.path, record.detail, moved)
