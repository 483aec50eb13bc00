"""Images in registries by name: `oci://HOST[:PORT]/NAME[:TAG|@sha256:DIGEST]`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from jitcache.errors import UsageError

SCHEMES = ("oci", "oci+http")

# Source: OCI distribution specification 1.1, "Pulling manifests".
_NAME = re.compile(r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HOST = re.compile(r"[A-Za-z0-9.-]+(?::[0-9]{1,5})?|\[[0-9a-f:]+\](?::[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class Reference:
    """An image in a registry.

    Attributes:
        scheme: `oci`, or `oci+http` where the user allows to go without TLS.
        host: with the port, if one is named.
        repository: e.g. `kernels/kimi`.
        version: a tag, or `sha256:...`.
    """

    scheme: str
    host: str
    repository: str
    version: str

    @property
    def pinned(self) -> bool:
        """Whether it is named by digest."""
        return _DIGEST.fullmatch(self.version) is not None

    def at(self, version: str) -> Reference:
        """Another version of the same repository."""
        return Reference(self.scheme, self.host, self.repository, version)

    def __str__(self) -> str:
        joint = "@" if self.pinned else ":"
        return f"{self.scheme}://{self.host}/{self.repository}{joint}{self.version}"


def is_reference(text: str) -> bool:
    """Whether it is meant as an image in a registry, rather than as a path."""
    return text.partition("://")[0] in SCHEMES and "://" in text


def read_reference(text: str) -> Reference:
    """Read a reference; the tag is `latest` where none is named.

    Raises:
        UsageError: it isn't one. The text is not repeated: it may hold a password.
    """
    scheme, _, rest = text.partition("://")
    host, _, path = rest.partition("/")
    name, at, version = path.partition("@")
    if not at:
        name, colon, version = path.rpartition(":")
        if not colon:
            name, version = path, "latest"
    fits = _DIGEST if at else _TAG
    if (
        scheme not in SCHEMES
        or not _HOST.fullmatch(host)
        or not _NAME.fullmatch(name)
        or not fits.fullmatch(version)
    ):
        raise UsageError(
            "this is not the name of an image in a registry",
            hint="oci://HOST[:PORT]/NAME:TAG or oci://HOST[:PORT]/NAME@sha256:...",
        )
    return Reference(scheme, host, name, version)
