"""Two machines, a remote between them, and whoever tampers with it."""

from __future__ import annotations

from pathlib import Path

from jitcache.remote.chain import Guarded
from jitcache.remote.directory import DirectoryObjects
from jitcache.remote.fetch import Fetcher
from jitcache.remote.interface import Remote
from jitcache.remote.keyed import KeyedRemote
from jitcache.remote.push import Pushed, push
from jitcache.sign.keys import SecretKey
from jitcache.sign.trust import Trust
from jitcache.store.model import ActionRecord
from jitcache.store.store import Store
from tests.store_help import make

CI = SecretKey("ci", bytes(range(32)))
OTHER = SecretKey("other", bytes(32))
TRUST = Trust().adding(CI.public())
BODY = b"kernel code " * 200
"""Large enough to be compressed."""


def directory(root: Path, **how) -> Guarded:
    root.mkdir(exist_ok=True)
    return Guarded("dir", KeyedRemote(DirectoryObjects(root), str(root)), writable=True, **how)


def guarded(remote: Remote, **how) -> Guarded:
    return Guarded("it", remote, writable=True, **how)


def pushed(
    place: Path, remote: Guarded, name: str = "one", *, signers=(CI,), outputs=None
) -> tuple[ActionRecord, Pushed]:
    store = Store(place / "builder")
    record, files = make(place / "work", name, outputs or {"kernel.co": BODY + name.encode()})
    record = store.put(record, files)
    return record, push(store, remote, record, signers)


def puller(place: Path, remote: Guarded, trust: Trust = TRUST) -> tuple[Store, Fetcher]:
    store = Store(place / "server")
    return store, Fetcher(store, [remote], trust, {"gfx950", "host"})


def object_of(root: Path, space: str, digest: str) -> Path:
    name = digest.removeprefix("sha256:")
    path = root / space / name[:2] / name[2:]
    return path if path.exists() else path.with_name(path.name + ".zst")
