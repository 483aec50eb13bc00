"""Which kernels share a front end: never a longer build, and no packs where cores abound."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jitcache.action.actions import Action, actions_of
from jitcache.action.resolve import Resolver
from jitcache.action.worklist import worklist
from jitcache.build import packjob
from jitcache.build.model import Compiled, EdgeUsage
from jitcache.build.packed import pack_jobs, unpacked
from jitcache.build.packing import MOST, Pack, Unit, plan_packs, wall
from jitcache.buildlog.compilecommand import CompileCommand, parse_command
from jitcache.codegen.native import Recipe, packed_recipe
from jitcache.manifest.load import load_manifest
from jitcache.outcome import Built
from jitcache.plan.planner import plan
from jitcache.prebuild import Prebuilder
from jitcache.store.store import Store
from tests import fake_clang
from tests.build_help import job
from tests.compile_help import Alone, installed
from tests.fake_toolchain import add_bitcode_tools, compiles, make_toolchain
from tests.prebuild_driver import work

GIB = 1 << 30

units = st.lists(
    st.builds(
        lambda family, instance, cost, memory: (family, f"{family}{instance}", cost, memory),
        st.sampled_from(["", "a4w4", "a8w8"]),
        st.integers(0, 5),
        st.floats(0.5, 100),
        st.integers(GIB // 4, 2 * GIB),
    ),
    min_size=1,
    max_size=14,
).map(lambda rows: [Unit(str(i), *row) for i, row in enumerate(rows)])

KIMI = [
    Unit(name, "a4w4", name, cost, round(memory * GIB))
    for name, cost, memory in (
        ("gemm1 256x128", 29.0, 0.81),
        ("gemm1 256x64", 21.0, 0.69),
        ("gemm1 64x32", 15.4, 0.63),
        ("gemm2 256x128", 28.1, 0.79),
        ("gemm2 256x64", 21.0, 0.69),
        ("gemm2 256x32", 18.0, 0.65),
    )
] + [Unit("shim", "", "shim", 3.0, GIB // 2)]


def alone(some: list[Unit]) -> list[Pack]:
    return [Pack((u,)) for u in some]


def with_cores(cores: int, memory: int = 1 << 50):
    def jobs_for(memories) -> int:
        largest = sorted(memories, reverse=True)
        fits = [n for n in range(1, cores + 1) if sum(largest[:n]) <= memory]
        return max(fits, default=1)

    return jobs_for


@settings(max_examples=60)
@given(units, st.integers(1, 9), st.integers(1, 12))
def test_every_unit_is_there_once_and_the_build_is_never_longer(some, cores, memory) -> None:
    jobs_for = with_cores(cores, memory * GIB)
    packs = plan_packs(some, jobs_for)
    assert sorted(u.key for p in packs for u in p.units) == sorted(u.key for u in some)
    for pack in packs:
        assert len(pack.units) <= MOST
        assert len({u.family for u in pack.units}) == 1
        assert pack.units[0].family or len(pack.units) == 1
    before = wall(alone(some), jobs_for([u.memory for u in some]))
    assert wall(packs, jobs_for([p.memory for p in packs])) <= before


@settings(max_examples=60)
@given(units)
def test_with_a_core_for_each_nothing_is_packed(some) -> None:
    assert all(len(p.units) == 1 for p in plan_packs(some, lambda _: len(some)))


@given(units)
def test_equal_input_gives_the_equal_plan(some) -> None:
    assert plan_packs(some, with_cores(2)) == plan_packs(some, with_cores(2))


def test_on_two_cores_kimis_kernels_share_front_ends() -> None:
    packs = plan_packs(KIMI, with_cores(2))
    assert max(len(p.units) for p in packs) == 3
    assert wall(packs, 2) < 0.95 * wall(alone(KIMI), 2)


def test_the_walls_of_the_docs() -> None:
    walls = {
        cores: (
            round(wall(alone(KIMI), cores), 1),
            round(wall(plan_packs(KIMI, with_cores(cores)), cores), 1),
        )
        for cores in (1, 2, 4, 8, 64)
    }
    assert walls[8] == walls[64] == (29.0, 29.0)
    assert all(packed <= unpacked for unpacked, packed in walls.values())


def test_too_little_memory_for_two_front_ends_packs_as_for_one_core() -> None:
    packs = plan_packs(KIMI, with_cores(2, GIB))
    assert wall(packs, 1) < wall(alone(KIMI), 1)


def test_kernels_of_one_instance_share_more_than_two_tiles() -> None:
    one, two = (Unit(k, "f", "i", 20.0, GIB) for k in "ab")
    other = Unit("c", "f", "j", 20.0, GIB)
    assert Pack((one, two)).cost_s < Pack((one, other)).cost_s < 40
    assert Pack((one,)).cost_s == 20
    assert GIB < Pack((one, two)).memory < 2 * GIB


def test_a_pack_has_its_limit() -> None:
    many = [Unit(str(i), "f", "one", 1.0, GIB // 8) for i in range(3 * MOST)]
    packs = plan_packs(many, with_cores(1))
    assert max(len(p.units) for p in packs) == MOST


def test_what_an_empty_build_needs() -> None:
    assert plan_packs([], with_cores(2)) == ()


# --- in a build ----------------------------------------------------------------------------


def symbol_of(recipe: Recipe) -> str:
    (variant,) = recipe.context["variants"]
    said = f"{recipe.context['parameters']} {variant['arguments']}"
    return fake_clang.symbol_of(said)


def build(
    place: Path,
    *,
    name: str = "kimi-k2.5-mxfp4-tp2",
    pack: bool = True,
    launcher: tuple[str, ...] = (),
    **how,
) -> Built:
    place.mkdir(exist_ok=True)
    toolchain = make_toolchain(place, **how)
    store = Store(place / "store")
    resolver = Resolver(store, toolchain, "gfx950")
    actions = list(actions_of(work(name), resolver).values())
    builder = Prebuilder(
        store, toolchain, "gfx950", resolver, jobs=1, pack=pack, launcher=launcher, keep_going=True
    )
    return builder.build(actions)


def test_each_kernel_of_a_pack_is_published_under_the_key_it_has_alone(tmp_path) -> None:
    plain = build(tmp_path / "plain", pack=False)
    (tmp_path / "packed").mkdir()
    add_bitcode_tools(tmp_path / "packed")
    packed = build(tmp_path / "packed")
    assert packed.failed == []
    assert set(packed.records) == set(plain.records)
    sources = compiles(tmp_path / "packed")
    assert [s for s in sources if s.startswith("pack_of_")]
    assert len(sources) < len(compiles(tmp_path / "plain")) == 7
    # What several kernels cost together is no measurement of any of them.
    samples = (
        (tmp_path / "packed/store/durations-v1/samples.jsonl").read_text().strip().splitlines()
    )
    assert len(samples) == len([s for s in sources if not s.startswith("pack_of_")])
    assert not list(tmp_path.rglob("*.whole"))
    assert not list(tmp_path.rglob("*.bc"))


@pytest.mark.parametrize("name", ["kimi-k2.5-mxfp4-tp2", "deepseek-v3-fp8-tp8"])
def test_each_kernel_is_the_one_that_its_key_means(tmp_path, name) -> None:
    # DeepSeek's modules with and without split K have kernels of the same file name, and
    # instances of which two kernels are needed.
    add_bitcode_tools(tmp_path)
    built = build(tmp_path, name=name)
    assert built.failed == []
    sources = compiles(tmp_path)
    assert sources
    assert all(s.startswith(("pack_of_", "module_")) for s in sources)
    resolver = Resolver(Store(tmp_path / "store"), make_toolchain(tmp_path), "gfx950")
    for module in work(name):
        for kernel in module.kernels:
            record = built.records[resolver.resolve(kernel.recipe).key]
            assert [k["symbol"] for k in record.facts["kernels"]] == [symbol_of(kernel.recipe)]
            assert record.outputs[0].name == kernel.recipe.output_name


def test_a_time_trace_of_a_pack_is_one_of_its_front_end(tmp_path) -> None:
    add_bitcode_tools(tmp_path)
    built = build(tmp_path)
    assert built.run_directory is not None
    lines = (built.run_directory / "build.ninja").read_text().splitlines()
    calls = [line.partition("words = ")[2] for line in lines if "packjob.py" in line]
    assert calls
    for call in calls:
        found = parse_command(call)
        assert isinstance(found, CompileCommand)
        assert found.own
        assert found.argv[0] == str(tmp_path / "clang")
        assert found.argv[-1].endswith(".hip")


def test_what_is_built_packed_is_found_unpacked_and_the_other_way_round(tmp_path) -> None:
    add_bitcode_tools(tmp_path)
    build(tmp_path)
    again = build(tmp_path, pack=False)
    assert (again.built, again.hits) == (0, 7)


def test_a_pack_that_fails_is_compiled_one_by_one(tmp_path) -> None:
    add_bitcode_tools(tmp_path)
    built = build(tmp_path, fail="gemm1_256x64x128x128")
    assert built.built == 5
    # The shim names every instance, so it fails, too.
    assert sorted(f.label.split()[0] for f in built.failed) == ["gemm1", "host"]
    assert built.not_run == []


def test_without_llvms_programs_or_with_a_launcher_nothing_is_packed(tmp_path) -> None:
    build(tmp_path / "bare")
    assert len(compiles(tmp_path / "bare")) == 7
    (tmp_path / "sent").mkdir()
    add_bitcode_tools(tmp_path / "sent")
    sent = build(tmp_path / "sent", launcher=("env",))
    assert sent.run_directory is not None
    assert not list(sent.run_directory.rglob("pack_of_*"))


def test_a_pack_holds_single_kernels_of_one_family() -> None:
    (module,) = work("kimi-k2.5-mxfp4-tp2")
    recipes = [k.recipe for k in module.kernels]
    text = packed_recipe(recipes).render()
    for index, recipe in enumerate(recipes):
        assert f"using Instance{index} = jitcache::Instance<{recipe.context['parameters']}>" in text
    assert text.count('#include "jitcache/family/a4w4.hpp"') == 1
    with pytest.raises(ValueError, match="can't share"):
        packed_recipe([recipes[0], module.shim])


def test_kernels_of_one_file_name_have_outputs_of_their_own(tmp_path) -> None:
    add_bitcode_tools(tmp_path)
    toolchain = make_toolchain(tmp_path)
    plain, split = work("deepseek-v3-fp8-tp8")
    recipes = [
        next(k.recipe for k in module.kernels if "256x16x128x256_1x4_v1_hot-even" in k.recipe.stem)
        for module in (plain, split)
    ]
    alone = [
        (replace(job(str(i)), output_name=recipe.output_name, cost_s=20.0), recipe)
        for i, recipe in enumerate(recipes)
    ]
    assert recipes[0].output_name == recipes[1].output_name
    ((packed, members),) = pack_jobs(alone, toolchain, "gfx950", lambda _: 1)
    outputs = json.loads(packed.argv[-1])["outputs"]
    assert len(set(outputs)) == len(members) == 2
    usage = EdgeUsage(0.0, 30.0, 28.0, GIB)
    results = unpacked(Compiled(packed, tmp_path / outputs[0], (), usage), members)
    assert len({r.output for r in results}) == 2
    assert sum(r.usage.cpu_s for r in results) == 28


def test_symbols_are_read_from_the_listings() -> None:
    listing = "; x\n@_ZL16jitcache_kernels = internal constant [2 x ptr] [ptr @_Za, ptr @_Zb.1]\n"
    assert packjob.kernels_of(listing) == ["_Za", "_Zb.1"]
    assert packjob.kernels_of("@other = constant i32 0\n") == []
    symbols = "---- T _Zt\n---- t _Zl\n---- W _Zw\n      U _Zu\n---- D __hip_cuid_\n"
    assert packjob.strong_symbols(symbols) == ["_Zt", "__hip_cuid_"]


def test_bitcode_without_the_kernels_is_refused(tmp_path, capfd) -> None:
    (tmp_path / "whole.bc").write_text("_Zone []\n")
    add_bitcode_tools(tmp_path)
    spec = {
        "front": ["true"],
        "bitcode": str(tmp_path / "whole.bc"),
        **{n: str(tmp_path / p) for n, p in PROGRAMS.items()},
        "back": ["false"],
        "outputs": [str(tmp_path / "a.co"), "b.co"],
    }
    assert packjob.main(spec) == 1
    assert "2 kernels were wanted" in capfd.readouterr().err
    with pytest.raises(SystemExit) as caught:
        packjob.main({**spec, "front": ["sh", "-c", "exit 3"]})
    assert caught.value.code == 3


PROGRAMS = {"extract": "llvm-extract", "nm": "llvm-nm", "opt": "opt"}


# --- with a real compiler ------------------------------------------------------------------


@pytest.mark.compile
@pytest.mark.parametrize(
    ("manifest", "arch"),
    [("kimi-k2.5-mxfp4-tp2", "gfx950"), ("qwen3-235b-a22b-bf16-tp4", "gfx942")],
)
def test_a_packed_compile_gives_the_bytes_of_single_ones(
    tmp_path, manifest, arch, alone: Alone
) -> None:
    toolchain = installed(arch)
    found = load_manifest(manifest)
    target = next(t for t in found.targets if t.arch == arch)
    modules = worklist(plan(found, target=target))
    smallest = sorted(modules[0].kernels, key=lambda k: k.instance.tile.m * k.instance.tile.n)[:2]
    store = Store(tmp_path / "store")
    resolver = Resolver(store, toolchain, arch)
    actions = [Action(resolver.resolve(k.recipe), str(k.variant)) for k in smallest]
    built = Prebuilder(store, toolchain, arch, resolver, jobs=1, pack=True).build(actions)
    assert built.failed == []
    assert built.run_directory is not None
    assert "pack_of_2" in (built.run_directory / "build.ninja").read_text()
    single = alone.records(toolchain, arch, [k.recipe for k in smallest])
    assert {k: r.outputs for k, r in built.records.items()} == {r.key: r.outputs for r in single}
