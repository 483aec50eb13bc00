"""`jitcache pull`: fetch what a lock file names, and check every claim."""

from __future__ import annotations

import time
from pathlib import Path

import click

from jitcache.cli import output
from jitcache.cli.storeview import open_store, say_notices, short_key
from jitcache.errors import JitcacheError, UsageError
from jitcache.lockfile import load_lock
from jitcache.remote.config import choose, load_remotes
from jitcache.store.model import Hit


@click.command()
@click.argument("lock", type=click.Path(path_type=Path))
@click.option("--from", "name", metavar="REMOTE", help="Ask only this remote.")
@output.json_option
def command(lock: Path, name: str | None, as_json: bool) -> None:
    """Have everything that LOCK names in the local store."""
    from jitcache.remote.fetch import Fetched, Fetcher, NotFetched
    from jitcache.remote.opening import open_remote
    from jitcache.sign.trust import load_trust

    begin = time.monotonic()
    locked = load_lock(lock)
    remotes = load_remotes()
    if name is not None:
        remotes = (choose(remotes, name),)
    store = open_store()
    fetcher = Fetcher(store, [open_remote(r) for r in remotes], load_trust(), {locked.arch, "host"})
    found = 0
    fetched: list[Fetched] = []
    missing: list[NotFetched] = []
    for action in locked.actions():
        here = store.lookup(action.key)
        if isinstance(here, Hit) and action.given_by(here.record):
            found += 1
            continue
        got = fetcher.fetch(action.key, action.outputs)
        if isinstance(got, NotFetched):
            missing.append(got)
        elif not action.given_by(got.record):
            reason = "an earlier result with other outputs is in the local store, and stays"
            missing.append(NotFetched(action.key, (("local", reason),)))
        else:
            fetched.append(got)
    store.save_counters()
    say_notices(store)
    if as_json:
        output.emit_json(
            {
                "found": found,
                "fetched": len(fetched),
                "bytes": sum(f.size for f in fetched),
                "wall_s": round(time.monotonic() - begin, 3),
                "missing": [
                    {"key": m.key, "reasons": [{"remote": r, "detail": d} for r, d in m.reasons]}
                    for m in missing
                ],
            }
        )
    else:
        output.out(
            f"{found} found, {len(fetched)} fetched "
            f"({output.size(sum(f.size for f in fetched))}), {len(missing)} missing"
        )
    if not missing:
        return
    if not remotes:
        raise UsageError(
            f"{len(missing)} actions are not in the local store, and there is no remote",
            hint="docs/trust.md says how remotes are configured",
        )
    details = [f"{short_key(m.key)}: {r}: {d}" for m in missing for r, d in m.reasons]
    raise JitcacheError(
        f"{len(missing)} actions could not be fetched",
        where=str(lock),
        details=tuple(details[:20]),
        hint="`jitcache remote check` and `jitcache key ls` say what is reachable and believed",
    )
