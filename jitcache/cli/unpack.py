"""`jitcache unpack`: verify a pack and put it into a store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from jitcache.cli import output
from jitcache.cli.signing import load_belief, signatures_option
from jitcache.cli.storeview import open_store, say_notices
from jitcache.digest import is_digest
from jitcache.errors import JitcacheError, UsageError
from jitcache.store.store import Store

if TYPE_CHECKING:
    from jitcache.sign.trust import Trust


@click.command()
@click.argument("pack", metavar="FILE|DIR|oci://...")
@click.option("--to", type=Path, metavar="DIR", help="Make a seed here; else the user's store.")
@click.option("--digest", default="", metavar="DIGEST", help="sha256:... that the pack must have.")
@click.option(
    "--provenance", type=Path, metavar="FILE", help="Write an image's in-toto statement here."
)
@signatures_option
@output.json_option
def command(
    pack: str,
    to: Path | None,
    digest: str,
    provenance: Path | None,
    signatures: str,
    as_json: bool,
) -> None:
    """Verify a pack and put what it holds into a store.

    The pack is a file, the directory of an OCI image layout, or an image in a registry.
    """
    from jitcache.pack.source import unpack_from
    from jitcache.remote.interface import Failed

    if digest and not is_digest(digest):
        raise UsageError(f"--digest must be sha256: and 64 hex digits, but is {digest!r}")
    belief = load_belief(signatures)
    store = open_store() if to is None else Store(to.absolute())
    if provenance is not None:
        _save_provenance(pack, belief.trust, provenance)
    got = unpack_from(pack, store, belief, digest)
    if isinstance(got, Failed):
        raise JitcacheError(
            got.detail, where=pack, hint="docs/trust.md says where passwords for registries go"
        )
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


def _save_provenance(pack: str, trust: Trust, path: Path) -> None:
    from jitcache.pack.registry import PackRegistry
    from jitcache.remote.reference import is_reference, read_reference
    from jitcache.store.durable import replace_file

    if not is_reference(pack):
        raise UsageError("--provenance is for images in registries, where it is attached")
    replace_file(path, PackRegistry(read_reference(pack)).provenance(trust))
