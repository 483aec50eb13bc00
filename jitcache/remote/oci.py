"""OCI registries: blobs by digest, and one manifest per action.

An action is a manifest with the tag `ac-<hex of its key>`; its config is the signed record and
its layers are the outputs. So a registry's own garbage collection keeps exactly what a record
names, and ordinary tools can copy and mirror it. Every digest is verified here: registries
serve damaged files, and the usual Python client accepts them.
"""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Mapping

from jitcache import digest as digests
from jitcache.jsonread import ShapeError, parse
from jitcache.remote.credentials import Credentials
from jitcache.remote.interface import (
    MAX_RECORD,
    Absent,
    Exists,
    Failed,
    Found,
    Got,
    Put,
    Stored,
)
from jitcache.remote.transport import Origin, Response, Transport, refusal, split

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
ACTION_TYPE = "application/vnd.jitcache.action.v1"
RECORD_TYPE = "application/vnd.jitcache.record.v1+json"
BLOB_TYPE = "application/vnd.jitcache.blob.v1"

_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


class OciClient:
    """One repository of a registry.

    Args:
        origin: the registry.
        repository: e.g. `kernels/kimi`.
        credentials: for htpasswd and for fetching tokens.
        timeout: seconds for one request.
    """

    def __init__(
        self,
        origin: Origin,
        repository: str,
        *,
        credentials: Credentials | None = None,
        timeout: float = 10.0,
    ) -> None:
        self._origin = origin
        self._base = f"{origin.scheme}://{origin}/v2/{repository}"
        self._repository = repository
        self._credentials = credentials
        self._transport = Transport(timeout)
        self._authorization: str | None = None

    def get_blob(self, digest: str, size: int) -> Got:
        """A blob, verified: `damaged` if its size or digest is another."""
        got = self._ask("GET", f"{self._base}/blobs/{digest}", limit=size)
        if isinstance(got, Failed):
            return got
        if got.status == 404:
            return Absent()
        if got.status != 200:
            return refusal(got, str(self._origin))
        return verified(got.body, digest, size, str(self._origin))

    def put_blob(self, data: bytes, digest: str | None = None) -> Put:
        """Upload a blob in one piece, unless the repository has it."""
        name = digest or digests.of_bytes(data)
        there = self._ask("HEAD", f"{self._base}/blobs/{name}")
        if isinstance(there, Failed):
            return there
        if there.status == 200:
            return Exists()
        begun = self._ask("POST", f"{self._base}/blobs/uploads/", body=b"", push=True)
        if isinstance(begun, Failed):
            return begun
        if begun.status != 202:
            return refusal(begun, str(self._origin))
        place = urllib.parse.urljoin(f"{self._base}/", begun.headers.get("location", ""))
        parts = split(place)
        if parts is None or parts[0] != self._origin:
            return Failed("denied", f"{self._origin} wants the upload sent to another host")
        joint = "&" if "?" in place else "?"
        done = self._ask(
            "PUT",
            f"{place}{joint}digest={urllib.parse.quote(name)}",
            body=data,
            headers={"Content-Type": "application/octet-stream"},
            push=True,
        )
        if isinstance(done, Failed):
            return done
        return Stored() if done.status == 201 else refusal(done, str(self._origin))

    def get_manifest(self, reference: str) -> Got:
        """A manifest by tag or digest; by digest it is verified."""
        got = self._ask(
            "GET",
            f"{self._base}/manifests/{reference}",
            headers={"Accept": MANIFEST_TYPE},
            limit=MAX_RECORD,
        )
        if isinstance(got, Failed):
            return got
        if got.status == 404:
            return Absent()
        if got.status != 200:
            return refusal(got, str(self._origin))
        if digests.is_digest(reference):
            return verified(got.body, reference, None, str(self._origin))
        return Found(got.body)

    def put_manifest(self, reference: str, data: bytes, media_type: str = MANIFEST_TYPE) -> Put:
        """Upload a manifest under a tag or its digest; a tag that exists is moved."""
        done = self._ask(
            "PUT",
            f"{self._base}/manifests/{reference}",
            body=data,
            headers={"Content-Type": media_type},
            push=True,
        )
        if isinstance(done, Failed):
            return done
        return Stored() if done.status == 201 else refusal(done, str(self._origin))

    def _ask(
        self,
        method: str,
        url: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        limit: int = 1 << 16,
        push: bool = False,
    ) -> Response | Failed:
        for attempt in range(2):
            wanted = dict(headers or {})
            if self._authorization is not None:
                wanted["Authorization"] = self._authorization
            got = self._transport.request(method, url, body=body, headers=wanted, limit=limit)
            if isinstance(got, Failed) or got.status != 401 or attempt:
                return got
            answer = self._answer(got.headers.get("www-authenticate", ""), push=push)
            if isinstance(answer, Failed):
                return answer
            self._authorization = answer
        raise AssertionError

    def _answer(self, challenge: str, *, push: bool) -> str | Failed:
        """The Authorization header that a challenge asks for."""
        if self._credentials is not None and not self._origin.confidential:
            # Nor to a token server: whoever is in between could have named it.
            return Failed("denied", f"no password is used for {self._origin} without TLS")
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "basic":
            if self._credentials is None:
                return Failed("denied", f"{self._origin} wants a password, and none is known")
            return self._credentials.basic()
        if scheme.lower() != "bearer":
            return Failed("unsupported", f"{self._origin} wants an unknown kind of login")
        asked = dict(_CHALLENGE.findall(rest))
        realm = split(asked.get("realm", ""))
        if realm is None or not realm[0].confidential:
            return Failed("denied", f"{self._origin} names a token server without TLS")
        actions = "pull,push" if push else "pull"
        query = {"service": asked.get("service", ""), "scope": asked.get("scope", "")}
        query["scope"] = query["scope"] or f"repository:{self._repository}:{actions}"
        url = asked["realm"] + ("&" if "?" in asked["realm"] else "?")
        headers = {} if self._credentials is None else {"Authorization": self._credentials.basic()}
        got = self._transport.request("GET", url + urllib.parse.urlencode(query), headers=headers)
        if isinstance(got, Failed):
            return got
        if got.status != 200:
            return Failed("denied", f"{realm[0]} gives no token (HTTP {got.status})")
        try:
            document = parse(got.body)
            name = "token" if document.has("token") else "access_token"
            return f"Bearer {document[name].text(max_length=1 << 16)}"
        except ShapeError:
            return Failed("unavailable", f"{realm[0]} answers something that is no token")


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
        put = self._client.put_blob(data)
        if isinstance(put, Failed):
            return put
        return self._client.put_manifest(_tag(key), manifest(data, blobs))

    def get_blob(self, digest: str, size: int) -> Got:
        """A blob by its digest."""
        return self._client.get_blob(digest, size)

    def put_blob(self, digest: str, data: bytes) -> Put:
        """Upload a blob; the registry checks the digest, too."""
        return self._client.put_blob(data, digest)

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


def verified(data: bytes, digest: str, size: int | None, where: str) -> Got:
    """The bytes, if they are those of the digest."""
    if size is not None and len(data) != size:
        return Failed("damaged", f"{where} sent {len(data)} bytes where {size} were stated")
    if digests.of_bytes(data) != digest:
        return Failed("damaged", f"{where} sent bytes that don't match {digest[:19]}")
    return Found(data)


def _tag(key: str) -> str:
    return "ac-" + key.removeprefix("sha256:")
