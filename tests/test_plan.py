"""The planner: who runs a token count, and what has to be built."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitcache.codegen import catalog
from jitcache.codegen.catalog import Variant
from jitcache.errors import InputError, UnsupportedError
from jitcache.manifest.load import Layer, Manifest, Target, load_manifest, resolve, shipped_names
from jitcache.manifest.raw import decode
from jitcache.plan.backend import Decision, decide
from jitcache.plan.hostrules import block_size_m, k_split, non_temporal
from jitcache.plan.planner import Plan, plan
from jitcache.plan.tuned import ALL_PADDED, TunedTable, merge, parse_tuned
from tests.test_tuned import COLUMNS, table
from tests.test_tuned import line as kimi_line

MI355X = Target("gfx950", 256)
MI300X = Target("gfx942", 304)
MI308X = Target("gfx942", 80)


def manifest(text: str = "", **keys: object) -> Manifest:
    """Kimi-K2.5 MXFP4 with changes."""
    base: dict[str, object] = {
        "model_dim": 7168,
        "inter_dim": 1024,
        "experts": 384,
        "top_k": 8,
        "quant": "per_1x32",
    }
    lines = [
        f"{k} = {str(v).lower() if isinstance(v, bool) else repr(v)}"
        for k, v in (base | keys).items()
    ]
    body = "\n".join([*lines, 'targets = [{ arch = "gfx950" }]', text])
    return resolve(decode(body, "m.toml"), where="m.toml", config=None)


def layer(**keys: object) -> Layer:
    return manifest(**keys).layers[0]


def decided(
    found: Layer,
    tokens: int,
    target: Target = MI355X,
    *,
    tuned: TunedTable | None = None,
    flydsl: bool = False,
) -> Decision:
    return decide(found, target, tokens, tuned or TunedTable(), flydsl=flydsl)


def backends(decision: Decision) -> tuple[str, str]:
    return decision.stages[0].backend, decision.stages[1].backend


def tiles(found: Plan, stage: int) -> list[str]:
    return [
        i.instance.short.removeprefix(f"gemm{stage} ")
        for m in found.modules
        for i in m.instances
        if i.instance.stage == stage
    ]


# -- the host's rules ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inter_dim", "cu_num", "want"),
    [
        (1024, 256, {64: 32, 128: 64, 256: 128, 512: 128}),
        (512, 256, {256: 64, 512: 128, 4096: 128}),
        (256, 256, {256: 32, 512: 64, 1024: 128}),
        (256, 80, {64: 64, 128: 128, 256: 64, 512: 128}),
    ],
)
def test_block_m_follows_tokens_and_compute_units(
    inter_dim: int, cu_num: int, want: dict[int, int]
) -> None:
    found = layer(inter_dim=inter_dim)
    assert {t: block_size_m(t, found, cu_num) for t in want} == want


def test_kimis_verify_steps() -> None:
    found = layer()
    for per_request in (4, 5):
        assert decided(found, 40 * per_request).tokens == 256
        assert decided(found, 40 * per_request).block_m == 128
        assert decided(found, 40 * per_request, Target("gfx950", 80)).block_m == 128


def test_k_is_split_only_where_units_are_idle() -> None:
    found = layer()
    assert [k_split(t, found, 256) for t in (1, 2, 4, 64)] == [4, 2, 0, 0]
    assert k_split(1, layer(inter_dim=256), 256) == 14
    assert k_split(1, layer(experts=8), 256) == 4
    assert k_split(2, layer(experts=8), 256) == 0


def test_non_temporal_loads_where_experts_have_few_tokens() -> None:
    found = layer()
    assert [non_temporal(t, found) for t in (2048, 4096)] == [True, False]


# -- who runs it -----------------------------------------------------------------------


def test_shuffled_fp4_leaves_ck_where_k_is_split() -> None:
    assert backends(decided(layer(), 2)) == ("cktile", "cktile")
    assert backends(decided(layer(), 4)) == ("ck", "ck")
    assert backends(decided(layer(preshuffle=False), 2)) == ("ck", "ck")


def test_swiglu() -> None:
    found = layer(act="swiglu")
    assert backends(decided(found, 255)) == ("cktile", "cktile")
    large = decided(found, 256)
    assert backends(large) == ("ck", "ck")
    assert "swiglu" in large.stages[0].problem
    assert large.stages[0].instance is None
    assert backends(decided(found, 256, flydsl=True)) == ("flydsl", "flydsl")
    woven = layer(act="swiglu", gate="interleaved")
    assert {backends(decided(woven, t)) for t in (1, 4096)} == {("cktile", "cktile")}


def test_int4_with_16_bit_activations() -> None:
    found = layer(w="i4")
    assert backends(decided(found, 64, flydsl=True)) == ("flydsl", "flydsl")
    without = decided(found, 64)
    assert backends(without) == ("asm", "ck")
    assert "ignores the activation type" in without.stages[1].problem


def test_blockscale() -> None:
    found = layer(quant="per_1x128", experts=256, inter_dim=256)
    one, more = decided(found, 1), decided(found, 33)
    assert (one.block_m, one.ksplit) == (16, 14)
    assert one.stages[0].spec is not None
    assert one.stages[0].spec.name.endswith("per_1x128_mulWeightStage2_splitk")
    assert one.stages[1].spec is not None
    assert not one.stages[1].spec.splitk
    assert one.stages[0].variant == Variant(False, "even", True)
    assert (more.one_stage, backends(more)) == (True, ("asm", "asm"))
    # gfx942's table of one-stage kernels has no gelu: CK runs large batches, too.
    gelu = layer(quant="per_1x128", experts=256, inter_dim=256, act="gelu")
    assert backends(decided(gelu, 4096, MI300X)) == ("ck", "ck")
    assert decided(gelu, 4096, MI300X).block_m == 64
    assert decided(gelu, 4096, MI300X).stages[0].variant == Variant(True, "even", False)
    assert decided(gelu, 4096).one_stage


def test_int8_has_an_assembly_stage_1() -> None:
    found = layer(quant="per_token", w="i8", inter_dim=512)
    small = decided(found, 32, MI308X)
    assert backends(small) == ("asm", "ck")
    assert small.stages[1].instance is not None
    assert small.stages[1].instance.family == "a8w8"
    assert decided(found, 64, MI308X).one_stage


def test_fp8_per_token_goes_to_assembly_above_16_tokens() -> None:
    found = layer(quant="per_token", w="f8", inter_dim=512)
    assert backends(decided(found, 16)) == ("ck", "ck")
    assert decided(found, 17).one_stage
    odd = layer(quant="per_token", w="f8", inter_dim=192)
    assert decided(odd, 1).one_stage


def test_bf16_is_always_ck() -> None:
    found = layer(quant="no", w="b16")
    assert {backends(decided(found, t)) for t in ALL_PADDED} == {("ck", "ck")}


# -- tuned rows ------------------------------------------------------------------------

STAGE1 = (
    "moe_ck2stages_gemm1_256x32x128x128_1x4_MulABScaleShuffled_v3_Nswizzle0_Quant3_"
    "MulRoutedWeight0_silu_FP4X2_FP4X2_B16"
)
STAGE2 = (
    "moe_ck2stages_gemm2_64x32x32x128_1x1_MulABScaleExpertWeightShuffled_v1_Nswizzle0_Quant3_"
    "MulRoutedWeight1_FP4X2_FP4X2_B16"
)


def test_tuned_names_are_required_with_what_the_heuristic_picks() -> None:
    kimi = manifest(inter_dim=512)
    found = plan(kimi, target=MI355X, tuned=table(kimi_line(64, STAGE1, STAGE2)))
    assert tiles(found, 1) == [
        "256x32x128x128 v3",
        "256x64x128x128 v3",
        "256x128x128x128 v3",
        "64x32x32x128 v3",
    ]
    # A tile for inter_dim <= 256, at 512, because a row names it.
    assert "64x32x32x128 v1" in tiles(found, 2)
    named = next(i for m in found.modules for i in m.instances if i.instance.name == STAGE2)
    assert named.why == "stage 2, block_m 32: named by tuned rows of t.csv (64 tokens)"
    assert [v.variant for v in named.variants] == [Variant(False, "even")]
    row = next(r for r in found.rows if r.tokens == 64)
    assert [s.kernel for s in row.stages] == [STAGE1, STAGE2]
    assert "tuned row t.csv:2" in row.why


def test_rows_for_other_shapes_or_units_change_nothing() -> None:
    rows = table(kimi_line(64, STAGE1, STAGE2))
    plain = plan(manifest(), target=MI355X)
    assert plan(manifest(), target=MI355X, tuned=rows) == plain
    other = Target("gfx950", 64)
    kimi = manifest(inter_dim=512)
    assert plan(kimi, target=other, tuned=rows) == plan(kimi, target=other)


def test_a_name_of_the_other_activation_falls_to_the_heuristic_and_says_so() -> None:
    gelu = STAGE1.replace("silu", "gelu")
    rows = table(kimi_line(64, gelu, STAGE2, act="Gelu"))
    found = decided(layer(inter_dim=512), 64, tuned=rows)
    assert found.stages[0].instance is not None
    assert found.stages[0].instance.short == "gemm1 64x32x32x128 v3"
    assert found.stages[0].note.startswith("the module lacks the tuned kernel")
    assert found.stages[1].kernel == STAGE2


def test_flydsl_rows() -> None:
    rows = table(
        kimi_line(64, "flydsl_moe1_x_t32x64_fp4", STAGE2),
        kimi_line(64, STAGE1, STAGE2, tag="flydsl_fallback"),
        kimi_line(128, "flydsl_moe1_x_t32x64_fp4", "flydsl_moe2_x"),
        kimi_line(256, STAGE1, "flydsl_moe2_x"),
        kimi_line(512, STAGE1, "cktile_x"),
    )
    found = layer(inter_dim=512)
    with_it = [backends(decided(found, t, tuned=rows, flydsl=True)) for t in (64, 128, 256, 512)]
    assert with_it == [("flydsl", "ck"), ("flydsl", "flydsl"), ("ck", "flydsl"), ("ck", "cktile")]
    without = [backends(decided(found, t, tuned=rows)) for t in (64, 128, 256)]
    assert without == [("ck", "ck")] * 3
    assert decided(found, 64, tuned=rows).stages[0].kernel == STAGE1


def test_odd_rows_are_explained() -> None:
    def problem(*row: str) -> str:
        found = decided(layer(inter_dim=512), 64, tuned=table(*row))
        return found.stages[0].problem

    assert "empty" in problem(kimi_line(64, "", STAGE2))
    fine = decided(layer(inter_dim=512), 64, tuned=table(kimi_line(64, "_ZN5aiter", STAGE2)))
    assert backends(fine) == ("asm", "ck")
    one = decided(layer(inter_dim=512), 64, tuned=table(kimi_line(64, "_Z", "Null", one_stage=1)))
    assert (one.one_stage, one.stages[0].kernel) == (True, "_Z")
    rounded = table(kimi_line(64, "_ZN5aiter", STAGE2, block_m=48))
    assert decided(layer(inter_dim=512), 64, tuned=rounded).block_m == 64


def test_split_k_rows_need_a_split_k_kernel() -> None:
    base = layer(quant="per_1x128", experts=256, inter_dim=256)
    spec = decided(base, 1).stages[0].spec
    assert spec is not None
    split = next(i for i in catalog.instances(spec, "gfx950") if i.tile.m == 16)
    plain = split.name.replace("Splitk", "")

    def first(kernel: str, ksplit: int) -> tuple[str, Variant | None]:
        cells = (
            f"256,8,7168,256,256,8,ActivationType.Silu,torch.bfloat16,torch.float8_e4m3fn,"
            f"torch.float8_e4m3fn,QuantType.per_1x128,1,0,16,{ksplit},1,{kernel},0,1,{plain},0,1,"
            "0,0,0,"
        )
        rows = merge([parse_tuned(f"{COLUMNS}\n{cells}", "t.csv")])
        stage = decided(base, 8, tuned=rows).stages[0]
        return stage.problem, stage.variant

    assert first(split.name, 4) == ("", Variant(True, "odd", False))
    assert first(split.name, 2) == ("", Variant(True, "even", False))
    assert "isn't a split-K one" in first(plain, 4)[0]
    assert "doesn't split K" in first(split.name, 0)[0]
    assert "is not a multiple of 1280" in first(split.name, 5)[0]


# -- the required set ------------------------------------------------------------------


def test_kimi_tp2() -> None:
    found = plan(load_manifest("kimi-k2.5-mxfp4-tp2"), target=MI355X)
    (module,) = found.modules
    assert (module.family, found.device_kernels) == ("a4w4", 6)
    assert tiles(found, 1) == ["256x64x128x128 v3", "256x128x128x128 v3", "64x32x32x128 v3"]
    assert tiles(found, 2) == ["256x32x128x128 v3", "256x64x128x128 v3", "256x128x128x128 v3"]
    assert {v.variant for i in module.instances for v in i.variants} == {Variant(True, "even")}
    assert [(p.instance.short, p.why) for p in module.pruned] == [
        (
            "gemm1 256x32x128x128 v3",
            "stage 1, the heuristic has no rule for this tile: never dispatched",
        ),
        ("gemm2 64x32x32x128 v1", "stage 2, inter_dim 1024 > 256: never dispatched"),
        ("gemm2 64x64x128x128 v3", "stage 2, inter_dim 1024 > 256: never dispatched"),
        ("gemm2 64x128x128x128 v3", "stage 2, inter_dim 1024 > 256: never dispatched"),
    ]
    first = module.instances[0]
    assert first.variants[0].why == ("K (model_dim) 7168 is 28 steps of 256: hot loop, even tail")
    assert [(str(p.variant), p.why) for p in first.pruned] == [
        ("hot-odd", "only for an odd number of loop steps"),
        ("cold-odd", "only for at most 2 loop steps and an odd number of loop steps"),
        ("cold-even", "only for at most 2 loop steps"),
    ]


def test_narrowed_to_one_height() -> None:
    found = plan(load_manifest("kimi-k2.5-mxfp4-tp2-bm128"), target=MI355X)
    assert tiles(found, 1) + tiles(found, 2) == ["256x128x128x128 v3"] * 2
    why = {p.instance.short: p.why for m in found.modules for p in m.pruned}
    assert why["gemm1 256x64x128x128 v3"] == "stage 1, block_m 64: narrowed to 128"
    assert [r.planned for r in found.rows if r.tokens in (2, 64, 256)] == [True, False, True]
    with pytest.raises(InputError, match="no kernel of stage 1 is left"):
        plan(load_manifest("kimi-k2.5-mxfp4-tp2"), target=MI355X, block_m=[16])


@pytest.mark.parametrize(
    ("tokens", "cu_num", "want"),
    [
        ([160, 200], 256, ["256x128x128x128 v3"]),
        ([160, 200], 80, ["256x128x128x128 v3"]),
        ([128], 256, ["256x64x128x128 v3"]),
        ([1, 2, 128], 256, ["256x64x128x128 v3"]),
    ],
)
def test_reachable(tokens: Sequence[int], cu_num: int, want: list[str]) -> None:
    found = plan(manifest(), target=Target("gfx950", cu_num), scope="reachable", tokens=tokens)
    assert tiles(found, 1) == tiles(found, 2) == want
    assert [r.tokens for r in found.rows] == list(tokens)
    small = next(p for m in found.modules for p in m.pruned if p.instance.tile.n == 32)
    assert "no listed token count gets to block_m 32" in small.why or "inter_dim" in small.why


def test_reachable_needs_token_counts() -> None:
    with pytest.raises(InputError, match="token counts"):
        plan(manifest(), target=MI355X, scope="reachable")


def test_heights_no_token_count_reaches_are_kept_for_inter_dim() -> None:
    found = plan(load_manifest("deepseek-v3-fp8-tp8"), target=MI300X)
    kept = {i.instance.short: i for m in found.modules for i in m.instances}
    unreached = kept["gemm1 256x64x128x128 v3"]
    assert "no token count gets there with 304 CUs" in unreached.why
    assert {v.variant.non_temporal for v in unreached.variants} == {False, True}
    reached = kept["gemm2 256x16x128x256 v1"]
    assert {v.variant.non_temporal for v in reached.variants} == {True}
    assert any(p.why == "only for at most 2 loop steps" for p in unreached.pruned)


def test_split_k_needs_two_modules() -> None:
    found = plan(load_manifest("deepseek-v3-fp8-tp8"), target=MI300X)
    plain, split = found.modules
    assert {i.instance.stage for i in split.instances} == {1}
    assert {i.instance.stage for i in plain.instances} == {1, 2}
    (one,) = split.instances
    assert {str(v.variant) for v in one.variants} == {"hot-even-nt", "hot-odd-nt", "cold-even-nt"}
    assert all(
        p.why == "stage 2 is never called in a split-K module"
        for p in split.pruned
        if p.instance.stage == 2
    )


def test_scope_module_keeps_all_that_takes_the_shape() -> None:
    found = plan(manifest(), target=MI355X, scope="module")
    assert (len(tiles(found, 1)), len(tiles(found, 2))) == (4, 6)
    assert found.device_kernels == 10
    block = plan(load_manifest("minimax-m2.5-fp8-tp4"), target=MI355X, scope="module")
    plain = block.modules[0]
    assert {len(i.variants) for i in plain.instances} == {2}
    refused = next(p for p in plain.pruned if p.instance.tile.k == 256)
    assert "K (inter_dim) 384 is not a multiple of 256" in refused.why


def test_token_counts_below_256_keep_16_bit_activations() -> None:
    found = plan(
        manifest(act="swiglu", flydsl=True), target=MI355X, scope="reachable", tokens=[255, 256]
    )
    assert [r.stages[0].backend for r in found.rows] == ["cktile", "flydsl"]
    assert found.modules == ()


def test_layers_share_a_module() -> None:
    two = manifest(
        "[[layers]]\nname = 'a'\n[[layers]]\nname = 'b'\ninter_dim = 256\n"
        "[[layers]]\nname = 'c'\nquant = 'no'"
    )
    found = plan(two, target=MI355X)
    assert [m.family for m in found.modules] == ["a16w16_gfx950", "a4w4"]
    assert len([i for i in found.modules[1].instances if i.instance.stage == 2]) == 6
    assert {r.layer for r in found.rows} == {"a", "b", "c"}


def test_shapes_that_no_kernel_takes() -> None:
    with pytest.raises(UnsupportedError) as caught:
        plan(manifest(inter_dim=384), target=MI355X)
    text = str(caught.value)
    assert "no CK kernel supports stage 2 of layer moe on gfx950" in text
    assert "K (inter_dim) 384 is not a multiple of 256" in text
    assert "pad the weights" in text
    with pytest.raises(UnsupportedError, match="__Float4_e2m1fn_x2"):
        plan(manifest(), target=MI300X)
    with pytest.raises(UnsupportedError, match="no CK2stages kernels for gfx90a"):
        plan(manifest(), target=Target("gfx90a", 104))


def test_calls_that_raise_are_noted_where_others_work() -> None:
    found = plan(load_manifest("glm-4.7-fp8-tp4"), target=MI355X)
    assert any("K (inter_dim) 384 is not a multiple of 256" in n for n in found.notes)
    assert tiles(found, 2) == ["256x128x128x128 v3"]
    assert not next(r for r in found.rows if r.tokens == 1).planned


def test_gpt_oss_needs_nothing_and_says_why() -> None:
    found = plan(load_manifest("gpt-oss-120b-mxfp4"), target=MI355X)
    assert (found.modules, found.device_kernels) == ((), 0)
    (note,) = found.notes
    assert note == (
        "layer moe needs no CK2stages kernel: CK-Tile runs it (CK-Tile runs interleaved swiglu)"
    )


@pytest.mark.parametrize("name", shipped_names())
def test_shipped_manifests_plan_consistently(name: str) -> None:
    found = load_manifest(name)
    for target in found.targets:
        planned = plan(found, target=target)
        for module in planned.modules:
            stock = catalog.instances(module.spec, target.arch)
            mine = [i.instance for i in module.instances] + [p.instance for p in module.pruned]
            assert sorted(i.name for i in mine) == sorted(i.name for i in stock)
            assert all(p.why for p in module.pruned)
            for kept in module.instances:
                both = [v.variant for v in kept.variants] + [p.variant for p in kept.pruned]
                assert sorted(map(str, both)) == sorted(
                    str(v) for v in catalog.variants(kept.instance)
                )
                assert all(p.why for p in kept.pruned)
                assert kept.variants


@given(
    st.sampled_from(["per_1x32", "per_1x128", "per_token", "per_tensor", "no"]),
    st.integers(1, 40).map(lambda i: i * 64),
    st.integers(1, 40).map(lambda i: i * 256),
    st.integers(8, 600),
    st.integers(1, 8),
    st.sampled_from([MI355X, MI300X, MI308X]),
    st.lists(st.integers(1, 200_000), min_size=1, max_size=6),
)
def test_what_runs_is_in_the_plan(
    quant: str,
    inter_dim: int,
    model_dim: int,
    experts: int,
    top_k: int,
    target: Target,
    tokens: list[int],
) -> None:
    found = manifest(
        quant=quant, inter_dim=inter_dim, model_dim=model_dim, experts=experts, top_k=top_k
    )
    try:
        wide = plan(found, target=target)
    except UnsupportedError:
        return
    kept = {(i.instance, v.variant) for m in wide.modules for i in m.instances for v in i.variants}
    for count in tokens:
        for stage in decided(found.layers[0], count, target).stages:
            if stage.variant is not None:
                assert (stage.instance, stage.variant) in kept
    try:
        narrow = plan(found, target=target, scope="reachable", tokens=tokens)
    except UnsupportedError:
        return
    assert kept >= {
        (i.instance, v.variant) for m in narrow.modules for i in m.instances for v in i.variants
    }
