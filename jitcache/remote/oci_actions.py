"""Actions in a registry: one manifest per action.

It has the tag `ac-<hex of the key>`; its config is the signed record and its layers are the
outputs. So a registry's own garbage collection keeps exactly what a record names, and ordinary
tools can copy and mirror it.
"""

from __future__ import annotations

import json

from jitcache import digest as digests
from jitcache.jsonread import ShapeError, parse
from jitcache.remote.interface import MAX_RECORD, Exists, Failed, Found, Got, Put
from jitcache.remote.oci import MANIFEST_TYPE, OciClient

ACTION_TYPE = "application/vnd.jitcache.action.v1"
RECORD_TYPE = "application/vnd.jitcache.record.v1+json"
BLOB_TYPE = "application/vnd.jitcache.blob.v1"


class OciRemote:
    """Actions and their outputs in one repository."""

    def __init__(self, client: OciClient) -> None:
        self._client = client

    def get_record(self, key: str) -> Got:
        """The config of the action's manifest."""
        got = self._client.get_manifest(_tag(key))
        if not isinstance(got, Found):
            return got
        try:
            config = parse(got.data)["config"]
            kind, name, size = (
                config["mediaType"].text(),
                config["digest"].digest(),
                config["size"].integer(1, MAX_RECORD),
            )
        except ShapeError as e:
            return Failed("damaged", f"the manifest of the action: {e}")
        if kind != RECORD_TYPE:
            return Failed("damaged", f"the action's tag names something else ({kind})")
        return self._client.get_blob(name, size)

    def put_record(self, key: str, data: bytes, blobs: tuple[tuple[str, int], ...]) -> Put:
        """Upload the record and its manifest, unless the tag exists."""
        there = self._client.get_manifest(_tag(key))
        if isinstance(there, Failed):
            return there
        if isinstance(there, Found):
            return Exists()
        put = self._client.put_blob(digests.of_bytes(data), data)
        if isinstance(put, Failed):
            return put
        return self._client.put_manifest(_tag(key), manifest(data, blobs))

    def get_blob(self, digest: str, size: int) -> Got:
        """A blob by its digest."""
        return self._client.get_blob(digest, size)

    def put_blob(self, digest: str, data: bytes) -> Put:
        """Upload a blob; the registry checks the digest, too."""
        return self._client.put_blob(digest, data)

    def creates_once(self) -> bool | Failed:
        """No: the protocol has no conditional creation of a tag; we look before we push."""
        return False


def manifest(record: bytes, blobs: tuple[tuple[str, int], ...]) -> bytes:
    """The manifest of an action."""
    layers = [{"mediaType": BLOB_TYPE, "digest": d, "size": s} for d, s in sorted(set(blobs))]
    config = {"mediaType": RECORD_TYPE, "digest": digests.of_bytes(record), "size": len(record)}
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": ACTION_TYPE,
        "config": config,
        "layers": layers,
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _tag(key: str) -> str:
    return "ac-" + key.removeprefix("sha256:")
