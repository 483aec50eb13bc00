"""The reference of both stages against an independent float64 computation."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from jitcache.errors import UsageError  # noqa: E402
from jitcache.runtime.reference import (  # noqa: E402
    Quantised,
    moe_stage1,
    moe_stage2,
    quantise_activations,
    quantise_weights,
    sort_by_expert,
)
from tests import naive_moe as naive  # noqa: E402

FN, FNUZ = torch.float8_e4m3fn, torch.float8_e4m3fnuz
KINDS = [
    ("none", torch.bfloat16),
    ("none", torch.float16),
    *((s, d) for s in ("per_tensor", "per_token") for d in (FN, FNUZ, torch.int8)),
    *((s, d) for s in ("per_1x128", "int4") for d in (FN, FNUZ)),
    ("per_1x32", torch.uint8),
]
kinds = pytest.mark.parametrize(("scheme", "dtype"), KINDS, ids=lambda v: str(v).split(".")[-1])

ERROR = 6e-8
"""Of the largest expected value (docs/runtime.md states it): half a step of float32, in which
results are given, is 2**-24."""


@dataclass(frozen=True)
class Shape:
    tokens: int
    topk: int
    experts: int
    n: int
    k: int
    seed: int


def shapes(scheme: str, stage: int):
    """Small problems: of blocks of 128 rows of weights there are two, the others need little."""
    blocks, step = (2, 128) if scheme == "per_1x128" else (4, 32)
    n = {"per_1x128": [128 if stage == 1 else 256]}.get(scheme, [1, 4, 7])
    return st.builds(
        Shape,
        tokens=st.integers(1, 3),
        topk=st.integers(1, 2),
        experts=st.integers(2, 3),
        n=st.sampled_from(n),
        k=st.integers(1, blocks).map(lambda count: count * step),
        seed=st.integers(0, 2**32 - 1),
    )


def draw(shape: tuple[int, ...], make, dtype):
    """Normal numbers whose rows and blocks differ by powers of two, some of them zero."""
    blocks = (*shape[:-1], shape[-1] // 32)
    powers = torch.randint(-3, 4, blocks, generator=make).exp2()
    powers *= torch.rand(blocks, generator=make) > 0.1
    values = torch.randn(shape, generator=make) * powers.repeat_interleave(32, dim=-1)
    return values.to(dtype) if dtype in (torch.bfloat16, torch.float16) else values


def stored(q: Quantised, experts: int = 0) -> naive.Stored:
    k = q.values.shape[-1] * (2 if q.scheme in ("per_1x32", "int4") else 1)
    data = bytes(q.values.contiguous().view(torch.uint8).flatten().tolist())
    scales = [] if q.scales is None else q.scales.flatten().tolist()
    kind = str(q.values.dtype).removeprefix("torch.")
    rows = q.values.numel() // q.values.shape[-1]
    return naive.Stored(q.scheme, kind, data, scales, rows, k, experts)


def operands(shape: Shape, stage: int, scheme: str, dtype):
    make = torch.Generator().manual_seed(shape.seed)
    rows = (shape.tokens,) if stage == 1 else (shape.tokens, shape.topk)
    wide = 2 * shape.n if stage == 1 else shape.n
    x = quantise_activations(draw((*rows, shape.k), make, dtype), scheme, dtype)
    w = quantise_weights(draw((shape.experts, wide, shape.k), make, dtype), scheme, dtype)
    assert {x.values.dtype, w.values.dtype} == (
        {dtype, torch.uint8} if scheme == "int4" else {dtype}
    )
    chosen = torch.rand((shape.tokens, shape.experts), generator=make).argsort()
    weights = torch.rand((shape.tokens, shape.topk), generator=make)
    return x, w, chosen[:, : shape.topk], weights


def error(found, expected: list[float]) -> float:
    """Largest difference, relative to the largest expected value."""
    exact = torch.tensor(expected, dtype=torch.float64)
    difference = (found.flatten().double() - exact).abs().max().item()
    largest = exact.abs().max().item()
    return difference / largest if largest else difference


@kinds
@pytest.mark.parametrize("activation", ["silu", "gelu"])
@pytest.mark.parametrize("routed", [False, True], ids=["plain", "routed"])
def test_stage_1_agrees_with_float64(scheme, dtype, activation, routed):
    @settings(max_examples=3)
    @given(shapes(scheme, 1))
    def check(shape):
        x, w, ids, weights = operands(shape, 1, scheme, dtype)
        found = moe_stage1(
            x, w, ids, activation=activation, topk_weights=weights if routed else None
        )
        assert found.shape == (shape.tokens, shape.topk, shape.n)
        factors = weights.tolist() if routed else None
        stored_w = stored(w, shape.experts)
        expected = naive.stage1(stored(x), stored_w, ids.tolist(), activation, factors)
        assert error(found, expected) <= ERROR

    check()


@kinds
@pytest.mark.parametrize("routed", [False, True], ids=["plain", "routed"])
def test_stage_2_agrees_with_float64(scheme, dtype, routed):
    @settings(max_examples=3)
    @given(shapes(scheme, 2))
    def check(shape):
        x, w, ids, weights = operands(shape, 2, scheme, dtype)
        found = moe_stage2(x, w, ids, topk_weights=weights if routed else None)
        assert found.shape == (shape.tokens, shape.n)
        factors = weights.tolist() if routed else None
        expected = naive.stage2(stored(x), stored(w, shape.experts), ids.tolist(), factors)
        assert error(found, expected) <= ERROR

    check()


STEPS = {
    # Half a step at the largest value, relative to it: 16-bit values aren't changed; E2M1 cuts
    # what is just below 8 to 6; the mantissas of fp8 have 3 bits; integers have equal steps.
    ("none", torch.bfloat16): 0.0,
    ("none", torch.float16): 0.0,
    ("per_1x32", torch.uint8): 1 / 4,
    ("int4", FN): 1 / 14,
    ("int4", FNUZ): 1 / 14,
    ("per_tensor", torch.int8): 1 / 254,
    ("per_token", torch.int8): 1 / 254,
    **{(s, FN): 16 / 448 for s in ("per_tensor", "per_token", "per_1x128")},
    **{(s, FNUZ): 8 / 240 for s in ("per_tensor", "per_token", "per_1x128")},
}


@kinds
def test_quantising_costs_half_a_step_of_the_format(scheme, dtype):
    make = torch.Generator().manual_seed(4)
    weights = draw((3, 128, 128), make, dtype)
    back = quantise_weights(weights, scheme, dtype).dequantise()
    worst = (back - weights.double()).abs().max().item() / weights.abs().max().item()
    bound = STEPS[scheme, dtype]
    assert worst <= bound * (1 + 1e-6)
    assert worst >= bound / 4


def test_nan_in_an_operand_reaches_the_rows_that_use_it():
    states = torch.ones(2, 32)
    states[1, 7] = float("nan")
    x = quantise_activations(states, "per_1x32")
    w = quantise_weights(torch.ones(2, 4, 32), "per_1x32")
    found = moe_stage1(x, w, torch.tensor([[0], [1]]))
    assert found[0].isfinite().all()
    assert found[1].isnan().all()


def test_operands_that_make_no_sense_are_refused():
    x, w = Quantised("none", torch.ones(1, 4)), Quantised("none", torch.ones(2, 4, 4))
    for ids in ([[2]], [[-1]]):
        for stage in (moe_stage1, moe_stage2):
            states = x if stage is moe_stage1 else Quantised("none", torch.ones(1, 1, 4))
            with pytest.raises(UsageError, match="the weights have 2"):
                stage(states, w, torch.tensor(ids))
    with pytest.raises(UsageError, match="scales are missing with the scheme per_token"):
        Quantised("per_token", torch.ones(1, 4)).dequantise()
    with pytest.raises(UsageError, match="scales are not expected with the scheme none"):
        Quantised("none", torch.ones(1, 4), torch.ones(1)).dequantise()


def test_rows_are_sorted_by_expert_into_whole_blocks():
    ids = torch.tensor([[0, 2], [2, 1], [2, 0]])
    weights = torch.tensor([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])
    found = sort_by_expert(ids, weights, block_m=4, experts=4)
    pad = 3 | 2 << 24
    token = [0, 2 | 1 << 24, pad, pad, 1 | 1 << 24, pad, pad, pad, 0 | 1 << 24, 1, 2, pad]
    assert found.token_ids[:12].tolist() == token
    assert set(found.token_ids[12:].tolist()) == {pad}
    assert found.expert_ids[:3].tolist() == [0, 1, 2]
    assert found.num_valid.tolist() == [12, 3]
    expected = [0.1, 0.6, 0, 0, 0.4, 0, 0, 0, 0.2, 0.3, 0.5, 0]
    assert found.weights[:12].tolist() == pytest.approx(expected)
    assert len(found.token_ids) == len(found.expert_ids) * 4
