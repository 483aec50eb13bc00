"""Our C++: what is rendered fits the headers, and every family compiles for real."""

from __future__ import annotations

import functools
import itertools
import re
import subprocess
from pathlib import Path

import pytest

from jitcache import codeobject
from jitcache.action.ckfeatures import missing
from jitcache.action.command import compile_command
from jitcache.codegen import catalog, native
from jitcache.codegen.catalog import Instance, ModuleSpec, Quant, Variant
from jitcache.codegen.catalog.dims import k_per_block
from jitcache.codegen.catalog.select import instances, refusal
from jitcache.codegen.catalog.variants import variant_for, variants
from tests.compile_help import installed
from tests.shim_help import Shim

CSRC = Path(native.__file__).parent.parent / "csrc" / "jitcache"


def specs(arch: str) -> list[ModuleSpec]:
    """Every module that can be built and run on an architecture."""
    asked = itertools.product(
        [(t, t) for t in ("b16", "f16", "f8", "i8", "fp4x2")] + [("f8", "i4")],
        ("f16", "b16"),
        Quant,
        ("silu", "gelu"),
        (1, 2),
        (True, False),
        (False, True),
    )
    found = (ModuleSpec(a, b, *rest) for (a, b), *rest in asked)
    return [s for s in found if refusal(s, arch) is None and catalog.emitted(s) == s]


BUILDABLE = [(s, arch) for arch in catalog.ARCHES for s in specs(arch)]


@functools.cache
def read(header: str) -> str:
    return (CSRC / header).read_text(encoding="utf-8")


def with_includes(header: str) -> str:
    """A header of ours with those of ours that it includes."""
    text = read(header)
    inner = re.findall(r'#include "jitcache/(.+?)"', text)
    return "\n".join([*(with_includes(h) for h in inner), text])


@functools.cache
def macro_arities(header: str) -> dict[str, int]:
    found = re.findall(r"#define (JITCACHE_KERNEL_V\d)\((.*?)\)", with_includes(header))
    return {name: len(listed.split(",")) for name, listed in found}


def split(arguments: str) -> list[str]:
    """Template arguments; none of ours holds a comma of its own."""
    return [a.strip() for a in arguments.split(",")]


def test_every_family_is_covered_by_a_module_of_each_architecture_it_runs_on():
    covered = {(i.family, arch) for s, arch in BUILDABLE for i in instances(s, arch)[:1]}
    assert covered == {(f.tag, a) for f in catalog.all_families() for a in set(f.runs_on)}


@pytest.mark.parametrize("family", [f.tag for f in catalog.all_families()])
def test_a_familys_header_names_its_namespace_and_both_kernel_macros(family):
    name = family.removesuffix("_gfx950")
    text = read(f"family/{name}.hpp")
    assert f"namespace jitcache::{name} {{" in text
    assert re.search(r"\busing Op = ", text)
    non_temporal = catalog.family_by_tag(family).non_temporal
    assert macro_arities(f"family/{name}.hpp") == {
        f"JITCACHE_KERNEL_V{v}": 3 + non_temporal for v in (1, 3)
    }


def test_every_kernel_of_every_module_renders_to_what_the_headers_take():
    declared = re.search(
        r"template <int Stage,(.*?)>\s*struct Instance", read("instance.hpp"), re.DOTALL
    )
    tile_parameters = 1 + len(declared[1].split(","))
    types = set(re.findall(r"^using (\w+)\s*=", read("ck_types.hpp"), re.MULTILINE))
    operations = set(re.findall(r"^struct (\w+)", read("cde_ops.hpp"), re.MULTILINE))
    for spec, arch in BUILDABLE:
        for instance in instances(spec, arch):
            stage, a, b, out, op, pipeline, *rest = split(native.parameters(instance))
            assert len(rest) + 6 == tile_parameters
            assert {a, b, out} <= types
            assert op in operations
            assert pipeline == f"jitcache::pipeline_v{instance.tile.pipeline}"
            assert int(stage) == instance.stage
            for variant in variants(instance):
                context = native.device_recipe(instance, (variant,), arch).context
                (kernel,) = context["variants"]
                arity = macro_arities(f"family/{context['header']}.hpp")
                assert (
                    1 + len(split(kernel["arguments"]))
                    == arity[f"JITCACHE_KERNEL_V{context['pipeline']}"]
                )


