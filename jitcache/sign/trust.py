"""Whom this user trusts: `trust.json` in the user's configuration, and nothing in a project.

A key is trusted by its bytes, from a date on if one is given; a revoked key stays revoked
whatever else is said, and single actions or blobs can be disowned by digest. The file is
refused where somebody else could have written it.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jitcache.errors import InputError
from jitcache.jsonread import Reader, ShapeError, parse
from jitcache.sign.envelope import Envelope
from jitcache.sign.keys import PublicKey, Signature, read_public, verify
from jitcache.userconfig import config_dir, own_file

SCHEMA = 1
VARIABLE = "JITCACHE_TRUSTED_KEYS"


@dataclass(frozen=True, slots=True)
class Trusted:
    """A key that is believed for records created at `since` (seconds since the epoch) or later."""

    key: PublicKey
    since: int = 0


@dataclass(frozen=True, slots=True)
class Trust:
    """What a user believes.

    Attributes:
        trusted: keys, in the order in which they were added.
        revoked: keys that are never believed.
        disowned: digests of actions and blobs that are never used.
    """

    trusted: tuple[Trusted, ...] = ()
    revoked: tuple[PublicKey, ...] = ()
    disowned: frozenset[str] = field(default_factory=frozenset)

    def refusal(self, envelope: Envelope, *, signed: bool = True) -> str | None:
        """Why a record isn't believed, or None.

        Args:
            envelope: the record and its signatures.
            signed: whether a signature is required; revocations hold either way.
        """
        record = envelope.record
        for name in (record.key, *(o.digest for o in record.outputs)):
            if name in self.disowned:
                return f"{name[:19]} was revoked"
        if not signed:
            return None
        return self.signature_refusal(envelope.signed, envelope.signatures, record.created)

    def signature_refusal(
        self, data: bytes, signatures: Sequence[Signature], created: int
    ) -> str | None:
        """Why nobody is believed to have signed some bytes, or None.

        Args:
            data: the bytes.
            signatures: of anybody.
            created: when they were made, in seconds since the epoch.
        """
        if not signatures:
            return "it is not signed"
        reasons = []
        revoked = {k.data for k in self.revoked}
        for signature in signatures:
            known = [t for t in self.trusted if t.key.name == signature.name]
            if not known:
                reasons.append(f"the key {signature.name!r} is not trusted here")
            for entry in known:
                if entry.key.data in revoked:
                    reasons.append(f"the key {signature.name!r} was revoked")
                elif not verify(entry.key, signature, data):
                    reasons.append(f"the signature of {signature.name!r} is wrong")
                elif created < entry.since:
                    reasons.append(f"it is older than what {signature.name!r} is trusted for")
                else:
                    return None
        return "; ".join(dict.fromkeys(reasons))

    def adding(self, key: PublicKey, since: int = 0) -> Trust:
        """With one more key.

        Raises:
            InputError: it was revoked, or another key has its name.
        """
        if key.data in {k.data for k in self.revoked}:
            raise InputError("this key was revoked", where=key.name, hint="make a new key")
        others = [t for t in self.trusted if t.key.data != key.data]
        if any(t.key.name == key.name for t in others):
            raise InputError(
                "another key of this name is trusted",
                where=key.name,
                hint=f"give the new key another name, or first: jitcache key revoke {key.name}",
            )
        return replace(self, trusted=(*others, Trusted(key, since)))

    def revoking(self, name: str) -> Trust:
        """Without a key (by its name or as NAME:BASE64), an action or a blob (by digest).

        Raises:
            InputError: no key of that name is known.
        """
        if name.startswith("sha256:"):
            return replace(self, disowned=self.disowned | {name})
        found = [t.key for t in self.trusted if t.key.name == name]
        if ":" in name:
            found = [read_public(name, where="the key to revoke")]
        if not found:
            raise InputError(
                "no trusted key has this name",
                where=name,
                hint="`jitcache key ls` lists them; an unknown key is given as NAME:BASE64",
            )
        gone = {k.data for k in found}
        return replace(
            self,
            trusted=tuple(t for t in self.trusted if t.key.data not in gone),
            revoked=(*(k for k in self.revoked if k.data not in gone), *found),
        )


def trust_path() -> Path | None:
    """Where the trust file is, or would be."""
    directory = config_dir()
    return None if directory is None else directory / "trust.json"


def load_trust() -> Trust:
    """What the user's trust file says, and the keys of `JITCACHE_TRUSTED_KEYS`.

    Raises:
        InputError: the file or the variable is malformed, or the file can't be believed.
    """
    trust = read_trust()
    for word in os.environ.get(VARIABLE, "").split():
        key = read_public(word, where=VARIABLE)
        if key.data not in {t.key.data for t in trust.trusted}:
            trust = trust.adding(key)
    return trust


def read_trust() -> Trust:
    """What the user's trust file says.

    Raises:
        InputError: it is malformed, or can't be believed.
    """
    path = trust_path()
    data = None if path is None else own_file(path)
    if data is None:
        return Trust()
    try:
        return _trust(parse(data))
    except ShapeError as e:
        raise InputError(
            f"{e.path} {e.problem}",
            where=str(path),
            hint="`jitcache key trust` and `revoke` write this file",
        ) from None


def save_trust(trust: Trust) -> Path:
    """Replace the user's trust file.

    Raises:
        InputError: the user has no configuration directory.
        StoreError: it can't be written.
    """
    from jitcache.store.durable import replace_file

    path = trust_path()
    if path is None:
        raise InputError("there is no home directory", hint="set XDG_CONFIG_HOME")
    document = {
        "schema": SCHEMA,
        "trusted": [{**_key_json(t.key), "since": t.since} for t in trust.trusted],
        "revoked": [_key_json(k) for k in trust.revoked],
        "disowned": sorted(trust.disowned),
    }
    replace_file(path, (json.dumps(document, indent=2) + "\n").encode())
    return path


def _key_json(key: PublicKey) -> dict[str, Any]:
    return {"name": key.name, "key": base64.b64encode(key.data).decode()}


def _trust(r: Reader) -> Trust:
    r.only("schema", "trusted", "revoked", "disowned")
    r["schema"].integer(SCHEMA, SCHEMA)
    return Trust(
        tuple(Trusted(_key(t), t["since"].integer()) for t in r["trusted"].each()),
        tuple(_key(k) for k in r["revoked"].each()),
        frozenset(d.digest() for d in r["disowned"].each()),
    )


def _key(r: Reader) -> PublicKey:
    try:
        return read_public(f"{r['name'].text()}:{r['key'].text()}", where="")
    except InputError as e:
        raise r.fail(e.what) from None
