"""`jitcache push`: sign what a lock file names, and push it to a remote."""

from __future__ import annotations

from pathlib import Path

import click

from jitcache.cli import output
from jitcache.cli.signing import KEY_VARIABLE, key_option, load_signers
from jitcache.cli.storeview import open_store, short_key
from jitcache.errors import InputError, JitcacheError, UsageError
from jitcache.lockfile import load_lock
from jitcache.remote.config import RemoteConfig, choose, load_remotes
from jitcache.store.model import ActionRecord, Hit


@click.command()
@click.argument("lock", type=click.Path(path_type=Path))
@click.option("--to", "name", metavar="REMOTE", help="Push there; else to the only `rw` remote.")
@key_option
@output.json_option
def command(lock: Path, name: str | None, keys: tuple[Path, ...], as_json: bool) -> None:
    """Sign everything that LOCK names, and push it to a remote."""
    from jitcache.remote.opening import open_remote
    from jitcache.remote.push import Pushed, push

    config = _target(load_remotes(), name)
    signers = load_signers(keys)
    if config.signed and not signers:
        raise UsageError(
            "there is no key to sign with",
            hint=f"--key FILE, or {KEY_VARIABLE}; `jitcache key new NAME` makes one",
        )
    locked = load_lock(lock)
    store = open_store()
    records: list[ActionRecord] = []
    absent: list[str] = []
    for action in locked.actions():
        here = store.lookup(action.key)
        if isinstance(here, Hit) and action.given_by(here.record):
            records.append(here.record)
        else:
            absent.append(short_key(action.key))
    if absent:
        raise InputError(
            f"{len(absent)} actions of the lock file are not in the local store",
            where=str(lock),
            details=tuple(absent[:20]),
            hint="jitcache prebuild, or jitcache pull, puts them there",
        )
    remote = open_remote(config)
    results: list[tuple[ActionRecord, Pushed]] = [
        (record, push(store, remote, record, signers)) for record in records
    ]
    count = {
        state: sum(p.state == state for _, p in results)
        for state in ("pushed", "present", "divergent", "failed")
    }
    bad = [(r, p) for r, p in results if p.detail]
    if as_json:
        output.emit_json(
            {
                "remote": config.name,
                **count,
                "problems": [
                    {"key": r.key, "label": r.label, "state": p.state, "detail": p.detail}
                    for r, p in bad
                ],
            }
        )
    else:
        output.out(f"{config.name}: {count['pushed']} pushed, {count['present']} there already")
    if bad:
        raise JitcacheError(
            f"{len(bad)} of {len(results)} actions could not be pushed",
            where=config.name,
            details=tuple(f"{r.label}: {p.detail}" for r, p in bad[:20]),
        )


def _target(remotes: tuple[RemoteConfig, ...], name: str | None) -> RemoteConfig:
    if name is not None:
        chosen = choose(remotes, name)
        if not chosen.writable:
            raise UsageError("this remote is configured as `ro`", hint='mode = "rw" allows pushes')
        return chosen
    writable = [r for r in remotes if r.writable]
    if len(writable) != 1:
        raise UsageError(
            f"there are {len(writable)} remotes with mode rw", hint="choose one with --to"
        )
    return writable[0]
