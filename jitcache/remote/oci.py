"""One repository of an OCI registry: blobs and manifests by digest.

Every digest is verified here: registries serve damaged files, and the usual Python client
accepts them.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

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
from jitcache.remote.transport import LocalError, Origin, Response, Transport, refusal, split

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"

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

    def download(self, digest: str, size: int, target: Path) -> Stored | Absent | Failed:
        """A blob into a file, verified as by `get_blob`; for what is too large for memory.

        Raises:
            OSError: the file can't be written.
        """
        with target.open("w+b") as f:
            try:
                got = self._ask("GET", f"{self._base}/blobs/{digest}", limit=size, into=f)
            except LocalError as e:
                raise e.error from None
        if isinstance(got, Failed):
            return got
        if got.status == 404:
            return Absent()
        if got.status != 200:
            return refusal(got, str(self._origin))
        if target.stat().st_size != size or digests.of_file(target) != digest:
            return Failed(
                "damaged", f"{self._origin} sent bytes that don't match {digest[:19]} and {size}"
            )
        return Stored()

    def put_blob(self, name: str, data: bytes | Path) -> Put:
        """Upload a blob, or a file, of a digest in one piece, unless the repository has it."""
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

    def get_manifest(self, reference: str, media_type: str = MANIFEST_TYPE) -> Got:
        """A manifest or index by tag or digest; by digest it is verified."""
        got = self._ask(
            "GET",
            f"{self._base}/manifests/{reference}",
            headers={"Accept": media_type},
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
        done = self._put_manifest(reference, data, media_type)
        return done if isinstance(done, Failed) else Stored()

    def attach(self, data: bytes, subject: str, descriptor: dict[str, Any]) -> Put:
        """Upload a manifest that refers to another, so that `referrers` finds it.

        Where the registry doesn't say that it keeps the list, we keep it under a tag, as the
        distribution specification 1.1 has it ("Referrers Tag Schema").

        Args:
            data: the manifest.
            subject: digest of the manifest that it refers to.
            descriptor: of `data`, as it stands in the list.
        """
        done = self._put_manifest(descriptor["digest"], data, MANIFEST_TYPE)
        if isinstance(done, Failed):
            return done
        if done.headers.get("oci-subject"):
            return Stored()
        listed = self._listed(self.get_manifest(_referrers_tag(subject), INDEX_TYPE))
        if isinstance(listed, Failed):
            return listed
        others = [d for d in listed if d.get("digest") != descriptor["digest"]]
        index = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [*others, descriptor]}
        return self.put_manifest(_referrers_tag(subject), digests.canonical_json(index), INDEX_TYPE)

    def referrers(self, subject: str) -> list[dict[str, Any]] | Failed:
        """Descriptors of the manifests that refer to one: of the registry's list, or our tag."""
        got = self._ask(
            "GET",
            f"{self._base}/referrers/{subject}",
            headers={"Accept": INDEX_TYPE},
            limit=MAX_RECORD,
        )
        if not isinstance(got, Failed) and got.status == 200:
            return self._listed(Found(got.body))
        if isinstance(got, Failed) and got.kind == "unavailable":
            return got
        return self._listed(self.get_manifest(_referrers_tag(subject), INDEX_TYPE))

    def _listed(self, got: Got) -> list[dict[str, Any]] | Failed:
        if isinstance(got, Failed):
            return got
        if isinstance(got, Absent):
            return []
        try:
            return [d.object() for d in parse(got.data)["manifests"].each()]
        except ShapeError as e:
            return Failed("damaged", f"{self._origin}: the list of what refers to an image: {e}")

    def _put_manifest(self, reference: str, data: bytes, media_type: str) -> Response | Failed:
        done = self._ask(
            "PUT",
            f"{self._base}/manifests/{reference}",
            body=data,
            headers={"Content-Type": media_type},
            push=True,
        )
        if isinstance(done, Failed) or done.status == 201:
            return done
        return refusal(done, str(self._origin))

    def _ask(
        self,
        method: str,
        url: str,
        *,
        body: bytes | Path | None = None,
        headers: Mapping[str, str] | None = None,
        limit: int = 1 << 16,
        into: IO[bytes] | None = None,
        push: bool = False,
    ) -> Response | Failed:
        for attempt in range(2):
            wanted = dict(headers or {})
            if self._authorization is not None:
                wanted["Authorization"] = self._authorization
            got = self._transport.request(
                method, url, body=body, headers=wanted, limit=limit, into=into
            )
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


def verified(data: bytes, digest: str, size: int | None, where: str) -> Got:
    """The bytes, if they are those of the digest."""
    if size is not None and len(data) != size:
        return Failed("damaged", f"{where} sent {len(data)} bytes where {size} were stated")
    if digests.of_bytes(data) != digest:
        return Failed("damaged", f"{where} sent bytes that don't match {digest[:19]}")
    return Found(data)


def _referrers_tag(digest: str) -> str:
    return digest.replace(":", "-")
