"""Signatures in packs: of every record and of the lock file, by whoever packs or packed before.

The lock is signed as well, because it says which kernel is which: records that somebody
trusted signed could otherwise be put under a lock that swaps them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jitcache.errors import UntrustedError
from jitcache.lockfile import Lock, dump_lock, load_lock
from jitcache.pack.model import Member
from jitcache.sign import beside
from jitcache.sign.envelope import Envelope, dump_signatures, signed_by
from jitcache.sign.keys import SecretKey, Signature
from jitcache.sign.trust import Trust
from jitcache.store.actions import Actions
from jitcache.store.layout import Bucket, Layout
from jitcache.store.model import ActionRecord
from jitcache.store.records import canonical
from jitcache.store.store import Store

_ROOT = Layout(Path())


@dataclass(frozen=True, slots=True)
class Belief:
    """What is believed of what comes from outside.

    Attributes:
        trust: whose signatures count, and what was disowned.
        signed: False where the user said `--signatures off`; what was disowned stays refused.
    """

    trust: Trust
    signed: bool = True


def lock_file_name(lock: Lock) -> str:
    """The name of a lock's file, in packs and stores."""
    return f"{lock.manifest}.{lock.arch}.lock.json"


def signature_members(
    store: Store, lock: Lock, records: Iterable[ActionRecord], signers: Sequence[SecretKey]
) -> list[Member]:
    """The files with signatures that go into a pack.

    Args:
        store: the signatures that lie beside its records travel on.
        lock: of the pack.
        records: of the pack.
        signers: who sign all of it now; a signature by the same name is replaced.
    """
    name = lock_file_name(lock)
    data = dump_lock(lock)
    old: tuple[Signature, ...] = ()
    with contextlib.suppress(OSError):
        if (store.layout.bucket(Bucket.LOCKS) / name).read_bytes() == data:
            old = beside.read(beside.of_lock(store.layout, name))
    found = [_member(beside.of_lock(_ROOT, name), old, data, signers)]
    for record in records:
        old = beside.read(store.layout.signatures(record.key))
        path = _ROOT.signatures(record.key)
        found.append(_member(path, old, canonical(record), signers))
    return [m for m in found if m is not None]


def _member(
    path: Path, old: tuple[Signature, ...], data: bytes, signers: Sequence[SecretKey]
) -> Member | None:
    by_name = {s.name: s for s in (*old, *signed_by(data, signers))}
    if not by_name:
        return None
    text = dump_signatures([by_name[n] for n in sorted(by_name)])
    return Member(str(path), text, len(text), 0o444)


def require_belief(
    belief: Belief,
    lock: Lock,
    lock_signatures: tuple[Signature, ...],
    envelopes: Mapping[str, Envelope],
    where: Path,
) -> None:
    """Do nothing if all of a pack is believed.

    Args:
        belief: of the user.
        lock: of the pack.
        lock_signatures: over the lock.
        envelopes: every record, by key.
        where: the pack, for the error.

    Raises:
        UntrustedError: some of it isn't, each with its reason.
    """
    bad = {}
    if belief.signed:
        # A lock is made after its records, so it is at least as young as the youngest.
        newest = max((e.record.created for e in envelopes.values()), default=0)
        bad["the lock file"] = belief.trust.signature_refusal(
            dump_lock(lock), lock_signatures, newest
        )
    for envelope in envelopes.values():
        record = envelope.record
        bad[f"{record.label} ({record.key[7:19]})"] = belief.trust.refusal(
            envelope, signed=belief.signed
        )
    details = tuple(f"{what}: {why}" for what, why in bad.items() if why is not None)
    if details:
        raise untrusted("the pack", where, details)


def require_believed_lock(belief: Belief, lock: Lock, layout: Layout) -> None:
    """Do nothing if the lock file in a seed is believed.

    Raises:
        UntrustedError: it isn't.
    """
    why = _lock_refusal(belief.trust, lock, layout) if belief.signed else None
    if why is not None:
        raise untrusted("the seed", layout.root, (f"the lock file: {why}",))


def require_signed(trust: Trust, layout: Layout) -> int:
    """Do nothing but count if all that a store or seed holds is believed.

    Returns:
        The number of records and lock files.

    Raises:
        InputError: a lock file is malformed.
        UntrustedError: a record or a lock file isn't signed by a trusted key.
    """
    bad = {}
    for record in Actions(layout, []).each():
        if isinstance(record, ActionRecord):
            why = trust.refusal(beside.envelope(layout, record))
            bad[f"{record.label} ({record.key[7:19]})"] = why
        else:
            bad[str(record.path)] = record.detail
    place = layout.bucket(Bucket.LOCKS)
    for path in sorted(place.glob("*.lock.json")):
        bad[path.name] = _lock_refusal(trust, load_lock(path), layout)
    details = tuple(f"{what}: {why}" for what, why in bad.items() if why is not None)
    if details:
        raise untrusted("the store", layout.root, details)
    return len(bad)


def _lock_refusal(trust: Trust, lock: Lock, layout: Layout) -> str | None:
    actions = Actions(layout, [])
    records = [actions.get(a.key) for a in lock.actions()]
    newest = max((r.created for r in records if isinstance(r, ActionRecord)), default=0)
    signatures = beside.read(beside.of_lock(layout, lock_file_name(lock)))
    return trust.signature_refusal(dump_lock(lock), signatures, newest)


def untrusted(what: str, where: Path, details: tuple[str, ...]) -> UntrustedError:
    """The error of something from outside that isn't believed."""
    return UntrustedError(
        f"{what} is not believed",
        where=str(where),
        details=details[:20],
        hint="`jitcache key trust NAME:BASE64` believes a signer; `jitcache pack --key FILE`"
        " signs; --signatures off believes whoever made it",
    )
