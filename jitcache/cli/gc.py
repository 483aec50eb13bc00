"""`jitcache gc`: remove what is least recently used."""

from __future__ import annotations

import os
from pathlib import Path

import click

from jitcache.cli import output
from jitcache.cli.quantities import age_callback, parse_size, size_callback
from jitcache.cli.storeview import open_store, say_notices
from jitcache.errors import InputError
from jitcache.lockfile import load_lock
from jitcache.store.gcplan import Limits

LIMIT_VARIABLE = "JITCACHE_MAX_SIZE"


@click.command()
@click.option(
    "--max-size",
    metavar="SIZE",
    callback=size_callback,
    help="Collect down to 90 % of this, if it is exceeded (500M, 20GiB).",
)
@click.option(
    "--max-age",
    metavar="AGE",
    callback=age_callback,
    help="Collect what was not used for this long (12h, 30d).",
)
@click.option("--toolchain", metavar="ID", help="Consider only what this toolchain built.")
@click.option("--arch", metavar="ARCH", help="Consider only what was built for this target.")
@click.option(
    "--keep",
    metavar="LOCK",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Keep everything that this lock file names.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and remove nothing.")
@output.json_option
def command(
    max_size: int | None,
    max_age: float | None,
    toolchain: str | None,
    arch: str | None,
    keep: tuple[Path, ...],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Remove what is least recently used, and blobs that no action uses.

    Without --max-size the limit is JITCACHE_MAX_SIZE. Pinned actions and those that were
    used in the last minutes stay. Without any limit, --toolchain and --arch select what goes.
    """
    if max_size is None and max_age is None and toolchain is None and arch is None:
        max_size = _limit_of_environment()
    pinned = frozenset(a.key for path in keep for a in load_lock(path).actions())
    store = open_store()
    report = store.gc(
        Limits(
            max_size=max_size,
            max_age_s=max_age,
            toolchain=toolchain,
            target=arch,
            pinned=pinned,
        ),
        dry_run=dry_run,
    )
    if as_json:
        output.emit_json(
            {
                "store": str(store.layout.root),
                "dry_run": dry_run,
                "removed": list(report.removed),
                "blobs": report.blobs,
                "freed_bytes": report.freed_bytes,
                "before_bytes": report.before_bytes,
                "after_bytes": report.after_bytes,
                "kept_pinned": list(report.kept_pinned),
                "kept_recent": list(report.kept_recent),
                "within_limit": report.within_limit,
                "incidents": report.incidents,
            }
        )
    else:
        would = "would remove" if dry_run else "removed"
        output.out(
            f"{would} {len(report.removed)} actions and {report.blobs} blobs,"
            f" {output.size(report.freed_bytes)}:"
            f" {output.size(report.before_bytes)} -> {output.size(report.after_bytes)}"
        )
        if report.incidents:
            output.out(f"{would} {report.incidents} old incidents from the quarantine")
        for keys, why in ((report.kept_pinned, "pinned"), (report.kept_recent, "in use")):
            if keys:
                output.out(f"kept {len(keys)} actions that are {why}")
        if not report.within_limit:
            output.say("warning: the store is still larger than the limit")
    say_notices(store)


def _limit_of_environment() -> int | None:
    text = os.environ.get(LIMIT_VARIABLE)
    if not text:
        return None
    size = parse_size(text)
    if size is None:
        raise InputError(
            f"must be a size such as 500M or 20GiB, but is {text!r}", where=LIMIT_VARIABLE
        )
    return size
