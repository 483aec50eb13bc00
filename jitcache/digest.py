"""Digests and the canonical bytes they are taken over.

A digest is written `sha256:<64 hex>`, never bare hex, so that another algorithm can be
added without ambiguity. Canonical JSON (sorted keys, no white space, UTF-8, no floats) is
what action keys and signatures are computed over: equal values give equal bytes on every
machine.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

DIGEST_RE = re.compile(r"sha256:[0-9a-f]{64}")

_CHUNK = 1 << 20


def of_bytes(data: bytes) -> str:
    """Digest of bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def of_file(path: Path) -> str:
    """Digest of a file's content, read in chunks.

    Raises:
        OSError: the file can't be read.
    """
    h = hashlib.sha256()
    with path.open("rb", buffering=0) as f:
        while chunk := f.read(_CHUNK):
            h.update(chunk)
    return "sha256:" + h.hexdigest()


def is_digest(text: object) -> bool:
    """Whether `text` is a well-formed digest."""
    return isinstance(text, str) and DIGEST_RE.fullmatch(text) is not None


def canonical_json(value: Any) -> bytes:
    """The one byte form of a JSON value.

    Raises:
        TypeError: the value holds something without a canonical form (a float, NaN, bytes).
    """
    _refuse_floats(value)
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def of_json(value: Any) -> str:
    """Digest of a value's canonical JSON."""
    return of_bytes(canonical_json(value))


def _refuse_floats(value: Any) -> None:
    if isinstance(value, float):
        raise TypeError("floats have no canonical form here; use an integer or a string")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"object key {key!r} is not a string")
            _refuse_floats(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _refuse_floats(item)
