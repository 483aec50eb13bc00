"""`jitcache unpack`: verify a pack and put it into a store."""

from __future__ import annotations

from pathlib import Path

import click

from jitcache.cli import output
from jitcache.cli.storeview import open_store, say_notices
from jitcache.digest import is_digest
from jitcache.errors import DamagedError, UsageError
from jitcache.store.store import Store


@click.command()
@click.argument("pack", metavar="FILE|DIR", type=Path)
@click.option("--to", type=Path, metavar="DIR", help="Make a seed here; else the user's store.")
@click.option("--digest", default="", metavar="DIGEST", help="sha256:... that the pack must have.")
@output.json_option
def command(pack: Path, to: Path | None, digest: str, as_json: bool) -> None:
    """Verify a pack, or an OCI image layout of one, and put what it holds into a store."""
    from jitcache.pack.image import layer_of
    from jitcache.pack.read import unpack

    if digest and not is_digest(digest):
        raise UsageError(f"--digest must be sha256: and 64 hex digits, but is {digest!r}")
    store = open_store() if to is None else Store(to.absolute())
    path, known = layer_of(pack) if pack.is_dir() else (pack, digest)
    if digest and known != digest:
        raise DamagedError(
            f"the image's layer is {known}, not {digest}",
            where=str(pack),
            hint="get it again from where it was published",
        )
    got = unpack(path, store, digest=known)
    say_notices(store)
    if as_json:
        output.emit_json(
            {
                "store": str(store.layout.root),
                "manifest": got.lock.manifest,
                "arch": got.lock.arch,
                "records": got.records,
                "blobs": got.blobs,
                "size": got.size,
            }
        )
        return
    output.out(
        f"{got.lock.manifest} for {got.lock.arch}: {got.records} actions, {got.blobs} blobs, "
        f"{output.size(got.size)} verified and in {store.layout.root}"
    )
