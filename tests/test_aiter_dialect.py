"""The AITER dialect: agreement of its files, and what its dispatch does when it runs."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitcache.codegen import aiter as dialect
from jitcache.codegen import catalog
from jitcache.codegen.catalog import Instance, ModuleSpec, Quant, Stage
from jitcache.codegen.templating import c_string
from tests import aiter_standin
from tests.aiter_standin import call, described, needs_compiler

pytestmark = pytest.mark.slow

KIMI = ModuleSpec("fp4x2", "fp4x2", "b16", Quant.PER_1X32, "silu", 2, preshuffle=True)
KIMI_GELU = replace(KIMI, act="gelu")
"""Has stage 2 instances in common with KIMI."""
FAMILIES = (
    KIMI,
    replace(KIMI, preshuffle=False),
    ModuleSpec("f8", "i4", "f16", Quant.PER_TOKEN, "gelu", 1, preshuffle=True),
    ModuleSpec("f8", "f8", "b16", Quant.PER_1X128, "silu", 2, preshuffle=True),
    ModuleSpec("f8", "f8", "b16", Quant.PER_1X128, "silu", 2, preshuffle=True, splitk=True),
    ModuleSpec("f8", "f8", "b16", Quant.PER_TENSOR, "silu", 2, preshuffle=True),
    ModuleSpec("i8", "i8", "f16", Quant.PER_TOKEN, "gelu", 2, preshuffle=True),
    ModuleSpec("b16", "b16", "b16", Quant.NO, "silu", 1, preshuffle=True),
    ModuleSpec("f16", "f16", "f16", Quant.NO, "gelu", 2, preshuffle=True),
)
STAGES: tuple[Stage, Stage] = (1, 2)
BLOCK_MS = (8, 16, 32, 48, 64, 128, 256)
INTER_DIMS = (64, 192, 193, 256, 257, 384, 1024, 7168)
ADVICE = dialect.Advice(
    shape='widen "kimi" by block_m={block_m} inter_dim={inter_dim}', kernel="add it: --kernel"
)

# A kernel's template arguments; the stand-in checks their meaning, this the agreement.
_FUNCTION = re.compile(r"ck_moe_stage[12]_gemm<[^>]*>")


def kimi_names(*block_ms: int) -> list[str]:
    """What Kimi-K2.5 needs at tp 2."""
    picked = [catalog.dispatch(KIMI, "gfx950", s, m, 1024) for s in STAGES for m in block_ms]
    return [i.name for i in picked if isinstance(i, Instance)]


def kimi(*block_ms: int) -> dict[str, str]:
    held = dialect.hold(KIMI, "gfx950", kimi_names(*block_ms))
    return dialect.blob([held], "gfx950", ADVICE)


def instantiated(text: str) -> str:
    """The launcher that an instance file instantiates, put together from its lines."""
    value = dict(re.findall(r"(\w+) += ([^;]+);", text))
    found = re.search(r"CK_MOE_STAGE(\d)_GEMM_DEFINE\((.*)\)", text)
    assert found is not None
    numbers = found[2].split(", ")
    names = ("A0DataType", "B0DataType", "AccDataType", "EDataType", "CDEElementOp")
    flags = ("Nswizzle", "PerTensorQuant", "MulRoutedWeight", "ActOP")
    args = [
        *(value[n] for n in names),
        numbers[-1],
        *numbers[:-1],
        *(value[n] for n in flags),
    ]
    return f"ck_moe_stage{found[1]}_gemm<{', '.join(args)}>"


@st.composite
def holdings(draw: st.DrawFn) -> tuple[str, list[dialect.Holding]]:
    arch = draw(st.sampled_from(catalog.ARCHES))
    specs = draw(
        st.lists(st.sampled_from((*FAMILIES, KIMI_GELU)), min_size=1, max_size=3, unique=True)
    )
    held = []
    for spec in specs:
        names = [i.name for i in catalog.instances(spec, arch)]
        keep = draw(st.sets(st.sampled_from(names), min_size=1))
        held.append(dialect.hold(spec, arch, keep))
    return arch, held


@given(holdings())
def test_the_three_headers_and_the_instance_files_agree(
    drawn: tuple[str, list[dialect.Holding]],
) -> None:
    arch, held = drawn
    files = dialect.blob(held, arch, ADVICE)
    sources = {
        Path(path).stem: instantiated(text)
        for path, text in files.items()
        if path.startswith("instances/")
    }
    lookup = dict(re.findall(r'\{"(\w+)", \\\n\s*(ck_moe_\w+<[^>]*>)', files[dialect.LOOKUP]))
    assert sources == lookup
    assert sources.keys() == {i.name for h in held for i in h.kept}
    dispatched = {f for path in dialect.DISPATCH for f in _FUNCTION.findall(files[path])}
    assert dispatched <= set(sources.values())
    left_out = files[dialect.LOOKUP].count("  JITCACHE_LEFT_OUT(")
    assert left_out == len({i.name for h in held for i in h.left_out} - sources.keys())


def test_modules_that_share_stage_2_hold_what_either_holds() -> None:
    first, second = (
        i for i in catalog.instances(KIMI, "gfx950") if i.stage == 2 and i.tile.m == 64
    )
    held = [
        dialect.hold(KIMI, "gfx950", [first.name]),
        dialect.hold(KIMI_GELU, "gfx950", [second.name]),
    ]
    files = dialect.blob(held, "gfx950", ADVICE)
    stage2 = [f for f in _FUNCTION.findall(files[dialect.DISPATCH[1]]) if ", 64, 128, 128, " in f]
    assert len(stage2) == 2
    for i in (first, second):
        assert f'{{"{i.name}", ' in files[dialect.LOOKUP]
        assert f'LEFT_OUT("gemm2", "{i.tile}"'.replace("_v3", "") not in files[dialect.LOOKUP]


def test_kimi_tp2_keeps_six_of_ten_and_no_small_gemm2() -> None:
    files = kimi(32, 64, 128)
    tiles = sorted(m[1] for m in re.finditer(r"instances/\w+?_(gemm\d_\w+?)_\dx\d_", str(files)))
    assert tiles == [
        "gemm1_256x128x128x128",
        "gemm1_256x64x128x128",
        "gemm1_64x32x32x128",
        "gemm2_256x128x128x128",
        "gemm2_256x32x128x128",
        "gemm2_256x64x128x128",
    ]
    branches = re.findall(r"V3, 256, (\d+), 128, 128", files[dialect.DISPATCH[1]])
    assert branches == ["32", "64", "128"]
    assert ", 64, 32, 32," not in files[dialect.DISPATCH[1]]


def test_an_instance_file_is_what_aiters_macro_needs() -> None:
    text = kimi(128)[f"instances/{kimi_names(128)[0]}.cu"]
    assert text.splitlines()[1:] == [
        "#ifndef __gfx942__",
        '#include "gemm_moe_ck2stages_common_mxfp4.cuh"',
        "",
        "using A0DataType           = FP4X2;",
        "using B0DataType           = FP4X2;",
        "using AccDataType          = F32;",
        "using EDataType            = B16;",
        "using CDEElementOp         = MulABScaleShuffled;",
        "const bool Nswizzle        = false;",
        "const bool PerTensorQuant  = false;",
        "const bool MulRoutedWeight = false;",
        "const int ActOP            = 1;",
        "CK_MOE_STAGE1_GEMM_DEFINE(256, 128, 128, 128, 1, 4, V3)",
        "#endif",
    ]


@pytest.mark.parametrize(
    ("spec", "header", "guarded"),
    [
        (KIMI, "_mxfp4", True),
        (replace(KIMI, preshuffle=False), "_mxfp4_bns", True),
        (FAMILIES[3], "_blockscale", False),
        (replace(FAMILIES[3], quant=Quant.PER_1X32), "", False),
        (FAMILIES[7], "", False),
    ],
)
def test_each_family_has_its_header(spec: ModuleSpec, header: str, guarded: bool) -> None:
    files = dialect.blob([dialect.hold(spec, "gfx950")], "gfx950", ADVICE)
    for path, text in files.items():
        if path.startswith("instances/"):
            assert f'#include "gemm_moe_ck2stages_common{header}.cuh"' in text
            assert text.startswith("// ") is True
            assert ("#ifndef __gfx942__" in text) is guarded


def test_rendering_is_the_same_every_time() -> None:
    assert kimi(32, 128) == kimi(32, 128)
    assert kimi(32, 128) != kimi(128)


def test_a_name_of_another_module_is_refused() -> None:
    with pytest.raises(ValueError, match="gemm9"):
        dialect.hold(KIMI, "gfx950", ["gemm9"])


def test_advice_must_fit_a_c_string() -> None:
    assert c_string('a "b" \\c') == '"a \\"b\\" \\\\c"'
    for bad in ("é", "a\nb", "\x00"):
        with pytest.raises(ValueError, match="printable"):
            c_string(bad)


@pytest.fixture(scope="module")
def kimi_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The module for inter_dim 1024, with its instance files linked in."""
    return aiter_standin.build(
        kimi(32, 64, 128), tmp_path_factory.mktemp("kimi"), fp4=True, link=True
    )