@pytest.mark.parametrize("family", [f.tag for f in catalog.all_families()])
def test_rendering_a_familys_kernels_is_stable_and_complete(family):
    spec, arch = next((s, a) for s, a in BUILDABLE if catalog.family_of(s, a).tag == family)
    for instance in instances(spec, arch):
        all_variants = variants(instance)
        recipe = native.device_recipe(instance, all_variants, arch)
        again = native.device_recipe(instance, tuple(reversed(all_variants)), arch)
        assert (again.identity, again.render()) == (recipe.identity, recipe.render())
        text = recipe.render()
        assert f'#include "jitcache/family/{native.header(instance)}.hpp"' in text
        assert f"using Instance = jitcache::Instance<{native.parameters(instance)}>;" in text
        assert text.count(f"JITCACHE_KERNEL_V{instance.tile.pipeline}(Instance, ") == len(
            all_variants
        )
    shim = native.shim_recipe(spec, instances(spec, arch)).render()
    for instance in instances(spec, arch):
        assert (
            f'JITCACHE_SHIM_ENTRY("{instance.name}", jitcache::{native.header(instance)}::Op,'
            in shim
        )


# --- real compiles ---------------------------------------------------------------------------

CASES = {
    ("a16w16", "gfx942"): ModuleSpec("b16", "b16", "b16", Quant.NO, "silu", 2, True),
    ("a16w16_gfx950", "gfx950"): ModuleSpec("f16", "f16", "f16", Quant.NO, "gelu", 2, True),
    ("a8w8", "gfx942"): ModuleSpec("i8", "i8", "b16", Quant.PER_TOKEN, "silu", 2, True),
    ("a8w8_gfx950", "gfx950"): ModuleSpec("f8", "f8", "b16", Quant.PER_TENSOR, "silu", 1, True),
    ("a8w4", "gfx942"): ModuleSpec("f8", "i4", "b16", Quant.PER_TOKEN, "silu", 2, True),
    ("a8w4", "gfx950"): ModuleSpec("f8", "i4", "b16", Quant.PER_TOKEN, "silu", 2, True),
    ("a8w8blkscale", "gfx942"): ModuleSpec("f8", "f8", "b16", Quant.PER_1X128, "silu", 2, True),
    ("a8w8blkscale", "gfx950"): ModuleSpec("f8", "f8", "b16", Quant.PER_1X128, "silu", 2, True),
    ("a4w4", "gfx950"): ModuleSpec("fp4x2", "fp4x2", "b16", Quant.PER_1X32, "silu", 2, True),
    ("a4w4_bns", "gfx950"): ModuleSpec("fp4x2", "fp4x2", "b16", Quant.PER_1X32, "silu", 2, False),
}


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("csrc")


def toolchain(work: Path, arch: str):
    return installed(arch, work / "cache")


def ck_include(tools) -> Path:
    return next(r.path for r in tools.include_roots if r.name == "ck")


def build(tools, recipe: native.Recipe, place: Path) -> tuple[Path, str]:
    """Compile a recipe by the product's command; the output and what the compiler said."""
    place.mkdir(parents=True, exist_ok=True)
    source, output = place / recipe.source_name, place / recipe.output_name
    source.write_text(recipe.render())
    named = {"source": source, "output": output, "depfile": place / "depfile"}
    command = compile_command(tools, "device" if recipe.kind == "device" else "host-shim")
    done = subprocess.run(
        [re.sub(r"\{(\w+)\}", lambda m: str(named[m[1]]), word) for word in command.argv],
        capture_output=True,
        text=True,
    )
    return output, done.stderr if done.returncode else ""


def smallest(of: tuple[Instance, ...]) -> Instance:
    return min(of, key=lambda i: (i.tile.m * i.tile.n * i.tile.k, i.tile.pipeline))


