"""The catalog: choice of the family, names, refusals, names read back."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitcache.codegen import catalog
from jitcache.codegen.catalog import ModuleSpec, Quant
from jitcache.errors import InputError, UnsupportedError

KIMI = ModuleSpec("fp4x2", "fp4x2", "b16", Quant.PER_1X32, "silu", 2, preshuffle=True)

# Digests of every name that AITER 9bab8388's generator lists, computed by running its own
# get_gemm1_kernels_list and get_gemm2_kernels_list: all combinations that select the family,
# in the order of `every_module`, stage 1 before stage 2, one name a line.
STOCK_NAMES = {
    ("gfx942", "a16w16"): "9dae535e41e83e9269051bfe7eb78aed30d9dabf6b24f2d885accb57d7f15448",
    ("gfx942", "a8w8"): "70a4e37fc1cb8015d75af68d72747b1787f39beadb28fd12e2705af22bce6be7",
    ("gfx942", "a8w8blkscale"): "964f34f64be208de105ef6592fa9a8f580c3cfc2bb1652fcb4ac21d8e5e0074e",
    ("gfx942", "a4w4_bns"): "bfcda47a77898ebbefffd8db52e67b4d223616271c00be1e0c820e0e53faa712",
    ("gfx942", "a4w4"): "bc00ef91713b9aef2bc85dfd176e58a461e105c86e21634355efc30237a91326",
    ("gfx942", "a8w4"): "8d0612cfcce11b9af4f8b3f788ae60785ea1b7ae78ce55fcf1050ee548dc150d",
    ("gfx950", "a16w16_gfx950"): "83d59462a843a9bb071fb786d020cd754fbc383a13b28a5759da913949b943d0",
    ("gfx950", "a8w8_gfx950"): "8142ed99268d9fc1d8bb55d081ff780cda4504d9d814cc2dce3fe22ec0d4d38a",
    ("gfx950", "a8w8blkscale"): "964f34f64be208de105ef6592fa9a8f580c3cfc2bb1652fcb4ac21d8e5e0074e",
    ("gfx950", "a4w4_bns"): "bfcda47a77898ebbefffd8db52e67b4d223616271c00be1e0c820e0e53faa712",
    ("gfx950", "a4w4"): "bc00ef91713b9aef2bc85dfd176e58a461e105c86e21634355efc30237a91326",
    ("gfx950", "a8w4"): "8d0612cfcce11b9af4f8b3f788ae60785ea1b7ae78ce55fcf1050ee548dc150d",
}


def every_module() -> list[ModuleSpec]:
    """Every module that the generator's command line can ask for."""
    return [
        ModuleSpec("f8" if b == "i4" else b, b, c, quant, act, stage, preshuffle, splitk)
        for b, c, quant, act, stage, preshuffle, splitk in itertools.product(
            ("b16", "f16", "f8", "fp4x2", "i8", "i4"),
            ("b16", "f16"),
            Quant,
            ("silu", "gelu"),
            (1, 2),
            (False, True),
            (False, True),
        )
    ]


modules = st.sampled_from(every_module())
arches = st.sampled_from(catalog.ARCHES)


@pytest.mark.parametrize("arch", catalog.ARCHES)
def test_names_are_the_stock_generators(arch: str) -> None:
    found: dict[tuple[str, str], hashlib._Hash] = {}
    for spec in every_module():
        digest = found.setdefault((arch, catalog.family_of(spec, arch).tag), hashlib.sha256())
        for instance in catalog.instances(spec, arch):
            digest.update(instance.name.encode() + b"\n")
    assert {key: d.hexdigest() for key, d in found.items()} == {
        key: d for key, d in STOCK_NAMES.items() if key[0] == arch
    }


def test_kimi_module_in_full() -> None:
    assert KIMI.name == (
        "module_moe_ck2stages_fp4x2_fp4x2_preshuffle_on_b16_silu_per_1x32_mulWeightStage2"
    )
    tail = "Nswizzle0_Quant3_MulRoutedWeight"
    one = f"MulABScaleShuffled_v3_{tail}0_silu_FP4X2_FP4X2_B16"
    two = f"MulABScaleExpertWeightShuffled_v{{}}_{tail}1_FP4X2_FP4X2_B16"
    assert [i.name for i in catalog.instances(KIMI, "gfx950")] == [
        f"moe_ck2stages_gemm1_256x32x128x128_1x4_{one}",
        f"moe_ck2stages_gemm1_256x64x128x128_1x4_{one}",
        f"moe_ck2stages_gemm1_256x128x128x128_1x4_{one}",
        f"moe_ck2stages_gemm1_64x32x32x128_1x1_{one}",
        f"moe_ck2stages_gemm2_256x32x128x128_1x4_{two.format(3)}",
        f"moe_ck2stages_gemm2_256x64x128x128_1x4_{two.format(3)}",
        f"moe_ck2stages_gemm2_256x128x128x128_1x4_{two.format(3)}",
        f"moe_ck2stages_gemm2_64x32x32x128_1x1_{two.format(1)}",
        f"moe_ck2stages_gemm2_64x64x128x128_1x1_{two.format(3)}",
        f"moe_ck2stages_gemm2_64x128x128x128_1x1_{two.format(3)}",
    ]


