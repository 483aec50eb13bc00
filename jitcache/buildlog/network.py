"""One run of a build as a network: commands with durations, and what each waits for.

The log knows when commands ran, the graph knows why they waited. `join` brings both
together; without a graph `guess` takes each command to wait for the one that finished last
before it started. Pure; times are whole milliseconds since the run began.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from jitcache.buildlog.graph import Graph
from jitcache.buildlog.log import LogEntry, group_outputs
from jitcache.errors import InputError

_GUESSED = (
    "dependencies are estimated from the log alone: each command is taken to wait for the one "
    "that finished last before it started"
)


@dataclass(frozen=True, slots=True)
class Command:
    """A node of the network: a build edge.

    Attributes:
        outputs: its outputs; the first names it.
        rule: rule in build.ninja, "" where unknown.
        pool: pool in build.ninja, "" for none.
        preds: indices of the commands whose outputs it needs.
        start_ms: start, or None if it didn't run (phony, up to date, failed).
        end_ms: end, or None likewise.
        duration_ms: what it weighs: `end_ms - start_ms`, 0 where it didn't run.
        label: what build.ninja calls it for people, "" for nothing.
    """

    outputs: tuple[str, ...]
    rule: str
    pool: str
    preds: tuple[int, ...]
    start_ms: int | None
    end_ms: int | None
    duration_ms: int
    label: str = ""

    @property
    def output(self) -> str:
        """The output that names it."""
        return self.outputs[0]

    @property
    def ran(self) -> bool:
        """Whether this run finished it."""
        return self.end_ms is not None


@dataclass(slots=True)
class Network:
    """Commands in the order of build.ninja (of their end, without one).

    Attributes:
        commands: also those that didn't run: dependencies pass through them.
        order: indices such that each comes after what it waits for.
        after: for each command, who waits for it.
        pools: depth of each pool; 0 means no limit.
        guessed: whether dependencies were guessed from the times.
        notes: sentences a reader of the report must know.
    """

    commands: list[Command]
    order: list[int]
    after: list[list[int]]
    pools: dict[str, int] = field(default_factory=dict)
    guessed: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def ran(self) -> list[int]:
        """Indices of the commands that ran."""
        return [i for i, c in enumerate(self.commands) if c.ran]

    @property
    def wall_ms(self) -> int:
        """From the start of ninja to the last end."""
        return max((c.end_ms for c in self.commands if c.end_ms is not None), default=0)

    @property
    def work_ms(self) -> int:
        """Sum of all durations."""
        return sum(c.duration_ms for c in self.commands)

    def with_durations(self, durations: dict[int, int]) -> Network:
        """The same network, some commands taking another time (what-if)."""
        commands = list(self.commands)
        for i, ms in durations.items():
            commands[i] = replace(commands[i], duration_ms=ms)
        return replace(self, commands=commands)


def join(entries: Sequence[LogEntry], graph: Graph) -> Network:
    """The network of one run, with the dependencies of its graph.

    Raises:
        InputError: the graph has a cycle, or belongs to another build (less than half of
            the entries are outputs of it).
    """
    times: dict[int, tuple[int, int]] = {}
    strangers: list[LogEntry] = []
    for e in entries:
        index = graph.producer.get(e.output)
        if index is None:
            strangers.append(e)
        else:
            first, last = times.get(index, (e.start_ms, e.end_ms))
            times[index] = (min(first, e.start_ms), max(last, e.end_ms))
    if entries and len(strangers) * 2 > len(entries):
        raise InputError(
            f"build.ninja knows only {len(entries) - len(strangers)} of the run's "
            f"{len(entries)} outputs",
            hint="build.ninja was written anew since that run, or is of another build",
        )
    commands: list[Command] = []
    producer = graph.producer
    for index, edge in enumerate(graph.edges):
        start, end = times.get(index) or (None, None)
        preds = {producer.get(i, index) for i in (*edge.inputs, *edge.order_only)} - {index}
        commands.append(
            Command(
                edge.outputs,
                edge.rule,
                edge.pool,
                tuple(sorted(preds)),
                start,
                end,
                0 if start is None or end is None else end - start,
                edge.label,
            )
        )
    commands.extend(_command(group, ()) for group in group_outputs(strangers))
    notes = list(graph.notes)
    if strangers:
        notes.append(
            f"{len(strangers)} outputs of the run aren't in build.ninja, so nothing is known "
            f"of what they waited for: {_some(e.output for e in strangers)}"
        )
    return network_of(commands, pools=dict(graph.pools), notes=notes)


def guess(entries: Sequence[LogEntry]) -> Network:
    """The network of one run without a graph: each waits for the last to finish before it."""
    groups = sorted(group_outputs(entries), key=lambda g: (g[0].end_ms, g[0].start_ms))
    ends = [g[0].end_ms for g in groups]
    commands = []
    for i, group in enumerate(groups):
        # Commands that take no measurable time could come before themselves: stay below i.
        last = min(bisect_right(ends, group[0].start_ms), i) - 1
        commands.append(_command(group, (last,) if last >= 0 else ()))
    return network_of(commands, guessed=True, notes=[_GUESSED])


def _command(group: tuple[LogEntry, ...], preds: tuple[int, ...]) -> Command:
    e = group[0]
    outputs = tuple(g.output for g in group)
    return Command(outputs, "", "", preds, e.start_ms, e.end_ms, e.end_ms - e.start_ms)


def _some(names: Iterable[str], most: int = 3) -> str:
    all_names = list(names)
    more = len(all_names) - most
    return ", ".join(all_names[:most]) + (f" and {more} more" if more > 0 else "")


def network_of(
    commands: list[Command],
    *,
    pools: dict[str, int] | None = None,
    guessed: bool = False,
    notes: list[str],
) -> Network:
    """Put the commands into an order in which each comes after what it waits for.

    Raises:
        InputError: they wait for one another in a circle.
    """
    waits = [len(c.preds) for c in commands]
    after: list[list[int]] = [[] for _ in commands]
    for i, c in enumerate(commands):
        for p in c.preds:
            after[p].append(i)
    order = [i for i, n in enumerate(waits) if n == 0]
    for i in order:
        for s in after[i]:
            waits[s] -= 1
            if waits[s] == 0:
                order.append(s)
    if len(order) < len(commands):
        stuck = next(i for i, n in enumerate(waits) if n > 0)
        raise InputError(
            f"the build graph has a cycle that {commands[stuck].output!r} is in or behind"
        )
    return Network(commands, order, after, pools or {}, guessed, notes)
