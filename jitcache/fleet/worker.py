"""A worker: builds its share of a plan, publishes each result at once, and says what it did.

With a fixed share a worker knows its work from the plan alone; `jitcache.fleet.dynamic` is the
other way, where workers share what is left.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from jitcache.fleet.balance import shares
from jitcache.fleet.model import FleetPlan, PlannedAction
from jitcache.fleet.publish import Publisher
from jitcache.fleet.recipes import Workshop
from jitcache.fleet.shard import Shard
from jitcache.outcome import Built, Failure
from jitcache.prebuild import Prebuilder
from jitcache.store.model import ActionRecord, Hit
from jitcache.store.store import Store

PrebuilderOf = Callable[[str, Callable[[ActionRecord], None]], Prebuilder]
"""Makes the builder of an architecture, which tells of each action that it built."""


@dataclass(slots=True)
class Work:
    """What a worker did.

    Attributes:
        actions: keys of the actions that it had to do with.
        built: actions compiled here.
        hits: actions that the store had.
        fetched: actions that a remote had.
        elsewhere: actions that other workers built, as the leases say.
        duplicates: actions compiled here that somebody else had published meanwhile.
        failed: actions that could not be built.
        not_run: labels of actions that were not tried.
        incomplete: labels of actions that not every remote has.
        cpu_s: CPU seconds of compilers.
        wall_s: seconds in all.
    """

    actions: set[str] = field(default_factory=set)
    built: int = 0
    hits: int = 0
    fetched: int = 0
    elsewhere: int = 0
    duplicates: int = 0
    failed: list[Failure] = field(default_factory=list)
    not_run: list[str] = field(default_factory=list)
    incomplete: list[str] = field(default_factory=list)
    cpu_s: float = 0.0
    wall_s: float = 0.0

    def add(self, built: Built) -> None:
        """Count what one builder did."""
        self.hits += built.hits
        self.fetched += built.fetched
        self.failed += built.failed
        self.not_run += built.not_run
        self.cpu_s += built.cpu_s

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "actions": len(self.actions),
            "built": self.built,
            "hits": self.hits,
            "fetched": self.fetched,
            "elsewhere": self.elsewhere,
            "duplicates": self.duplicates,
            "failed": [f.to_json() for f in self.failed],
            "not_run": self.not_run,
            "incomplete": self.incomplete,
            "cpu_s": round(self.cpu_s, 3),
            "wall_s": round(self.wall_s, 3),
        }


class Worker:
    """Builds actions of a plan.

    Args:
        plan: the plan.
        store: where results are looked up and put.
        workshop: turns planned actions into ones to build.
        prebuilder_of: makes the builder of an architecture.
        publisher: hands results out.
        on_built: told of every action that was built and published here: its record, and
            whether somebody else had published it meanwhile.

    Attributes:
        plan: the plan.
        work: what was done so far; filled in even where a method raises.
    """

    def __init__(
        self,
        plan: FleetPlan,
        store: Store,
        workshop: Workshop,
        prebuilder_of: PrebuilderOf,
        publisher: Publisher,
        on_built: Callable[[ActionRecord, bool], None] = lambda _record, _before: None,
    ) -> None:
        self.work = Work()
        self.plan = plan
        self._store = store
        self._workshop = workshop
        self._prebuilder_of = prebuilder_of
        self._publisher = publisher
        self._on_built = on_built
        self._compiled: set[str] = set()
        self._duplicates: set[str] = set()

    def run_share(self, shard: Shard) -> Work:
        """Build a fixed share.

        Raises:
            ToolchainError: this machine would build something else than was planned.
            LostError: no remote can be written any more.
            StoreError: the store can't be written.
        """
        with self.timed():
            mine = shares(self.plan.actions, shard.count)[shard.index]
            self.check(mine)
            self._publish_stored(mine)
            self.build(mine)
        return self.work

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """Add the block's wall time to what is told of the work."""
        begin = time.monotonic()
        try:
            yield
        finally:
            self.work.wall_s += time.monotonic() - begin

    def check(self, planned: Sequence[PlannedAction]) -> None:
        """Refuse what would be built as something else than was planned.

        Raises:
            ToolchainError: toolchain, headers or templates differ.
        """
        self._workshop.actions(planned)

    def _publish_stored(self, planned: Sequence[PlannedAction]) -> None:
        """Push what an earlier run built and could not push, before anything is built."""
        for action in planned:
            found = self._store.lookup(action.key)
            if isinstance(found, Hit):
                self._publisher.publish(found.record)

    def build(self, planned: Sequence[PlannedAction]) -> dict[str, ActionRecord]:
        """Build some actions and publish each; the records of all that are there now.

        Raises:
            ToolchainError: this machine would build something else than was planned.
            LostError: no remote can be written any more.
            StoreError: the store can't be written.
        """
        records: dict[str, ActionRecord] = {}
        self.work.actions.update(a.key for a in planned)
        for arch in dict.fromkeys(a.arch for a in planned):
            ours = self._workshop.actions([a for a in planned if a.arch == arch])
            built = self._prebuilder_of(arch, self._take).build(ours)
            self.work.add(built)
            records |= built.records
        for record in records.values():
            if self._publisher.everywhere(record.key) is None:
                self._publisher.publish(record)
        self.work.incomplete += [r.label for r in records.values() if not self.published(r.key)]
        return records

    def published(self, key: str) -> bool:
        """Whether every remote that may be written has an action."""
        return self._publisher.everywhere(key) is True

    def built_twice(self, key: str) -> None:
        """Note that somebody else had published an action, if it was compiled here, too."""
        if key in self._compiled:
            self._duplicates.add(key)
            self.work.duplicates = len(self._duplicates)

    def _take(self, record: ActionRecord) -> None:
        self.work.built += 1
        self._compiled.add(record.key)
        before = self._publisher.publish(record)
        if before:
            self.built_twice(record.key)
        self._on_built(record, before)
