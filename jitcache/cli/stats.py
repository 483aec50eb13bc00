"""`jitcache stats`: hits, misses by reason, and what the store saved."""

from __future__ import annotations

import time

import click

from jitcache.cli import output
from jitcache.cli.quantities import age_callback
from jitcache.cli.storeview import open_store, say_notices, size_of, split
from jitcache.store.counters import load


@click.command()
@click.option(
    "--since",
    metavar="AGE",
    callback=age_callback,
    help="Only what was counted in this last time (12h, 7d).",
)
@output.json_option
def command(since: float | None, as_json: bool) -> None:
    """Show hits, misses by reason, bytes served and compile time saved."""
    store = open_store()
    counts = load(store.layout, since=0.0 if since is None else time.time() - since)
    records, damaged = split(store)
    hits, misses = sum(counts.hits.values()), sum(counts.misses.values())
    if as_json:
        output.emit_json(
            {
                "store": str(store.layout.root),
                "lookups": hits + misses,
                **counts.to_json(),
                "actions": len(records),
                "bytes": size_of(records),
                "damaged": len(damaged),
            }
        )
    else:
        lookups = hits + misses
        share = f", {100 * hits / lookups:.1f} % hits" if lookups else ""
        output.out(f"{lookups} lookups{share}")
        for layer, number in sorted(counts.hits.items()):
            output.out(f"  hits, {layer}: {number}")
        for reason, number in sorted(counts.misses.items()):
            output.out(f"  misses, {reason}: {number}")
        output.out(f"{output.size(counts.hit_bytes)} served")
        output.out(f"{output.seconds(counts.saved_ms / 1000)} of compiling saved (CPU time)")
        output.out(f"{len(records)} actions stored, {output.size(size_of(records))}")
    say_notices(store)
