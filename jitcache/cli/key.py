"""`jitcache key`: make, trust and revoke the keys that records are signed with."""

from __future__ import annotations

import base64
import datetime
import os
from pathlib import Path

import click

from jitcache.cli import output
from jitcache.errors import InputError


@click.group()
def command() -> None:
    """Make, trust and revoke the keys that records are signed with."""


@command.command()
@click.argument("name")
@click.option("-o", "--output", "path", type=Path, help="Where to write the secret key.")
@output.json_option
def new(name: str, path: Path | None, as_json: bool) -> None:
    """Make a key: the secret part goes to a file, the public part is printed."""
    from jitcache.sign.keys import new_key
    from jitcache.userconfig import config_dir

    key = new_key(name)
    directory = config_dir()
    if path is None and directory is None:
        raise InputError("there is no home directory", hint="say where with --output")
    path = path or Path(str(directory), "keys", f"{name}.secret")
    text = f"{name}:{base64.b64encode(key.seed).decode()}\n"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Never over an old key: what it signed could be signed by nobody else.
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "w") as f:
            f.write(text)
    except OSError as e:
        raise InputError(f"can't write the secret key ({e.strerror})", where=str(path)) from None
    if as_json:
        output.emit_json({"public": str(key.public()), "secret_file": str(path)})
    else:
        output.out(str(key.public()))
        output.say(f"secret key: {path}")


@command.command()
@click.argument("key")
@click.option("--since", metavar="DATE", help="Refuse records created before (YYYY-MM-DD, UTC).")
def trust(key: str, since: str | None) -> None:
    """Believe what KEY (NAME:BASE64) signs."""
    from jitcache.sign.keys import read_public
    from jitcache.sign.trust import read_trust, save_trust

    path = save_trust(read_trust().adding(read_public(key, where="the key"), _day(since)))
    output.say(f"trusted; written to {path}")


@command.command()
@click.argument("name")
def revoke(name: str) -> None:
    """Believe NAME no more: a key's name, NAME:BASE64, or the digest of an action or a blob."""
    from jitcache.digest import is_digest
    from jitcache.sign.trust import read_trust, save_trust

    if name.startswith("sha256:") and not is_digest(name):
        raise InputError("is not a digest (sha256:<64 hex digits>)", where=name[:80])
    path = save_trust(read_trust().revoking(name))
    output.say(f"revoked; written to {path}")
    if name.startswith("sha256:"):
        output.say("what is in the local store already stays: `jitcache rm` removes it")


@command.command()
@output.json_option
def ls(as_json: bool) -> None:
    """List trusted and revoked keys, and what was disowned."""
    from jitcache.sign.trust import load_trust

    trust = load_trust()
    if as_json:
        output.emit_json(
            {
                "trusted": [{"key": str(t.key), "since": t.since} for t in trust.trusted],
                "revoked": [str(k) for k in trust.revoked],
                "disowned": sorted(trust.disowned),
            }
        )
        return
    rows = [("trusted", str(t.key)) for t in trust.trusted]
    rows += [("revoked", str(k)) for k in trust.revoked]
    rows += [("disowned", d) for d in sorted(trust.disowned)]
    output.out(output.table(("STATE", "KEY"), rows) if rows else "no keys")


def _day(text: str | None) -> int:
    if text is None:
        return 0
    try:
        day = datetime.datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=datetime.UTC)
    except ValueError:
        raise InputError("is not a date (YYYY-MM-DD)", where=text[:40]) from None
    return max(0, int(day.timestamp()))
