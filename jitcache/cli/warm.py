"""`jitcache warm`: have every kernel of a lock in place before a server starts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from jitcache.cli import output
from jitcache.cli.signing import load_belief, signatures_option
from jitcache.cli.storeview import open_store, say_notices
from jitcache.errors import InputError, UsageError
from jitcache.lockfile import Lock, load_lock
from jitcache.userconfig import remotes_configured

if TYPE_CHECKING:
    from jitcache.pack import warm
    from jitcache.pack.signed import Belief
    from jitcache.store.store import Store


@click.command()
@click.option("--lock", "lock_path", type=Path, metavar="FILE", help="The lock file.")
@click.option(
    "--manifest", metavar="NAME", help="Use the lock of this manifest in a store or seed."
)
@click.option("--arch", help="With --manifest: the architecture.")
@click.option(
    "--from",
    "sources",
    multiple=True,
    metavar="PACK|DIR|oci://...",
    help="A pack, image or seed to fetch from (repeatable).",
)
@signatures_option
@click.option("--prefetch", is_flag=True, help="Read what is there into the page cache.")
@output.json_option
def command(
    lock_path: Path | None,
    manifest: str | None,
    arch: str | None,
    sources: tuple[str, ...],
    signatures: str,
    prefetch: bool,
    as_json: bool,
) -> None:
    """Fetch, verify and install what a lock names, or check that it is in place."""
    from jitcache.pack.warm import fetch
    from jitcache.pack.warm import prefetch as ask

    store = open_store()
    belief = load_belief(signatures)
    lock = chosen_lock(store, belief, lock_path, manifest, arch, sources)
    fetcher = None
    if remotes_configured():
        from jitcache.remote.opening import open_fetcher

        fetcher = open_fetcher(store, {lock.arch, "host"})
    state = fetch(lock, store, sources, belief, fetcher)
    asked = ask(state) if prefetch else 0
    say_notices(store)
    if as_json:
        output.emit_json(readiness_json(lock, state) | {"prefetched_bytes": asked})
    else:
        output.out(f"{lock.manifest} for {lock.arch}: {state}")
        if prefetch:
            output.out(f"prefetch: {output.size(asked)} asked for")
    state.require(lock)


def chosen_lock(
    store: Store,
    belief: Belief,
    lock_path: Path | None,
    manifest: str | None,
    arch: str | None,
    sources: tuple[str, ...],
) -> Lock:
    """The lock that the options name; where no store has it, the sources are asked for it.

    Raises:
        UsageError: neither or both of --lock and --manifest were given.
        InputError: there is no such lock, or it is malformed.
    """
    from jitcache.pack.warm import find_lock, lock_from
    from jitcache.store.layout import seed_roots

    if (lock_path is None) == (manifest is None):
        raise UsageError("give either --lock FILE or --manifest NAME")
    if lock_path is not None:
        return load_lock(lock_path)
    try:
        return find_lock(manifest or "", arch, [store.layout.root, *seed_roots()])
    except InputError:
        if not sources:
            raise
    reasons = []
    for source in sources:
        try:
            return lock_from(source, store, belief, manifest or "", arch)
        except InputError as e:
            reasons.append(f"{source}: {e.what}")
    raise InputError(
        "neither a store nor a source has a lock file of this manifest",
        where=manifest,
        details=tuple(reasons),
    )


def readiness_json(lock: Lock, state: warm.Readiness) -> dict[str, object]:
    """What `warm` and `doctor --strict` both say in JSON."""
    return {
        "ok": not state.absent,
        "manifest": lock.manifest,
        "arch": lock.arch,
        "kernels": state.kernels,
        "kernels_present": state.kernels_present,
        "shims": state.shims,
        "shims_present": state.shims_present,
        "absent": [
            {"key": a.key, "what": list(a.what), "reason": a.reason, "detail": a.detail}
            for a in state.absent
        ],
    }
