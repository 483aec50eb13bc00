"""The report in kernel terms: what units are, which rows need them, what pruning saved."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from jitcache.action.actions import actions_of
from jitcache.action.resolve import Resolver
from jitcache.action.worklist import worklist
from jitcache.build.durations import Durations, features_of
from jitcache.build.runplan import (
    FACTS,
    PLAN,
    Facts,
    RunPlan,
    append_facts,
    read_facts,
    read_plan,
    run_plan,
    write_plan,
)
from jitcache.cli.report import command
from jitcache.codegen.catalog import ModuleSpec, Quant, instances, variants
from jitcache.codegen.native import device_recipe
from jitcache.manifest.load import load_manifest
from jitcache.plan.model import Plan
from jitcache.plan.needs import Needs, Rows, grouped, merged
from jitcache.plan.planner import plan
from jitcache.prebuild import Prebuilder
from jitcache.report.assemble import report_run
from jitcache.report.kernels import Need, rows_text
from jitcache.report.markdown import render as render_markdown
from jitcache.report.page import page_data
from jitcache.report.source import read_build
from jitcache.report.text import render
from jitcache.store.store import Store
from tests.fake_toolchain import make_toolchain

AITER = Path(__file__).parent / "data" / "ninja" / "aiter_a4w4"
SMALL = Path(__file__).parent / "data" / "ninja" / "small"

SPEC = ModuleSpec("fp4x2", "fp4x2", "b16", Quant.PER_1X32, "silu", 2, preshuffle=True)
BIG = next(i for i in instances(SPEC, "gfx950") if i.short == "gemm1 256x128x128x128 v3")
ALL = variants(BIG)


def kimi(tokens: tuple[int, ...] = (16, 64, 4096)) -> Plan:
    manifest = load_manifest("kimi-k2.5-mxfp4-tp2")
    return plan(manifest, target=manifest.targets[0], tokens=tokens)


def described(of: Plan) -> RunPlan:
    recipes = {r.identity: r for m in worklist(of) for r, _ in m.recipes()}
    keys = {identity: f"sha256:{identity[7:]}" for identity in recipes}
    known = Durations()
    return run_plan(
        of,
        keys,
        {key.removeprefix("sha256:")[:16]: [key] for key in keys.values()},
        lambda r: known.estimate(features_of(r, "gfx950", "clang 22")),
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a prebuild with the fake compiler."""
    place = tmp_path_factory.mktemp("kernels")
    store = Store(place / "store")
    toolchain = make_toolchain(place)
    resolver = Resolver(store, toolchain, "gfx950")
    planned = kimi()
    actions = actions_of(worklist(planned), resolver)
    distinct = list({a.key: a for a in actions.values()}.values())
    result = Prebuilder(store, toolchain, "gfx950", resolver, jobs=2, plan=planned).build(distinct)
    assert result.run_directory is not None
    assert not result.failed
    return result.run_directory


def test_needs_are_the_rows_that_dispatch_to_a_kernel() -> None:
    planned = kimi()
    needs = Needs(planned)
    module = planned.modules[0]
    name = module.spec.name
    seen = []
    for required in module.instances:
        for variant in required.variants:
            rows = needs.of_kernel(name, required.instance.name, variant.variant)
            wanted = [
                r.tokens
                for r in planned.rows
                if r.block_m == required.block_m
                and r.stages[required.instance.stage - 1].kernel == required.instance.name
            ]
            assert [t for r in rows for t in r.tokens] == sorted(wanted)
            seen += wanted
    # Each row runs one kernel of either stage.
    assert sorted(seen) == sorted(2 * [r.tokens for r in planned.rows])
    assert needs.of_kernel("another", BIG.name, ALL[0]) == ()


def test_a_shim_serves_the_rows_of_its_planned_kernels_only() -> None:
    manifest = load_manifest("kimi-k2.5-mxfp4-tp2")
    narrow = plan(manifest, target=manifest.targets[0], tokens=(4, 4096), block_m=(128,))
    assert {r.tokens for r in narrow.rows} == {4, 4096}
    shim = next(u for u in described(narrow).units if not u.stage)
    assert shim.rows == (Rows("moe", (4096,)),)


def test_rows_are_brought_together_by_layer() -> None:
    assert grouped([("b", 4), ("a", 2), ("b", 1), ("b", 4)]) == (
        Rows("b", (1, 4)),
        Rows("a", (2,)),
    )
    assert merged([[Rows("a", (2,))], [Rows("a", (1, 2))]]) == (Rows("a", (1, 2)),)


def test_what_is_left_out_is_the_rest_of_the_stock_module() -> None:
    planned = kimi()
    got = described(planned)
    assert len(got.units) == planned.device_kernels + len(planned.modules)
    whole = [p for p in got.left_out if p.whole]
    assert [p.instance for p in whole] == [p.instance.name for p in planned.modules[0].pruned]
    # CK compiles four kernels of an a4w4 instance.
    assert {p.kernels for p in whole} == {4}
    assert {p.kernels for p in got.left_out if not p.whole} == {3}
    assert all(p.cost_s > 0 and p.why for p in got.left_out)
    # The three further kernels of an instance cost 1.05 of its first one.
    one = Durations().estimate(features_of(device_recipe(BIG, ALL[:1], "gfx950"), "gfx950", "c"))
    big = next(p for p in got.left_out if p.label == BIG.short)
    assert not big.whole
    assert big.cost_s == pytest.approx(one.cost_s * 1.05)