def test_the_same_tile_has_another_name_on_the_other_architecture() -> None:
    spec = ModuleSpec("f8", "f8", "b16", Quant.PER_TOKEN, "silu", 2, preshuffle=True)
    old, new = (
        next(i for i in catalog.instances(spec, arch) if str(i.tile) == "256x32x64x128_1x4_v1")
        for arch in ("gfx942", "gfx950")
    )
    assert "_MulABScale_" in old.name
    assert new.name == old.name.replace("_MulABScale_", "_TypeCast_")


def test_splitk_changes_stage_1_of_blockscale_only() -> None:
    plain = ModuleSpec("f8", "f8", "b16", Quant.PER_1X128, "silu", 2, preshuffle=True)
    split = replace(plain, splitk=True)
    for a, b in zip(
        catalog.instances(plain, "gfx942"), catalog.instances(split, "gfx942"), strict=True
    ):
        assert (b.op == f"{a.op}Splitk") == (a.stage == 1)
    other = replace(KIMI, splitk=True)
    names = [i.name for i in catalog.instances(other, "gfx950")]
    assert names == [i.name for i in catalog.instances(KIMI, "gfx950")]
    assert other.name.endswith("_splitk")


@given(modules, arches)
def test_names_are_unique_and_read_back(spec: ModuleSpec, arch: str) -> None:
    instances = catalog.instances(spec, arch)
    assert len({i.name for i in instances}) == len(instances)
    for instance in instances:
        parsed = catalog.parse_name(instance.name)
        assert (parsed.stage, parsed.tile, parsed.op) == (
            instance.stage,
            instance.tile,
            instance.op,
        )
        module = parsed.module(act=spec.act, preshuffle=spec.preshuffle)
        if not (spec.splitk and instance.stage == 2):
            assert catalog.find(instance.name, module, arch) is not None
    assert catalog.parse_module_name(spec.name) == spec


@given(st.text(max_size=60))
def test_other_names_are_refused(text: str) -> None:
    for parse in (catalog.parse_name, catalog.parse_module_name):
        with pytest.raises(InputError):
            parse(text)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("_silu_", "_swiglu_"),
        ("_silu_", "_"),
        ("gemm1", "gemm3"),
        ("gemm1", "gemm2"),
        ("Quant3", "Quant7"),
        ("FP4X2_B16", "FP4X2_F32"),
        ("256x64x128x128", "256x64x128"),
    ],
)
def test_broken_instance_names_are_refused(old: str, new: str) -> None:
    name = catalog.instances(KIMI, "gfx950")[1].name
    with pytest.raises(InputError, match="not an instance name"):
        catalog.parse_name(name.replace(old, new))


@pytest.mark.parametrize(
    ("spec", "arch", "reason"),
    [
        (KIMI, "gfx942", "__Float4_e2m1fn_x2"),
        (replace(KIMI, a="f8"), "gfx950", "ignores the activation type"),
        (replace(KIMI, a="f8", b="f8"), "gfx950", "doesn't compile"),
        (replace(KIMI, quant=Quant.PER_TOKEN), "gfx950", "only per_1x32"),
    ],
)
def test_modules_that_can_never_run(spec: ModuleSpec, arch: str, reason: str) -> None:
    refused = catalog.refusal(spec, arch)
    assert refused is not None
    assert reason in refused.reason


def test_modules_that_can_run_are_not_refused() -> None:
    assert catalog.refusal(KIMI, "gfx950") is None
    for quant, kind in ((Quant.NO, "b16"), (Quant.PER_TOKEN, "i8"), (Quant.PER_1X128, "f8")):
        spec = ModuleSpec(kind, kind, "f16", quant, "gelu", 1, preshuffle=False)
        assert [catalog.refusal(spec, arch) for arch in catalog.ARCHES] == [None, None]


@pytest.mark.parametrize(
    ("spec", "arch", "named"),
    [
        (replace(KIMI, act="swiglu"), "gfx950", "swiglu"),
        (replace(KIMI, c="f32"), "gfx950", "f32"),
        (replace(KIMI, b="u8"), "gfx950", "u8"),
        (KIMI, "gfx90a", "gfx90a"),
    ],
)
def test_what_the_generator_refuses(spec: ModuleSpec, arch: str, named: str) -> None:
    with pytest.raises(UnsupportedError, match=named):
        catalog.family_of(spec, arch)


def test_the_generator_ignores_the_activation_type() -> None:
    asked = replace(KIMI, a="f8")
    assert catalog.emitted(asked) == KIMI
    assert catalog.instances(asked, "gfx950") == catalog.instances(KIMI, "gfx950")


FACTS = Path(os.environ.get("JITCACHE_FACTS", "facts-not-given"))


@pytest.mark.skipif(not FACTS.is_dir(), reason="JITCACHE_FACTS names no directory of facts")
def test_given_facts_of_the_stock_generator() -> None:
    for fact in json.loads((FACTS / "aiter_instances.json").read_text()):
        spec, arch = spec_of(fact), fact["arch"]
        assert catalog.family_of(spec, arch).tag == fact["tag"]
        assert sorted(i.name for i in catalog.instances(spec, arch)) == sorted(fact["instances"])
        assert spec.name in fact["runtime_module_names"]


def spec_of(fact: dict[str, object]) -> ModuleSpec:
    return ModuleSpec(
        a=str(fact["a"]),
        b=str(fact["b"]),
        c=str(fact["c"]),
        quant=next(q for q in Quant if q.word == fact["quant"]),
        act=str(fact["act"]),
        routed_weight_stage=1 if str(fact["mul_routed_weight_stage"]) == "1" else 2,
        preshuffle=bool(fact["preshuffle"]),
        splitk=bool(fact["splitk"]),
    )
