"""DSSE: a signed envelope around bytes of a stated type, which many tools read.

Source: the DSSE protocol 1.0.2 (secure-systems-lab). Signed is not the payload but its
pre-authentication encoding, `DSSEv1 <length> <type> <length> <payload>`.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

from jitcache import digest
from jitcache.jsonread import Reader, ShapeError, parse
from jitcache.sign.envelope import MAX_SIGNATURES, signed_by
from jitcache.sign.keys import SecretKey, Signature, read_signature

INTOTO_TYPE = "application/vnd.in-toto+json"


def encoding(payload: bytes, payload_type: str = INTOTO_TYPE) -> bytes:
    """What is signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def wrap(payload: bytes, signers: Sequence[SecretKey]) -> bytes:
    """Sign an in-toto statement."""
    signatures = signed_by(encoding(payload), signers)
    return digest.canonical_json(
        {
            "payloadType": INTOTO_TYPE,
            "payload": base64.b64encode(payload).decode(),
            "signatures": [
                {"keyid": s.name, "sig": base64.b64encode(s.data).decode()} for s in signatures
            ],
        }
    )


def unwrap(data: bytes) -> tuple[bytes, tuple[Signature, ...]]:
    """The payload of an envelope around an in-toto statement, and who says so: unverified.

    Raises:
        ShapeError: it is something else.
    """
    r = parse(data)
    r["payloadType"].one_of(INTOTO_TYPE)
    encoded = r["payload"].text(max_length=1 << 26)
    try:
        payload = base64.b64decode(encoded, validate=True)
    except ValueError:
        raise r["payload"].fail("is not base64") from None
    signatures = [_signature(s) for s in r["signatures"].each()]
    if len(signatures) > MAX_SIGNATURES:
        raise r["signatures"].fail(f"are more than {MAX_SIGNATURES}")
    return payload, tuple(signatures)


def _signature(r: Reader) -> Signature:
    found = read_signature(f"{r['keyid'].text()}:{r['sig'].text()}")
    if found is None:
        raise ShapeError(r.path, "is not a signature by an Ed25519 key with a name")
    return found
