"""Small JSON files that carry the digest of their own content.

One line, `{"digest":"sha256:...","content":<canonical JSON>}`: still JSON for every reader,
and a torn, truncated or flipped byte is found by hashing a slice, without parsing first.
"""

from __future__ import annotations

from jitcache import digest

_HEAD = b'{"digest":"'
_MIDDLE = b'","content":'
_TAIL = b"}\n"
_START = len(_HEAD) + len("sha256:") + 64 + len(_MIDDLE)


class SealError(ValueError):
    """The bytes aren't what was sealed."""


def seal(content: bytes) -> bytes:
    """Wrap canonical JSON together with its digest."""
    return _HEAD + digest.of_bytes(content).encode() + _MIDDLE + content + _TAIL


def unseal(data: bytes) -> bytes:
    """The content of sealed bytes.

    Raises:
        SealError: the bytes were truncated or changed.
    """
    if not data:
        raise SealError("the file is empty")
    stated = data[len(_HEAD) : _START - len(_MIDDLE)]
    if (
        not data.startswith(_HEAD)
        or data[_START - len(_MIDDLE) : _START] != _MIDDLE
        or not data.endswith(_TAIL)
    ):
        raise SealError("the file is not sealed JSON, or was cut short")
    content = data[_START : -len(_TAIL)]
    if digest.of_bytes(content).encode() != stated:
        raise SealError("the content does not match the digest stated in the file")
    return content
