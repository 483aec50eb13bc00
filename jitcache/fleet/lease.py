"""Who builds what, without a server of ours: leases that expire, and heartbeats.

A lease is an object that only one worker can create; its generations count up, so that a dead
worker's lease is taken over by creating the next one, which again only one can. A worker
shows that it lives by replacing its own heartbeat with the next number. No clock is ever
compared with another machine's: a worker counts as dead when its heartbeat has not changed
for as long as its lease says, measured by the clock of whoever watches.

    lease/<key>.<n>       generation n of an action's lease: who has it, and for how long
    end/<key>.<n>.<why>   it was given up: `failed` or `released`
    done/<key>            the action's result is published; the first to finish creates it
    beat/<worker>         the heartbeat

Leases only save work. If two workers build one action after all, both results are the same
bytes; who finishes second counts a duplicate.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
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


@dataclass(frozen=True, slots=True)
class Done:
    """Its result is published."""


@dataclass(frozen=True, slots=True)
class Spent:
    """It failed too often to be tried again."""


Claim = Claimed | Held | Done | Spent


@dataclass(slots=True)
class Survey:
    """What the board's lists say: hints that save questions.

    Attributes:
        done: keys of finished actions.
        newest: highest generation of a lease, by key.
        ended: (key, generation) of leases that were given up.
        failures: how many of those failed, by key.
        questions: how many owners of leases may still be asked for: idle workers must not
            overrun the board.
        stale: whether somebody took what the lists call free; then nothing more is tried.
    """

    done: frozenset[str] = frozenset()
    newest: dict[str, int] = field(default_factory=dict)
    ended: set[tuple[str, int]] = field(default_factory=set)
    failures: Counter[str] = field(default_factory=Counter)
    questions: int = 16
    stale: bool = False


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
        self._seen: dict[str, tuple[str, float]] = {}
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
        found = Survey(frozenset(self._must(self._board.listing("done"))))
        for name in self._must(self._board.listing("lease")):
            key, _, number = name.partition(".")
            if number.isdecimal():
                found.newest[key] = max(int(number), found.newest.get(key, 0))
        for name in self._must(self._board.listing("end")):
            key, number, why = (*name.split("."), "", "")[:3]
            if number.isdecimal():
                found.ended.add((key, int(number)))
                found.failures[key] += why == "failed"
        now = self._clock()
        for worker, version in self._must(self._board.listing("beat")).items():
            before = self._seen.get(worker)
            if before is None or before[0] != version:
                self._seen[worker] = (version, now)
        return found

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
            if survey.failures[name] >= ATTEMPTS:
                return Spent()
            if not self._free(name, generation, survey, slow_s):
                return Held()
        wanted = 0 if generation is None else generation + 1
        body = {"worker": self.worker, "expiry_ms": round(self.expiry_s * 1000)}
        put = self._must(self._board.create(f"lease/{name}.{wanted}", _json(body)))
        if not isinstance(put, Exists):
            return Claimed(key, wanted)
        # Somebody was faster, or finished since the survey.
        survey.newest[name] = wanted
        survey.stale = True
        return Held()

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
        path = f"end/{_name(claimed.key)}.{claimed.generation}.{why}"
        self._must(self._board.create(path, _json({"worker": self.worker})))

    def _free(self, name: str, generation: int, survey: Survey, slow_s: float | None) -> bool:
        if (name, generation) in survey.ended:
            return True
        now = self._clock()
        since = self._since.setdefault((name, generation), now)
        # Each further copy has to wait twice as long: a slow action is no reason for a crowd.
        if slow_s is not None and now - since > slow_s * 2**generation:
            return True
        owner = self._owner(name, generation, survey)
        return owner is not None and self._silent_s(owner[0], now) > owner[1]

    def _silent_s(self, worker: str, now: float) -> float:
        """For how long we have seen a worker's heartbeat unchanged, or none."""
        return now - self._seen.setdefault(worker, ("", now))[1]

    def _owner(self, name: str, generation: int, survey: Survey) -> tuple[str, float] | None:
        """Who created a lease, and its expiry in seconds; None where it isn't asked for now."""
        known = self._owners.get((name, generation))
        if known is None and survey.questions > 0:
            survey.questions -= 1
            data = self._must(self._board.get(f"lease/{name}.{generation}"))
            known = self._owners[name, generation] = self._read(data)
        return known

    def _read(self, data: bytes | None) -> tuple[str, float]:
        try:
            body = json.loads(data or b"")
            return str(body["worker"]), min(max(body["expiry_ms"] / 1000, 1.0), 3600.0)
        except (ValueError, TypeError, KeyError):
            # A lease that nobody can read belongs to nobody; it expires like any other.
            return "nobody", self.expiry_s

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


def _name(key: str) -> str:
    return key.removeprefix("sha256:")


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
