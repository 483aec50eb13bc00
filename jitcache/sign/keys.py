"""Ed25519 keys and signatures, written `name:base64`.

The name says whose key it is, so that a signature by an unknown key can be told from a wrong
one; what is believed is the key's bytes. Any Ed25519 tool can verify a signature: it is over
the signed bytes themselves.
"""

from __future__ import annotations

import base64
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from jitcache.errors import InputError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class PublicKey:
    """Whose signature it is: a name, and 32 bytes."""

    name: str
    data: bytes

    def __str__(self) -> str:
        return f"{self.name}:{base64.b64encode(self.data).decode()}"


@dataclass(frozen=True, slots=True)
class SecretKey:
    """What signs: a name, and the 32 bytes that nobody else may know."""

    name: str
    seed: bytes = field(repr=False)

    def _key(self) -> Ed25519PrivateKey:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return Ed25519PrivateKey.from_private_bytes(self.seed)

    def public(self) -> PublicKey:
        """The key that verifies this one's signatures."""
        return PublicKey(self.name, self._key().public_key().public_bytes_raw())

    def sign(self, data: bytes) -> Signature:
        """Sign bytes."""
        return Signature(self.name, self._key().sign(data))


@dataclass(frozen=True, slots=True)
class Signature:
    """A key's name and its 64 bytes."""

    name: str
    data: bytes

    def __str__(self) -> str:
        return f"{self.name}:{base64.b64encode(self.data).decode()}"


def new_key(name: str) -> SecretKey:
    """Make a key.

    Raises:
        InputError: the name isn't one.
    """
    check_name(name)
    return SecretKey(name, os.urandom(32))


def check_name(name: str) -> None:
    """Refuse what can't be a key's name.

    Raises:
        InputError: it can't.
    """
    if _NAME.fullmatch(name) is None:
        raise InputError(
            "a key's name has letters, digits, dots, dashes and underscores, 64 at most",
            where=repr(name[:80]),
            hint="for instance: ci-2026",
        )


def verify(key: PublicKey, signature: Signature, data: bytes) -> bool:
    """Whether the key signed these bytes."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(key.data).verify(signature.data, data)
    except InvalidSignature:
        return False
    return True


def read_public(text: str, *, where: str) -> PublicKey:
    """Read `name:base64`.

    Raises:
        InputError: it is something else.
    """
    return PublicKey(*_pair(text, 32, where, "a public key"))


def read_secret(path: Path) -> SecretKey:
    """Read a secret key's file.

    Raises:
        InputError: it can't be read, or isn't one, or others can read it.
    """
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as e:
        said = e.strerror if isinstance(e, OSError) else "it is no text"
        raise InputError(
            f"can't read the secret key ({said})",
            where=str(path),
            hint="`jitcache key new NAME` makes one",
        ) from None
    if mode & 0o077:
        raise InputError(
            f"others can read this secret key (mode {mode & 0o777:04o})",
            where=str(path),
            hint=f"chmod 600 {path}",
        )
    return parse_secret(text, where=str(path))


def parse_secret(text: str, *, where: str) -> SecretKey:
    """Read a secret key's text; an error never shows any of it.

    Raises:
        InputError: it isn't one.
    """
    return SecretKey(*_pair(text, 32, where, "a secret key"))


def read_signature(text: str) -> Signature | None:
    """Read a signature; None for what isn't one."""
    try:
        return Signature(*_pair(text, 64, "", "a signature"))
    except InputError:
        return None


def _pair(text: str, length: int, where: str, what: str) -> tuple[str, bytes]:
    name, _, encoded = text.strip().partition(":")
    try:
        data = base64.b64decode(encoded, validate=True)
    except ValueError:
        data = b""
    if len(data) != length or _NAME.fullmatch(name) is None:
        raise InputError(
            f"this is not {what}: it is written NAME:BASE64, with {length} bytes",
            where=where,
        )
    return name, data
