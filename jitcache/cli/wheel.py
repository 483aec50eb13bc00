"""`jitcache wheel`: everything a lock file needs, as a package that pip installs."""

from __future__ import annotations

from pathlib import Path

import click

from jitcache.cli import output
from jitcache.cli.signing import key_option, load_signers
from jitcache.cli.storeview import open_store, say_notices
from jitcache.lockfile import load_lock


@click.command()
@click.argument("lock_path", metavar="LOCK", type=Path)
@click.option(
    "-o",
    "--output",
    "directory",
    type=Path,
    default=Path("dist"),
    show_default=True,
    metavar="DIR",
    help="Where to write it.",
)
@click.option("--version", help="Version of the package; else the day of its newest kernel.")
@key_option
@output.json_option
def command(
    lock_path: Path, directory: Path, version: str | None, keys: tuple[Path, ...], as_json: bool
) -> None:
    """Write a wheel of everything that LOCK needs; installed, it is a seed."""
    from jitcache.pack.wheel import write_wheel

    signers = load_signers(keys)
    lock = load_lock(lock_path)
    store = open_store()
    made = write_wheel(store, lock, directory, version=version, signers=signers)
    say_notices(store)
    if as_json:
        output.emit_json(
            {
                "path": str(made.path),
                "name": made.name,
                "version": made.version,
                "digest": made.digest,
                "size": made.size,
                "records": made.records,
                "blobs": made.blobs,
                "signed": made.signed,
            }
        )
        return
    output.out(f"{made.path}: {made.records} actions, {made.blobs} blobs, {output.size(made.size)}")
    output.out(made.digest)
