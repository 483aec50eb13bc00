"""Who builds what, without a server of ours: leases that expire, and heartbeats.

A lease is an object that only one worker can create; its generations count up, so that a dead
worker's lease is taken over by creating the next one, which again only one can. A worker
shows that it lives by replacing its own heartbeat with the next number. No clock is ever
compared with another machine's: a worker counts as dead when its heartbeat has not changed
for as long as its lease says, measured by the clock of whoever watches.

    lease/<key>.<n>   generation n of an action's lease: who has it, and for how long
    end/<key>.<n>     it was given up: `failed` or `released`
    done/<key>        the action's result is published; the first to finish creates it
    beat/<worker>     the heartbeat

Leases only save work. If two workers build one action after all, both results are the same
bytes; who finishes second counts a duplicate.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from jitcache.errors import JitcacheError, LostError
from jitcache.fleet.board import Board
from jitcache.remote.interface import Exists, Failed

EXPIRY_S = 60.0
"""Seconds without a heartbeat after which a lease may be taken over."""

_BEATS = 4
"""Heartbeats in the time of one expiry."""
ATTEMPTS = 2
"""Failed compiles of one action before nobody tries it again."""
_SLOW = 3.0
"""A lease is slow, and its action may be built twice, after so many times its expected cost."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """It is ours to build."""

    key: str
    generation: int


@dataclass(frozen=True, slots=True)
class Held:
    """Somebody is building it."""

    worker: str


@dataclass(frozen=True, slots=True)
class Done:
    """Its result is published."""


@dataclass(frozen=True, slots=True)
class Spent:
    """It failed too often to be tried again."""


Claim = Claimed | Held | Done | Spent


@dataclass(slots=True)
class Survey:
    """What the board's lists say: hints that save questions."""

    done: frozenset[str] = frozenset()
    newest: dict[str, int] = field(default_factory=dict)
    """Highest generation, by key."""
    ended: frozenset[str] = frozenset()
    """`<key>.<generation>` of leases that were given up."""


