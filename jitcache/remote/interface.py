"""What a remote is to everything else: records by action key, blobs by digest.

No method raises for what a network or a server does: it returns one of the values below.
Nothing that comes from a remote is believed by having come: records are checked by
`jitcache.remote.fetch`, blobs against the digest and size of the signed record.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

MAX_RECORD = 4 << 20
"""Bytes a signed record may have; ours have a few tens of thousands."""


@dataclass(frozen=True, slots=True)
class Found:
    """The bytes that were asked for."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Absent:
    """The remote answered, and doesn't have it."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What was put is there now."""


@dataclass(frozen=True, slots=True)
class Exists:
    """Something of that name was there already, and stays."""


FailureKind = Literal["unavailable", "denied", "damaged", "unsupported"]


@dataclass(frozen=True, slots=True)
class Failed:
    """The remote could not do it.

    Attributes:
        kind: `unavailable` (no answer, a reset, a server's error: may pass), `denied`
            (credentials or permission), `damaged` (the bytes aren't what they have to be),
            `unsupported` (the remote can't do this at all).
        detail: one sentence for people, without credentials or query strings.
    """

    kind: FailureKind
    detail: str


Got = Found | Absent | Failed
Put = Stored | Exists | Failed


class Objects(Protocol):
    """Named bytes: what a directory, a WebDAV server and a bucket have in common."""

    def get(self, path: str, limit: int) -> Got:
        """The bytes of an object; more than `limit` of them are `Failed("damaged")`."""

    def put(self, path: str, data: bytes) -> Put:
        """Create an object unless there is one of that name, as atomically as can be."""

    def creates_once(self) -> bool | Failed:
        """Whether of two creations of one name the second is refused by the server itself."""


class Remote(Protocol):
    """A store elsewhere."""

    def get_record(self, key: str) -> Got:
        """The signed record of an action (`jitcache.sign.envelope`), unchecked."""

    def put_record(self, key: str, data: bytes, blobs: tuple[tuple[str, int], ...]) -> Put:
        """Create the signed record of an action; its blobs (digest, size) are there already."""

    def get_blob(self, digest: str, size: int) -> Got:
        """A blob's bytes, of exactly this size and digest: anything else is `damaged`."""

    def put_blob(self, digest: str, data: bytes) -> Put:
        """Create a blob."""

    def creates_once(self) -> bool | Failed:
        """Whether the first record of a key can't be replaced by a second push."""
