"""From a remote into the local store, with every claim checked on the way.

A record counts only if it is for the key that was asked for, its key is the digest of its
inputs, its target is wanted, somebody whom this user trusts has signed it, and (where a lock
file says what it must be) its outputs are those. Only then are blobs asked for, each by the
size and digest that the record states. `Store.put` checks all of them once more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from jitcache.jsonread import ShapeError
from jitcache.remote.chain import Guarded
from jitcache.remote.interface import Absent, Failed
from jitcache.sign import beside
from jitcache.sign.envelope import Envelope, unpack
from jitcache.sign.trust import Trust
from jitcache.store import durable
from jitcache.store.layout import Bucket
from jitcache.store.model import ActionRecord, Output
from jitcache.store.records import problem
from jitcache.store.store import Store


@dataclass(frozen=True, slots=True)
class Fetched:
    """It is in the local store now.

    Attributes:
        record: the record that the store holds.
        remote: where it came from.
        size: bytes of its outputs.
    """

    record: ActionRecord
    remote: str
    size: int


@dataclass(frozen=True, slots=True)
class NotFetched:
    """No remote has it, or none that is believed.

    Attributes:
        key: the action key.
        reasons: (remote, why), for those that said more than that they don't have it.
        refused: the remotes among them that gave something which isn't believed.
    """

    key: str
    reasons: tuple[tuple[str, str], ...] = ()
    refused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Obtained:
    """A remote gave it and it is believed; nothing of it is kept yet.

    Attributes:
        envelope: the record and its signatures.
        remote: where it came from.
        blobs: the outputs' bytes, by name.
        before: what remotes said that were asked before this one in vain.
    """

    envelope: Envelope
    remote: str
    blobs: dict[str, bytes] = field(repr=False)
    before: NotFetched


@dataclass(frozen=True, slots=True)
class _Refused:
    """What a remote gave isn't believed, and why."""

    why: str


class Fetcher:
    """Looks for actions in remotes, in their order.

    Args:
        store: where they are put.
        remotes: in the order in which they are asked.
        trust: whose signatures count.
        targets: a record for another target is refused.
    """

    def __init__(
        self, store: Store, remotes: Sequence[Guarded], trust: Trust, targets: Collection[str]
    ) -> None:
        self._store = store
        self._remotes = remotes
        self._trust = trust
        self._targets = targets

    def fetch(self, key: str, outputs: tuple[Output, ...] = ()) -> Fetched | NotFetched:
        """Have an action in the local store.

        Args:
            key: the action key.
            outputs: among others it must have given these, where a lock file says so.

        Raises:
            StoreError: the local store can't be written.
        """
        got = self.obtain(key, outputs)
        if isinstance(got, NotFetched):
            return got
        kept = self.keep(got)
        return Fetched(kept, got.remote, sum(o.size for o in got.envelope.record.outputs))

    def obtain(self, key: str, outputs: tuple[Output, ...] = ()) -> Obtained | NotFetched:
        """As `fetch`, but into memory: the local store is left alone."""
        so_far = NotFetched(key)
        for remote in self._remotes:
            told = remote.down is not None
            got = self._from(remote, key, outputs)
            if isinstance(got, tuple):
                return Obtained(got[0], remote.name, got[1], so_far)
            if isinstance(got, _Refused):
                so_far = replace(so_far, refused=(*so_far.refused, remote.name))
                got = got.why
            # That a remote is left out is said once, not for every action.
            if got is not None and not told:
                so_far = replace(so_far, reasons=(*so_far.reasons, (remote.name, got)))
        return so_far

    def keep(self, got: Obtained) -> ActionRecord:
        """Put what was obtained into the local store; the record that it now holds.

        Raises:
            StoreError: the local store can't be written.
        """
        record = got.envelope.record
        # In the store's own place: a server may have no other that it can write to.
        staging = self._store.layout.bucket(Bucket.TMP)
        with contextlib.ExitStack() as stack, durable.explained("keep what was fetched", staging):
            files = {}
            durable.make_dir(staging)
            for name, data in got.blobs.items():
                files[name] = durable.write_temp(staging, data, 0o600, durable=False)
                stack.callback(durable.discard, files[name])
            kept = self._store.put(record, files)
        if kept == record:
            beside.keep(self._store.layout.signatures(record.key), got.envelope.signatures)
        return kept

    def _from(
        self, remote: Guarded, key: str, outputs: tuple[Output, ...]
    ) -> tuple[Envelope, dict[str, bytes]] | _Refused | str | None:
        got = remote.get_record(key)
        if isinstance(got, Absent):
            return None
        if isinstance(got, Failed):
            return _failure(got)
        try:
            envelope = unpack(got.data)
        except ShapeError as e:
            return _Refused(f"the record is damaged: {e}")
        refusal = self._refusal(envelope, key, outputs, signed=remote.signed)
        if refusal is not None:
            return _Refused(f"the record is refused: {refusal}")
        blobs = {}
        for output in envelope.record.outputs:
            blob = remote.get_blob(output.digest, output.size)
            if isinstance(blob, Absent):
                return f"it has the record, but not {output.name} ({output.digest[:19]})"
            if isinstance(blob, Failed):
                return _failure(blob)
            blobs[output.name] = blob.data
        return envelope, blobs

    def _refusal(
        self,
        envelope: Envelope,
        key: str,
        outputs: tuple[Output, ...],
        *,
        signed: bool,
    ) -> str | None:
        record = envelope.record
        if record.key != key:
            return f"it is that of another action ({record.key[:19]})"
        if record.target not in self._targets:
            return f"it is for {record.target}, not for {' or '.join(sorted(self._targets))}"
        if not set(outputs) <= set(record.outputs):
            return "its outputs are not those that the lock file names"
        return self._trust.refusal(envelope, signed=signed) or problem(record)


def _failure(failed: Failed) -> _Refused | str:
    return _Refused(failed.detail) if failed.kind == "damaged" else failed.detail
