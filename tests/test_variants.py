"""Which device kernels an instance has, and which one a K runs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitcache.codegen import catalog
from jitcache.codegen.catalog import Instance, ModuleSpec, Stage, Variant
from tests.test_catalog import KIMI, arches, modules
from tests.test_dispatch import module_of


def instance(tag: str, stage: Stage, tile: str, *, splitk: bool = False) -> Instance:
    spec, arch = module_of(tag)
    spec = replace(spec, splitk=splitk)
    return next(
        i for i in catalog.instances(spec, arch) if i.stage == stage and str(i.tile) == tile
    )


def test_four_kernels_by_loop_and_parity() -> None:
    assert catalog.variants(instance("a4w4", 1, "256x128x128x128_1x4_v3")) == (
        Variant(True, "odd"),
        Variant(True, "even"),
        Variant(False, "odd"),
        Variant(False, "even"),
    )


def test_blockscale_has_each_with_and_without_non_temporal_loads() -> None:
    found = catalog.variants(instance("a8w8blkscale", 1, "256x16x128x256_1x4_v1"))
    assert len(found) == len(set(found)) == 8
    assert {v.non_temporal for v in found} == {False, True}


def test_unshuffled_fp4_v1_ignores_parity() -> None:
    v1 = instance("a4w4_bns", 2, "64x32x32x128_1x1_v1")
    assert catalog.variants(v1) == (Variant(True, "full"), Variant(False, "full"))
    assert [catalog.variant_for(v1, k).hot_loop for k in (256, 512, 768)] == [False, True, True]
    assert catalog.variant_for(v1, 768).tail == "full"
    v3 = instance("a4w4_bns", 2, "256x32x128x128_1x4_v3")
    assert len(catalog.variants(v3)) == 4
    assert catalog.variant_for(v3, 512) == Variant(False, "even")


@pytest.mark.parametrize(
    ("k", "want"),
    [
        (256, Variant(False, "odd")),
        (512, Variant(False, "even")),
        (768, Variant(True, "odd")),
        (1024, Variant(True, "even")),
        (7168, Variant(True, "even")),
    ],
)
def test_fp4_counts_pairs_as_two(k: int, want: Variant) -> None:
    assert catalog.variant_for(instance("a4w4", 1, "256x128x128x128_1x4_v3"), k) == want


def test_other_families_count_values() -> None:
    found = instance("a16w16_gfx950", 2, "256x32x128x128_1x4_v1")
    assert catalog.steps(found, 384) == 3
    assert catalog.variant_for(found, 384) == Variant(True, "odd")


def test_non_temporal_is_kept_only_where_it_is_told_apart() -> None:
    block = instance("a8w8blkscale", 2, "256x32x128x128_1x4_v1")
    assert catalog.variant_for(block, 512, True).non_temporal is True
    assert catalog.variant_for(block, 512).non_temporal is False
    assert catalog.variant_for(instance("a8w4", 1, "256x32x64x128_1x4_v1"), 512, True) == Variant(
        True, "even"
    )


def test_split_k_shares_the_steps_out() -> None:
    split = instance("a8w8blkscale", 1, "256x16x128x256_1x4_v1", splitk=True)
    assert [catalog.steps(split, 7168, splitk=s) for s in (0, 1, 2, 4, 7, 14)] == [
        28,
        28,
        14,
        7,
        4,
        2,
    ]
    # 28 ways would leave one step each, which CK takes for no split.
    assert catalog.steps(split, 7168, splitk=28) == 28
    assert catalog.variant_for(split, 7168, True, splitk=14) == Variant(False, "even", True)
    assert catalog.variant_for(split, 7168, True, splitk=4) == Variant(True, "odd", True)
    plain = instance("a8w8blkscale", 1, "256x16x128x256_1x4_v1")
    assert catalog.steps(plain, 7168, splitk=4) == 28
    stage2 = instance("a8w8blkscale", 2, "256x16x128x256_1x4_v1", splitk=True)
    assert catalog.steps(stage2, 2048, splitk=4) == 8


@given(modules, arches, st.integers(1, 60), st.booleans())
def test_what_runs_is_among_what_is_compiled(
    spec: ModuleSpec, arch: str, count: int, nt: bool
) -> None:
    for found in catalog.instances(spec, arch):
        variant = catalog.variant_for(found, count * catalog.k_per_block(found), nt)
        assert variant in catalog.variants(found)
        prefetch = 1 if variant.tail == "full" else 2
        assert variant.hot_loop == (count > prefetch)


def test_kimi_is_covered_by_four_counts() -> None:
    found = catalog.instances(KIMI, "gfx950")[0]
    runs = {catalog.variant_for(found, 256 * count) for count in range(1, 5)}
    assert runs == set(catalog.variants(found))
