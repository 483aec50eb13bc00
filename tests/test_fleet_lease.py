"""Leases: one winner, expiry by one's own clock alone, takeover, failures, slow workers."""

from __future__ import annotations

import threading

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from jitcache.errors import InputError, LostError
from jitcache.fleet.board import Board, DirectoryPlace, open_board
from jitcache.fleet.lease import (
    ATTEMPTS,
    Claimed,
    Done,
    Heartbeat,
    Held,
    Leases,
    Spent,
    slow_after,
)
from jitcache.remote.interface import Absent, Exists, Failed, Found, Stored

KEY = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64


class Memory:
    """A place in this process, which can be lost."""

    def __init__(self):
        self.objects: dict[str, bytes] = {}
        self.lost = False

    def _answer(self, value):
        return Failed("unavailable", "the wire is cut") if self.lost else value()

    def get(self, path, limit):
        return self._answer(lambda: Found(self.objects[path]) if path in self.objects else Absent())

    def put(self, path, data):
        def create():
            if path in self.objects:
                return Exists()
            self.objects[path] = data
            return Stored()

        return self._answer(create)

    def replace(self, path, data):
        def write():
            self.objects[path] = data
            return Stored()

        return self._answer(write)

    def listing(self, space):
        return self._answer(
            lambda: {
                p.removeprefix(f"{space}/"): repr(data)
                for p, data in self.objects.items()
                if p.startswith(f"{space}/")
            }
        )

    def creates_once(self):
        return True


class Clock:
    """Seconds since some moment of its own: no two machines of a test agree on it."""

    def __init__(self, now):
        self.now = now

    def __call__(self):
        return self.now


def machine(place, name, *, start=0.0, expiry_s=60.0):
    clock = Clock(start)
    return Leases(Board(place, "plan"), name, expiry_s=expiry_s, clock=clock), clock


def claim(leases, key=KEY, **how):
    return leases.claim(key, leases.survey(), **how)


def test_the_first_gets_it_and_the_second_does_not():
    place = Memory()
    one, _ = machine(place, "one")
    two, _ = machine(place, "two")
    stale = two.survey()
    assert claim(one) == Claimed(KEY, 0)
    assert claim(two) == Held()
    assert two.claim(KEY, stale) == Held()
    assert claim(two, OTHER) == Claimed(OTHER, 0)


def test_what_is_finished_is_done_and_the_second_to_finish_is_told():
    place = Memory()
    one, _ = machine(place, "one")
    two, _ = machine(place, "two")
    got = claim(one)
    assert one.finish(got) is True
    assert claim(two) == Done()
    assert two.finish(Claimed(KEY, 1)) is False


def test_a_worker_that_beats_keeps_its_lease_however_wrong_the_clocks():
    """The watcher's clock is an hour ahead, or behind: only its own differences count."""
    for start in (-3600.0, 3600.0):
        place = Memory()
        one, _ = machine(place, "one")
        two, clock = machine(place, "two", start=start)
        one.beat()
        assert isinstance(claim(one), Claimed)
        for _ in range(20):
            one.beat()
            assert claim(two) == Held()
            clock.now += 59.0


def test_a_dead_worker_is_taken_over_by_exactly_one_after_its_expiry():
    place = Memory()
    one, _ = machine(place, "one")
    one.beat()
    assert isinstance(claim(one), Claimed)
    two, second = machine(place, "two", start=1e6)
    three, third = machine(place, "three", start=-1e6)
    for clock in (second, third):
        clock.now += 1000.0  # time before the first look counts for nothing
    assert claim(two) == Held()
    assert claim(three) == Held()
    second.now += 59.0
    assert claim(two) == Held()
    second.now += 2.0
    third.now += 61.0
    assert claim(two) == Claimed(KEY, 1)
    assert claim(three) == Held()


def test_a_clock_that_jumps_an_hour_takes_over_too_early_and_nothing_breaks():
    place = Memory()
    one, _ = machine(place, "one")
    two, clock = machine(place, "two")
    one.beat()
    got = claim(one)
    assert claim(two) == Held()
    clock.now += 3600.0
    again = claim(two)
    assert again == Claimed(KEY, 1)
    assert [one.finish(got), two.finish(again)] == [True, False]


def test_the_holder_says_how_long_its_lease_holds():
    place = Memory()
    one, _ = machine(place, "one", expiry_s=600.0)
    two, clock = machine(place, "two", expiry_s=1.0)
    one.beat()
    claim(one)
    assert claim(two) == Held()
    clock.now += 599.0
    assert claim(two) == Held()
    clock.now += 2.0
    assert claim(two) == Claimed(KEY, 1)


def test_what_is_released_is_free_at_once():
    place = Memory()
    one, _ = machine(place, "one")
    two, _ = machine(place, "two")
    one.give_up(claim(one), "released")
    assert claim(two) == Claimed(KEY, 1)


def test_what_fails_is_tried_again_elsewhere_and_then_no_more():
    place = Memory()
    for number in range(ATTEMPTS):
        leases, _ = machine(place, f"worker{number}")
        got = claim(leases)
        assert got == Claimed(KEY, number)
        leases.give_up(got, "failed")
    assert claim(machine(place, "late")[0]) == Spent()


def test_a_release_is_no_failure():
    place = Memory()
    for number in range(5):
        leases, _ = machine(place, f"worker{number}")
        leases.give_up(claim(leases), "released")
    assert claim(machine(place, "late")[0]) == Claimed(KEY, 5)


