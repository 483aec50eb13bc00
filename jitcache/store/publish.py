"""Putting a result into the store: blobs first, the record last, the first record stays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from jitcache.errors import DamagedError, StoreError
from jitcache.store import durable
from jitcache.store.actions import Actions
from jitcache.store.blobs import Blobs
from jitcache.store.layout import CACHEDIR_TAG, Bucket, Layout
from jitcache.store.model import ActionRecord, DamagedRecord, Notice
from jitcache.store.quarantine import keep_evidence
from jitcache.store.records import encode, problem, same_outputs

_ATTEMPTS = 5


def publish(
    layout: Layout,
    actions: Actions,
    blobs: Blobs,
    notices: list[Notice],
    record: ActionRecord,
    files: Mapping[str, Path],
) -> ActionRecord:
    """Store the result of an action; see `Store.put`.

    Raises:
        StoreError: it can't be written; nothing is half published.
        DamagedError: a file isn't what the record says.
        ValueError: the record is malformed, or `files` lacks one of its outputs.
    """
    if (bad := problem(record)) is not None:
        raise ValueError(f"not a record: {bad}")
    if lacking := [o.name for o in record.outputs if o.name not in files]:
        raise ValueError(f"no file given for the output {lacking[0]!r}")
    with durable.explained("write to the store", layout.root):
        _prepare(layout)
        for _ in range(_ATTEMPTS):
            first = _winner(layout, actions, blobs, record)
            if first is not None and not same_outputs(first, record):
                notices.append(_keep_divergent(layout, first, record, files))
                return first
            _add_blobs(blobs, record, files)
            if first is None:
                actions.add(record)
            # Look again: somebody may have published a record at the same time, or have
            # removed a blob that we found in place.
            first = _winner(layout, actions, blobs, record)
            if first is not None and same_outputs(first, record):
                return first
    raise StoreError(
        "the record does not stay: other processes keep removing or damaging it",
        where=str(layout.record(record.key)),
        hint="`jitcache verify` checks the store; try again when nobody else writes to it",
    )


def _prepare(layout: Layout) -> None:
    if not layout.cachedir_tag().exists():
        durable.replace_file(layout.cachedir_tag(), CACHEDIR_TAG.encode())
    durable.make_dir(layout.bucket(Bucket.TMP))


def _add_blobs(blobs: Blobs, record: ActionRecord, files: Mapping[str, Path]) -> None:
    for output in record.outputs:
        try:
            blobs.add(output, files[output.name])
        except ValueError as e:
            raise DamagedError(
                str(e),
                where=str(files[output.name]),
                hint="the file changed after it was built: build it again",
            ) from None


def _winner(
    layout: Layout, actions: Actions, blobs: Blobs, record: ActionRecord
) -> ActionRecord | None:
    """The whole record that the key has already; a broken one is moved away."""
    found = actions.get(record.key)
    if found is None:
        return None
    path = layout.record(record.key)
    if isinstance(found, DamagedRecord):
        if not found.readable:
            raise StoreError(
                f"the record {found.detail}",
                where=str(path),
                hint="`jitcache doctor` checks the store",
            )
        actions.quarantine(path, "record-damaged", found.detail)
        return None
    if same_outputs(found, record):
        return found if blobs.first_bad(found, read_all=False) is None else None
    if (bad := blobs.first_bad(found, read_all=True)) is not None:
        # Its bytes can't come back: we have just built, and got others.
        actions.quarantine(
            path,
            "blob-missing",
            bad.detail,
            usable=lambda r: blobs.first_bad(r, read_all=True) is None,
        )
        return None
    return found


def _keep_divergent(
    layout: Layout, first: ActionRecord, record: ActionRecord, files: Mapping[str, Path]
) -> Notice:
    was = {o.name: o.digest for o in first.outputs}
    others = [o.name for o in record.outputs if was.get(o.name) != o.digest]
    detail = (
        f"{record.label}: the same inputs gave other bytes for"
        f" {', '.join(others) or 'the set of outputs'} than when they were first built;"
        " the first result stays in use"
    )
    by_name = {o.name: files[o.name] for o in record.outputs}
    kept = keep_evidence(layout, record.key, "divergent", detail, encode(record), by_name)
    where = f"evidence in {kept}" if kept else "evidence could not be kept"
    return Notice("divergent", record.key, f"{detail}; {where}")
