"""`jitcache gather`: check that a plan is completely built, and write its lock files."""

from __future__ import annotations

from pathlib import Path

import click

from jitcache.cli import output
from jitcache.cli.building import default_lock_path, fetch_from_remotes
from jitcache.errors import JitcacheError
from jitcache.fleet.gather import Gathered, collect, lock_of
from jitcache.fleet.model import FleetPlan
from jitcache.fleet.planfile import load_plan, plan_id
from jitcache.lockfile import write_lock
from jitcache.store.store import Store


@click.command()
@click.option("--plan", "plan_path", type=Path, required=True, help="The plan file.")
@click.option("--locks", type=Path, metavar="DIR", help="Write the lock files here.")
@output.json_option
def command(plan_path: Path, locks: Path | None, as_json: bool) -> None:
    """Fetch what a plan's workers published, check it, and write the lock files.

    A lock file is written for every manifest and target that is complete.
    """
    plan = load_plan(plan_path)
    store = Store.of_user()
    fetch = fetch_from_remotes(store, {*plan.toolchains, "host"})
    gathered = collect(plan, store, fetch)
    written = _write(plan, gathered, store, locks)
    if as_json:
        output.emit_json(
            {
                "plan": plan_id(plan),
                "actions": len(plan.actions),
                "there": len(gathered.records),
                "fetched": gathered.fetched,
                "missing": [{"key": a.key, "label": a.label} for a in gathered.missing],
                "locks": [str(path) for path in written],
            }
        )
    else:
        output.out(
            f"{len(gathered.records)} of {len(plan.actions)} actions are there,"
            f" {gathered.fetched} of them fetched now"
        )
        for path in written:
            output.out(f"lock: {path}")
    if gathered.missing:
        raise JitcacheError(
            f"{len(gathered.missing)} actions of the plan are missing",
            where=str(plan_path),
            details=tuple(a.label for a in gathered.missing[:20]),
            hint="start workers again: they build what is missing, and nothing else",
        )


def _write(plan: FleetPlan, gathered: Gathered, store: Store, locks: Path | None) -> list[Path]:
    written = []
    for deployment in plan.deployments:
        if gathered.lacks(deployment):
            continue
        lock = lock_of(plan, deployment, gathered.records)
        if lock is None:
            output.say(f"{deployment.name}: needs no kernel of ours, so it has no lock file")
            continue
        default = default_lock_path(store, deployment.manifest, deployment.arch)
        path = default if locks is None else locks / default.name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_lock(path, lock)
        written.append(path)
    return written
