"""Packs in OCI registries: pushed as images that can be mounted, pulled and verified.

What signs an image besides its records is its provenance: an in-toto statement about the
image's digest in a DSSE envelope, pushed as an artifact that refers to the image, and found
by the registry's list of referrers or, where there is none, by the tag `sha256-<hex>`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from jitcache import digest
from jitcache.errors import JitcacheError, UntrustedError, UsageError
from jitcache.jsonread import Reader, ShapeError, parse
from jitcache.lockfile import Lock
from jitcache.pack.image import (
    MANIFEST_TYPE,
    descriptor,
    image_of,
    layer_named,
    write_image,
)
from jitcache.pack.model import Limits, Packed
from jitcache.pack.provenance import finished, statement, subjects
from jitcache.pack.write import gather
from jitcache.remote.chain import DEADLINE_S, Bounds
from jitcache.remote.interface import Absent, Failed, Found, Stored
from jitcache.remote.oci import OciClient
from jitcache.remote.opening import open_repository
from jitcache.remote.reference import Reference
from jitcache.sign.dsse import encoding, unwrap, wrap
from jitcache.sign.keys import SecretKey
from jitcache.sign.trust import Trust
from jitcache.store.store import Store

ATTESTATION_TYPE = "application/vnd.dsse.envelope.v1+json"
"""Of the artifact, and of its one layer."""

EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
_EMPTY = b"{}"
_MOST_ATTESTATIONS = 16
_MOST_BYTES = 64 << 20

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Published:
    """A pack in a registry.

    Attributes:
        packed: the pack.
        image: by its digest.
        provenance: the signed statement that was attached, b"" where nobody signed.
    """

    packed: Packed
    image: Reference
    provenance: bytes


def publish(
    store: Store, lock: Lock, reference: Reference, *, signers: Sequence[SecretKey], level: int
) -> Published:
    """Push everything that a lock needs as an image, and its provenance where somebody signs.

    Raises:
        StoreError: something is missing from the store.
        DamagedError: a stored blob isn't what its digest says.
        JitcacheError: the registry can't be reached, or refuses.
    """
    registry = PackRegistry(reference)
    with tempfile.TemporaryDirectory(prefix="jitcache-push-") as directory:
        layout = Path(directory, "image")
        packed = write_image(store, lock, layout, level=level, signers=signers)
        image = registry.push(layout)
        size = (layout / "blobs" / "sha256" / image.version[7:]).stat().st_size
    subjects = {"pack": packed.digest, str(reference): image.version}
    signed = sign_provenance(store, lock, subjects, signers)
    if signed:
        registry.attest(image.version, size, signed)
    return Published(packed, image, signed)


def sign_provenance(
    store: Store, lock: Lock, packs: dict[str, str], signers: Sequence[SecretKey]
) -> bytes:
    """The statement about packs in a DSSE envelope; b"" where nobody signs.

    Raises:
        StoreError: something is missing from the store.
    """
    if not signers:
        return b""
    said = statement(lock, (record for record, _ in gather(store, lock)), packs)
    return wrap(digest.canonical_json(said), signers)


class PackRegistry:
    """The repository that a reference names.

    Args:
        reference: of an image.

    Raises:
        UsageError: its host can't be one.
    """

    def __init__(self, reference: Reference) -> None:
        client = open_repository(reference.scheme, reference.host, reference.repository, DEADLINE_S)
        if client is None:
            raise UsageError("this is not the name of a registry", where=reference.host)
        self.reference = reference
        self._client = client
        self._bounds = Bounds()

    def push(self, layout: Path) -> Reference:
        """Push the image of an OCI image layout, and tag it.

        Returns:
            The image by its digest.

        Raises:
            JitcacheError: the registry can't be reached, or refuses.
        """
        name = image_of(layout)
        blobs = layout / "blobs" / "sha256"
        manifest = (blobs / name[7:]).read_bytes()
        for path in sorted(blobs.iterdir()):
            if path.name != name[7:]:
                self._upload(f"sha256:{path.name}", path, path.stat().st_size)
        self._done(lambda c: c.put_manifest(self.reference.version, manifest), len(manifest))
        return self.reference.at(name)

    def attest(self, image: str, size: int, envelope: bytes) -> None:
        """Attach a DSSE envelope to an image.

        Args:
            image: digest of its manifest.
            size: bytes of its manifest.
            envelope: the statement, signed.

        Raises:
            JitcacheError: the registry can't be reached, or refuses.
        """
        for data in (_EMPTY, envelope):
            self._upload(digest.of_bytes(data), data, len(data))
        layer = descriptor(ATTESTATION_TYPE, digest.of_bytes(envelope), len(envelope))
        data = digest.canonical_json(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST_TYPE,
                "artifactType": ATTESTATION_TYPE,
                "config": descriptor(EMPTY_TYPE, digest.of_bytes(_EMPTY), len(_EMPTY)),
                "layers": [layer],
                "subject": descriptor(MANIFEST_TYPE, image, size),
            }
        )
        listed = {
            **descriptor(MANIFEST_TYPE, digest.of_bytes(data), len(data)),
            "artifactType": ATTESTATION_TYPE,
        }
        self._done(lambda c: c.attach(data, image, listed), len(data))

    def pull(self, target: Path, limits: Limits) -> str | Failed:
        """Write the image's layer, the pack, into a file.

        Returns:
            Its digest.

        Raises:
            InputError: it is no image of a pack.
            OSError: the file can't be written.
        """
        got = self._run(lambda c: c.get_manifest(self.reference.version), 0)
        if isinstance(got, Failed):
            return got
        if isinstance(got, Absent):
            return Failed("unsupported", f"there is no image {self.reference}")
        name, size = layer_named(got.data, str(self.reference))
        if size > limits.total:
            return Failed("denied", f"the pack has {size} bytes; at most {limits.total} are read")
        done = self._run(lambda c: c.download(name, size, target), size)
        if isinstance(done, Absent):
            return Failed("damaged", f"{self.reference} has no layer {name}")
        return name if isinstance(done, Stored) else done

    def provenance(self, trust: Trust) -> bytes:
        """The in-toto statement about the image that somebody whom we trust has signed.

        Raises:
            JitcacheError: the registry can't be reached.
            UntrustedError: there is none, or none that is believed.
        """
        got = self._done(lambda c: c.get_manifest(self.reference.version), 0)
        image = digest.of_bytes(got.data) if isinstance(got, Found) else ""
        listed = self._done(lambda c: c.referrers(image), 0) if image else []
        ours = [d for d in listed if d.get("artifactType") == ATTESTATION_TYPE]
        reasons = []
        for entry in ours[:_MOST_ATTESTATIONS]:
            try:
                payload, why = self._believed(Reader(entry, "$"), image, trust)
            except ShapeError as e:
                payload, why = b"", f"malformed: {e}"
            if why is None:
                return payload
            reasons.append(why)
        raise UntrustedError(
            "no provenance of this image is believed",
            where=str(self.reference),
            details=tuple(reasons),
            hint="`jitcache pack --push ... --key FILE` attaches one",
        )

    def _believed(self, entry: Reader, image: str, trust: Trust) -> tuple[bytes, str | None]:
        name = entry["digest"].digest()
        got = self._done(lambda c: c.get_manifest(name), 0)
        if not isinstance(got, Found):
            return b"", f"the artifact {name[:19]} isn't there"
        layers = parse(got.data)["layers"]
        blobs = [(b["digest"].digest(), b["size"].integer(1, _MOST_BYTES)) for b in layers.each()]
        if len(blobs) != 1:
            raise layers.fail("must be one envelope")
        blob, size = blobs[0]
        data = self._done(lambda c: c.get_blob(blob, size), size)
        if not isinstance(data, Found):
            return b"", f"the envelope {blob[:19]} isn't there"
        payload, signatures = unwrap(data.data)
        why = trust.signature_refusal(encoding(payload), signatures, finished(payload))
        if why is None and image not in subjects(payload):
            why = "it speaks of another image"
        return payload, why

    def _upload(self, name: str, data: bytes | Path, size: int) -> None:
        self._done(lambda c: c.put_blob(name, data), size)

    def _run(self, work: Callable[[OciClient], T], size: int) -> T | Failed:
        return self._bounds.run(lambda: work(self._client), size)

    def _done(self, work: Callable[[OciClient], T | Failed], size: int) -> T:
        got = self._run(work, size)
        if isinstance(got, Failed):
            raise JitcacheError(got.detail, where=str(self.reference), hint=_HINT)
        return got


_HINT = "docs/trust.md says where passwords go; skopeo shows what is there"
