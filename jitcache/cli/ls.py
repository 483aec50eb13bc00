"""`jitcache ls`: list what the store holds."""

from __future__ import annotations

import click

from jitcache.cli import output
from jitcache.cli.storeview import (
    action_json,
    age,
    open_store,
    say_notices,
    short_key,
    size_of,
    split,
)


@click.command()
@output.json_option
def command(as_json: bool) -> None:
    """List what the store holds: one line per action, and totals."""
    store = open_store()
    records, damaged = split(store)
    records.sort(key=lambda r: (r.target, r.toolchain, r.label, r.key))
    if as_json:
        output.emit_json(
            {
                "store": str(store.layout.root),
                "actions": [action_json(store, r) for r in records],
                "damaged": [{"path": str(d.path), "detail": d.detail} for d in damaged],
                "total": {"actions": len(records), "bytes": size_of(records)},
            }
        )
    else:
        if records:
            rows = [
                (
                    short_key(r.key),
                    r.label,
                    r.target,
                    r.toolchain,
                    output.size(size_of([r])),
                    age(r.created),
                    age(store.last_used(r)),
                )
                for r in records
            ]
            header = ("KEY", "ACTION", "TARGET", "TOOLCHAIN", "SIZE", "AGE", "USED")
            output.out(output.table(header, rows, right="llllrrr"))
        output.out(
            f"{len(records)} actions, {output.size(size_of(records))}, in {store.layout.root}"
        )
    for record in damaged:
        output.say(f"damaged: {record.path}: {record.detail}")
    if damaged:
        output.say("hint: `jitcache verify` moves damaged records out of the way")
    say_notices(store)
