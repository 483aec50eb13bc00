"""`jitcache verify`: check every stored object against its digest."""

from __future__ import annotations

import click

from jitcache.cli import output
from jitcache.cli.storeview import open_store
from jitcache.errors import DamagedError


@click.command()
@click.option("--no-quarantine", is_flag=True, help="Only look; leave damaged things in place.")
@click.option(
    "--signed", is_flag=True, help="Every record and lock file must be signed by a trusted key."
)
@output.json_option
def command(no_quarantine: bool, signed: bool, as_json: bool) -> None:
    """Check every stored object against its digest."""
    store = open_store()
    report = store.verify(move_damaged=not no_quarantine)
    if as_json:
        output.emit_json(
            {
                "store": str(store.layout.root),
                "records": report.records,
                "blobs": report.blobs,
                "bytes": report.blob_bytes,
                "unreferenced": report.unreferenced,
                "incidents": report.incidents,
                "damage": [
                    {
                        "kind": d.kind,
                        "where": d.where,
                        "detail": d.detail,
                        "quarantined": None if d.quarantined is None else str(d.quarantined),
                    }
                    for d in report.damage
                ],
            }
        )
    else:
        for d in report.damage:
            output.out(f"{d.kind}: {d.where}: {d.detail}")
            if d.quarantined is not None:
                output.out(f"  moved to {d.quarantined}")
            else:
                output.out("  left in place")
        output.out(
            f"{report.records} records and {report.blobs} blobs"
            f" ({output.size(report.blob_bytes)}) are as they should be"
        )
        if report.unreferenced:
            output.out(f"{report.unreferenced} blobs are named by no record; `jitcache rm` sweeps")
        if report.incidents:
            output.out(f"{report.incidents} incidents are kept in the quarantine")
    if report.damage:
        raise DamagedError(
            f"{len(report.damage)} stored objects are damaged",
            where=str(store.layout.root),
            hint="what was moved away is built again when it is next needed"
            if any(d.quarantined for d in report.damage)
            else "nothing was moved: run `jitcache verify` with write access and without"
            " --no-quarantine",
        )
    if signed:
        from jitcache.pack.signed import require_signed
        from jitcache.sign.trust import load_trust

        count = require_signed(load_trust(), store.layout)
        output.say(f"{count} records and lock files are signed by trusted keys")
