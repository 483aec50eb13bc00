"""Workers that share what is left: each takes a lease on an action before it builds it.

A worker begins with the same share that it would have without leases, so that workers rarely
want the same thing, and goes on with whatever nobody holds. A dead or slow worker's actions
are so built by the others.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence

from jitcache.errors import LostError
from jitcache.fleet.balance import shares
from jitcache.fleet.lease import (
    Claimed,
    Done,
    Heartbeat,
    Leases,
    Spent,
    Survey,
    slow_after,
)
from jitcache.fleet.model import FleetPlan, PlannedAction
from jitcache.fleet.shard import Shard
from jitcache.fleet.worker import Work, Worker
from jitcache.outcome import Failure

_FIRST_LOOK_S = 0.25
_LAST_LOOK_S = 15.0
"""First and longest pause between two looks at what the others still hold."""


def run_leased(worker: Worker, leases: Leases, shard: Shard, batch: int) -> Work:
    """Build whatever nobody else builds, the own share first, until nothing is left.

    Args:
        worker: builds and publishes.
        leases: say what is free.
        shard: which share comes first.
        batch: how many actions to take at a time.

    Raises:
        ToolchainError: this machine would build something else than was planned.
        LostError: the leases, or all remotes, can't be reached any more.
        StoreError: the store can't be written.
    """
    wanted = own_first(worker.plan, shard)
    with worker.timed():
        worker.check(wanted[:1])
        with Heartbeat(leases) as heartbeat:
            _Loop(worker, leases, batch).run(wanted, heartbeat)
    return worker.work


def own_first(plan: FleetPlan, shard: Shard) -> list[PlannedAction]:
    """All actions in the order in which a worker tries them: its share, then the longest."""
    parts = shares(plan.actions, shard.count)
    others = itertools.chain(*parts[: shard.index], *parts[shard.index + 1 :])
    return [*parts[shard.index], *sorted(others, key=lambda a: (-a.cost_ms, a.key))]


class _Loop:
    def __init__(self, worker: Worker, leases: Leases, batch: int) -> None:
        self._worker = worker
        self._leases = leases
        self._batch = batch

    def run(self, wanted: Sequence[PlannedAction], heartbeat: Heartbeat) -> None:
        left = {a.key: a for a in wanted}
        pause_s = _FIRST_LOOK_S
        survey = self._leases.survey()
        while left:
            # As long as what is tried is free, the lists of a moment ago are good enough.
            claimed = self._claim(left, survey, self._batch)
            if not claimed and left:
                survey = self._leases.survey()
                claimed = self._claim(left, survey, self._batch)
                # Nothing better to do than what somebody else is slow with.
                claimed = claimed or self._claim(left, survey, 1, twice=True)
            if claimed:
                pause_s = _FIRST_LOOK_S
                self._build([left.pop(c.key) for c in claimed], {c.key: c for c in claimed})
            elif left:
                time.sleep(min(pause_s, self._leases.expiry_s / 4))
                pause_s = min(2 * pause_s, _LAST_LOOK_S)
            if heartbeat.lost is not None:
                raise heartbeat.lost

    def _claim(
        self, left: dict[str, PlannedAction], survey: Survey, most: int, *, twice: bool = False
    ) -> list[Claimed]:
        """Get some actions; what is settled leaves `left`."""
        claimed: list[Claimed] = []
        for key, action in list(left.items()):
            if len(claimed) >= most or survey.stale:
                break
            slow_s = slow_after(action.cost_ms, self._leases.expiry_s) if twice else None
            match self._leases.claim(key, survey, slow_s=slow_s):
                case Claimed() as got:
                    claimed.append(got)
                case Done():
                    self._worker.work.elsewhere += 1
                    left.pop(key)
                case Spent():
                    reason = "it failed on other workers, and is not tried again"
                    self._worker.work.failed.append(Failure(action.label, reason))
                    left.pop(key)
        return claimed

    def _build(self, batch: Sequence[PlannedAction], claims: dict[str, Claimed]) -> None:
        try:
            records = self._worker.build(batch)
            for key in records:
                if self._worker.published(key) and not self._leases.finish(claims.pop(key)):
                    self._worker.built_twice(key)
            for key in set(claims) - set(records):
                self._leases.give_up(claims.pop(key), "failed")
        finally:
            # What was not tried, or is not on every remote.
            self._release(list(claims.values()))

    def _release(self, claims: Sequence[Claimed]) -> None:
        try:
            for claim in claims:
                self._leases.give_up(claim, "released")
        except LostError:
            return  # they expire by themselves
