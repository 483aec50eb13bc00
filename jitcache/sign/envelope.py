"""A signed action record as it travels: the sealed record and its signatures.

Two lines: the record's file content as the local store has it (`jitcache.store.records`), and
`{"signatures":["name:base64",...]}`. Signed are the canonical bytes of the record, which hold
key, target, toolchain and every output with name, digest, size and mode: a signature can't be
moved to another key, nor a blob put under another name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jitcache import digest
from jitcache.jsonread import ShapeError, parse
from jitcache.sign.keys import SecretKey, Signature, read_signature
from jitcache.store.model import ActionRecord
from jitcache.store.records import canonical, decode, encode

MAX_SIGNATURES = 16
"""More are not read: each costs a verification."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """A record, and who says so; nothing is verified yet.

    Attributes:
        record: the record.
        signed: the bytes that the signatures are over.
        signatures: as they stood there.
    """

    record: ActionRecord
    signed: bytes
    signatures: tuple[Signature, ...]


def pack(record: ActionRecord, signers: Sequence[SecretKey]) -> bytes:
    """Sign a record for a remote."""
    return encode(record) + dump_signatures(signed_by(canonical(record), signers))


def signed_by(data: bytes, signers: Sequence[SecretKey]) -> tuple[Signature, ...]:
    """The signatures of several keys over the same bytes."""
    return tuple(key.sign(data) for key in signers)


def dump_signatures(signatures: Sequence[Signature]) -> bytes:
    """The line that holds signatures."""
    return digest.canonical_json({"signatures": [str(s) for s in signatures]}) + b"\n"


def read_signatures(data: bytes) -> tuple[Signature, ...]:
    """Read that line.

    Raises:
        ShapeError: it is malformed.
    """
    signatures: list[Signature] = []
    for item in parse(data).only("signatures")["signatures"].each():
        if len(signatures) == MAX_SIGNATURES:
            raise item.fail(f"is one more than the {MAX_SIGNATURES} signatures allowed")
        signature = read_signature(item.text())
        if signature is None:
            raise item.fail("is not a signature")
        signatures.append(signature)
    return tuple(signatures)


def unpack(data: bytes) -> Envelope:
    """Read what came from a remote.

    Raises:
        ShapeError: it is malformed.
    """
    sealed, newline, rest = data.partition(b"\n")
    record = decode(sealed + newline)
    signatures = read_signatures(rest)
    try:
        # The bytes are made anew from what was read: nothing can hide between the two.
        signed = canonical(record)
    except (TypeError, ValueError, RecursionError) as e:
        raise ShapeError("$", f"has no canonical form ({e})") from None
    return Envelope(record, signed, signatures)
