"""The heuristic dispatch and CK's rule for dims."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitcache.codegen import catalog
from jitcache.codegen.catalog import Instance, ModuleSpec, Quant, Stage, Unsupported
from tests.test_catalog import FACTS, KIMI, arches, modules, spec_of

# Digests of the answers of AITER 9bab8388's dispatch texts (gen_instances.py), compiled and
# run: stage, block_m, inter_dim and tile (- where it raises), one line each, as in `answers`.
STOCK_DISPATCH = {
    "a16w16": "40ab474154630fd62a44db8b8063cdb178336eb3f33e9d719f44a71ee0bcdaa7",
    "a16w16_gfx950": "1528dbae14822bc0da4641446bd79dec6ce2dd076f93bf7c6e4cdc2299c75bb6",
    "a8w8": "80764ef78d80e40d414da096082a5f8129771847cfaaa44e9025c1587536d95a",
    "a8w8_gfx950": "8b2c71c27d4f2e7344c861c74b403099935c7bf46a8520f5e57c65571013728f",
    "a8w8blkscale": "9463aa29aa1599f7747c9d7971375748de9458d2d46810b9aa9be10487f2390b",
    "a8w4": "9e01b62671300a8ecb27acafdf411175c12e17cb7452f0d5e28dfbce9809221d",
    "a4w4": "4d9a10b3750d62e341dbbe1b85ba4bcaeed215dc2290255bb2c96de3bc158020",
    "a4w4_bns": "7ae374cd6c66fe9376e486fb341871a2f21638dcd1fe7625cb3e9c218c9b5da0",
}
INTER_DIMS = sorted({*range(16, 1101, 16), 191, 192, 193, 255, 256, 257})


def module_of(tag: str) -> tuple[ModuleSpec, str]:
    kind = {"a16": "b16", "a4w": "fp4x2"}.get(tag[:3], "f8")
    quant = {"b16": Quant.NO, "fp4x2": Quant.PER_1X32}.get(kind, Quant.PER_TOKEN)
    spec = ModuleSpec(
        a=kind,
        b="i4" if tag == "a8w4" else kind,
        c="b16",
        quant=Quant.PER_1X128 if tag == "a8w8blkscale" else quant,
        act="silu",
        routed_weight_stage=2,
        preshuffle=tag != "a4w4_bns",
    )
    arch = "gfx942" if tag in ("a16w16", "a8w8") else "gfx950"
    assert catalog.family_of(spec, arch).tag == tag
    return spec, arch


def tile(found: Instance | Unsupported) -> str:
    return str(found.tile) if isinstance(found, Instance) else "-"


@pytest.mark.parametrize("tag", STOCK_DISPATCH)
def test_answers_are_the_stock_dispatchs(tag: str) -> None:
    spec, arch = module_of(tag)
    digest = hashlib.sha256()
    stages: tuple[Stage, Stage] = (1, 2)
    for stage in stages:
        for block_m in (16, 32, 64, 128, 256):
            for inter_dim in INTER_DIMS:
                found = catalog.dispatch(spec, arch, stage, block_m, inter_dim)
                digest.update(f"{stage} {block_m} {inter_dim} {tile(found)}\n".encode())
    assert digest.hexdigest() == STOCK_DISPATCH[tag]


@given(modules, arches, st.integers(1, 2), st.integers(1, 300), st.integers(1, 1 << 20))
def test_what_is_dispatched_is_in_the_module(
    spec: ModuleSpec, arch: str, stage: Stage, block_m: int, inter_dim: int
) -> None:
    found = catalog.dispatch(spec, arch, stage, block_m, inter_dim)
    if isinstance(found, Unsupported):
        assert found.reason
    else:
        assert found in catalog.instances(spec, arch)
        assert (found.stage, found.tile.m) == (stage, block_m)


@given(modules, arches, st.integers(1, 2), st.integers(1, 5000))
def test_at_most_one_tile_is_picked(
    spec: ModuleSpec, arch: str, stage: Stage, inter_dim: int
) -> None:
    rows = catalog.family_of(spec, arch).rows(stage)
    picked = [r.tile.m for r in rows if r.when.holds(inter_dim)]
    assert len(picked) == len(set(picked))


def test_kimi_thresholds() -> None:
    def ask(stage: Stage, block_m: int, inter_dim: int) -> str:
        return tile(catalog.dispatch(KIMI, "gfx950", stage, block_m, inter_dim))

    assert ask(1, 32, 1024) == "64x32x32x128_1x1_v3"
    assert ask(2, 128, 256) == "64x128x128x128_1x1_v3"
    assert ask(2, 128, 257) == "256x128x128x128_1x4_v3"
    assert ask(2, 256, 1024) == "-"
    assert ask(2, 48, 1024) == "-"


def test_fp4_is_never_dispatched_on_gfx942() -> None:
    found = catalog.dispatch(KIMI, "gfx942", 1, 128, 1024)
    assert isinstance(found, Unsupported)
    assert "gfx942" in found.reason


def test_the_reason_names_the_condition() -> None:
    small = next(
        i for i in catalog.instances(KIMI, "gfx950") if i.stage == 2 and i.tile.block_size == 64
    )
    why = catalog.why_not_dispatched
    assert why(small, "gfx950", small.tile.m, 1024) == "inter_dim 1024 > 256"
    assert why(small, "gfx950", 64, 1024) == "made for block_m 32, not 64"


def test_rejected_dims_name_the_rule() -> None:
    one = catalog.dispatch(KIMI, "gfx950", 1, 128, 1024)
    two = catalog.dispatch(KIMI, "gfx950", 2, 128, 1024)
    assert isinstance(one, Instance)
    assert isinstance(two, Instance)
    assert catalog.k_per_block(two) == 256
    assert catalog.rejects(one, 1024, 7168) is None
    assert catalog.rejects(one, 1000, 7168) == "N (inter_dim) 1000 is not a multiple of 128"
    assert catalog.rejects(one, 1024, 7040) == "K (model_dim) 7040 is not a multiple of 256"
    assert catalog.rejects(two, 7168, 384) == "K (inter_dim) 384 is not a multiple of 256"
    assert catalog.rejects(two, 7100, 512) == "N (model_dim) 7100 is not a multiple of 128"


@pytest.mark.skipif(not FACTS.is_dir(), reason="JITCACHE_FACTS names no directory of facts")
def test_given_facts_of_the_stock_dispatch() -> None:
    for fact in json.loads((FACTS / "aiter_dispatch.json").read_text()):
        spec, arch, stage = spec_of(fact), fact["arch"], fact["stage"]
        for block_m, answers in fact["dispatch"].items():
            for inter_dim, name in answers.items():
                found = catalog.dispatch(spec, arch, stage, int(block_m), int(inter_dim))
                assert (found.name if isinstance(found, Instance) else "unsupported") == name
        for block_m, rejected in fact["ck_rejects_inter_dim"].items():
            for inter_dim in {*rejected, 64, 128, 192, 256, 384, 512, 640, 768, 1024, 2048}:
                found = catalog.dispatch(spec, arch, stage, int(block_m), inter_dim)
                assert isinstance(found, Instance)
                n, k = (inter_dim, 7168) if stage == 1 else (7168, inter_dim)
                assert (catalog.rejects(found, n, k) is not None) == (inter_dim in rejected)
