"""`jitcache pack`: everything a lock file needs, as one file or image."""

from __future__ import annotations

from pathlib import Path

import click

from jitcache.cli import output
from jitcache.cli.signing import KEY_VARIABLE, key_option, load_signers
from jitcache.cli.storeview import open_store, say_notices
from jitcache.errors import UsageError
from jitcache.lockfile import load_lock


@click.command()
@click.argument("lock_path", metavar="LOCK", type=Path)
@click.option("-o", "--output", "target", type=Path, metavar="FILE", help="Write a .tar.zst here.")
@click.option("--oci", type=Path, metavar="DIR", help="Write an OCI image layout here.")
@click.option("--push", "image", metavar="oci://HOST/NAME:TAG", help="Push an image there.")
@key_option
@click.option(
    "--level",
    type=click.IntRange(1, 22),
    default=3,
    show_default=True,
    help="zstd level; 19 for releases.",
)
@click.option(
    "--provenance", type=Path, metavar="FILE", help="Write a signed in-toto statement here."
)
@output.json_option
def command(
    lock_path: Path,
    target: Path | None,
    oci: Path | None,
    image: str | None,
    keys: tuple[Path, ...],
    level: int,
    provenance: Path | None,
    as_json: bool,
) -> None:
    """Pack everything that LOCK needs, so that it can be unpacked or mounted as a seed."""
    from jitcache.pack.image import write_image
    from jitcache.pack.registry import publish, sign_provenance
    from jitcache.pack.write import write_pack
    from jitcache.remote.reference import read_reference
    from jitcache.store.durable import replace_file

    if sum(place is not None for place in (target, oci, image)) != 1:
        raise UsageError(
            "give one of -o FILE, --oci DIR and --push oci://HOST/NAME:TAG",
            hint="jitcache pack LOCK -o FILE",
        )
    signers = load_signers(keys)
    if provenance is not None and not signers:
        raise UsageError(
            "there is no key to sign the provenance with",
            hint=f"--key FILE, or {KEY_VARIABLE}; `jitcache key new NAME` makes one",
        )
    lock = load_lock(lock_path)
    store = open_store()
    if image is not None:
        published = publish(store, lock, read_reference(image), signers=signers, level=level)
        packed, place, signed = published.packed, str(published.image), published.provenance
    else:
        path = target or oci or Path()
        write = write_image if target is None else write_pack
        packed, place = write(store, lock, path, level=level, signers=signers), str(path)
        signed = sign_provenance(store, lock, {path.name: packed.digest}, signers)
    if provenance is not None:
        replace_file(provenance, signed)
    say_notices(store)
    if not packed.signed:
        output.say("note: not signed, so whoever unpacks it needs --signatures off (see --key)")
    if as_json:
        output.emit_json(
            {
                "path": place,
                "digest": packed.digest,
                "size": packed.size,
                "tar_digest": packed.tar_digest,
                "tar_size": packed.tar_size,
                "records": packed.records,
                "blobs": packed.blobs,
                "signed": packed.signed,
            }
        )
        return
    output.out(
        f"{place}: {packed.records} actions, {packed.blobs} blobs, "
        f"{output.size(packed.tar_size)} in {output.size(packed.size)}"
    )
    output.out(packed.digest)
