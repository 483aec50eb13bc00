"""The reference of both stages against an independent float64 computation, and its formats."""

from __future__ import annotations

import math
import random

import pytest

torch = pytest.importorskip("torch")

from jitcache.runtime import mx  # noqa: E402
from jitcache.runtime.reference import (  # noqa: E402
    moe_stage1,
    moe_stage2,
    quantise_activations,
    quantise_weights,
    sort_by_expert,
)

SCHEMES = ("none", "per_tensor", "per_token", "per_1x32", "per_1x128", "int4")


def e2m1(code: int) -> float:
    """By the definition: a sign, two bits of exponent with bias 1, one of mantissa."""
    exponent, mantissa = code >> 1 & 3, code & 1
    value = (1 + mantissa / 2) * 2.0 ** (exponent - 1) if exponent else mantissa / 2
    return -value if code & 8 else value


def e4m3fn(code: int) -> float:
    exponent, mantissa = code >> 3 & 15, code & 7
    if exponent == 15 and mantissa == 7:
        return math.nan
    value = (1 + mantissa / 8) * 2.0 ** (exponent - 7) if exponent else mantissa / 8 * 2.0**-6
    return -value if code & 128 else value


def bits(t):
    return t.contiguous().view(torch.uint8).flatten().tolist()


def test_every_e2m1_code_has_its_value_and_comes_back():
    codes = torch.arange(16, dtype=torch.uint8)
    assert mx.e2m1_decode(codes).tolist() == [e2m1(c) for c in range(16)]
    assert mx.e2m1_encode(mx.e2m1_decode(codes)).tolist() == list(range(16))


def test_e2m1_rounds_to_nearest_and_ties_to_even():
    for i in range(8 * 64 + 1):
        value = i / 64
        distance = [abs(min(value, 6.0) - e2m1(c)) for c in range(8)]
        nearest = [c for c in range(8) if distance[c] == min(distance)]
        expected = nearest[0] if len(nearest) == 1 else next(c for c in nearest if c % 2 == 0)
        found = mx.e2m1_encode(torch.tensor([value, -value])).tolist()
        assert found == [expected, expected + 8], value


def test_every_e8m0_code():
    values = mx.e8m0_decode(torch.arange(256, dtype=torch.uint8)).tolist()
    assert values[:255] == [2.0 ** (c - 127) for c in range(255)]
    assert math.isnan(values[255])


def test_every_pair_of_codes_is_packed_with_the_first_in_the_low_half():
    codes = torch.tensor([[a, b] for a in range(16) for b in range(16)], dtype=torch.uint8)
    packed = mx.pack4(codes)
    assert packed.flatten().tolist() == [a | b << 4 for a in range(16) for b in range(16)]
    assert torch.equal(mx.unpack4(packed), codes)


def test_every_int4_code():
    packed = mx.pack4(torch.arange(16, dtype=torch.uint8))
    assert mx.int4_decode(packed).tolist() == [*range(8), *range(-8, 0)]


def test_every_representable_block_survives_mxfp4_exactly():
    # A block that holds the largest magnitude 4 or 6 at a scale is read back as it was.
    for code in range(1, 255, 7):
        scale = 2.0 ** (code - 127)
        block = torch.tensor([e2m1(c) for c in range(16)] * 2, dtype=torch.float64) * scale
        if block.abs().max() > torch.finfo(torch.float32).max or scale < 2.0**-124:
            continue
        packed, scales = mx.mxfp4_quantise(block.float())
        assert scales.tolist() == [code]
        assert torch.equal(mx.mxfp4_dequantise(packed, scales), block.float())


@pytest.mark.parametrize("largest", [1.0, 0.99, 5.9, 7.99, 8.0, 1e-30, 3e38, 0.0])
def test_mxfp4_takes_the_largest_exponent_and_saturates(largest):
    chance = random.Random(largest)
    block = [largest, *(largest * chance.uniform(-1, 1) for _ in range(31))]
    packed, scales = mx.mxfp4_quantise(torch.tensor(block))
    back = mx.mxfp4_dequantise(packed, scales).tolist()
    if largest == 0:
        assert back == [0.0] * 32
        return
    exponent = math.floor(math.log2(torch.tensor(largest).item())) - 2
    assert scales.item() == exponent + 127
    unit = 2.0**exponent
    for value, found in zip(block, back, strict=True):
        wanted = min(abs(value) / unit, 6.0)
        nearest = min(abs(wanted - e2m1(code)) for code in range(8))
        assert abs(abs(found) / unit - wanted) == pytest.approx(nearest, abs=1e-5)
        assert found == 0 or math.copysign(1, found) == math.copysign(1, value)