def test_a_plan_file_survives_and_a_broken_one_is_no_plan(tmp_path: Path) -> None:
    got = described(kimi())
    write_plan(tmp_path, got)
    assert read_plan(tmp_path) == got
    (tmp_path / PLAN).write_bytes((tmp_path / PLAN).read_bytes()[:-40])
    assert read_plan(tmp_path) is None
    (tmp_path / PLAN).write_text('{"manifest": 3}')
    assert read_plan(tmp_path) is None
    assert read_plan(tmp_path / "nowhere") is None


def test_facts_survive_lines_that_make_no_sense(tmp_path: Path) -> None:
    facts = Facts("sha256:a", 10, 20, 30, ({"vgprs": 5},))
    with (tmp_path / FACTS).open("wb") as f:
        f.write(b"\xff\n{}\n[1]\n" + b"[" * 100_000 + b"\n")
    append_facts(tmp_path, facts)
    assert read_facts(tmp_path) == {"sha256:a": facts}
    append_facts(tmp_path / "nowhere", facts)  # no error


def test_the_report_tells_each_kernel_its_cost_and_its_rows(built: Path) -> None:
    report = report_run(read_build(built), -1)
    terms = report.kernels
    assert terms is not None
    assert (terms.manifest, terms.arch) == ("kimi-k2.5-mxfp4-tp2", "gfx950")
    assert {u.output for u in terms.units} == {e.output for e in report.edges}
    kernels = [u for u in terms.units if u.stage]
    assert {u.family for u in kernels} == {"a4w4"}
    for unit in kernels:
        assert unit.variant in unit.label
        assert unit.tile.startswith(unit.label.split()[1])
        assert unit.bytes is not None
        assert unit.bytes > 0
        assert unit.peak_rss is not None
        assert unit.peak_rss > 0
        assert unit.cpu_s is not None
        assert unit.registers is not None
        assert unit.registers.sgprs > 0
    needed = {t for u in kernels for n in u.rows for t in n.tokens}
    assert needed == {16, 64, 4096}
    shim = next(u for u in terms.units if not u.stage)
    assert shim.rows[0].tokens == (16, 64, 4096)
    assert terms.saved_s == pytest.approx(sum(p.cost_s for p in terms.left_out))


def test_the_bound_names_the_kernel_and_its_rows(built: Path) -> None:
    report = report_run(read_build(built), -1)
    assert report.kernels is not None
    path = next(e for e in report.edges if e.output == report.critical_path[0])
    (unit,) = report.kernels.of(path.output)
    text = report.kernels.bound
    assert text.startswith(f"the build can't beat {report.critical_path_s:.1f} s because of ")
    assert unit.label in text
    assert f"rows that need it: {rows_text(unit.rows)}" in text
    shown = render(report)
    assert text in shown
    assert "pruning left out" in shown
    assert "| kernel | family |" in render_markdown(report)


def test_the_json_has_everything(built: Path) -> None:
    value = json.loads(CliRunner().invoke(command, [str(built), "--json"]).stdout)["kernels"]
    assert value["scope"] == kimi().scope
    unit = next(u for u in value["units"] if u["stage"] == 1 and u["rows"])
    assert unit["rows"][0]["tokens"]
    assert set(unit["registers"]) == {
        "vgprs",
        "agprs",
        "sgprs",
        "vgpr_spills",
        "sgpr_spills",
        "lds",
        "scratch",
    }
    assert value["left_out"][0]["why"]


def test_the_page_has_the_table(built: Path) -> None:
    report = report_run(read_build(built), -1)
    table = page_data(report)["kernels"]
    assert table["columns"][:2] == ["kernel", "family"]
    assert table["columns"][-1] == "rows that need it"
    assert len(table["align"]) == len(table["columns"])
    assert {len(row) for row in table["rows"]} == {len(table["columns"])}
    assert report.kernels is not None
    assert table["bound"] == report.kernels.bound != ""
    assert table["left_out"]


def test_stock_objects_are_told_by_their_names(tmp_path: Path) -> None:
    for name in ("build.ninja", ".ninja_log"):
        shutil.copy(AITER / name, tmp_path / name)
    outputs = [e.output for e in report_run(read_build(tmp_path), -1).edges]
    big = next(o for o in outputs if "gemm1_256x128" in o)
    (tmp_path / big).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / big).write_bytes(b"x" * 2048)
    terms = report_run(read_build(tmp_path), -1).kernels
    assert terms is not None
    unit = terms.of(big)[0]
    assert (unit.family, unit.stage, unit.bytes) == ("a4w4", 1, 2048)
    assert unit.tile == "256x128x128x128_1x4_v3"
    assert not unit.rows_known
    assert terms.bound.endswith("because of gemm1 256x128x128x128 v3 (a4w4 stage 1): 54.3 s")
    assert {len(terms.of(o)) for o in outputs} == {0, 1}  # torch's units are no kernels


def test_a_build_without_kernels_has_no_such_section(tmp_path: Path) -> None:
    shutil.copy(SMALL / "build.ninja", tmp_path / "build.ninja")
    shutil.copy(SMALL / "v7-two-runs.log", tmp_path / ".ninja_log")
    report = report_run(read_build(tmp_path), -1)
    assert report.kernels is None
    assert "can't beat" not in render(report)


def test_many_rows_are_abridged() -> None:
    assert rows_text([]) == "none listed, only the scope asks for it"
    assert rows_text([Need("moe", (1, 2))]) == "moe with 1, 2 tokens"
    assert rows_text([Need("moe", tuple(range(1, 9)))]) == "moe with 1 .. 8 tokens (8 rows)"
    assert rows_text([Need(n, (1,)) for n in "abcde"], most=2) == (
        "a with 1 tokens; b with 1 tokens; 3 more layers"
    )
