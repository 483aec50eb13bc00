"""The simulation of fleets: never better than the bound, and it names what limits."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitcache.fleet.balance import bound_ms
from jitcache.fleet.simulate import Surroundings, real_costs, schedule_ms, simulate

EASY = Surroundings(0, 1, 1e12, 1e9, 0.0)
costs = st.lists(st.integers(1, 100_000), min_size=1, max_size=40)


@given(costs, st.integers(1, 20), st.sampled_from(["shares", "leases"]))
def test_no_schedule_beats_the_bound_and_none_exceeds_list_scheduling(expected, workers, mode):
    took = schedule_ms(expected, expected, workers, mode)
    assert bound_ms(expected, workers) <= took
    # Graham: when the last one starts, all workers have been busy.
    assert took * workers <= sum(expected) + max(expected) * (workers - 1)


@given(costs)
def test_one_worker_takes_all_the_work(expected):
    real = real_costs(expected, 0.3)
    for mode in ("shares", "leases"):
        assert schedule_ms(expected, real, 1, mode) == sum(real)


def test_leases_make_good_what_the_expectation_got_wrong():
    expected = [100] * 8
    real = [100] * 4 + [400] + [100] * 3
    # The shares are two each, and the slow one's neighbour waits behind it.
    assert schedule_ms(expected, real, 4, "shares") == 500
    assert schedule_ms([*expected, 1], [*real, 1], 4, "leases") <= 500
    uneven = [400, 100, 100, 100, 100, 100, 100, 100]
    assert schedule_ms(expected, uneven, 2, "shares") == 700
    assert schedule_ms(expected, uneven, 2, "leases") == 600


def test_real_costs_are_repeatable_and_around_the_expected_ones():
    expected = [1000] * 2000
    real = real_costs(expected, 0.15)
    assert real == real_costs(expected, 0.15)
    assert real_costs(expected, 0.0) == expected
    assert 0.98 < sum(real) / sum(expected) < 1.05


@pytest.mark.parametrize(
    ("workers", "around", "limit"),
    [
        (1, EASY, "work"),
        (2, EASY, "work"),
        (100, EASY, "longest action"),
        (10, replace(EASY, result_bytes=10**6, bandwidth=1e3), "bandwidth"),
        (10, replace(EASY, requests_per_s=0.001), "requests"),
        (10, replace(EASY, start_ms=10**7), "start-up"),
    ],
)
def test_what_limits_is_named(workers, around, limit):
    assert simulate([20_000] * 20, workers, "shares", around).limit == limit


def test_the_longest_action_limits_where_it_is_nearly_all_there_is():
    assert simulate([100_000] + [1000] * 50, 4, "leases", EASY).limit == "longest action"


def test_what_servers_are_asked():
    around = replace(EASY, result_bytes=1000)
    shares = simulate([10_000] * 10, 10, "shares", around)
    assert shares.makespan_ms == 10_000
    assert shares.requests_per_s == pytest.approx(5.0)
    assert shares.bytes_per_s == pytest.approx(1000.0)
    leases = simulate([10_000] * 10, 20, "leases", around)
    assert leases.requests_per_s > shares.requests_per_s + 20 * 4 / 60
