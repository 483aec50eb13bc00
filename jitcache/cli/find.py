"""`jitcache find`: look imported code objects up by the columns of their tables."""

from __future__ import annotations

import click

from jitcache.cli import output
from jitcache.cli.storeview import open_store, short_key, split
from jitcache.errors import InputError, UsageError


@click.command()
@click.argument("conditions", nargs=-1, required=True, metavar="COLUMN=VALUE...")
@click.option("--arch", help="Only this architecture.")
@click.option("--table", metavar="TEXT", help="Only tables whose path holds this.")
@output.json_option
def command(
    conditions: tuple[str, ...], arch: str | None, table: str | None, as_json: bool
) -> None:
    """Find imported kernels by the columns of the CSV tables that name them."""
    from jitcache.prebuilt.imports import find

    keys = {}
    for condition in conditions:
        column, equals, value = condition.partition("=")
        if not equals or not column:
            raise UsageError(f"{condition!r} is not COLUMN=VALUE", hint="e.g. tile_m=128")
        keys[column] = value
    store = open_store()
    found = find(split(store)[0], keys, arch=arch, table=table)
    if not found:
        raise InputError(
            "no imported kernel has these values in its table",
            where=" ".join(conditions),
            hint="`jitcache show NAME` prints the rows of one; `jitcache import` adds more",
        )
    if as_json:
        output.emit_json(
            {
                "kernels": [
                    {
                        "symbol": m.symbol,
                        "arch": m.record.target,
                        "name": m.record.label,
                        "table": m.table,
                        "keys": m.keys,
                        "action": m.record.key,
                        "path": str(store.blob_path(m.record.outputs[0].digest)),
                    }
                    for m in found
                ]
            }
        )
        return
    rows = [(m.record.target, m.record.label, m.symbol, short_key(m.record.key)) for m in found]
    output.out(output.table(("ARCH", "CODE OBJECT", "KERNEL", "ACTION"), rows))
