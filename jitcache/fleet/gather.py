"""After the workers: is everything there, whoever built it? Then the lock files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from jitcache.fleet.model import Deployment, FleetPlan, PlannedAction
from jitcache.fleet.recipes import keys_of, works_of
from jitcache.lockfile import Lock
from jitcache.lockmaker import make_lock
from jitcache.store.model import ActionRecord, Hit
from jitcache.store.store import Store


@dataclass(frozen=True, slots=True)
class Gathered:
    """What is there of a plan.

    Attributes:
        records: by key.
        missing: planned actions that neither the store nor a remote has.
        fetched: how many came from a remote.
    """

    records: dict[str, ActionRecord]
    missing: tuple[PlannedAction, ...]
    fetched: int

    def lacks(self, deployment: Deployment) -> list[str]:
        """Keys that a deployment needs and that aren't there."""
        return sorted(set(deployment.keys()) - set(self.records))


def collect(
    plan: FleetPlan, store: Store, fetch: Callable[[str], ActionRecord | None] | None
) -> Gathered:
    """Have all results of a plan in the store, as far as they exist.

    Args:
        plan: the plan.
        store: where they are put.
        fetch: asks the remotes for an action; None where there are none.

    Raises:
        StoreError: the store can't be written.
    """
    records: dict[str, ActionRecord] = {}
    fetched = 0
    for action in plan.actions:
        found = store.lookup(action.key)
        if isinstance(found, Hit):
            records[action.key] = found.record
        elif fetch is not None and (record := fetch(action.key)) is not None:
            records[action.key] = record
            fetched += 1
    missing = tuple(a for a in plan.actions if a.key not in records)
    return Gathered(records, missing, fetched)


def lock_of(
    plan: FleetPlan, deployment: Deployment, records: Mapping[str, ActionRecord]
) -> Lock | None:
    """The lock of a completely built deployment; None for one that needs no kernel of ours.

    Raises:
        InputError: this version's catalog doesn't know what the plan names.
    """
    if not deployment.modules:
        return None
    by_key = {a.key: a for a in plan.actions}
    works = works_of(deployment)
    keys = {
        identity: by_key[key]
        for work, module in zip(works, deployment.modules, strict=True)
        for identity, key in keys_of(work, module).items()
    }
    return make_lock(
        manifest=deployment.manifest,
        manifest_digest=deployment.manifest_digest,
        arch=deployment.arch,
        cu_num=deployment.cu_num,
        toolchain=plan.toolchains[deployment.arch],
        modules=works,
        actions=keys,
        records=records,
    )