def test_a_slow_worker_is_doubled_and_each_copy_waits_twice_as_long():
    place = Memory()
    limit = slow_after(10_000, 60.0)
    assert limit == 90.0
    holder, _ = machine(place, "slow")
    claim(holder)
    for copy in (1, 2):
        idle, clock = machine(place, f"idle{copy}")
        assert isinstance(claim(idle, slow_s=limit), Held)
        for _ in range(3 * copy):
            holder.beat()
            clock.now += 30.0
            assert isinstance(claim(idle, slow_s=limit), Held)
        holder.beat()
        clock.now += 1.0
        assert isinstance(claim(idle), Held)
        assert claim(idle, slow_s=limit) == Claimed(KEY, copy)
        holder = idle


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"worker": 1}', b"\xff" * 100])
def test_a_lease_that_nobody_can_read_expires_like_any_other(body):
    place = Memory()
    place.objects[f"plan/lease/{'a' * 64}.0"] = body
    two, clock = machine(place, "two")
    assert isinstance(claim(two), Held)
    clock.now += 61.0
    assert claim(two) == Claimed(KEY, 1)


def test_idle_workers_ask_for_few_owners_at_a_time():
    place = Memory()
    busy, _ = machine(place, "busy")
    keys = [f"sha256:{n:064x}" for n in range(40)]
    for key in keys:
        claim(busy, key)
    idle, clock = machine(place, "idle")
    asked: list[str] = []
    get = place.get
    place.get = lambda path, limit: asked.append(path) or get(path, limit)
    for look in (1, 2, 3):
        survey = idle.survey()
        assert all(idle.claim(key, survey) == Held() for key in keys)
        assert len(asked) == min(16 * look, 40)
    clock.now += 61.0
    survey = idle.survey()
    assert all(isinstance(idle.claim(key, survey), Claimed) for key in keys)


def test_after_a_lost_race_the_lists_are_read_again():
    place = Memory()
    one, _ = machine(place, "one")
    two, _ = machine(place, "two")
    stale = two.survey()
    claim(one)
    assert not stale.stale
    assert two.claim(KEY, stale) == Held()
    assert stale.stale
    assert not two.survey().stale


def test_a_lost_board_is_said_once_and_stops_the_heart(monkeypatch):
    monkeypatch.setattr("jitcache.remote.chain._PAUSE_S", 0.0)
    place = Memory()
    leases = Leases(Board(place, "plan"), "one", expiry_s=0.05)
    with Heartbeat(leases) as heart:
        place.lost = True
        heart._thread.join(5.0)
        assert isinstance(heart.lost, LostError)
    with pytest.raises(LostError, match="the wire is cut") as caught:
        leases.survey()
    assert caught.value.exit_code == 75


def test_a_directory_has_one_winner_among_threads(tmp_path):
    wins: list[str] = []

    def run(name: str) -> None:
        leases = Leases(open_board(str(tmp_path), "sha256:" + "1" * 64), name)
        survey = leases.survey()
        keys = [f"sha256:{number:064x}" for number in range(25)]
        wins.extend(k for k in keys if isinstance(leases.claim(k, survey), Claimed))

    threads = [threading.Thread(target=run, args=(f"w{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(wins) == [f"sha256:{number:064x}" for number in range(25)]


def test_places_that_can_keep_no_lease_are_refused(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        open_board(str(tmp_path / "none"), "sha256:1")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError):
        open_board(str(tmp_path / "file"), "sha256:1")


def test_a_place_where_creation_is_not_exclusive_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(DirectoryPlace, "put", DirectoryPlace.replace)
    with pytest.raises(InputError, match="both succeed"):
        open_board(str(tmp_path), "sha256:1")


class Fleet(RuleBasedStateMachine):
    """Workers that claim, die, wake, finish and wait at random, with clocks of their own."""

    KEYS = tuple(f"sha256:{n:064x}" for n in range(3))

    def __init__(self):
        super().__init__()
        self.place = Memory()
        self.workers = []
        self.grants: list[tuple[str, int]] = []
        self.firsts: list[str] = []
        for number in range(3):
            self._join(number)

    def _join(self, number):
        leases, clock = machine(self.place, f"w{number}", start=number * 5000.0)
        leases.beat()
        self.workers.append((leases, clock, []))

    @rule(who=st.integers(0, 2), key=st.sampled_from(KEYS))
    def claims(self, who, key):
        leases, _, held = self.workers[who]
        if any(h.key == key for h in held):
            return
        got = claim(leases, key)
        if isinstance(got, Claimed):
            self.grants.append((key, got.generation))
            held.append(got)

    @rule(who=st.integers(0, 2))
    def finishes(self, who):
        leases, _, held = self.workers[who]
        if held:
            got = held.pop()
            if leases.finish(got):
                self.firsts.append(got.key)

    @rule(who=st.integers(0, 2))
    def lives(self, who):
        self.workers[who][0].beat()

    @rule(who=st.integers(0, 2), seconds=st.floats(0, 200))
    def waits(self, who, seconds):
        self.workers[who][1].now += seconds

    @rule(who=st.integers(0, 2))
    def releases(self, who):
        leases, _, held = self.workers[who]
        if held:
            leases.give_up(held.pop(), "released")

    @invariant()
    def no_generation_has_two_holders_and_no_action_two_first_ends(self):
        assert len(self.grants) == len(set(self.grants))
        assert len(self.firsts) == len(set(self.firsts))

    def teardown(self):
        """Whatever happened: one new worker that waits long enough ends everything."""
        leases, clock = machine(self.place, "last", start=-9e9)
        for key in self.KEYS:
            for _ in range(20):
                got = claim(leases, key)
                if isinstance(got, Claimed):
                    leases.finish(got)
                if isinstance(claim(leases, key), Done):
                    break
                clock.now += 100.0
            else:
                raise AssertionError(f"{key} never ends")


TestFleet = Fleet.TestCase
TestFleet.settings = settings(max_examples=20, stateful_step_count=30)
