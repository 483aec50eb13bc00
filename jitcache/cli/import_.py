"""`jitcache import`: take prebuilt code objects into the store."""

from __future__ import annotations

from pathlib import Path

import click

from jitcache.cli import output
from jitcache.cli.storeview import open_store, say_notices
from jitcache.errors import ExitCode

_SHOWN = 20


@click.command("import")
@click.argument("directory", metavar="DIR", type=Path)
@click.option("--arch", help="Refuse what is for another architecture.")
@output.json_option
def command(directory: Path, arch: str | None, as_json: bool) -> None:
    """Take every .co and .hsaco file below DIR into the store, with the tables beside them."""
    from jitcache.prebuilt.imports import import_tree

    store = open_store()
    got = import_tree(directory.absolute(), store, arch=arch)
    say_notices(store)
    if as_json:
        output.emit_json(
            {
                "imported": len(got.keys),
                "new": got.new,
                "contents": got.contents,
                "size": got.size,
                "in_tables": got.by_row,
                "rows": got.rows,
                "refused": [{"name": r.name, "why": r.why} for r in got.refused],
                "bad_tables": [{"where": b.where, "why": b.why} for b in got.bad_tables],
            }
        )
    else:
        output.out(
            f"{len(got.keys)} code objects imported ({got.new} new), {got.contents} distinct "
            f"contents of {output.size(got.size)}; {got.rows} rows of tables name {got.by_row}"
        )
    for refused in got.refused[:_SHOWN]:
        output.say(f"refused: {refused.name}: {refused.why}")
    if len(got.refused) > _SHOWN:
        output.say(f"refused: {len(got.refused) - _SHOWN} more (--json lists them)")
    for bad in got.bad_tables[:_SHOWN]:
        output.say(f"not used: {bad.where}: {bad.why}")
    if len(got.bad_tables) > _SHOWN:
        output.say(f"not used: {len(got.bad_tables) - _SHOWN} more (--json lists them)")
    if got.refused:
        click.get_current_context().exit(int(ExitCode.FAILED))
