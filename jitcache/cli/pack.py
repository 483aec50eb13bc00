"""`jitcache pack`: everything a lock file needs, as one file or image."""

from __future__ import annotations

from pathlib import Path

import click

from jitcache.cli import output
from jitcache.cli.storeview import open_store, say_notices
from jitcache.errors import UsageError
from jitcache.lockfile import load_lock


@click.command()
@click.argument("lock_path", metavar="LOCK", type=Path)
@click.option("-o", "--output", "target", type=Path, metavar="FILE", help="Write a .tar.zst here.")
@click.option("--oci", type=Path, metavar="DIR", help="Write an OCI image layout here.")
@click.option(
    "--level",
    type=click.IntRange(1, 22),
    default=3,
    show_default=True,
    help="zstd level; 19 for releases.",
)
@click.option("--provenance", type=Path, metavar="FILE", help="Write an in-toto statement here.")
@output.json_option
def command(
    lock_path: Path,
    target: Path | None,
    oci: Path | None,
    level: int,
    provenance: Path | None,
    as_json: bool,
) -> None:
    """Pack everything that LOCK needs, so that it can be unpacked or mounted as a seed."""
    from jitcache.pack.image import write_image
    from jitcache.pack.write import gather, write_pack

    if (target is None) == (oci is None):
        raise UsageError("give either -o FILE or --oci DIR", hint="jitcache pack LOCK -o FILE")
    lock = load_lock(lock_path)
    store = open_store()
    if target is not None:
        place = target
        packed = write_pack(store, lock, place, level=level)
    else:
        place = oci or Path()
        packed = write_image(store, lock, place, level=level)
    if provenance is not None:
        from jitcache import digest
        from jitcache.pack.provenance import statement
        from jitcache.store.durable import replace_file

        said = statement(lock, (r for r, _ in gather(store, lock)), {place.name: packed.digest})
        replace_file(provenance, digest.canonical_json(said) + b"\n")
    say_notices(store)
    if as_json:
        output.emit_json(
            {
                "path": str(place),
                "digest": packed.digest,
                "size": packed.size,
                "tar_digest": packed.tar_digest,
                "tar_size": packed.tar_size,
                "records": packed.records,
                "blobs": packed.blobs,
            }
        )
        return
    output.out(
        f"{place}: {packed.records} actions, {packed.blobs} blobs, "
        f"{output.size(packed.tar_size)} in {output.size(packed.size)}"
    )
    output.out(packed.digest)