@needs_compiler
def test_a_held_shape_runs_its_kernel(kimi_program: Path) -> None:
    calls = [call(KIMI, s, m, d) for s in STAGES for m in (32, 64, 128) for d in (512, 1024)]
    answers = aiter_standin.run(kimi_program, calls)
    expected = [catalog.dispatch(KIMI, "gfx950", c.stage, c.block_m, c.inter_dim) for c in calls]
    assert answers == [described(i, "common_mxfp4") for i in expected if isinstance(i, Instance)]


@needs_compiler
@pytest.mark.parametrize("block_m", [32, 64, 128])
def test_a_shape_that_is_left_out_fails_with_what_to_do(kimi_program: Path, block_m: int) -> None:
    (answer,) = aiter_standin.run(kimi_program, [call(KIMI, 2, block_m, 256)])
    assert answer.startswith(f"error jitcache: stage 2 with block_m={block_m}, inter_dim=256 needs")
    assert f"gemm2 64x{block_m}x" in answer
    assert "which this module leaves out" in answer
    assert "holds 6 of 10 instances: gemm1 256x64x128x128 v3, " in answer
    assert answer.endswith(f'widen "kimi" by block_m={block_m} inter_dim=256')


@needs_compiler
def test_a_block_m_that_aiter_lacks_fails_as_such(kimi_program: Path) -> None:
    (answer,) = aiter_standin.run(kimi_program, [call(KIMI, 1, 16)])
    assert "AITER has no a4w4 kernel for stage 1 with block_m=16, inter_dim=1024" in answer
    assert answer.endswith("its block_m are 32, 64, 128")


