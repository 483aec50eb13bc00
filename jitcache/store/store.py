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
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jitcache.errors import DamagedError, StoreError
from jitcache.store import durable
from jitcache.store.actions import Actions
from jitcache.store.blobs import TOUCH_AFTER_S, Blobs
from jitcache.store.layout import CACHEDIR_TAG, Bucket, Layout, store_root
from jitcache.store.model import ActionRecord, DamagedRecord, Hit, Lookup, Miss, Notice
from jitcache.store.records import encode, problem, same_outputs

if TYPE_CHECKING:
    from jitcache.store.locks import Acquired, Busy
    from jitcache.store.memo import Memo, StatMemo
    from jitcache.store.reports import (
        NotWritable,
        Problem,
        RemoveReport,
        VerifyReport,
        Writable,
    )

__all__ = ["HitPolicy", "Store", "store_root"]

HitPolicy = Literal["size", "sampled", "full"]
"""How closely a hit is looked at: sizes always; every byte in one of 16 hits, or in all."""

_ATTEMPTS = 5


class Store:
    """A store on a local (or locally mounted) disk.

    Args:
        root: its directory, which need not exist; `store_root()` gives the user's.
        hit_policy: how closely a hit is looked at.
        sample: whether to read this hit's bytes, under the policy `sampled`.

    Attributes:
        layout: paths below the root.
        notices: what the store dealt with so far and its user should hear of.
    """

    def __init__(
        self,
        root: Path,
        *,
        hit_policy: HitPolicy = "size",
        sample: Callable[[], bool] = lambda: os.urandom(1)[0] < 16,
    ) -> None:
        self.layout = Layout(root)
        self.notices: list[Notice] = []
        self._policy = hit_policy
        self._sample = sample
        self._blobs = Blobs(self.layout, self.notices)
        self._actions = Actions(self.layout, self.notices)
        self._distrust: Problem | None = None
        self._trust_known = False

    def lookup(self, key: str) -> Lookup:
        """Find the result of an action.

        Returns:
            A hit, if every output is there and is what the record says (as closely as the
            policy looks); else a miss with its reason. What was found damaged has been
            moved to the quarantine.
        """
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
        for output in record.outputs:
            bad = self._blobs.size_problem(output)
            if bad is None and read_all:
                bad = self._blobs.problem(output.digest)
            if bad is not None:
                reason, detail = bad
                if reason == "blob-damaged":
                    self._blobs.quarantine(output.digest, detail)
                return Miss(key, reason, detail)
        self._touch(record)
        return Hit(record, {o.name: self._blobs.path(o.digest) for o in record.outputs})

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
        if (bad := problem(record)) is not None:
            raise ValueError(f"not a record: {bad}")
        if lacking := [o.name for o in record.outputs if o.name not in files]:
            raise ValueError(f"no file given for the output {lacking[0]!r}")
        if (distrust := self._untrusted()) is not None:
            raise StoreError(distrust.detail, where=distrust.where, hint=distrust.hint)
        with durable.explained("write to the store", self.layout.root):
            self._prepare()
            for _ in range(_ATTEMPTS):
                first = self._winner(record)
                if first is not None and not same_outputs(first, record):
                    self._keep_divergent(first, record, files)
                    return first
                for output in record.outputs:
                    try:
                        self._blobs.add(output, files[output.name])
                    except ValueError as e:
                        raise DamagedError(
                            str(e),
                            where=str(files[output.name]),
                            hint="the file changed after it was built: build it again",
                        ) from None
                if first is None:
                    self._actions.add(record)
                # Look again: somebody may have published a record at the same time, or have
                # removed a blob that we found in place.
                first = self._winner(record)
                if first is not None and same_outputs(first, record):
                    return first
        raise StoreError(
            "the record does not stay: other processes keep removing or damaging it",
            where=str(self.layout.record(record.key)),
            hint="`jitcache verify` checks the store; try again when nobody else writes to it",
        )

    def read(self, digest: str) -> bytes:
        """The bytes of a blob, verified.

        Raises:
            StoreError: it isn't there or can't be read.
            DamagedError: the bytes are not those of the digest; they are in quarantine now.
        """
        path = self._blobs.path(digest)
        bad = self._blobs.problem(digest)
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
        """What is the matter with the store's directory."""
        from jitcache.store.health import problems

        return list(problems(self.layout))

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

    def _winner(self, record: ActionRecord) -> ActionRecord | None:
        """The whole record that the key has already; a broken one is moved away."""
        found = self._actions.get(record.key)
        if found is None:
            return None
        path = self.layout.record(record.key)
        if isinstance(found, DamagedRecord):
            if not found.readable:
                raise StoreError(f"the record {found.detail}", where=str(path))
            self._actions.quarantine(path, "record-damaged", found.detail)
            return None
        if same_outputs(found, record):
            whole = all(self._blobs.size_problem(o) is None for o in found.outputs)
            return found if whole else None
        for output in found.outputs:
            bad = self._blobs.problem(output.digest)
            if bad is not None:
                # Its bytes can't come back: we have just built, and got others.
                self._actions.quarantine(path, "blob-missing", bad[1])
                return None
        return found

    def _keep_divergent(
        self, first: ActionRecord, record: ActionRecord, files: Mapping[str, Path]
    ) -> None:
        from jitcache.store.quarantine import keep_evidence

        was = {o.name: o.digest for o in first.outputs}
        others = [o.name for o in record.outputs if was.get(o.name) != o.digest]
        detail = (
            f"{record.label}: the same inputs gave other bytes for"
            f" {', '.join(others) or 'the set of outputs'} than when they were first built;"
            " the first result stays in use"
        )
        by_name = {o.name: files[o.name] for o in record.outputs}
        kept = keep_evidence(self.layout, record.key, "divergent", detail, encode(record), by_name)
        where = f"evidence in {kept}" if kept else "evidence could not be kept"
        self.notices.append(Notice("divergent", record.key, f"{detail}; {where}"))

    def _touch(self, record: ActionRecord) -> None:
        # The record before its blobs: what is removed by age must never dangle.
        path = self.layout.record(record.key)
        with contextlib.suppress(OSError):
            if os.lstat(path).st_mtime > time.time() - TOUCH_AFTER_S:
                return
            os.utime(path)
            for output in record.outputs:
                self._blobs.touch(output.digest)

    def _prepare(self) -> None:
        if not self.layout.cachedir_tag().exists():
            durable.make_dir(self.layout.root)
            durable.replace_file(self.layout.cachedir_tag(), CACHEDIR_TAG.encode())
        durable.make_dir(self.layout.bucket(Bucket.TMP))
