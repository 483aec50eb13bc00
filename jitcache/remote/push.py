"""From the local store to a remote: blobs first, then the signed record, once.

The first record of a key stays on a remote. One with other outputs that we would have pushed
is evidence that the same inputs gave two results: theirs is kept in the local quarantine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from jitcache.jsonread import ShapeError
from jitcache.remote.chain import Guarded
from jitcache.remote.interface import Exists, Failed, Found
from jitcache.sign.envelope import pack, unpack
from jitcache.sign.keys import SecretKey
from jitcache.store.model import ActionRecord
from jitcache.store.quarantine import keep_evidence
from jitcache.store.records import same_outputs
from jitcache.store.store import Store


@dataclass(frozen=True, slots=True)
class Pushed:
    """What became of one action on one remote.

    Attributes:
        state: `pushed`; `present` (there already, with the same outputs); `divergent` (there
            already, with others); `failed`.
        detail: for `divergent` and `failed`, one sentence.
    """

    state: Literal["pushed", "present", "divergent", "failed"]
    detail: str = ""


def push(
    store: Store, remote: Guarded, record: ActionRecord, signers: Sequence[SecretKey]
) -> Pushed:
    """Push one action.

    Args:
        store: has its record and its blobs.
        remote: where to.
        record: of the action.
        signers: who sign it.

    Raises:
        StoreError: a blob isn't in the store.
        DamagedError: a blob's bytes aren't what they have to be.
    """
    there = remote.get_record(record.key)
    if isinstance(there, Failed):
        return Pushed("failed", there.detail)
    if isinstance(there, Found):
        return _compare(store, remote, record, there.data)
    blobs = tuple({o.digest: o.size for o in record.outputs}.items())
    for digest, _ in blobs:
        put = remote.put_blob(digest, store.read(digest))
        if isinstance(put, Failed):
            return Pushed("failed", put.detail)
    done = remote.put_record(record.key, pack(record, signers), blobs)
    if isinstance(done, Failed):
        return Pushed("failed", done.detail)
    if isinstance(done, Exists):
        winner = remote.get_record(record.key)
        if isinstance(winner, Found):
            return _compare(store, remote, record, winner.data)
        return Pushed("failed", "somebody else pushed it meanwhile, and it can't be read")
    return Pushed("pushed")


def _compare(store: Store, remote: Guarded, ours: ActionRecord, data: bytes) -> Pushed:
    try:
        theirs = unpack(data).record
    except ShapeError as e:
        return Pushed("failed", f"a damaged record is there already: {e}")
    if theirs.key == ours.key and same_outputs(theirs, ours):
        return Pushed("present")
    detail = f"the record on {remote.name} has other outputs than ours, and stays"
    kept = keep_evidence(store.layout, ours.key, "divergent-remote", detail, data, {})
    return Pushed("divergent", detail if kept is None else f"{detail}; a copy is in {kept}")
