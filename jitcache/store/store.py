"""The local store: what was built once is looked up, whole and unaltered, or built again.

Opening a store costs nothing and a lookup makes no directory, so that a read-only store and
one that doesn't exist yet work alike. What is damaged never reaches the caller and is never
an exception: it goes to the quarantine and the lookup misses, with the reason.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast, get_args

from jitcache.errors import DamagedError, InputError, StoreError
from jitcache.store import durable
from jitcache.store.actions import Actions
from jitcache.store.blobs import TOUCH_AFTER_S, Blobs
from jitcache.store.counters import Counters
from jitcache.store.layout import Layout, seed_roots, store_root
from jitcache.store.model import ActionRecord, DamagedRecord, Hit, Lookup, Miss, Notice
from jitcache.store.seeds import Seed

if TYPE_CHECKING:
    from jitcache.store.gcplan import Limits
    from jitcache.store.locks import Acquired, Busy
    from jitcache.store.memo import Memo, StatMemo
    from jitcache.store.reports import (
        GcReport,
        NotWritable,
        Problem,
        RemoveReport,
        VerifyReport,
        Writable,
    )

__all__ = ["HitPolicy", "Store", "store_root"]

HitPolicy = Literal["size", "sampled", "full"]
"""How closely a hit is looked at: sizes always; every byte in one of 16 hits, or in all."""


class Store:
    """A store on a local (or locally mounted) disk.

    Args:
        root: its directory, which need not exist; `store_root()` gives the user's.
        hit_policy: how closely a hit is looked at.
        sample: whether to read this hit's bytes, under the policy `sampled`.
        seeds: roots of further stores that are looked at after this one, in order: never
            written, never locked, read whoever owns them, and every byte checked.

    Attributes:
        layout: paths below the root.
        notices: what the store dealt with so far and its user should hear of.
        counters: what became of the lookups of this process.
    """

    def __init__(
        self,
        root: Path,
        *,
        hit_policy: HitPolicy = "size",
        sample: Callable[[], bool] = lambda: os.urandom(1)[0] < 16,
        seeds: Sequence[Path] = (),
    ) -> None:
        self.layout = Layout(root)
        self.notices: list[Notice] = []
        self._policy = hit_policy
        self._sample = sample
        self._blobs = Blobs(self.layout, self.notices)
        self._actions = Actions(self.layout, self.notices)
        self._seeds = [Seed(seed, self.notices) for seed in seeds]
        self._distrust: Problem | None = None
        self._trust_known = False
        self.counters = Counters()

    @classmethod
    def of_user(cls) -> Store:
        """The user's store with its seeds, as the environment says.

        Raises:
            InputError: `JITCACHE_HIT_POLICY` is not a policy.
        """
        policy = os.environ.get("JITCACHE_HIT_POLICY") or "size"
        if policy not in get_args(HitPolicy):
            raise InputError(
                f"must be one of {', '.join(get_args(HitPolicy))}, but is {policy!r}",
                where="JITCACHE_HIT_POLICY",
            )
        return cls(store_root(), hit_policy=cast("HitPolicy", policy), seeds=seed_roots())

    def lookup(self, key: str) -> Lookup:
        """Find the result of an action, here or in a seed.

        Returns:
            A hit, if every output is there and is what the record says (as closely as the
            policy looks); else a miss with its reason. What was found damaged has been
            moved to the quarantine.
        """
        found = self._lookup_here(key)
        for seed in self._seeds:
            if isinstance(found, Hit):
                break
            there = seed.lookup(key)
            # The most telling miss: what is wrong somewhere, rather than absent.
            if isinstance(there, Hit) or found.reason == "absent":
                found = there
        self.counters.count(key, found)
        return found

    def _lookup_here(self, key: str) -> Lookup:
        if (distrust := self._untrusted()) is not None:
            return Miss(key, "untrusted", f"{distrust.where}: {distrust.detail}")
        record = self._actions.get(key)
        if record is None:
            return Miss(key, "absent")
        if isinstance(record, DamagedRecord):
            if not record.readable:
                return Miss(key, "unreadable", record.detail)
            self._actions.quarantine(record.path, "record-damaged", record.detail)
            return Miss(key, "record-damaged", record.detail)
        read_all = self._policy == "full" or (self._policy == "sampled" and self._sample())
        if (bad := self._blobs.first_bad(record, read_all=read_all)) is not None:
            if bad.reason == "blob-damaged":
                self._blobs.quarantine(bad.digest, bad.detail)
            return Miss(key, bad.reason, bad.detail)
        self._touch(record)
        return self._blobs.hit(record, "local")

    def put(self, record: ActionRecord, files: Mapping[str, Path]) -> ActionRecord:
        """Store the result of an action.

        Blobs are published first and the record last, each in one step: whoever looks up
        sees all of it or nothing. The first record of a key stays. A later one with other
        outputs (the compiler gave other bytes for the same inputs) is kept as evidence in
        the quarantine and told in `notices`.

        Args:
            record: the record.
            files: a file for each of its outputs, by name.

        Returns:
            The record that the store now holds for the key.

        Raises:
            StoreError: it can't be written; nothing is half published.
            DamagedError: a file isn't what the record says.
            ValueError: the record is malformed, or `files` lacks one of its outputs.
        """
        from jitcache.store.publish import publish

        if (distrust := self._untrusted()) is not None:
            raise StoreError(distrust.detail, where=distrust.where, hint=distrust.hint)
        return publish(self.layout, self._actions, self._blobs, self.notices, record, files)

    def read(self, digest: str) -> bytes:
        """The bytes of a blob, verified; of a seed's, where they aren't here.

        Raises:
            StoreError: it isn't there or can't be read.
            DamagedError: the bytes are not those of the digest; they are in quarantine now.
        """
        path = self._blobs.path(digest)
        bad = self._blobs.problem(digest)
        if bad is not None and bad[0] == "blob-missing":
            for seed in self._seeds:
                if (data := seed.read(digest)) is not None:
                    return data
        if bad is None:
            with durable.explained("read the blob", path):
                return path.read_bytes()
        if bad[0] == "blob-damaged":
            self._blobs.quarantine(digest, bad[1])
            raise DamagedError(bad[1], where=str(path), hint="build or fetch it again")
        raise StoreError(bad[1], where=str(path), hint="build or fetch it again")

    def blob_path(self, digest: str) -> Path:
        """Where a blob is, or would be."""
        return self._blobs.path(digest)

    def records(self) -> Iterator[ActionRecord | DamagedRecord]:
        """Every record, in the order of keys, and what stands in a record's place.

        Raises:
            StoreError: a directory can't be read.
        """
        with durable.explained("list the store", self.layout.root):
            yield from self._actions.each()

    def last_used(self, record: ActionRecord) -> float | None:
        """When a record was last put or hit, in seconds since the epoch, to the minute."""
        with contextlib.suppress(OSError):
            return os.lstat(self.layout.record(record.key)).st_mtime
        return None

    def verify(self, *, move_damaged: bool = True) -> VerifyReport:
        """Check every record and blob; see `jitcache.store.check.verify`."""
        from jitcache.store.check import verify

        return verify(self.layout, self._actions, self._blobs, move_damaged=move_damaged)

    def remove(self, keys: Iterable[str], *, dry_run: bool = False) -> RemoveReport:
        """Remove records, and all blobs that no record names; see `jitcache.store.sweep`."""
        from jitcache.store.sweep import remove

        return remove(self.layout, self._actions, self._blobs, keys, dry_run=dry_run)

    def gc(self, limits: Limits, *, dry_run: bool = False) -> GcReport:
        """Remove what is least recently used, as `limits` ask; see `jitcache.store.gc`."""
        from jitcache.store.gc import collect

        return collect(
            self.layout, self._actions, self._blobs, self.notices, limits, dry_run=dry_run
        )

    def try_lock(self, key: str) -> Acquired | Busy:
        """Take the lock of an action if it is free; see `jitcache.store.locks`.

        An `Acquired` is ours until its `release`, with or without a real lock: why there is
        none is told in `notices`.
        """
        from jitcache.store.locks import Acquired, try_acquire

        got = try_acquire(self.layout.lock(key))
        if isinstance(got, Acquired):
            self._note_unlocked(got)
        return got

    def lock(
        self,
        key: str,
        *,
        timeout: float | None = None,
        on_wait: Callable[[Busy], None] | None = None,
    ) -> Acquired:
        """Take the lock of an action, waiting for it: `with store.lock(key): ...`.

        Args:
            key: the action key.
            timeout: seconds; None means what `JITCACHE_LOCK_TIMEOUT` says, else 30 minutes.
            on_wait: told at the start of a wait and every ten seconds from then on.

        Raises:
            BusyError: it was not free in time.
            InputError: `JITCACHE_LOCK_TIMEOUT` is not a number of seconds.
        """
        from jitcache.store.locks import acquire

        got = acquire(self.layout.lock(key), timeout=timeout, on_wait=on_wait)
        self._note_unlocked(got)
        return got

    @functools.cached_property
    def memo(self) -> Memo:
        """The direct-mode memo."""
        from jitcache.store.memo import Memo

        return Memo(self.layout)

    @functools.cached_property
    def stat_memo(self) -> StatMemo:
        """The digests of unchanged files."""
        from jitcache.store.memo import StatMemo

        return StatMemo(self.layout)

    def writable(self) -> Writable | NotWritable:
        """Whether `put` has a chance, found out without writing."""
        from jitcache.store.health import writable

        return writable(self.layout)

    def problems(self) -> list[Problem]:
        """What is the matter with the store's directory, and with its seeds."""
        from jitcache.store.health import problems, seed_problems

        found = list(problems(self.layout))
        for seed in self._seeds:
            found.extend(seed_problems(seed.layout))
        return found

    def save_counters(self) -> None:
        """Add what this process counted to the store's statistics; never fails."""
        self.counters.save(self.layout)

    def _untrusted(self) -> Problem | None:
        if not self._trust_known:
            from jitcache.store.health import untrusted

            self._distrust = untrusted(self.layout)
            self._trust_known = True
        return self._distrust

    def _note_unlocked(self, got: Acquired) -> None:
        if got.unlocked is not None:
            self.notices.append(
                Notice(
                    "unlocked",
                    str(got.path),
                    f"{got.unlocked}: going on without a lock; two builders may do the same"
                    " work, and the first result is used",
                )
            )

    def _touch(self, record: ActionRecord) -> None:
        # The record before its blobs: what is removed by age must never dangle.
        path = self.layout.record(record.key)
        with contextlib.suppress(OSError):
            if os.lstat(path).st_mtime > time.time() - TOUCH_AFTER_S:
                return
            os.utime(path)
            for output in record.outputs:
                self._blobs.touch(output.digest)
