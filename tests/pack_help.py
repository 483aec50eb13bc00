"""A small store with its lock, and archives that jitcache would never write."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import zstandard

from jitcache import digest
from jitcache.action.headers import HEADERS_OUTPUT
from jitcache.lockfile import Lock, LockedAction, LockedInstance, LockedModule, LockedVariant
from jitcache.pack.signed import Belief
from jitcache.pack.write import contents, tar_pieces
from jitcache.store.model import ActionRecord
from jitcache.store.store import Store
from tests.remote_help import CI, TRUST
from tests.store_help import make

BELIEF = Belief(TRUST)


def locked(record: ActionRecord) -> LockedAction:
    """As `prebuild` locks it: without the list of headers."""
    return LockedAction(record.key, tuple(o for o in record.outputs if o.name != HEADERS_OUTPUT))


def filled(directory: Path, *, names: tuple[str, ...] = ("one", "two")) -> tuple[Store, Lock]:
    """A store that holds two kernels and a host shim, and the lock that names them."""
    store = Store(directory / "store")
    records = {}
    for name in ("shim", *names):
        contents = {"kernel.co": f"code of {name} ".encode() * 400, "headers.json": b"[]"}
        if name == "shim":
            contents = {"host.so": b"\x7fELF shim" * 90}
        target = "host" if name == "shim" else "gfx950"
        mode = 0o555 if name == "shim" else 0o444
        record, files = make(directory / "built", name, contents, target=target, mode=mode)
        records[name] = store.put(record, files)
    variants = tuple(LockedVariant(True, "even", None, f"_Z{n}", locked(records[n])) for n in names)
    lock = Lock(
        manifest="small",
        manifest_digest=digest.of_bytes(b"small"),
        arch="gfx950",
        cu_num=256,
        toolchain="llvm-22",
        provider="llvm",
        hip_version=(5, 2),
        modules=(
            LockedModule(
                "module_small",
                locked(records["shim"]),
                (LockedInstance("gemm1_64x32", 1, 32, variants),),
            ),
        ),
    )
    return store, lock


def archive(store: Store, lock: Lock) -> bytes:
    """The archive inside of a sound pack."""
    return b"".join(tar_pieces(contents(store, lock, [CI])))


def with_member(sound: bytes, info: tarfile.TarInfo, data: bytes = b"") -> bytes:
    """A sound archive with one more member in front."""
    info.size = len(data) if info.type == tarfile.REGTYPE else 0
    return info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512) + sound


def without(sound: bytes, part: str) -> bytes:
    """A sound archive without the files whose names hold `part`."""
    out = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(sound)) as old,
        tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as new,
    ):
        for info in old:
            if info.isdir() or part not in info.name:
                new.addfile(info, old.extractfile(info) if info.isfile() else None)
    return out.getvalue()


def squeezed(data: bytes, *, stated: bool = True) -> bytes:
    """A zstd frame, with or without its size."""
    return zstandard.ZstdCompressor(write_content_size=stated).compress(data)


def listing(pack: Path) -> list[tarfile.TarInfo]:
    """What the standard library's reader finds in a pack."""
    with pack.open("rb") as f:
        data = zstandard.ZstdDecompressor().stream_reader(f).read()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.getmembers()
