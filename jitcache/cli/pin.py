"""`jitcache pin`: keep what a lock file names, whatever `gc` is asked for."""

from __future__ import annotations

from pathlib import Path

import click

from jitcache.cli import output
from jitcache.cli.storeview import age, open_store
from jitcache.errors import InputError, UsageError
from jitcache.lockfile import load_lock
from jitcache.store.pins import DamagedPin, pin, pins, unpin
from jitcache.store.store import Store


@click.command()
@click.argument("lock", type=click.Path(path_type=Path), required=False)
@click.option("--name", help="Name of the pin; otherwise the manifest's name and the target.")
@click.option("--remove", metavar="NAME", help="Remove a pin.")
@output.json_option
def command(lock: Path | None, name: str | None, remove: str | None, as_json: bool) -> None:
    """Keep what a lock file names, whatever `gc` is asked for; without LOCK, list pins."""
    if remove is not None and (lock is not None or name is not None):
        raise UsageError("--remove stands alone", hint="jitcache pin --remove NAME")
    if name is not None and lock is None:
        raise UsageError("--name needs a lock file", hint="jitcache pin LOCK --name NAME")
    store = open_store()
    if remove is not None and not unpin(store.layout, remove):
        raise InputError("there is no pin of that name", where=remove, hint="jitcache pin lists")
    if lock is not None:
        found = load_lock(lock)
        pin(
            store.layout,
            name or f"{found.manifest}.{found.arch}",
            (a.key for a in found.actions()),
        )
    _list(store, as_json)


def _list(store: Store, as_json: bool) -> None:
    found = pins(store.layout)
    damaged = [p for p in found if isinstance(p, DamagedPin)]
    sound = [p for p in found if not isinstance(p, DamagedPin)]
    if as_json:
        output.emit_json(
            {
                "pins": [
                    {"name": p.name, "actions": len(p.keys), "created": p.created} for p in sound
                ],
                "damaged": [{"path": str(p.path), "detail": p.detail} for p in damaged],
            }
        )
    else:
        rows = [(p.name, str(len(p.keys)), age(p.created)) for p in sound]
        if rows:
            output.out(output.table(("PIN", "ACTIONS", "AGE"), rows, right="lrr"))
        else:
            output.out("no pins")
    for p in damaged:
        output.say(f"damaged: {p.path}: {p.detail}")
