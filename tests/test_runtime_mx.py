"""The number formats against tables from their specifications, code by code."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from jitcache.errors import UsageError  # noqa: E402
from jitcache.runtime import mx  # noqa: E402
from tests import number_formats as spec  # noqa: E402

FP8 = {torch.float8_e4m3fn: spec.e4m3fn, torch.float8_e4m3fnuz: spec.e4m3fnuz}
LARGEST = {torch.float8_e4m3fn: 448.0, torch.float8_e4m3fnuz: 240.0}
kinds = pytest.mark.parametrize("dtype", FP8, ids=str)


def bits(t):
    return t.contiguous().view(torch.uint8).flatten().tolist()


def around(value: float, dtype) -> list[float]:
    """A value and its neighbours in a type."""
    v = torch.tensor(value, dtype=dtype)
    inf = torch.tensor(math.inf, dtype=dtype)
    return [torch.nextafter(v, -inf).item(), v.item(), torch.nextafter(v, inf).item()]


def all_same(found, expected) -> bool:
    return all(spec.same(f, e) for f, e in zip(found, expected, strict=True))


# E2M1


def test_every_e2m1_code_has_the_tables_value_and_comes_back():
    codes = torch.arange(16, dtype=torch.uint8)
    values = mx.e2m1_decode(codes)
    assert all_same(values.tolist(), spec.E2M1.values())
    assert mx.e2m1_encode(values).tolist() == list(spec.E2M1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_e2m1_at_every_boundary_every_value_and_beside_them(dtype):
    table = spec.E2M1_POSITIVE
    middles = [(a + b) / 2 for a, b in itertools.pairwise(table)]
    # Ties to even, written out: 0.25 0.75 1.25 1.75 2.5 3.5 5.
    values = torch.tensor(middles, dtype=dtype)
    assert mx.e2m1_encode(values).tolist() == [0, 2, 2, 4, 4, 6, 6]
    assert mx.e2m1_encode(-values).tolist() == [8, 10, 10, 12, 12, 14, 14]
    for value in [v for m in (*middles, *table[1:], 7.0, 100.0) for v in around(m, dtype)]:
        code = spec.nearest(value, table)
        found = mx.e2m1_encode(torch.tensor([value, -value], dtype=dtype)).tolist()
        assert found == [code, code | 8], value


def test_e2m1_saturates_keeps_the_sign_of_zero_and_has_no_nan():
    values = torch.tensor([6.5, 1e30, math.inf, -6.5, -math.inf, 0.0, -0.0, 1e-40, -1e-40])
    assert mx.e2m1_encode(values).tolist() == [7, 7, 7, 15, 15, 0, 8, 0, 8]
    with pytest.raises(UsageError, match="NaN has no E2M1 code"):
        mx.e2m1_encode(torch.tensor([1.0, math.nan]))


def test_every_pair_of_codes_is_packed_with_the_first_in_the_low_half():
    codes = torch.tensor([[a, b] for a in range(16) for b in range(16)], dtype=torch.uint8)
    packed = mx.pack4(codes)
    assert packed.flatten().tolist() == [a | b << 4 for a in range(16) for b in range(16)]
    assert torch.equal(mx.unpack4(packed), codes)


# E8M0, and both together: MXFP4


def test_every_e8m0_code():
    codes = torch.arange(256, dtype=torch.uint8)
    expected = [spec.e8m0(c) for c in range(256)]
    assert all_same(mx.e8m0_decode(codes).tolist(), expected)
    assert all_same(mx.e8m0_decode(codes.view(torch.float8_e8m0fnu)).tolist(), expected)


def test_every_code_at_every_scale_is_read_as_the_tables_say():
    packed = mx.pack4(torch.arange(16, dtype=torch.uint8)).repeat(256, 2)
    found = mx.mxfp4_dequantise(packed, torch.arange(256, dtype=torch.uint8)[:, None])
    for scale, row in enumerate(found.tolist()):
        exact = [value * spec.e8m0(scale) for value in spec.E2M1.values()] * 2
        assert all_same(row, exact), scale


@pytest.mark.parametrize("top", range(1, 8))
def test_every_block_of_representable_values_comes_back_at_every_scale(top):
    codes = [c for c in range(16) if c & 7 <= top]
    block = (codes * 32)[:32]
    # 255 is NaN; the highest scale needs float64, which quantising takes as it is.
    exact = torch.tensor(
        [[spec.E2M1[c] * spec.e8m0(s) for c in block] for s in range(255)], dtype=torch.float64
    )
    packed, scales = mx.mxfp4_quantise(exact)
    back = mx.mxfp4_dequantise(packed, scales)
    assert all_same(back.flatten().tolist(), exact.flatten().tolist())
    if spec.E2M1[top] >= 4:  # the scale is then the largest magnitude's own
        assert scales.flatten().tolist() == list(range(255))
        assert mx.unpack4(packed).tolist() == [block] * 255


def test_the_shared_exponent_at_and_beside_every_power_of_two():
    powers = [2.0**e for e in range(-149, 128)]
    values = sorted({v for p in powers for v in around(p, torch.float32)})
    values += [0.0, torch.finfo(torch.float32).max, 2.0**-126 * 1.5]
    blocks = torch.zeros(len(values), 32)
    for i, value in enumerate(values):
        blocks[i, i % 32] = -value if i % 3 == 0 else value
    _, scales = mx.mxfp4_quantise(blocks)
    found = dict(zip(values, scales.flatten().tolist(), strict=True))
    assert found == {v: spec.shared_exponent([v]) + 127 for v in values}
    # Some of them written out: zero and subnormal numbers, the smallest block that isn't held
    # up by E8M0's range, 4 at a scale of 1, just below, and the largest number.
    assert (found[0.0], found[2.0**-149], found[2.0**-126]) == (0, 0, 0)
    assert (found[2.0**-125], found[2.0**-124]) == (0, 1)
    assert (found[4.0], found[around(4.0, torch.float32)[0]]) == (127, 126)
    assert found[torch.finfo(torch.float32).max] == 127 + 127 - 2


@given(
    st.lists(
        st.floats(width=32, allow_nan=False, allow_infinity=False)
        | st.floats(-8, 8, width=32)
        | st.sampled_from([0.0, -0.0, 0.25, 0.75, -1.25, 1.75, 2.5, 3.5, 5.0, 6.0, 7.0, 2.0**-149]),
        min_size=32,
        max_size=32,
    )
)
def test_blocks_are_converted_as_the_specification_says(block):
    packed, scales = mx.mxfp4_quantise(torch.tensor(block, dtype=torch.float32))
    assert (mx.unpack4(packed).tolist(), scales.item()) == spec.to_mxfp4(block)


def test_a_value_that_float32_would_round_onto_a_boundary_is_rounded_once():
    block = torch.zeros(32, dtype=torch.float64)
    block[0], block[1] = 6.0, math.nextafter(0.25, 1)
    assert mx.unpack4(mx.mxfp4_quantise(block)[0]).tolist()[:2] == [7, 1]


@pytest.mark.parametrize("strange", [math.nan, math.inf, -math.inf])
def test_a_block_with_nan_or_infinity_is_nan_as_a_whole_and_its_neighbour_is_not(strange):
    values = torch.arange(64.0)
    values[5] = strange
    packed, scales = mx.mxfp4_quantise(values)
    assert (scales[0].item(), scales[1].item()) == (255, 130)
    back = mx.mxfp4_dequantise(packed, scales)
    assert back[:32].isnan().all()
    assert torch.equal(back[32:], mx.mxfp4_dequantise(*mx.mxfp4_quantise(values[32:])))


# fp8, int8 and int4


@kinds
def test_every_fp8_code_has_its_value_and_comes_back(dtype):
    codes = torch.arange(256, dtype=torch.uint8)
    values = codes.view(dtype).float()
    assert all_same(values.tolist(), [FP8[dtype](c) for c in range(256)])
    finite = codes[values.isfinite()]
    assert len(finite) == {torch.float8_e4m3fn: 254, torch.float8_e4m3fnuz: 255}[dtype]
    found, scales = mx.quantise8(finite.view(dtype).float(), dtype=dtype)
    assert (scales.item(), bits(found)) == (1.0, finite.tolist())


@kinds
def test_fp8_at_every_boundary_every_value_and_beside_them(dtype):
    table = sorted(FP8[dtype](c) for c in range(128) if not math.isnan(FP8[dtype](c)))
    assert table[-1] == LARGEST[dtype]
    middles = [(a + b) / 2 for a, b in itertools.pairwise(table)]
    values = [v for m in (*middles, *table[1:-1]) for v in around(m, torch.float32)]
    found, scales = mx.quantise8(torch.tensor([*values, table[-1]]), dtype=dtype)
    assert scales.item() == 1.0
    assert bits(found)[:-1] == [spec.nearest(v, table) for v in values]
    negative, _ = mx.quantise8(-torch.tensor([*values, table[-1]]), dtype=dtype)
    assert negative.float().tolist() == [-v for v in found.float().tolist()]


@kinds
def test_rows_of_subnormal_numbers_stay_finite(dtype):
    # Their scale has a bit or two, so that the largest value may lie beyond the type's.
    rows = torch.arange(1.0, 2000.0)[:, None] * 2.0**-149
    found, scales = mx.quantise8(rows, dtype=dtype)
    ratio = found.float() * scales / rows
    assert found.float().isfinite().all()
    assert ((ratio == 0) | ((ratio > 0.6) & (ratio < 1.6))).all()
    assert (ratio[1000:] > 0.6).all()


def test_every_int8_code_but_the_lowest_comes_back_and_ties_go_to_even():
    codes = list(range(-127, 128))
    found, scales = mx.quantise8(torch.tensor(codes) * 0.25, dtype=torch.int8)
    assert (found.tolist(), scales.item()) == (codes, 0.25)
    found, _ = mx.quantise8(torch.tensor([127, 0.5, 1.5, -2.5, -0.6]), dtype=torch.int8)
    assert found.tolist() == [127, 0, 2, -2, -1]


def test_every_int4_code_is_read_and_all_but_the_lowest_come_back():
    packed = mx.pack4(torch.arange(16, dtype=torch.uint8))
    assert mx.int4_decode(packed).tolist() == [spec.int4(c) for c in range(16)]
    codes = [*range(8), *range(9, 16)]
    row = torch.tensor([*(spec.int4(c) for c in codes), 0]) * 0.5
    found, scales = mx.int4_quantise(row)
    assert (mx.unpack4(found).tolist(), scales.item()) == ([*codes, 0], 0.5)
    found, _ = mx.int4_quantise(torch.tensor([7, 0.5, 1.5, -2.5, -0.6, 6.5]))
    assert mx.int4_decode(found).tolist() == [7, 0, 2, -2, -1, 6]


def int4_values(rows):
    packed, scales = mx.int4_quantise(rows)
    return mx.int4_decode(packed) * scales


def eight_values(dtype):
    def back(rows):
        values, scales = mx.quantise8(rows, dtype=dtype)
        return values.float() * scales

    return back


@pytest.mark.parametrize(
    "back",
    [int4_values, *map(eight_values, (*FP8, torch.int8))],
    ids=["int4", *map(str, FP8), "i8"],
)
def test_rows_of_zeros_stay_zero_and_nan_or_infinity_makes_a_row_nan(back):
    rows = torch.tensor([[0.0, 0.0], [math.nan, 1.0], [1.0, -math.inf], [2.0, -1.0]])
    found = back(rows)
    assert found[0].tolist() == [0.0, 0.0]
    assert found[1:3].isnan().all()
    assert found[3].tolist() == pytest.approx([2.0, -1.0], rel=0.15)


@kinds
def test_a_tile_with_nan_is_nan_as_a_whole_and_zeros_stay_zero(dtype):
    weights = torch.ones(1, 256, 256)
    weights[0, 3, 200] = math.nan
    weights[0, 128:, :128] = 0
    values, scales = mx.quantise8_tiles(weights, dtype=dtype)
    assert scales.isnan().tolist() == [[[False, True], [False, False]]]
    assert values[0, :128, 128:].float().isnan().all()
    assert bits(values[0, 128:, :128]) == [0] * 128 * 128


@pytest.mark.parametrize(
    "quantise",
    [
        lambda: mx.mxfp4_quantise(torch.ones(3, 48)),
        lambda: mx.quantise8(torch.ones(3, 200), block=128),
        lambda: mx.quantise8_tiles(torch.ones(1, 128, 200)),
        lambda: mx.quantise8_tiles(torch.ones(1, 200, 128)),
    ],
)
def test_incomplete_blocks_are_refused(quantise):
    with pytest.raises(UsageError, match="can't be split into blocks"):
        quantise()
