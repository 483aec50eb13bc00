"""Making sure that everything a lock names is there, before a server starts."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from jitcache.errors import ForbiddenError, InputError
from jitcache.lockfile import Lock, load_lock
from jitcache.pack.signed import Belief, require_believed_lock, untrusted
from jitcache.pack.source import is_layout, unpack_from
from jitcache.remote.interface import Failed
from jitcache.remote.reference import is_reference
from jitcache.sign import beside
from jitcache.store.layout import Bucket, Layout
from jitcache.store.model import Hit, Lookup, Miss, Notice
from jitcache.store.seeds import Seed
from jitcache.store.store import Store

if TYPE_CHECKING:
    # Where nothing is missing, nothing of it is needed.
    from jitcache.remote.fetch import Fetcher


@dataclass(frozen=True, slots=True)
class Absent:
    """An action of a lock that can't be used.

    Attributes:
        key: of the action.
        what: the kernels that it holds, or the module whose host shim it is.
        reason: as in a `Miss`, or `other-bytes`.
        detail: what exactly.
    """

    key: str
    what: tuple[str, ...]
    reason: str
    detail: str

    def __str__(self) -> str:
        names = ", ".join(self.what)
        return f"{names}: {self.reason}" + (f" ({self.detail})" if self.detail else "")


@dataclass(frozen=True, slots=True)
class Readiness:
    """How much of a lock is there.

    Attributes:
        kernels: kernels that the lock names.
        kernels_present: how many of them can be loaded.
        shims: host shims that the lock names.
        shims_present: how many of them can be loaded.
        absent: the rest, with reasons.
        hits: what can be loaded, by action key.
    """

    kernels: int
    kernels_present: int
    shims: int
    shims_present: int
    absent: tuple[Absent, ...]
    hits: dict[str, Hit]

    def __str__(self) -> str:
        missing = self.kernels - self.kernels_present + self.shims - self.shims_present
        return (
            f"{self.kernels_present}/{self.kernels} kernels and "
            f"{self.shims_present}/{self.shims} host shims present, {missing} to build"
        )

    def require(self, lock: Lock) -> None:
        """Do nothing if all is there.

        Raises:
            ForbiddenError: something isn't: each with its reason.
        """
        if self.absent:
            raise ForbiddenError(
                str(self),
                where=f"lock of {lock.manifest} for {lock.arch}",
                details=tuple(map(str, self.absent)),
                hint="`jitcache warm --from PACK` fetches what is missing;"
                " `jitcache prebuild` builds it, where a compiler is",
            )


def find_lock(manifest: str, arch: str | None, roots: Sequence[Path]) -> Lock:
    """The lock file of a manifest, from the first store that has one.

    Args:
        manifest: its name.
        arch: for which architecture; None where only one has a lock.
        roots: of stores and seeds.

    Raises:
        InputError: there is none, or one for each of several architectures.
    """
    for root in roots:
        place = root / Bucket.LOCKS.value
        found = sorted(
            p
            for p in (place.iterdir() if place.is_dir() else ())
            if p.name.startswith(f"{manifest}.") and p.name.endswith(".lock.json")
            if arch is None or p.name == f"{manifest}.{arch}.lock.json"
        )
        locks = [lock for lock in map(load_lock, found) if lock.manifest == manifest]
        if len(locks) > 1:
            raise InputError(
                f"has locks for {', '.join(lock.arch for lock in locks)}",
                where=manifest,
                hint="choose one with --arch",
            )
        if locks:
            return locks[0]
    raise InputError(
        "no store or seed has a lock file of this manifest" + (f" for {arch}" if arch else ""),
        where=manifest,
        hint="give the file with --lock; `jitcache prebuild` and `jitcache unpack` leave one",
    )


def lock_from(source: str, store: Store, belief: Belief, manifest: str, arch: str | None) -> Lock:
    """The lock file of a manifest that a source has; a pack is unpacked for it.

    Raises:
        InputError, DamagedError, UntrustedError, StoreError: as `fetch`, and where the
            source has no such lock.
    """
    if not _is_seed(source):
        take(source, store, belief)
        return find_lock(manifest, arch, [store.layout.root])
    lock = find_lock(manifest, arch, [Path(source)])
    require_believed_lock(belief, lock, Layout(Path(source)))
    return lock


def readiness(lock: Lock, store: Store) -> Readiness:
    """Look up everything a lock names, in the store and its seeds."""
    names: dict[str, list[str]] = {}
    for module in lock.modules:
        names.setdefault(module.host.key, []).append(f"host shim of {module.name}")
        for instance in module.instances:
            for v in instance.variants:
                loop = "hot loop" if v.hot_loop else "no hot loop"
                names.setdefault(v.action.key, []).append(f"{instance.name} ({loop}, {v.tail})")
    hits: dict[str, Hit] = {}
    absent = []
    for action in lock.actions():
        found: Lookup = store.lookup(action.key)
        if isinstance(found, Hit) and not action.given_by(found.record):
            found = Miss(action.key, "other-bytes", f"{found.layer} holds another result")
        if isinstance(found, Hit):
            hits[action.key] = found
        else:
            what = tuple(names[action.key])
            absent.append(Absent(action.key, what, found.reason, found.detail))
    variants = [v.action.key for m in lock.modules for i in m.instances for v in i.variants]
    shims = [m.host.key for m in lock.modules]
    return Readiness(
        kernels=len(variants),
        kernels_present=sum(k in hits for k in variants),
        shims=len(shims),
        shims_present=sum(k in hits for k in shims),
        absent=tuple(absent),
        hits=hits,
    )


def fetch(
    lock: Lock,
    store: Store,
    sources: Sequence[str],
    belief: Belief,
    fetcher: Fetcher | None = None,
) -> Readiness:
    """Put what a lock lacks into the store: from packs, images, seeds, and then remotes.

    Sources are asked in order, and only while something is missing. What comes from them is
    verified byte by byte, and believed only if a trusted key has signed it. A registry or
    remote that can't be reached is told in the store's notices or in what is absent.

    Args:
        lock: what has to be there.
        store: where it is looked for and put.
        sources: packs, image layouts, references to images, directories of seeds.
        belief: whose signatures count for sources.
        fetcher: asks the configured remotes; None where there are none.

    Raises:
        InputError: a source is neither a pack nor a directory.
        DamagedError: a pack doesn't hold what it says.
        UntrustedError: a source has the kernels, but nobody who is believed has signed them.
        StoreError: the store can't be written.
    """
    state = readiness(lock, store)
    for source in sources:
        if not state.absent:
            break
        take(source, store, belief, [a.key for a in state.absent])
        state = readiness(lock, store)
    if fetcher is None or not state.absent:
        return state
    from jitcache.remote.fetch import NotFetched

    wanted = {a.key: a for a in lock.actions()}
    reasons = {}
    for missing in state.absent:
        got = fetcher.fetch(missing.key, wanted[missing.key].outputs)
        if isinstance(got, NotFetched):
            reasons[missing.key] = "; ".join(f"remote {name}: {why}" for name, why in got.reasons)
    state = readiness(lock, store)
    absent = tuple(
        replace(a, detail="; ".join(filter(None, (a.detail, reasons.get(a.key)))))
        for a in state.absent
    )
    return replace(state, absent=absent)


def take(source: str, store: Store, belief: Belief, keys: Sequence[str] = ()) -> None:
    """Put actions from one source into the store; of a pack, all that it holds.

    Raises:
        InputError, DamagedError, UntrustedError, StoreError: as `fetch`.
    """
    if _is_seed(source):
        _from_seed(Path(source), store, belief, keys)
    elif is_reference(source) or Path(source).exists():
        got = unpack_from(source, store, belief)
        if isinstance(got, Failed):
            store.notices.append(Notice("source-failed", source, got.detail))
    else:
        raise InputError(
            "is neither a pack, an image layout nor a store",
            where=source,
            hint="give the file that `jitcache pack` wrote, a seed's directory, or oci://...",
        )


def _is_seed(source: str) -> bool:
    return not is_reference(source) and Path(source).is_dir() and not is_layout(source)


def _from_seed(source: Path, store: Store, belief: Belief, keys: Sequence[str]) -> None:
    # As a seed: every byte is compared, and the source itself is never written.
    seed = Seed(source, store.notices)
    refused = []
    for key in keys:
        hit = seed.lookup(key)
        if not isinstance(hit, Hit):
            continue
        envelope = beside.envelope(seed.layout, hit.record)
        why = belief.trust.refusal(envelope, signed=belief.signed)
        if why is not None:
            refused.append(f"{hit.record.label} ({key[7:19]}): {why}")
        elif store.put(hit.record, hit.paths) == hit.record:
            beside.keep(store.layout.signatures(key), envelope.signatures)
    if refused:
        raise untrusted("the seed", source, tuple(refused))


def prefetch(state: Readiness) -> int:
    """Ask the kernel to read what was found into the page cache; it does so meanwhile.

    Returns:
        Bytes asked for.
    """
    total = 0
    for path in sorted({p for hit in state.hits.values() for p in hit.paths.values()}):
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                size = os.fstat(fd).st_size
                os.posix_fadvise(fd, 0, size, os.POSIX_FADV_WILLNEED)
                total += size
            finally:
                os.close(fd)
    return total
