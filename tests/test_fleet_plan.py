"""Plan files: deterministic, deduplicated, whole; shares and where they come from."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitcache.action.resolve import Resolver
from jitcache.build.durations import Durations
from jitcache.errors import ExitCode, InputError, UsageError
from jitcache.fleet.balance import bound_ms, shares, split
from jitcache.fleet.model import FleetPlan, PlannedAction
from jitcache.fleet.planfile import dump_plan, load_plan, parse_plan, plan_id
from jitcache.fleet.planning import Planner
from jitcache.fleet.recipes import keys_of, works_of
from jitcache.fleet.shard import Shard, parse_shard, shard_of
from jitcache.manifest.load import load_manifest, shipped_names
from jitcache.plan.planner import plan
from jitcache.store.store import Store
from tests.fake_toolchain import make_toolchain
from tests.fleet_help import ACTIONS, MANIFESTS, Fleet


def make(place, names=MANIFESTS, *, block_m=(32,), salt="", tokens=None) -> FleetPlan:
    toolchain = make_toolchain(place)
    plans = []
    for name in names:
        manifest = load_manifest(name)
        target = next(t for t in manifest.targets if t.arch == "gfx950")
        plans.append(plan(manifest, target=target, block_m=block_m, tokens=tokens))
    store = Store(place / "store")
    return Planner(store, lambda *_: toolchain, Durations(), salt).make(plans)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> FleetPlan:
    return make(tmp_path_factory.mktemp("plan"))


def test_a_second_run_elsewhere_gives_the_same_bytes(made, tmp_path):
    assert dump_plan(make(tmp_path)) == dump_plan(made)
    assert dump_plan(make(tmp_path)) == dump_plan(made)  # from the memo


def test_actions_that_manifests_share_stand_once(made, tmp_path):
    assert len(made.actions) == ACTIONS
    shared = [a for a in made.actions if len({n.deployment for n in a.needs}) > 1]
    assert [a.label for a in shared] == ["gemm1 64x32x32x128 v3 hot-even gfx950"]
    assert [n.deployment for n in shared[0].needs] == [0, 1]
    alone = [make(tmp_path, [name]) for name in MANIFESTS]
    assert {a.key for p in alone for a in p.actions} == {a.key for a in made.actions}
    assert sum(len(p.actions) for p in alone) == ACTIONS + 1


def test_keys_are_those_that_prebuild_computes(made, tmp_path):
    resolver = Resolver(Store(tmp_path / "store"), make_toolchain(tmp_path), "gfx950")
    for deployment in made.deployments:
        for module, work in zip(deployment.modules, works_of(deployment), strict=True):
            keys = keys_of(work, module)
            for recipe, _ in work.recipes():
                assert resolver.resolve(recipe).key == keys[recipe.identity]


def test_needs_name_the_token_counts_that_run_an_action(made, tmp_path):
    planned = make(tmp_path, ["kimi-k2.5-mxfp4-tp2"], block_m=None, tokens=(16, 160))
    runs = {a.label: a.needs[0].tokens for a in planned.actions}
    assert runs["gemm1 64x32x32x128 v3 hot-even gfx950"] == (16,)
    assert runs["gemm1 256x128x128x128 v3 hot-even gfx950"] == (160,)
    shim = next(a for a in planned.actions if a.kind == "host-shim")
    assert shim.needs[0].tokens == (16, 160)


def test_a_plan_reads_back_and_longest_comes_first(made):
    assert parse_plan(dump_plan(made), where="test") == made
    costs = [a.cost_ms for a in made.actions]
    assert costs == sorted(costs, reverse=True)
    assert min(costs) > 0


def test_a_salt_is_another_plan_with_other_keys(made, tmp_path):
    salted = make(tmp_path, salt="again")
    assert plan_id(salted) != plan_id(made)
    assert not {a.key for a in salted.actions} & {a.key for a in made.actions}


def _resealed(content: dict) -> bytes:
    from jitcache import digest

    body = {k: v for k, v in content.items() if k != "id"}
    return json.dumps({"id": digest.of_json(body), **body}).encode()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c["actions"][0].update(cost_ms=1), "was changed"),
        (lambda c: c.update(schema=9), "reads version 1"),
        (lambda c: c.update(extra=1), "unknown key 'extra'"),
        (lambda c: c["deployments"][0].update(arch="../x"), "plain file name"),
    ],
)
def test_a_changed_plan_is_refused(made, change, said):
    content = json.loads(dump_plan(made))
    change(content)
    with pytest.raises(InputError, match=said):
        parse_plan(json.dumps(content).encode(), where="plan.json")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c["actions"].append(c["actions"][0]), "lists an action twice"),
        (lambda c: c["actions"].pop(), "names an action that is not listed"),
        (lambda c: c.update(toolchains={}), "lacks the toolchain of gfx950"),
        (lambda c: c["actions"][0]["needs"][0].update(deployment=3), "between 0 and 2"),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(made, change, said):
    content = json.loads(dump_plan(made))
    change(content)
    with pytest.raises(InputError, match=said):
        parse_plan(_resealed(content), where="plan.json")


@given(st.binary(max_size=200))
def test_no_bytes_give_a_traceback(data):
    with pytest.raises(InputError):
        parse_plan(data, where="x")


def action(cost_ms: int, number: int) -> PlannedAction:
    key = f"sha256:{number:064x}"
    return PlannedAction(key, "x", "device", "gfx950", key, key, cost_ms, 1, "measured", ())


@given(st.lists(st.integers(0, 10**6), max_size=60), st.integers(1, 12))
def test_shares_are_a_partition_and_never_worse_than_the_simple_rule(costs, count):
    actions = [action(c, i) for i, c in enumerate(costs)]
    parts = shares(actions, count)
    assert sorted(a.key for p in parts for a in p) == sorted(a.key for a in actions)
    loads = [sum(a.cost_ms for a in p) for p in parts]
    assert max(loads) * count <= sum(costs) + max(costs, default=0) * (count - 1)
    for part in parts:
        assert [a.cost_ms for a in part] == sorted((a.cost_ms for a in part), reverse=True)
    assert shares(list(reversed(actions)), count) == parts


def test_shares_of_the_shipped_manifests_are_within_a_tenth_of_the_bound(tmp_path):
    """All of them, on all their GPUs, for any number of workers."""
    plans = [
        plan(manifest, target=target)
        for manifest in map(load_manifest, shipped_names())
        for target in manifest.targets
    ]
    store = Store(tmp_path / "store")
    planner = Planner(store, lambda arch, _: make_toolchain(tmp_path, arch=arch), Durations())
    costs = [a.cost_ms for a in planner.make(plans).actions]
    assert len(costs) > 60
    for count in range(1, 65):
        makespan = max(sum(costs[i] for i in part) for part in split(costs, count))
        assert makespan <= 1.1 * bound_ms(costs, count), count


def test_the_search_finds_what_the_simple_rule_does_not():
    costs = [70, 60, 50, 40, 30]  # two of 130 and 120; least loaded first gives 140 and 110
    assert sorted(sum(costs[i] for i in part) for part in split(costs, 2)) == [120, 130]


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, None),
        ({"RANK": "3", "WORLD_SIZE": "8"}, Shard(3, 8, "RANK")),
        (
            {"JOB_COMPLETION_INDEX": "0", "JITCACHE_SHARDS": "5", "RANK": "3", "WORLD_SIZE": "8"},
            Shard(0, 5, "JOB_COMPLETION_INDEX"),
        ),
        (
            {
                "SLURM_ARRAY_TASK_ID": "3",
                "SLURM_ARRAY_TASK_COUNT": "4",
                "SLURM_ARRAY_TASK_MIN": "1",
                "SLURM_ARRAY_TASK_MAX": "4",
            },
            Shard(2, 4, "SLURM_ARRAY_TASK_ID"),
        ),
        (
            {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "1", "JITCACHE_SHARDS": "9"},
            Shard(3, 9, "SLURM_ARRAY_TASK_ID"),
        ),
    ],
)
def test_the_scheduler_says_which_share(environ, wanted):
    assert shard_of(environ) == wanted


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"JOB_COMPLETION_INDEX": "0"}, "JITCACHE_SHARDS is not"),
        ({"RANK": "8", "WORLD_SIZE": "8"}, "no share 8 of 8"),
        ({"RANK": "x", "WORLD_SIZE": "8"}, "RANK is 'x'"),
        (
            {
                "SLURM_ARRAY_TASK_ID": "4",
                "SLURM_ARRAY_TASK_COUNT": "3",
                "SLURM_ARRAY_TASK_MIN": "0",
                "SLURM_ARRAY_TASK_MAX": "4",
            },
            "has gaps",
        ),
    ],
)
def test_variables_that_contradict_are_refused(environ, said):
    with pytest.raises(UsageError, match=said):
        shard_of(environ)


@pytest.mark.parametrize("text", ["", "1", "4/4", "-1/4", "0/0", "a/b", "0/4/2", "0x1/4"])
def test_what_is_no_share_is_refused(text):
    with pytest.raises(UsageError):
        parse_shard(text)


def test_one_plan_holds_several_architectures_and_names_no_lock_twice(tmp_path):
    fleet = Fleet(tmp_path)
    words = ("plan", "qwen3-235b-a22b-bf16-tp4", "--block-m", "32", "-o", str(fleet.plan))
    told = fleet.run(*words, "--arch", "gfx942", "--arch", "gfx950", "--json")
    assert sorted(told["toolchains"]) == ["gfx942", "gfx950"]
    planned = load_plan(fleet.plan)
    assert told["plan"] == plan_id(planned)
    assert [d.arch for d in planned.deployments] == ["gfx942", "gfx950"]
    assert {a.arch for a in planned.actions} == {"gfx942", "gfx950"}
    said = fleet.run(*words, "qwen3-235b-a22b-bf16-tp4", code=ExitCode.INPUT)
    assert "would have the same lock file" in said
