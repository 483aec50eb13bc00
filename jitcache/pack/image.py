"""A pack as an OCI image layout: an image with one layer that unpacks to a seed.

The layer is the pack, byte for byte, as `application/vnd.oci.image.layer.v1.tar+zstd` of a
runnable-shaped image, which is what container engines and image volumes mount.
Source: OCI image specification 1.1, image-layout.md, manifest.md and config.md.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jitcache import digest
from jitcache.errors import DamagedError, InputError
from jitcache.jsonread import ShapeError, parse
from jitcache.lockfile import Lock
from jitcache.pack.model import Packed
from jitcache.pack.write import write_pack
from jitcache.sign.keys import SecretKey
from jitcache.store.durable import explained
from jitcache.store.store import Store

LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+zstd"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"

EPOCH = "1970-01-01T00:00:00Z"
"""The time of everything in an image: equal content, equal digest."""

_SMALL = 4 << 20


def labels(lock: Lock) -> dict[str, str]:
    """What an image says of itself, so that it can be chosen without being pulled."""
    return {
        "jitcache.manifest": lock.manifest,
        "jitcache.manifest.digest": lock.manifest_digest,
        "jitcache.arch": lock.arch,
        "jitcache.cu_num": str(lock.cu_num),
        "jitcache.toolchain": lock.toolchain,
        "jitcache.layout": "1",
    }


def config(lock: Lock, packed: Packed) -> bytes:
    """The image's configuration. The host shims in it are for x86-64 Linux."""
    return digest.canonical_json(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": EPOCH,
            "config": {"Labels": labels(lock)},
            "rootfs": {"type": "layers", "diff_ids": [packed.tar_digest]},
            "history": [{"created": EPOCH, "created_by": "jitcache pack"}],
        }
    )


def manifest(lock: Lock, packed: Packed) -> bytes:
    """The image's manifest."""
    conf = config(lock, packed)
    return digest.canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": descriptor(CONFIG_TYPE, digest.of_bytes(conf), len(conf)),
            "layers": [descriptor(LAYER_TYPE, packed.digest, packed.size)],
            "annotations": labels(lock),
        }
    )


def write_image(
    store: Store,
    lock: Lock,
    target: Path,
    *,
    level: int = 3,
    signers: Sequence[SecretKey] = (),
) -> Packed:
    """Write a pack as an OCI image layout, in a directory that doesn't exist yet or is empty.

    The arguments are those of `write_pack`.

    Raises:
        InputError: the directory holds something.
        StoreError: something is missing from the store, or the directory can't be written.
        DamagedError: a stored blob isn't what its digest says.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(
            "is there already and not an empty directory",
            where=str(target),
            hint="name a new directory",
        )
    with explained("write the image", target):
        target.absolute().parent.mkdir(parents=True, exist_ok=True)
        temp = Path(tempfile.mkdtemp(prefix=".image-", dir=target.absolute().parent))
        try:
            blobs = temp / "blobs" / "sha256"
            blobs.mkdir(parents=True)
            packed = write_pack(store, lock, temp / "layer", level=level, signers=signers)
            (temp / "layer").replace(blobs / packed.digest[7:])
            described = manifest(lock, packed)
            for data in (config(lock, packed), described):
                (blobs / digest.of_bytes(data)[7:]).write_bytes(data)
            entry = {
                **descriptor(MANIFEST_TYPE, digest.of_bytes(described), len(described)),
                "platform": {"architecture": "amd64", "os": "linux"},
                "annotations": {"org.opencontainers.image.ref.name": "latest"},
            }
            index = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [entry]}
            (temp / "index.json").write_bytes(digest.canonical_json(index))
            (temp / "oci-layout").write_bytes(b'{"imageLayoutVersion":"1.0.0"}')
            temp.chmod(0o755)
            os.rename(temp, target)  # noqa: PTH104
        finally:
            shutil.rmtree(temp, ignore_errors=True)
    return packed


def layer_of(layout: Path) -> tuple[Path, str]:
    """The one layer of an OCI image layout, and the digest that it must have.

    Raises:
        InputError: the directory is not a layout with one image of one pack.
        DamagedError: the manifest doesn't have the digest that the index states.
    """
    name = image_of(layout)
    path = layout / "blobs" / "sha256" / name[7:]
    data = _small(path)
    if digest.of_bytes(data) != name:
        raise DamagedError(
            f"is not what the index names, {name}", where=str(path), hint="get it again"
        )
    layer, _ = layer_named(data, str(layout))
    return layout / "blobs" / "sha256" / layer[7:], layer


def image_of(layout: Path) -> str:
    """Digest of the manifest of the one image of an OCI image layout.

    Raises:
        InputError: the directory is not a layout with one image.
    """
    try:
        listed = parse(_small(layout / "index.json"))["manifests"]
        images = [entry["digest"].digest() for entry in listed.each()]
    except ShapeError as e:
        raise InputError(f"is not an OCI image layout ({e})", where=str(layout)) from None
    if len(images) != 1:
        raise InputError(f"holds {len(images)} images, not 1", where=str(layout))
    return images[0]


def layer_named(data: bytes, where: str) -> tuple[str, int]:
    """Digest and size of the one layer that the manifest of a pack's image names.

    Raises:
        InputError: it is something else.
    """
    try:
        layers = list(parse(data)["layers"].each())
        if len(layers) == 1 and layers[0]["mediaType"].text() == LAYER_TYPE:
            return layers[0]["digest"].digest(), layers[0]["size"].integer(1)
    except ShapeError as e:
        raise InputError(f"is not the manifest of an image ({e})", where=where) from None
    raise InputError("is not an image of one pack", where=where)


def _small(path: Path) -> bytes:
    try:
        with path.open("rb") as f:
            return f.read(_SMALL)
    except OSError as e:
        raise InputError(f"can't be read ({e.strerror})", where=str(path)) from None


def descriptor(media_type: str, blob: str, size: int) -> dict[str, Any]:
    """What a manifest or index says of a blob."""
    return {"mediaType": media_type, "digest": blob, "size": size}
