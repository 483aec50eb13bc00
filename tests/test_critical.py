"""Critical path, slack, blocking chain, efficiency and simulation.

The reference is a brute force over all chains, written here on plain dictionaries.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jitcache.buildlog.critical import (
    blocking_chain,
    contradictions,
    critical_path,
    ready_times,
    usage,
)
from jitcache.buildlog.graph import Graph, parse_graph
from jitcache.buildlog.log import LogEntry, parse_log
from jitcache.buildlog.network import Network, guess, join
from jitcache.buildlog.schedule import lower_bound, simulate, what_if
from jitcache.errors import InputError


def graph_of(text: str) -> Graph:
    return parse_graph(lambda name, where: "rule cc\n  command = x\n" + text)


def entry(output: str, start: int, end: int, command: str = "") -> LogEntry:
    return LogEntry(output, start, end, 1, command or output)


def names(network: Network, indices: tuple[int, ...] | list[int]) -> list[str]:
    return [network.commands[i].output for i in indices]


@dataclass(frozen=True)
class Build:
    """A random build: for each command its needs, its duration and whether it is phony."""

    needs: tuple[frozenset[int], ...]
    durations: tuple[int, ...]
    phony: tuple[bool, ...]
    jobs: int
    pooled: tuple[bool, ...]

    def text(self) -> str:
        lines = ["pool two", "  depth = 2"]
        for i, needs in enumerate(self.needs):
            ordered = sorted(needs)
            cut = len(ordered) // 2
            first = " ".join(f"o{n}" for n in ordered[:cut])
            second = " ".join(f"o{n}" for n in ordered[cut:])
            rule = "phony" if self.phony[i] else "cc"
            lines.append(f"build o{i}: {rule} src{i} {first} || {second}")
            if self.pooled[i] and not self.phony[i]:
                lines.append("  pool = two")
        return "\n".join(lines) + "\n"

    def run(self) -> list[tuple[int, int]]:
        """Start and end of each command, scheduled naively: lowest number first."""
        times: dict[int, tuple[int, int]] = {}
        now = 0
        while len(times) < len(self.needs):
            for i, needs in enumerate(self.needs):
                running = [t for j, t in times.items() if t[1] > now and not self.phony[j]]
                ready = all(n in times and times[n][1] <= now for n in needs)
                if i in times or not ready:
                    continue
                if self.phony[i]:
                    times[i] = (now, now)
                elif len(running) < self.jobs:
                    times[i] = (now, now + self.durations[i])
            later = [end for _, end in times.values() if end > now]
            # Phony commands behind one another are done within the moment.
            if (
                not any(
                    i not in times
                    and self.phony[i]
                    and all(n in times and times[n][1] <= now for n in needs)
                    for i, needs in enumerate(self.needs)
                )
                and later
            ):
                now = min(later)
        return [times[i] for i in range(len(self.needs))]

    def network(self) -> Network:
        rows = sorted(
            (end, start, f"o{i}") for i, (start, end) in enumerate(self.run()) if not self.phony[i]
        )
        log = "# ninja log v5\n" + "".join(f"{s}\t{e}\t1\t{o}\t{o}\n" for e, s, o in rows)
        parsed = parse_log(io.BytesIO(log.encode()), where="log")
        return join([e for r in parsed.runs for e in r.entries], graph_of(self.text()))

    def chains(self, last: int) -> Iterator[tuple[int, ...]]:
        """Every chain of commands that ends with `last`, from any beginning."""
        yield (last,)
        for n in self.needs[last]:
            for chain in self.chains(n):
                yield (*chain, last)

    def weight(self, chain: tuple[int, ...]) -> int:
        return sum(0 if self.phony[i] else self.durations[i] for i in chain)


@st.composite
def builds(draw: st.DrawFn) -> Build:
    n = draw(st.integers(1, 9))
    needs = tuple(
        frozenset(draw(st.sets(st.integers(0, i - 1), max_size=3))) if i else frozenset()
        for i in range(n)
    )
    flags = st.lists(st.booleans(), min_size=n, max_size=n)
    phony = [p and draw(st.booleans()) for p in draw(flags)]
    return Build(
        needs,
        tuple(draw(st.lists(st.integers(1, 50), min_size=n, max_size=n))),
        tuple(phony),
        draw(st.integers(1, 4)),
        tuple(draw(flags)),
    )


@settings(max_examples=150)
@given(builds())
def test_path_and_slack_equal_the_longest_of_all_chains(build: Build) -> None:
    network = build.network()
    found = critical_path(network)
    everything = [c for i in range(len(build.needs)) for c in build.chains(i)]
    longest = max(map(build.weight, everything))
    assert found.length_ms == longest
    assert sum(network.commands[i].duration_ms for i in found.path) == longest
    # The path is a chain: each of its commands is behind the one before it.
    for a, b in zip(found.path, found.path[1:], strict=False):
        assert any(a in c for c in build.chains(b))
    for i in range(len(build.needs)):
        assert found.slack_ms[i] == longest - max(build.weight(c) for c in everything if i in c)


@settings(max_examples=60)
@given(builds(), st.data())
def test_slack_is_what_a_command_may_grow_by(build: Build, data: st.DataObject) -> None:
    network = build.network()
    if not network.ran:
        return
    found = critical_path(network)
    i = data.draw(st.sampled_from(network.ran))
    until = network.commands[i].duration_ms + found.slack_ms[i]
    assert critical_path(network.with_durations({i: until})).length_ms == found.length_ms
    assert critical_path(network.with_durations({i: until + 1})).length_ms == found.length_ms + 1


@settings(max_examples=100)
@given(builds())
def test_the_blocking_chain_accounts_for_the_whole_wall_time(build: Build) -> None:
    network = build.network()
    chain = blocking_chain(network)
    total = sum(network.commands[k.index].duration_ms + k.gap_ms for k in chain)
    assert total == network.wall_ms
    assert len({k.index for k in chain}) == len(chain)
    if chain:
        assert chain[0].reason == "start"
        assert network.commands[chain[-1].index].end_ms == network.wall_ms


@settings(max_examples=100)
@given(builds())
def test_usage_adds_up_and_never_exceeds_the_jobs(build: Build) -> None:
    network = build.network()
    used = usage(network)
    assert used.busy_ms == network.work_ms
    assert used.wall_ms == network.wall_ms
    assert used.peak_jobs <= build.jobs
    assert contradictions(network) == []
    assert all(
        c.start_ms is None or c.start_ms >= r
        for c, (r, _) in zip(network.commands, ready_times(network), strict=True)
    )


@settings(max_examples=100)
@given(builds(), st.integers(1, 5), st.sampled_from(["file", "depth", "longest"]))
def test_a_simulated_build_obeys_every_rule(build: Build, jobs: int, order: str) -> None:
    network = build.network()
    path = critical_path(network).length_ms
    found = simulate(network, jobs, order=order)  # type: ignore[arg-type]
    start = found.start_ms
    ran = network.ran
    end = {i: start[i] + network.commands[i].duration_ms for i in range(len(start))}
    for i, c in enumerate(network.commands):
        assert all(start[i] >= end[p] for p in c.preds)
    for i in ran:
        at_once = [j for j in ran if start[j] <= start[i] < end[j]]
        assert len(at_once) <= jobs
        assert sum(network.commands[j].pool == "two" for j in at_once) <= 2
    assert found.makespan_ms == max((end[i] for i in ran), default=0)
    assert lower_bound(network, jobs, path) <= found.makespan_ms <= network.work_ms
    assert found.peak_jobs <= jobs
    if not any(build.pooled):
        # Graham's bound for any schedule that leaves no job idle without need.
        assert found.makespan_ms * jobs <= network.work_ms + (jobs - 1) * path
        assert simulate(network, 100).makespan_ms == path
    assert simulate(network, 1).makespan_ms == network.work_ms


DIAMOND = "build a: cc x\nbuild b: cc a\nbuild c: cc a\nbuild d: phony b c\nbuild e: cc d\n"


def diamond() -> Network:
    entries = [entry("a", 0, 10), entry("b", 10, 30), entry("c", 30, 90), entry("e", 90, 95)]
    return join(entries, graph_of(DIAMOND))


def test_paths_pass_through_phony_targets_and_waits_are_explained() -> None:
    network = diamond()
    found = critical_path(network)
    assert found.length_ms == 75
    assert names(network, found.path) == ["a", "c", "e"]
    assert [found.slack_ms[i] for i in network.ran] == [0, 40, 0, 0]
    chain = blocking_chain(network)
    assert [(network.commands[k.index].output, k.reason, k.gap_ms) for k in chain] == [
        ("a", "start", 0),
        ("b", "input", 0),
        ("c", "slot", 0),
        ("e", "input", 0),
    ]


def test_a_wait_for_a_full_pool_is_told_from_one_for_a_job() -> None:
    graph = graph_of("pool p\n  depth = 1\nbuild a: cc x\n  pool = p\nbuild b: cc x\n  pool = p\n")
    network = join([entry("a", 0, 50), entry("b", 50, 80)], graph)
    assert [k.reason for k in blocking_chain(network)] == ["start", "pool"]
    assert simulate(network, 8).makespan_ms == 80


def test_a_pause_of_ninja_is_a_gap() -> None:
    network = join(
        [entry("a", 5, 50), entry("b", 1050, 1080)], graph_of("build a: cc x\nbuild b: cc a\n")
    )
    assert [(k.reason, k.gap_ms) for k in blocking_chain(network)] == [
        ("start", 5),
        ("input", 1000),
    ]
    assert usage(network).nothing_ms == 1005


def test_what_if_speeds_up_or_removes_a_command() -> None:
    network = diamond()
    c = names(network, range(len(network.commands))).index("c")  # type: ignore[arg-type]
    assert simulate(network, 2).makespan_ms == 75
    assert what_if(network, {c: 30}, 2).makespan_ms == 45
    gone = what_if(network, {c: 0}, 2)
    assert (gone.makespan_ms, gone.critical_path_ms) == (35, 35)


def test_memory_limits_what_runs_together() -> None:
    text = "".join(f"build o{i}: cc x\n" for i in range(4))
    network = join([entry(f"o{i}", 0, 10) for i in range(4)], graph_of(text))
    gib = 1 << 30
    free = simulate(network, 4, memory=[gib] * 4)
    assert (free.makespan_ms, free.peak_memory) == (10, 4 * gib)
    tight = simulate(network, 4, memory=[gib] * 4, memory_limit=2 * gib)
    assert (tight.makespan_ms, tight.peak_memory, tight.peak_jobs) == (20, 2 * gib, 2)
    # One that fits nowhere still runs, alone.
    giant = simulate(network, 4, memory=[9 * gib, gib, gib, gib], memory_limit=2 * gib)
    assert giant.makespan_ms == 30


def test_the_longest_chain_first_beats_the_order_of_the_file() -> None:
    text = "build s1: cc x\nbuild s2: cc x\nbuild long: cc x\n"
    network = join([entry("s1", 0, 10), entry("s2", 0, 10), entry("long", 10, 50)], graph_of(text))
    assert simulate(network, 2, order="file").makespan_ms == 50
    assert simulate(network, 2, order="longest").makespan_ms == 40


def test_no_jobs_can_build_nothing() -> None:
    with pytest.raises(InputError, match="0 jobs"):
        simulate(diamond(), 0)


def test_without_a_graph_each_waits_for_the_last_to_finish_before_it() -> None:
    network = guess(
        [entry("a", 0, 40), entry("b", 0, 60), entry("app", 61, 80), entry("z", 80, 80)]
    )
    found = critical_path(network)
    assert network.guessed
    assert names(network, found.path) == ["b", "app", "z"]
    assert found.length_ms == 79


def test_commands_that_take_no_time_make_no_circle() -> None:
    network = guess([entry(o, 5, 5) for o in "abc"])
    assert critical_path(network).length_ms == 0
    assert blocking_chain(network)[0].gap_ms == 5


def test_outputs_unknown_to_the_graph_are_noted() -> None:
    network = join([entry("a", 0, 9), entry("b", 9, 12), entry("old", 0, 50)], graph_of(DIAMOND))
    assert "1 outputs of the run aren't in build.ninja" in network.notes[-1]
    assert network.wall_ms == 50


def test_a_graph_of_another_build_is_refused() -> None:
    with pytest.raises(InputError, match="knows only 1 of the run's 3 outputs"):
        join([entry("a", 0, 9), entry("x", 0, 9), entry("y", 0, 9)], graph_of(DIAMOND))


def test_a_cycle_is_refused_and_a_phony_of_itself_is_not() -> None:
    with pytest.raises(InputError, match="cycle"):
        join([], graph_of("build a: cc b\nbuild b: cc a\n"))
    assert critical_path(join([], graph_of("build a: phony a\n"))).length_ms == 0


def test_commands_that_started_before_their_inputs_are_found() -> None:
    network = join([entry("a", 0, 100), entry("b", 20, 60)], graph_of(DIAMOND))
    assert names(network, contradictions(network)) == ["b"]