class Leases:
    """One worker's view of the board.

    Args:
        board: where leases are.
        worker: this worker's name, which nobody else has.
        expiry_s: after how long without our heartbeat others may take over.
        clock: seconds that never jump; only differences count.
    """

    def __init__(
        self,
        board: Board,
        worker: str,
        *,
        expiry_s: float = EXPIRY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.worker = worker
        self.expiry_s = expiry_s
        self._board = board
        self._clock = clock
        self._beat = 0
        self._owners: dict[tuple[str, int], tuple[str, float]] = {}
        self._seen: dict[str, tuple[bytes | None, float]] = {}
        self._since: dict[tuple[str, int], float] = {}

    def beat(self) -> None:
        """Show that we live.

        Raises:
            LostError: the board can't be reached.
        """
        self._beat += 1
        self._must(self._board.replace(f"beat/{self.worker}", str(self._beat).encode()))

    def survey(self) -> Survey:
        """Read the board's lists.

        Raises:
            LostError: the board can't be reached.
        """
        newest: dict[str, int] = {}
        for name in self._must(self._board.names("lease")):
            key, _, number = name.partition(".")
            if number.isdecimal():
                newest[key] = max(int(number), newest.get(key, 0))
        done = self._must(self._board.names("done"))
        return Survey(done, newest, self._must(self._board.names("end")))

    def claim(self, key: str, survey: Survey, *, slow_s: float | None = None) -> Claim:
        """Try to get an action.

        Args:
            key: its action key.
            survey: the last one.
            slow_s: after how long in one hand it may be built a second time; None: never.

        Raises:
            LostError: the board can't be reached.
        """
        name = _name(key)
        if name in survey.done:
            return Done()
        generation = survey.newest.get(name)
        if generation is not None:
            if self._failures(name, survey) >= ATTEMPTS:
                return Spent()
            if not self._free(name, generation, survey, slow_s):
                return Held(self._owner(name, generation)[0])
        wanted = 0 if generation is None else generation + 1
        body = {"worker": self.worker, "expiry_ms": round(self.expiry_s * 1000)}
        put = self._must(self._board.create(f"lease/{name}.{wanted}", _json(body)))
        if not isinstance(put, Exists):
            return Claimed(key, wanted)
        # Somebody was faster, or finished since the survey.
        survey.newest[name] = wanted
        return Held(self._owner(name, wanted)[0])

    def finish(self, claimed: Claimed) -> bool:
        """Say that the result is published; False where somebody else had said so before.

        Raises:
            LostError: the board can't be reached.
        """
        body = {"worker": self.worker, "generation": claimed.generation}
        put = self._must(self._board.create(f"done/{_name(claimed.key)}", _json(body)))
        return not isinstance(put, Exists)

    def give_up(self, claimed: Claimed, why: Literal["failed", "released"]) -> None:
        """Say that we don't build it: others may at once.

        Raises:
            LostError: the board can't be reached.
        """
        path = f"end/{_name(claimed.key)}.{claimed.generation}"
        self._must(self._board.create(path, _json({"worker": self.worker, "why": why})))

    def _free(self, name: str, generation: int, survey: Survey, slow_s: float | None) -> bool:
        if f"{name}.{generation}" in survey.ended:
            return True
        owner, expiry_s = self._owner(name, generation)
        now = self._clock()
        since = self._since.setdefault((name, generation), now)
        if self._silent_s(owner, now) > expiry_s:
            return True
        # Each further copy has to wait twice as long: a slow action is no reason for a crowd.
        return slow_s is not None and now - since > slow_s * 2**generation

    def _silent_s(self, worker: str, now: float) -> float:
        """For how long we have seen a worker's heartbeat unchanged."""
        beat = self._must(self._board.get(f"beat/{worker}"))
        before = self._seen.get(worker)
        if before is None or before[0] != beat:
            self._seen[worker] = (beat, now)
            return 0.0
        return now - before[1]

    def _owner(self, name: str, generation: int) -> tuple[str, float]:
        """Who created a lease, and its expiry in seconds."""
        known = self._owners.get((name, generation))
        if known is None:
            data = self._must(self._board.get(f"lease/{name}.{generation}"))
            try:
                body = json.loads(data or b"")
                known = (str(body["worker"]), min(max(body["expiry_ms"] / 1000, 1.0), 3600.0))
            except (ValueError, TypeError, KeyError):
                # A lease that nobody can read belongs to nobody; it expires like any other.
                known = ("nobody", self.expiry_s)
            self._owners[name, generation] = known
        return known

    def _failures(self, name: str, survey: Survey) -> int:
        count = 0
        for generation in range(survey.newest[name] + 1):
            if f"{name}.{generation}" not in survey.ended:
                continue
            data = self._must(self._board.get(f"end/{name}.{generation}"))
            count += b'"failed"' in (data or b"")
        return count

    def _must(self, result: Any) -> Any:
        if isinstance(result, Failed):
            raise LostError(
                f"the leases can't be reached: {result.detail}",
                hint="start the worker again when they can: nothing that was published is lost",
            )
        return result


class Heartbeat:
    """Beats in a thread of its own while a `with` block runs.

    Attributes:
        lost: why it could not beat any more, once it couldn't.
    """

    def __init__(self, leases: Leases) -> None:
        self.lost: JitcacheError | None = None
        self._leases = leases
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Heartbeat:
        self._leases.beat()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(1.0)

    def _run(self) -> None:
        while not self._stop.wait(self._leases.expiry_s / _BEATS):
            try:
                self._leases.beat()
            except LostError as e:
                self.lost = e
                return


def slow_after(cost_ms: int, expiry_s: float) -> float:
    """Seconds in one hand after which an action of this expected cost counts as slow."""
    return _SLOW * cost_ms / 1000 + expiry_s


def count_duplicates(leases: Iterable[str], done: Iterable[str]) -> int:
    """Leases of finished actions beyond the first: builds that were lost or done twice."""
    finished = set(done)
    return sum(
        number != "0" and key in finished for key, _, number in (n.partition(".") for n in leases)
    )


def _name(key: str) -> str:
    return key.removeprefix("sha256:")


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
