"""Narrowing a module by shape, without a manifest."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitcache.aiter.narrow import Shape, narrow
from jitcache.codegen import catalog
from jitcache.codegen.catalog import Instance, ModuleSpec, Quant
from jitcache.errors import UnsupportedError

A4W4 = ModuleSpec("fp4x2", "fp4x2", "b16", Quant.PER_1X32, "silu", 2, preshuffle=True)
BLOCKSCALE = ModuleSpec("f8", "f8", "b16", Quant.PER_1X128, "silu", 2, preshuffle=True)
A8W8 = ModuleSpec("f8", "f8", "b16", Quant.PER_TOKEN, "silu", 2, preshuffle=True)
A16W16 = ModuleSpec("b16", "b16", "b16", Quant.NO, "silu", 2, preshuffle=True)


def tiles(names: tuple[str, ...]) -> list[str]:
    return ["_".join(n.split("_")[2:4]) for n in names]


def test_nothing_given_is_the_whole_module() -> None:
    assert len(narrow(A4W4, "gfx950", Shape())) == 10
    # AITER's generator writes it for gfx942, too.
    assert len(narrow(A4W4, "gfx942", Shape())) == 10


def test_an_inter_dim_keeps_what_the_heuristic_picks() -> None:
    assert tiles(narrow(A4W4, "gfx950", Shape((1024,)))) == [
        "gemm1_256x64x128x128",
        "gemm1_256x128x128x128",
        "gemm1_64x32x32x128",
        "gemm2_256x32x128x128",
        "gemm2_256x64x128x128",
        "gemm2_256x128x128x128",
    ]
    assert tiles(narrow(A4W4, "gfx950", Shape((256,), (64,)))) == [
        "gemm1_256x64x128x128",
        "gemm2_64x64x128x128",
    ]
    assert len(narrow(A4W4, "gfx950", Shape((256, 1024)))) == 9
    # per_1x128 takes 16 and 64 only.
    assert len(narrow(BLOCKSCALE, "gfx942", Shape((256,)))) == 4


def test_a_block_height_alone_keeps_all_of_it() -> None:
    assert tiles(narrow(A4W4, "gfx950", Shape(block_ms=(32,)))) == [
        "gemm1_256x32x128x128",
        "gemm1_64x32x32x128",
        "gemm2_256x32x128x128",
        "gemm2_64x32x32x128",
    ]


def test_kernels_come_on_top() -> None:
    extra = catalog.dispatch(A4W4, "gfx950", 2, 128, 256)
    assert isinstance(extra, Instance)
    names = narrow(A4W4, "gfx950", Shape((1024,), (128,), (extra.name,)))
    assert len(names) == 3
    assert extra.name in names
    assert narrow(A4W4, "gfx950", Shape(kernels=(extra.name,))) == (extra.name,)


@pytest.mark.parametrize(
    ("spec", "arch", "shape", "says"),
    [
        (A4W4, "gfx942", Shape((1024,)), "never run: the fp4x2 dispatch is compiled only where"),
        (A4W4, "gfx950", Shape((384,)), "no stage 2 kernel takes inter_dim 384"),
        (A4W4, "gfx950", Shape((1024,), (16,)), "block_m 16: a4w4 stage 1 has no kernel for"),
        (A4W4, "gfx950", Shape(block_ms=(256,)), "the module has no kernel of block_m 256"),
        (A4W4, "gfx950", Shape(kernels=("gemm",)), "the module has no kernel gemm"),
        (A8W8, "gfx950", Shape((384,), (64,)), "is not a multiple of 256"),
        (replace(A4W4, quant=Quant.NO), "gfx950", Shape((256,)), "only per_1x32 exists"),
    ],
)
def test_what_can_never_run_is_refused(
    spec: ModuleSpec, arch: str, shape: Shape, says: str
) -> None:
    with pytest.raises(UnsupportedError) as caught:
        narrow(spec, arch, shape)
    assert says in str(caught.value)


def test_heights_that_ck_rejects_are_left_out_unless_asked_for() -> None:
    """gfx950's fp8 stage 2 takes 384 at block_m 128 only."""
    names = tiles(narrow(A8W8, "gfx950", Shape((384,))))
    assert [n for n in names if n.startswith("gemm2")] == ["gemm2_256x128x128x128"]


@given(
    st.sampled_from([A4W4, BLOCKSCALE, A8W8, A16W16]),
    st.integers(1, 64).map(lambda n: n * 64),
    st.sets(st.sampled_from([16, 32, 64, 128, 256])),
)
def test_what_is_kept_is_what_can_be_dispatched(
    spec: ModuleSpec, inter_dim: int, block_ms: set[int]
) -> None:
    shape = Shape((inter_dim,), tuple(block_ms))
    try:
        names = narrow(spec, "gfx950", shape)
    except UnsupportedError:
        return
    picked = {
        p.name
        for stage in (1, 2)
        for m in block_ms or (16, 32, 64, 128)
        if isinstance(p := catalog.dispatch(spec, "gfx950", stage, m, inter_dim), Instance)
    }
    assert set(names) <= picked
    assert {n[18] for n in names} == {"1", "2"}
    if block_ms:
        assert set(names) == picked