@needs_compiler
def test_other_types_fail_with_the_difference(kimi_program: Path) -> None:
    good = call(KIMI, 1, 128)
    others = [replace(good, shuffled=False), replace(good, x="f8"), replace(good, act_op=0)]
    unshuffled, f8, gelu = aiter_standin.run(kimi_program, others)
    assert "error jitcache: no stage 1 kernel here for this call: block_m=128, " in unshuffled
    assert "inter_dim=1024, quant=3, act_op=1, mul_routed_weight=0, is_shuffled=0" in unshuffled
    assert "input FP4X2 (not given), weight FP4X2 (given), output B16 (given)" in f8
    assert "quant=3, act_op=1, mul_routed_weight=0, is_shuffled=1" in gelu


@needs_compiler
def test_by_name_a_kernel_runs_or_says_that_it_was_left_out(kimi_program: Path) -> None:
    every = catalog.instances(KIMI, "gfx950")
    held = set(kimi_names(32, 64, 128))
    # A shape that would pick another kernel: the name decides.
    calls = [call(KIMI, i.stage, 64, 512, name=i.name) for i in every]
    for instance, answer in zip(every, aiter_standin.run(kimi_program, calls), strict=True):
        if instance.name in held:
            assert answer == described(instance, "common_mxfp4")
        else:
            assert answer.startswith(
                f"error jitcache: this module leaves out the kernel {instance.name}. "
            )
            assert answer.endswith("add it: --kernel")


@needs_compiler
def test_a_name_that_no_such_module_has_is_treated_as_aiter_does(kimi_program: Path) -> None:
    gelu = catalog.instances(KIMI_GELU, "gfx950")[0]
    (answer,) = aiter_standin.run(kimi_program, [call(KIMI, 1, 128, name=gelu.name)])
    picked = catalog.dispatch(KIMI, "gfx950", 1, 128, 1024)
    assert isinstance(picked, Instance)
    assert answer == "not found " + described(picked, "common_mxfp4")