@pytest.mark.compile
@pytest.mark.parametrize(("family", "arch"), CASES)
def test_a_family_compiles_and_its_shim_agrees_with_the_catalog(family, arch, work):
    tools = toolchain(work, arch)
    spec = CASES[family, arch]
    listed = instances(spec, arch)
    place = work / f"{family}-{arch}"

    instance = smallest(listed)
    assert instance.family == family
    variant = variant_for(instance, 4 * k_per_block(instance))
    assert missing(ck_include(tools), instance, variant) is None
    output, said = build(tools, native.device_recipe(instance, (variant,), arch), place)
    assert not said
    found = codeobject.read(output)
    (kernel,) = found.kernels
    assert found.arch == arch

    output, said = build(tools, native.shim_recipe(spec, listed), place)
    assert not said
    shim = Shim(output)
    assert shim.names == [i.name for i in listed]
    # The host pass and the device pass see other macros; they must agree on the argument.
    assert shim.kernarg_size(listed.index(instance)) == kernel.kernarg_size
    assert kernel.workgroup >= instance.tile.block_size
    for index, each in enumerate(listed):
        check_launches(shim, index, each)


def check_launches(shim: Shim, index: int, instance: Instance) -> None:
    tile, step = instance.tile, k_per_block(instance)
    for steps in (1, 2, 3, 4, 5, 28):
        launch = shim.prepare(index, k=steps * step)
        assert launch.refused == ""
        expected = variant_for(instance, steps * step)
        assert launch.hot_loop == expected.hot_loop
        if expected.tail != "full":
            assert launch.tail_even == (expected.tail == "even")
        assert launch.grid == (2048 // tile.n, 4096 // tile.m, 1)
        assert launch.block == (tile.block_size, 1, 1)
        assert launch.clear_bytes == 0
        assert launch.kernarg[:8] == bytes(8)
    assert "tile's K" in shim.prepare(index, k=4 * step + step // 2).refused
    assert "tile's N" in shim.prepare(index, n=2048 + tile.n // 2).refused
    assert "positive" in shim.prepare(index, tokens=0).refused
    assert shim.prepare(index).kernarg == shim.prepare(index).kernarg
    # Routed weights reach the kernel only in the stage that multiplies by them.
    moved = shim.prepare(index, sorted_weights=0x77000).kernarg != shim.prepare(index).kernarg
    assert moved == instance.mul_routed_weight


@pytest.mark.compile
@pytest.mark.parametrize("kind", ["split-k", "non-temporal"])
def test_cpp_and_python_agree_on_what_ck_can_build(kind, work):
    tools = toolchain(work, "gfx942")
    splits = kind == "split-k"
    spec = ModuleSpec("f8", "f8", "b16", Quant.PER_1X128, "silu", 2, True, splits)
    listed = instances(spec, "gfx942")
    instance = smallest(tuple(i for i in listed if i.stage == 1))
    variant = Variant(hot_loop=False, tail="odd", non_temporal=not splits)
    lack = missing(ck_include(tools), instance, variant)
    recipe = (
        native.shim_recipe(spec, listed)
        if splits
        else native.device_recipe(instance, (variant,), "gfx942")
    )
    output, said = build(tools, recipe, work / kind)
    assert bool(said) == (lack is not None)
    if lack is not None:
        assert ("can't split K" if splits else "no non-temporal loads") in said
        assert kind.replace("split-k", "split K") in lack
    elif splits:
        check_split_k(Shim(output), listed.index(instance), instance)


def check_split_k(shim: Shim, index: int, instance: Instance) -> None:
    step = k_per_block(instance)
    launch = shim.prepare(index, k=12 * step, splitk=4)
    assert launch.refused == ""
    # Gate and up are columns of their own, and four workgroups share one K of three steps each.
    assert launch.grid == (2 * 2048 // instance.tile.n, 4096 // instance.tile.m, 4)
    assert (launch.hot_loop, launch.tail_even) == (True, False)
    assert launch.clear_bytes == 2 * 4096 * 2048 * 4
    assert "splitk" in shim.prepare(index, k=12 * step, splitk=1).refused
    assert "splitk" in shim.prepare(index, k=12 * step, splitk=5).refused
    assert "splitk" in shim.prepare(index, k=4 * step, splitk=4).refused
    assert "splitk" in shim.prepare(index, k=2 * step, splitk=4).refused
