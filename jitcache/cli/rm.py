"""`jitcache rm`: remove stored actions, and the blobs that only they used."""

from __future__ import annotations

import click

from jitcache.cli import output
from jitcache.cli.storeview import open_store, say_notices, split
from jitcache.errors import UsageError
from jitcache.store.actions import key_of
from jitcache.store.select import one_per_prefix
from jitcache.store.sweep import GRACE_S


@click.command()
@click.argument("prefixes", metavar="[KEY_PREFIX]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Remove every action.")
@click.option("--toolchain", metavar="ID", help="Remove what this toolchain built.")
@click.option("--target", metavar="ARCH", help="Remove what was built for this target.")
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and remove nothing.")
@output.json_option
def command(
    prefixes: tuple[str, ...],
    everything: bool,
    toolchain: str | None,
    target: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Remove stored actions, and the blobs that no other action uses.

    --toolchain and --target together select what fits both.
    """
    ways = (bool(prefixes), everything, toolchain is not None or target is not None)
    if sum(ways) != 1:
        raise UsageError(
            "say what to remove in one way: keys, --all, or --toolchain and/or --target",
            hint="`jitcache ls` lists keys, toolchains and targets",
        )
    store = open_store()
    records, damaged = split(store)
    if prefixes:
        keys = [r.key for r in one_per_prefix(records, prefixes)]
    else:
        keys = [
            r.key
            for r in records
            if toolchain in (None, r.toolchain) and target in (None, r.target)
        ]
        if everything:
            keys += [k for d in damaged if (k := key_of(d.path.parent.name, d.path.name))]
    report = store.remove(keys, dry_run=dry_run)
    labels = {r.key: r.label for r in records}
    if as_json:
        output.emit_json(
            {
                "store": str(store.layout.root),
                "dry_run": dry_run,
                "removed": list(report.records),
                "blobs": report.blobs,
                "freed_bytes": report.freed_bytes,
                "kept_recent": report.kept_recent,
            }
        )
    else:
        would = "would remove" if dry_run else "removed"
        for key in report.records:
            output.out(f"{would} {key[7:19]}  {labels.get(key, '(damaged record)')}")
        output.out(
            f"{would} {len(report.records)} actions and {report.blobs} blobs,"
            f" {output.size(report.freed_bytes)}"
        )
        if report.kept_recent:
            output.out(
                f"{report.kept_recent} unreferenced blobs were used in the last"
                f" {GRACE_S / 60:.0f} minutes and stay for now; a later `jitcache rm` or"
                " `gc` sweeps them"
            )
    say_notices(store)
