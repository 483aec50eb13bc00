"""Which change of which command did what to the wall time, between two builds. Pure.

Both builds are put into one network: the commands and dependencies of either, those that a
build lacks taking no time. It is simulated with the earlier durations, and again after each
command gets its later one. What a step brings depends on those before it (of two equal
bottlenecks only the second to go shortens the build), so the steps are taken twice, largest
change first and largest last, and a command gets the mean. The steps' sum is the simulated
change; what the measured change differs from it is the remainder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jitcache.buildlog.network import Command, Network, network_of
from jitcache.buildlog.schedule import Order, what_if
from jitcache.errors import InputError
from jitcache.report.dependencies import Node

MOST_STEPS = 20
"""How many commands get a step of their own; the others have one together."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two builds.

    Attributes:
        durations_s: of the commands that ran, by output.
        graph: what waited for what.
        pools: depth by name.
        jobs: commands at one time.
        wall_s: measured wall time.
        path_s: longest chain.
    """

    durations_s: Mapping[str, float]
    graph: Sequence[Node]
    pools: Mapping[str, int]
    jobs: int
    wall_s: float
    path_s: float


@dataclass(frozen=True, slots=True)
class Effect:
    """What one step did, in seconds; negative is shorter.

    Attributes:
        wall_s: to the simulated makespan.
        path_s: to the longest chain.
    """

    wall_s: float
    path_s: float


@dataclass(frozen=True, slots=True)
class WallChange:
    """The change of the wall time, taken apart; the parts and the remainder add up to it.

    Attributes:
        effects: by output, of the commands with a step of their own.
        others: of all other commands that changed.
        others_count: how many they are.
        jobs: of another number of jobs; 0 where it is the same.
        simulated_before_s: makespan of the network with the earlier durations.
        simulated_after_s: with the later ones.
        remainder: what the simulation doesn't explain: pauses, other dependencies,
            commands that slowed one another down.
    """

    effects: dict[str, Effect]
    others: Effect
    others_count: int
    jobs: Effect
    simulated_before_s: float
    simulated_after_s: float
    remainder: Effect


@dataclass(frozen=True, slots=True)
class NotExplained:
    """Why the change can't be taken apart.

    Attributes:
        reason: one clause.
    """

    reason: str


def explain(
    before: Side, after: Side, largest_first: Sequence[str], *, order: Order
) -> WallChange | NotExplained:
    """Take the change of the wall time apart.

    Args:
        before: the earlier build.
        after: the later one.
        largest_first: outputs of commands that changed; the first get a step of their own.
        order: whom ninja starts first.
    """
    if not before.graph or not after.graph:
        which = "base" if not before.graph else "run"
        return NotExplained(f"the {which} doesn't tell which command waited for which")
    try:
        network = _union(before, after)
    except InputError:
        return NotExplained("in the two builds the same commands wait for one another in a circle")
    steps = _steps(network, before, after, largest_first[:MOST_STEPS])
    forward = _walk(network, before, steps, order)
    backward = _walk(network, before, steps[::-1], order)[::-1]
    effects = [_mean(a, b) for a, b in zip(forward, backward, strict=True)]
    start = what_if(network, _durations(network, before), before.jobs, order=order)
    end = what_if(network, _durations(network, after), after.jobs, order=order)
    wall = after.wall_s - before.wall_s - (end.makespan_ms - start.makespan_ms) / 1000
    path = after.path_s - before.path_s - (end.critical_path_ms - start.critical_path_ms) / 1000
    return WallChange(
        dict(zip(largest_first[:MOST_STEPS], effects[1:-1], strict=True)),
        effects[-1],
        len(steps[-1].durations),
        effects[0],
        start.makespan_ms / 1000,
        end.makespan_ms / 1000,
        Effect(round(wall, 6), round(path, 6)),
    )


@dataclass(frozen=True, slots=True)
class _Step:
    """Another number of jobs (None: as it is), or other durations by index."""

    jobs: int | None
    durations: dict[int, int]


def _union(before: Side, after: Side) -> Network:
    """The commands of both, in the order of the later build, without durations."""
    place: dict[str, int] = {}
    nodes: list[Node] = []
    waits: list[set[int]] = []
    for side in (after, before):
        mine: list[int] = []
        for node in side.graph:
            index = place.get(node.output) if node.output else None
            if index is None:
                index = len(nodes)
                nodes.append(node)
                waits.append(set())
                if node.output:
                    place[node.output] = index
            mine.append(index)
        for index, node in zip(mine, side.graph, strict=True):
            waits[index].update(mine[p] for p in node.waits_for if mine[p] != index)
    commands = []
    for node, preds in zip(nodes, waits, strict=True):
        ran = node.output in before.durations_s or node.output in after.durations_s
        commands.append(
            Command(
                (node.output,),
                "" if node.output else "phony",
                node.pool,
                tuple(sorted(preds)),
                0 if ran else None,
                0 if ran else None,
                0,
            )
        )
    return network_of(commands, pools={**before.pools, **after.pools}, notes=[])


def _durations(network: Network, side: Side) -> dict[int, int]:
    return {
        i: round(side.durations_s.get(c.output, 0.0) * 1000)
        for i, c in enumerate(network.commands)
        if c.ran
    }


def _steps(network: Network, before: Side, after: Side, own: Sequence[str]) -> list[_Step]:
    """The jobs, each command of `own`, all others together."""
    old, new = _durations(network, before), _durations(network, after)
    place = {c.output: i for i, c in enumerate(network.commands)}
    alone = [place[output] for output in own]
    others = {i: ms for i, ms in new.items() if ms != old[i] and i not in set(alone)}
    return [
        _Step(after.jobs, {}),
        *(_Step(None, {i: new[i]}) for i in alone),
        _Step(None, others),
    ]


def _walk(network: Network, before: Side, steps: Sequence[_Step], order: Order) -> list[Effect]:
    """Take the steps one after another; what each changed."""
    durations, jobs = _durations(network, before), before.jobs
    last = what_if(network, durations, jobs, order=order)
    effects = []
    for step in steps:
        if step.jobs in (None, jobs) and all(
            durations[i] == ms for i, ms in step.durations.items()
        ):
            effects.append(Effect(0.0, 0.0))
            continue
        jobs = jobs if step.jobs is None else step.jobs
        durations.update(step.durations)
        now = what_if(network, durations, jobs, order=order)
        wall = now.makespan_ms - last.makespan_ms
        path = now.critical_path_ms - last.critical_path_ms
        effects.append(Effect(wall / 1000, path / 1000))
        last = now
    return effects


def _mean(a: Effect, b: Effect) -> Effect:
    return Effect((a.wall_s + b.wall_s) / 2, (a.path_s + b.path_s) / 2)
