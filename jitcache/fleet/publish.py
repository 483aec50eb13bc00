"""Handing results out: signed, to every remote that may be written, as each is built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from jitcache.errors import LostError, UsageError
from jitcache.remote.chain import Guarded
from jitcache.remote.config import RemoteConfig
from jitcache.remote.opening import open_remote
from jitcache.remote.push import push
from jitcache.sign.keys import SecretKey
from jitcache.store.model import ActionRecord
from jitcache.store.store import Store


@dataclass(slots=True)
class Published:
    """What became of what was handed out.

    Attributes:
        pushed: (action, remote) pairs that we put there.
        present: pairs that were there already, with the same outputs.
        problems: (remote, label, sentence) for what failed, or is there with other outputs.
        divergent: keys of which a remote has other outputs than ours.
    """

    pushed: int = 0
    present: int = 0
    problems: list[tuple[str, str, str]] = field(default_factory=list)
    divergent: set[str] = field(default_factory=set)


class Publisher:
    """Pushes records to remotes.

    Args:
        store: has the blobs.
        remotes: where to; none means that results stay in the store.
        signers: who sign.

    Attributes:
        total: what became of everything so far.
    """

    def __init__(
        self, store: Store, remotes: Sequence[Guarded], signers: Sequence[SecretKey]
    ) -> None:
        self.total = Published()
        self._store = store
        self._remotes = remotes
        self._signers = signers
        self._everywhere: dict[str, bool] = {}

    def publish(self, record: ActionRecord) -> bool:
        """Push one record; whether somebody else had pushed it before.

        Raises:
            LostError: no remote can be reached any more.
            StoreError: a blob isn't in the store.
            DamagedError: a blob's bytes aren't what they have to be.
        """
        before = False
        complete = True
        for remote in self._remotes:
            down = remote.down is not None
            done = push(self._store, remote, record, self._signers)
            self.total.pushed += done.state == "pushed"
            self.total.present += done.state == "present"
            before |= done.state in {"present", "divergent"}
            complete &= done.state != "failed"
            if done.state == "divergent":
                self.total.divergent.add(record.key)
            if done.detail and not down:
                self.total.problems.append((remote.name, record.label, done.detail))
        self._everywhere[record.key] = complete
        if self._remotes and all(r.down is not None for r in self._remotes):
            raise LostError(
                "no remote can be written any more",
                where=", ".join(r.name for r in self._remotes),
                details=tuple(f"{r.name}: {r.down}" for r in self._remotes),
                hint="start the worker again when one can: what is in the local store is pushed"
                " then, not built again",
            )
        return before

    def everywhere(self, key: str) -> bool | None:
        """Whether all remotes have it; None where it wasn't published yet."""
        return self._everywhere.get(key)


def open_publisher(
    store: Store,
    configs: Sequence[RemoteConfig],
    signers: Sequence[SecretKey],
) -> Publisher:
    """A publisher to all remotes of these that are `rw`.

    Raises:
        UsageError: one wants signatures, and there is no key.
    """
    writable = [c for c in configs if c.writable]
    if any(c.signed for c in writable) and not signers:
        raise UsageError(
            "there is no key to sign with",
            where=", ".join(c.name for c in writable),
            hint="--key FILE, or JITCACHE_SIGNING_KEY; `jitcache key new NAME` makes one",
        )
    return Publisher(store, [open_remote(c) for c in writable], signers)