def test_every_fp8_value_survives_a_row_that_holds_the_largest():
    finite = [c for c in range(256) if not math.isnan(e4m3fn(c))]
    row = torch.tensor([[e4m3fn(c) for c in finite]])
    values, scales = mx.quantise8(row)
    assert scales.tolist() == [[1.0]]
    assert bits(values) == finite


# Independent computation: plain Python floats (64 bit), from the stored bytes only.


COLUMNS = range(0, 128, 17)
"""Which columns of a result are compared: a float at a time takes its time."""


def read_rows(q, rows: int, k: int, *, weights: bool) -> list[list[float]]:
    raw, scheme = bits(q.values), q.scheme
    plain = q.values.flatten().tolist() if scheme == "none" else []
    scales = [] if q.scales is None else q.scales.flatten().tolist()
    found = []
    for r in range(rows):
        row = []
        for c in range(k if not weights or r % 128 in COLUMNS else 0):
            i = r * k + c
            if scheme == "none":
                value = plain[i]
            elif scheme in ("per_1x32", "int4"):
                code = raw[i // 2] >> (4 * (i % 2)) & 15
                if scheme == "per_1x32":
                    value = e2m1(code) * 2.0 ** (scales[i // 32] - 127)
                else:
                    value = (code - 16 if code > 7 else code) * scales[r]
            else:
                value = e4m3fn(raw[i])
                if scheme == "per_tensor":
                    per_expert = rows // len(scales)
                    value *= scales[r // per_expert]
                elif scheme == "per_token":
                    value *= scales[r]
                else:
                    line = r // 128 if weights else r
                    value *= scales[line * (k // 128) + c // 128]
            row.append(value)
        found.append(row)
    return found


def dot(a, b):
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def act(x, which):
    return x / (1 + math.exp(-x)) if which == "silu" else x / 2 * (1 + math.erf(x / math.sqrt(2)))


def draw(seed):
    make = torch.Generator().manual_seed(seed)
    tokens, topk, experts, dim = 3, 2, 3, 128
    return (
        torch.randn(tokens, dim, generator=make),
        torch.randn(experts, 2 * dim, dim, generator=make) * 0.2,
        torch.randn(experts, dim, dim, generator=make) * 0.2,
        torch.stack([torch.randperm(experts, generator=make)[:topk] for _ in range(tokens)]),
        torch.rand(tokens, topk, generator=make),
    )


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("activation", "routed"), [("silu", False), ("gelu", True)])
def test_stage_1_agrees_with_float64(scheme, activation, routed):
    states, w1, _, ids, weights = draw(1)
    x, w = quantise_activations(states, scheme), quantise_weights(w1, scheme)
    found = moe_stage1(x, w, ids, activation=activation, topk_weights=weights if routed else None)
    rows, columns = read_rows(x, 3, 128, weights=False), read_rows(w, 3 * 256, 128, weights=True)
    for t in range(3):
        for s in range(2):
            e = int(ids[t, s])
            factor = weights[t, s].item() if routed else 1.0
            for n in COLUMNS:
                gate = factor * dot(rows[t], columns[e * 256 + n])
                up = factor * dot(rows[t], columns[e * 256 + 128 + n])
                expected = act(gate, activation) * up
                assert found[t, s, n].item() == pytest.approx(expected, rel=2e-5, abs=2e-5)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("routed", [True, False])
def test_stage_2_agrees_with_float64(scheme, routed):
    _, _, w2, ids, weights = draw(2)
    states = torch.randn(3, 2, 128, generator=torch.Generator().manual_seed(3))
    x, w = quantise_activations(states, scheme), quantise_weights(w2, scheme)
    found = moe_stage2(x, w, ids, topk_weights=weights if routed else None)
    rows, columns = read_rows(x, 6, 128, weights=False), read_rows(w, 3 * 128, 128, weights=True)
    for t in range(3):
        for n in COLUMNS:
            expected = sum(
                (weights[t, s].item() if routed else 1.0)
                * dot(rows[t * 2 + s], columns[int(ids[t, s]) * 128 + n])
                for s in range(2)
            )
            assert found[t, n].item() == pytest.approx(expected, rel=2e-5, abs=2e-5)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_quantising_costs_no_more_than_the_formats_step(scheme):
    _, w1, _, _, _ = draw(4)
    back = quantise_weights(w1, scheme).dequantise()
    worst = (back - w1).abs().max().item() / w1.abs().max().item()
    bound = {"none": 0.0, "per_1x32": 0.26, "int4": 1 / 13.9}.get(scheme, 1 / 16 / 1.7)
    assert worst <= bound
    assert (worst > 0) == (scheme != "none")


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
