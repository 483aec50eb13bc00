"""The objects that a lock names, read and verified: from the store, a seed, or a remote.

Remotes are asked for what is nowhere on this machine, and nothing that belongs to them is
imported before. What they give is believed as `jitcache.remote.fetch` says, and compared with
the lock. It is kept in the local store if that can be written, else used from memory.
"""

from __future__ import annotations

import functools
import os
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from jitcache import digest
from jitcache.errors import StoreError
from jitcache.lockfile import LockedAction
from jitcache.runtime.policy import Refusal
from jitcache.store.model import Hit, Miss, Output
from jitcache.store.store import Store
from jitcache.userconfig import remotes_configured

if TYPE_CHECKING:
    from jitcache.remote.chain import Guarded
    from jitcache.remote.config import RemoteConfig
    from jitcache.remote.fetch import Fetcher, Obtained

REMOTES_S = 30.0
"""Seconds after which one load asks remotes for nothing more."""

_FETCHABLE = frozenset({"missing", "damaged"})


@dataclass(frozen=True, slots=True)
class Loaded:
    """One object of a module, read and verified.

    Attributes:
        name: file name within its action.
        digest: of its bytes.
        layer: where it came from: `local`, `seed <path>` or `remote <name>`.
        path: its file; empty where a remote gave it and the store could not keep it.
        data: its bytes; empty for a host shim that is mapped instead.
    """

    name: str
    digest: str
    layer: str
    path: str
    data: bytes = field(repr=False, default=b"")


class Objects:
    """Where one load takes its objects from.

    Args:
        store: the local store, with its seeds.
        arch: the architecture of the lock; a remote's record for another one is refused.
        remotes: whether configured remotes are asked for what the store lacks.

    Attributes:
        told: (remote, object, why), for those that were asked in vain, were not believed, or
            whose object could not be kept.
    """

    def __init__(self, store: Store, arch: str, *, remotes: bool = True) -> None:
        self._store = store
        self._arch = arch
        self._remotes = remotes
        self._fetcher: Fetcher | None = None
        self._asked: list[Guarded] = []
        self._until = 0.0
        self.told: list[tuple[str, str, str]] = []

    def read(self, action: LockedAction) -> Loaded | Refusal:
        """The one output of an action, read whole and compared with the lock.

        Raises:
            InputError: the store lacks it, and the configuration of remotes is malformed.
        """
        here = _read_here(action, self._store)
        if isinstance(here, Loaded) or here.reason not in _FETCHABLE or not self._open():
            return here
        return self._from_remotes(action, here)

    def close(self) -> None:
        """Keep the count of what remotes gave and what was refused, if they were asked."""
        if self._fetcher is not None:
            self._store.save_counters()

    def _open(self) -> bool:
        """Whether there are remotes; opens them when first asked."""
        if self._fetcher is None and self._remotes and remotes_configured():
            from jitcache.remote.config import load_remotes
            from jitcache.remote.fetch import Fetcher
            from jitcache.sign.trust import load_trust

            self._asked = [_remote(config) for config in load_remotes()]
            if self._asked:
                targets = {self._arch, "host"}
                self._fetcher = Fetcher(self._store, self._asked, load_trust(), targets)
                self._until = time.monotonic() + REMOTES_S
        return self._fetcher is not None

    def _from_remotes(self, action: LockedAction, here: Refusal) -> Loaded | Refusal:
        from jitcache.remote.fetch import NotFetched

        assert self._fetcher is not None  # noqa: S101
        if time.monotonic() > self._until:
            late = f"remotes had their {REMOTES_S:.0f} s"
            return replace(here, detail=f"{here.detail}; {late}")
        got = self._fetcher.obtain(action.key, action.outputs)
        vain = got if isinstance(got, NotFetched) else got.before
        self.told.extend((name, here.what, why) for name, why in vain.reasons)
        if isinstance(got, NotFetched):
            reasons = {r.name: f"left out: {r.down}" for r in self._asked if r.down} | dict(
                got.reasons
            )
            detail = "; ".join((here.detail, *(f"remote {n}: {why}" for n, why in reasons.items())))
            if not got.refused:
                return replace(here, detail=detail)
            self._store.counters.count(action.key, Miss(action.key, "untrusted", detail))
            return Refusal("untrusted", here.what, detail)
        (output,) = action.outputs
        data = got.blobs[output.name]
        if digest.of_bytes(data) != output.digest:
            return Refusal("damaged", output.name, f"remote {got.remote} gave other bytes")
        layer = f"remote {got.remote}"
        self._store.counters.count(action.key, Hit(got.envelope.record, {}, layer))
        return Loaded(output.name, output.digest, layer, self._kept(got, output), data)

    def _kept(self, got: Obtained, output: Output) -> str:
        """The file of what was fetched; empty where the store can't keep it."""
        assert self._fetcher is not None  # noqa: S101
        try:
            if output in self._fetcher.keep(got).outputs:
                return str(self._store.blob_path(output.digest))
        except StoreError as e:
            self.told.append((got.remote, output.name, f"could not be kept: {e.where}: {e.what}"))
        return ""


@functools.cache
def _remote(config: RemoteConfig) -> Guarded:
    # Once per process: a remote that is left out stays so for the next load.
    from jitcache.remote.opening import open_remote

    return open_remote(config)


# A remote keeps its connections, and two processes can't read from one.
os.register_at_fork(after_in_child=_remote.cache_clear)


def _read_here(action: LockedAction, store: Store) -> Loaded | Refusal:
    (output,) = action.outputs
    hit = store.lookup(action.key)
    if not isinstance(hit, Hit):
        detail = f"{hit.reason}{f': {hit.detail}' if hit.detail else ''}"
        return Refusal("damaged" if "damaged" in hit.reason else "missing", output.name, detail)
    path = hit.paths.get(output.name)
    if path is None:
        return Refusal("other-bytes", output.name, "the stored action has no such output")
    try:
        data = path.read_bytes()
    except OSError as e:
        return Refusal("missing", output.name, f"{path}: {e.strerror}")
    stored = next(o.digest for o in hit.record.outputs if o.name == output.name)
    if stored != output.digest:
        return Refusal(
            "other-bytes",
            output.name,
            f"the lock names {output.digest[:19]}..., the store has {stored[:19]}...",
        )
    if digest.of_bytes(data) != output.digest:
        return Refusal("damaged", output.name, f"{path}: the bytes are not those of its digest")
    return Loaded(output.name, output.digest, hit.layer, str(path), data)