@needs_compiler
def test_headers_of_different_runs_do_not_compile_together(tmp_path: Path) -> None:
    files = kimi(32, 64, 128)
    files[dialect.DISPATCH[1]] = kimi(128)[dialect.DISPATCH[1]]
    with pytest.raises(AssertionError, match="headers come from different generator runs"):
        aiter_standin.build(files, tmp_path)


@needs_compiler
def test_a_missing_instance_file_is_a_link_error(tmp_path: Path) -> None:
    files = kimi(128)
    del files[f"instances/{kimi_names(128)[1]}.cu"]
    with pytest.raises(AssertionError, match=r"undefined reference|undefined symbol"):
        aiter_standin.build(files, tmp_path, link=True)


@needs_compiler
@pytest.mark.parametrize(("arch", "whole"), [("gfx942", True), ("gfx950", False)])
def test_dispatch_answers_as_the_catalog_or_refuses(arch: str, whole: bool, tmp_path: Path) -> None:
    """Nine modules in one directory, as the generator puts several weight types."""
    held = [dialect.hold(spec, arch, None if whole else needed(spec, arch)) for spec in FAMILIES]
    program = aiter_standin.build(dialect.blob(held, arch, ADVICE), tmp_path, fp4=arch == "gfx950")
    kept = {i.name for h in held for i in h.kept}
    calls = [
        (h.spec, call(h.spec, s, m, d))
        for h in held
        for s in STAGES
        for m in BLOCK_MS
        for d in INTER_DIMS
    ]
    answers = aiter_standin.run(program, [c for _, c in calls])
    seen: set[str] = set()
    for (spec, made), answer in zip(calls, answers, strict=True):
        picked = catalog.dispatch(spec, arch, made.stage, made.block_m, made.inter_dim)
        if not isinstance(picked, Instance):
            assert answer.startswith("error jitcache: "), (made, answer)
            assert f"block_m={made.block_m}, inter_dim={made.inter_dim}" in answer
            without_fp4 = "compiled without __Float4_e2m1fn_x2, so no fp4x2 kernel can be called"
            assert (without_fp4 in answer) is (arch == "gfx942" and spec.b == "fp4x2"), answer
            seen.add("unsupported")
        elif picked.name in kept:
            assert answer == described(picked), made
            seen.add("held")
        else:
            assert f"needs {picked.short}, which this module leaves out" in answer, made
            seen.add("left out")
    assert seen == ({"unsupported", "held"} if whole else {"unsupported", "held", "left out"})


def needed(spec: ModuleSpec, arch: str) -> list[str]:
    picked = [catalog.dispatch(spec, arch, s, 64, 1024) for s in STAGES]
    found = [i.name for i in picked if isinstance(i, Instance)]
    # Nothing is dispatched for fp4 on gfx942; a module of it may still be asked for.
    return found or [catalog.instances(spec, arch)[0].name]


@needs_compiler
def test_a_table_of_one_kernel_is_a_table(tmp_path: Path) -> None:
    """One entry in nested braces may read as something else in C++."""
    names = [catalog.instances(KIMI, "gfx950")[0].name]
    files = dialect.blob([dialect.hold(KIMI, "gfx950", names)], "gfx950", ADVICE)
    lines = files[dialect.LOOKUP].splitlines()
    files[dialect.LOOKUP] = "\n".join(x for x in lines if not x.startswith("        JITCACHE"))
    program = aiter_standin.build(files, tmp_path)
    answers = aiter_standin.run(program, [call(KIMI, 1, 8, name=n) for n in names])
    by_name = {i.name: i for i in catalog.instances(KIMI, "gfx950")}
    assert answers == [described(by_name[n]) for n in names]


def test_standin_compiles_nothing_of_aiters() -> None:
    """The stand-in is ours: it includes the standard library and itself only."""
    includes = subprocess.run(
        ["grep", "-rhoE", "#include .*", str(aiter_standin.STANDIN)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    assert not [i for i in includes if "torch" in i or "hip/" in i or "ck/" in i]
