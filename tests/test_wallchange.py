"""Which change did what to the wall time: parts and remainder of two builds' difference."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from jitcache.buildlog.network import Command, network_of
from jitcache.buildlog.schedule import simulate
from jitcache.cli.report import command
from jitcache.errors import InputError
from jitcache.report.assemble import report_run
from jitcache.report.compare import Base, BaseEdge, compare, read_base
from jitcache.report.dependencies import Node, nodes
from jitcache.report.source import read_build
from jitcache.report.wallchange import (
    MOST_STEPS,
    Effect,
    NotExplained,
    Side,
    WallChange,
    explain,
)

AITER = Path(__file__).parent / "data" / "ninja" / "aiter_a4w4"

# Outputs and what they wait for.
Graph = dict[str, tuple[str, ...]]


def side(graph: Graph, durations: dict[str, float], jobs: int = 64, wall: float = 0.0) -> Side:
    """A build; its wall time is the simulated one unless another was measured."""
    names = list(graph)
    commands = [
        Command(
            (name,),
            "phony" if name.startswith("all") else "cc",
            "",
            tuple(sorted(names.index(p) for p in graph[name])),
            *((None, None, 0) if name not in durations else (0, 0, round(durations[name] * 1000))),
        )
        for name in names
    ]
    network = network_of(commands, notes=[])
    made = simulate(network, jobs).makespan_ms / 1000
    path = simulate(network, 10_000).makespan_ms / 1000
    return Side(durations, nodes(network), {}, jobs, wall or made, path)


def explained(before: Side, after: Side) -> WallChange:
    old, new = before.durations_s, after.durations_s
    changed = [o for o in {**new, **old} if old.get(o, 0.0) != new.get(o, 0.0)]
    changed.sort(key=lambda o: -abs(old.get(o, 0.0) - new.get(o, 0.0)))
    found = explain(before, after, changed, order="depth")
    assert isinstance(found, WallChange)
    return found


def check_sum(found: WallChange, before: Side, after: Side) -> None:
    """The parts and the remainder are the measured change."""
    parts = [*found.effects.values(), found.others, found.jobs, found.remainder]
    assert sum(p.wall_s for p in parts) == pytest.approx(after.wall_s - before.wall_s, abs=1e-6)
    assert sum(p.path_s for p in parts) == pytest.approx(after.path_s - before.path_s, abs=1e-6)


def test_a_command_on_the_path_gets_what_it_shortened_and_one_beside_it_nothing() -> None:
    graph: Graph = {"a": (), "side": (), "b": ("a",)}
    before = side(graph, {"a": 5.0, "side": 4.0, "b": 3.0})
    after = side(graph, {"a": 2.0, "side": 1.0, "b": 3.0})
    found = explained(before, after)
    assert found.effects == {"a": Effect(-3.0, -3.0), "side": Effect(0.0, 0.0)}
    assert (found.simulated_before_s, found.simulated_after_s) == (8.0, 5.0)
    assert found.remainder == Effect(0.0, 0.0)


def test_two_equal_bottlenecks_share_what_only_both_bring() -> None:
    graph: Graph = {"a": (), "b": ()}
    found = explained(side(graph, {"a": 5.0, "b": 5.0}), side(graph, {"a": 2.0, "b": 2.0}))
    assert found.effects == {"a": Effect(-1.5, -1.5), "b": Effect(-1.5, -1.5)}


def test_new_and_gone_commands_and_another_number_of_jobs() -> None:
    before = side({"a": (), "gone": (), "link": ("a", "gone")}, {"a": 2, "gone": 6, "link": 1})
    after = side({"a": (), "new": (), "link": ("a", "new")}, {"a": 2, "new": 3, "link": 1})
    found = explained(before, after)
    assert found.effects["gone"].wall_s + found.effects["new"].wall_s == -3.0
    assert found.effects["gone"].wall_s < 0 < found.effects["new"].wall_s
    assert found.jobs == Effect(0.0, 0.0)
    graph: Graph = {"a": (), "b": ()}
    slow, fast = side(graph, {"a": 2, "b": 2}, jobs=1), side(graph, {"a": 2, "b": 2}, jobs=2)
    found = explained(slow, fast)
    assert found.jobs == Effect(-2.0, 0.0)
    assert found.effects == {}


def test_what_the_simulation_does_not_explain_remains() -> None:
    graph: Graph = {"a": ()}
    before, after = side(graph, {"a": 2.0}, wall=2.5), side(graph, {"a": 3.0}, wall=9.0)
    found = explained(before, after)
    assert found.effects == {"a": Effect(1.0, 1.0)}
    assert found.remainder == Effect(5.5, 0.0)
    check_sum(found, before, after)


def test_many_small_changes_are_one_step() -> None:
    names = [f"o{i}" for i in range(MOST_STEPS + 5)]
    graph: Graph = {n: tuple(names[:i][-1:]) for i, n in enumerate(names)}
    before = side(graph, dict.fromkeys(names, 1.0))
    after = side(graph, dict.fromkeys(names, 1.5))
    found = explained(before, after)
    assert len(found.effects) == MOST_STEPS
    assert found.others_count == 5
    assert found.others == Effect(2.5, 2.5)


def test_phony_targets_carry_dependencies() -> None:
    graph: Graph = {"a": (), "all": ("a",), "b": ("all",)}
    before, after = side(graph, {"a": 2.0, "b": 2.0}), side(graph, {"a": 3.0, "b": 2.0})
    assert [n.output for n in before.graph] == ["a", "", "b"]
    assert explained(before, after).effects == {"a": Effect(1.0, 1.0)}


def test_why_a_change_is_not_explained() -> None:
    before = side({"a": (), "b": ("a",)}, {"a": 1.0, "b": 1.0})
    after = side({"b": (), "a": ("b",)}, {"a": 1.0, "b": 2.0})
    found = explain(before, after, ["b"], order="depth")
    assert isinstance(found, NotExplained)
    assert "in a circle" in found.reason
    bare = Side(before.durations_s, [], {}, 2, 2.0, 2.0)
    found = explain(bare, after, ["b"], order="depth")
    assert isinstance(found, NotExplained)
    assert found.reason.startswith("the base doesn't tell")


@st.composite
def builds(draw: st.DrawFn) -> Side:
    names = [f"o{i}" for i in range(draw(st.integers(1, 7)))]
    graph: Graph = {}
    for i, name in enumerate(names):
        picked = draw(st.lists(st.sampled_from(names[:i]), unique=True, max_size=3)) if i else []
        graph[name] = tuple(picked)
    durations = {n: draw(st.integers(0, 9)) / 2 for n in names if draw(st.integers(0, 4))}
    return side(graph, durations, draw(st.integers(1, 4)), draw(st.integers(0, 30)) / 1.0)


@given(builds(), builds())
@settings(max_examples=80)
def test_parts_and_remainder_always_add_up(before: Side, after: Side) -> None:
    if before.graph and after.graph:
        check_sum(explained(before, after), before, after)


def test_the_command_names_effects_and_remainder(tmp_path: Path) -> None:
    value = json.loads(CliRunner().invoke(command, [str(AITER), "--json"]).stdout)
    base = tmp_path / "base.json"
    gemm1 = value["edges"][0]
    gemm1["duration_s"] += 20
    value["wall_s"] += 21
    value["critical_path_s"] += 20
    base.write_text(json.dumps(value))
    args = [str(AITER), "--compare", str(base)]
    text = CliRunner().invoke(command, args).stdout
    assert "-20.000  -20.000  -20.000" in text
    assert (
        "of the wall's -21.000 s: -20.000 s by the commands listed, "
        "-1.000 s that the simulation doesn't explain" in text
    )
    found = json.loads(CliRunner().invoke(command, [*args, "--json"]).stdout)["comparison"]
    assert found["changes"][0]["effect"] == {"wall_s": -20.0, "path_s": -20.0}
    assert found["explained"]["remainder"]["wall_s"] == -1.0
    del value["graph"]
    base.write_text(json.dumps(value))
    text = CliRunner().invoke(command, args).stdout
    assert "isn't known: the base doesn't tell which command waited for which" in text


def test_a_base_whose_graph_has_loose_ends_is_refused(tmp_path: Path) -> None:
    value = {"wall_s": 1, "critical_path_s": 1, "edges": []}
    for at in (-1, 1):
        value["graph"] = [{"output": "a", "pool": "", "waits_for": [at]}]
        path = tmp_path / "base.json"
        path.write_text(json.dumps(value))
        with pytest.raises(InputError, match="loose ends"):
            read_base(path)


def test_nodes_leave_out_what_stands_between_nothing() -> None:
    def of(rule: str, preds: tuple[int, ...], ran: bool) -> Command:
        return Command(
            (f"{rule}{preds}",), rule, "", preds, *((0, 1, 1) if ran else (None,) * 2 + (0,))
        )

    network = network_of(
        [
            of("cc", (), False),
            of("cc", (0,), True),
            of("phony", (1,), False),
            of("cc", (2,), True),
            of("phony", (3,), False),
        ],
        notes=[],
    )
    assert nodes(network) == [
        Node("cc(0,)", "", ()),
        Node("", "", (0,)),
        Node("cc(2,)", "", (1,)),
    ]


def test_the_same_kernel_below_another_actions_directory_is_one_command() -> None:
    report = report_run(read_build(AITER), -1)
    edges = [BaseEdge(f"actions/1/{e.output}", e.duration_s, e.label) for e in report.edges]
    graph = [replace(n, output=n.output and f"actions/1/{n.output}") for n in report.graph]
    base = Base(report.wall_s, report.critical_path_s, edges, graph)
    assert compare(base, report).changes == ()
    edges[0] = msgspec.structs.replace(edges[0], label=edges[1].label)
    changes = compare(base, report).changes
    assert {(c.before_s, c.after_s) for c in changes} == {
        *((None, 54.274), (54.274, None)),
        *((None, 48.473), (48.473, None)),
    }
