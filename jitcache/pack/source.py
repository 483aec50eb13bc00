"""Where a pack can come from: a file, an OCI image layout, an image in a registry."""

from __future__ import annotations

from pathlib import Path

from jitcache.errors import DamagedError
from jitcache.pack.model import Limits, Unpacked
from jitcache.pack.signed import Belief
from jitcache.remote.interface import Failed
from jitcache.remote.reference import is_reference, read_reference
from jitcache.store import durable
from jitcache.store.layout import Bucket
from jitcache.store.store import Store


def is_layout(source: str) -> bool:
    """Whether it is the directory of an OCI image layout."""
    return not is_reference(source) and (Path(source) / "oci-layout").is_file()


def unpack_from(source: str, store: Store, belief: Belief, digest: str = "") -> Unpacked | Failed:
    """Verify a pack and put what it holds into a store.

    Args:
        source: path of a pack or an image layout, or a reference to an image.
        store: where to put it.
        belief: whose signatures count.
        digest: `sha256:...` that the pack must have; "" for any.

    Returns:
        What was unpacked; for a registry that doesn't give it, why.

    Raises:
        InputError: there is no such pack, or it isn't one.
        DamagedError: bytes don't match a digest.
        UntrustedError: nobody who is believed has signed it.
        StoreError: the store can't be written.
    """
    from jitcache.pack.image import layer_of
    from jitcache.pack.read import unpack

    if is_reference(source):
        return _unpack_image(source, store, belief, digest)
    path, known = layer_of(Path(source)) if is_layout(source) else (Path(source), digest)
    _compare(known, digest, source)
    return unpack(path, store, belief, digest=known)


def _unpack_image(source: str, store: Store, belief: Belief, digest: str) -> Unpacked | Failed:
    from jitcache.pack.read import unpack
    from jitcache.pack.registry import PackRegistry

    registry = PackRegistry(read_reference(source))
    staging = store.layout.bucket(Bucket.TMP)
    with durable.explained("write to the store", staging):
        durable.make_dir(staging)
        temp = durable.write_temp(staging, b"", 0o600, durable=False)
    try:
        with durable.explained("write to the store", staging):
            known = registry.pull(temp, Limits())
        if isinstance(known, Failed):
            return known
        _compare(known, digest, source)
        return unpack(temp, store, belief, digest=known)
    finally:
        durable.discard(temp)


def _compare(known: str, wanted: str, source: str) -> None:
    if wanted and known != wanted:
        raise DamagedError(
            f"the image's layer is {known}, not {wanted}",
            where=source,
            hint="get it again from where it was published",
        )
