"""A server that gives out tokens which docker-registry verifies: RS256, with its certificate."""

from __future__ import annotations

import base64
import contextlib
import datetime
import http.server
import json
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.remote_servers import reply, serving

ISSUER = "jitcache tests"
SERVICE = "registry"


class Signer:
    """A key, and a certificate that it signed itself."""

    def __init__(self) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, ISSUER)])
        now = datetime.datetime.now(datetime.UTC)
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )

    def token(self, subject: str, access: list[dict[str, object]]) -> str:
        """A JSON web token that allows what `access` says."""
        der = self.certificate.public_bytes(serialization.Encoding.DER)
        head = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "sub": subject,
            "aud": SERVICE,
            "access": access,
            "exp": now + 300,
            "nbf": now - 10,
            "iat": now,
            "jti": str(time.time_ns()),
        }
        signed = ".".join(_encoded(json.dumps(part).encode()) for part in (head, claims))
        signature = self.key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{_encoded(signature)}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@contextlib.contextmanager
def tokens(
    place: Path, users: dict[str, tuple[str, set[str]]], *, forged: bool = False
) -> Iterator[str]:
    """A token server; yields the `auth:` section for the registry's configuration.

    Args:
        place: the certificate that the registry believes is written here.
        users: password and allowed actions of each.
        forged: sign with a key that the registry doesn't know.
    """
    known, signer = Signer(), Signer()
    if not forged:
        signer = known
    pem = known.certificate.public_bytes(serialization.Encoding.PEM)
    (place / "tokens.pem").write_bytes(pem)

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        said = handler.headers.get("Authorization", "").removeprefix("Basic ")
        user, _, password = base64.b64decode(said).decode().partition(":")
        if user not in users or users[user][0] != password:
            reply(handler, 401)
            return
        asked = urllib.parse.parse_qs(urllib.parse.urlsplit(handler.path).query)
        kind, name, actions = asked["scope"][0].split(":")
        granted = sorted(set(actions.split(",")) & users[user][1])
        access = [{"type": kind, "name": name, "actions": granted}]
        reply(handler, 200, json.dumps({"token": signer.token(user, access)}).encode())

    with serving(answer) as url:
        yield (
            f"auth: {{token: {{realm: '{url}/token', service: {SERVICE}, issuer: '{ISSUER}', "
            f"rootcertbundle: {place}/tokens.pem}}}}\n"
        )
