"""Number formats written down from their specifications, in plain Python, to test ours against.

Source: OCP Microscaling Formats (MX) v1.0, sections 5.3.3 (E2M1), 5.4.1 (E8M0) and 6.3
(conversion); OCP 8-bit Floating Point v1.0 (E4M3). The fp8 of gfx942, without infinity and
negative zero and with an exponent bias one greater, is that of arXiv:2206.02915.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from fractions import Fraction

# fmt: off
E2M1 = {
    0b0000: 0.0, 0b0001: 0.5, 0b0010: 1.0, 0b0011: 1.5,
    0b0100: 2.0, 0b0101: 3.0, 0b0110: 4.0, 0b0111: 6.0,
    0b1000: -0.0, 0b1001: -0.5, 0b1010: -1.0, 0b1011: -1.5,
    0b1100: -2.0, 0b1101: -3.0, 0b1110: -4.0, 0b1111: -6.0,
}
# fmt: on
E2M1_POSITIVE = tuple(E2M1[code] for code in range(8))


def e8m0(code: int) -> float:
    """A power of two with a bias of 127, from 2**-127 to 2**127; the last code is NaN."""
    return math.nan if code == 0b11111111 else 2.0 ** (code - 127)


def e4m3fn(code: int) -> float:
    """OCP's E4M3: bias 7, no infinity, largest 448, NaN where all bits but the sign are set."""
    if code & 0b1111111 == 0b1111111:
        return math.nan
    return _signed(code, bias=7)


def e4m3fnuz(code: int) -> float:
    """Bias 8, no infinity, largest 240; what would be negative zero is the only NaN."""
    return math.nan if code == 0b10000000 else _signed(code, bias=8)


def _signed(code: int, bias: int) -> float:
    exponent, mantissa = code >> 3 & 0b1111, code & 0b111
    if exponent:
        magnitude = (1 + mantissa / 8) * 2.0 ** (exponent - bias)
    else:
        magnitude = mantissa / 8 * 2.0 ** (1 - bias)
    return -magnitude if code & 0b10000000 else magnitude


def int4(code: int) -> int:
    """Two's complement."""
    return code - 16 if code & 0b1000 else code


def nearest(value: float | Fraction, table: Sequence[float]) -> int:
    """Index of the nearest magnitude in an ascending table: ties to even, too large to the last."""
    magnitude = abs(value)
    above = bisect_left(table, magnitude)
    if above in (0, len(table)):
        return min(above, len(table) - 1)
    # Fractions: a difference of floats may be rounded.
    below = above - 1
    up, down = (abs(Fraction(table[i]) - Fraction(magnitude)) for i in (above, below))
    if up == down:
        return above if above % 2 == 0 else below
    return above if up < down else below


def same(one: float, other: float) -> bool:
    """Equal, zeros with their signs, and NaN to NaN."""
    if math.isnan(one) or math.isnan(other):
        return math.isnan(one) and math.isnan(other)
    return one == other and math.copysign(1, one) == math.copysign(1, other)


def shared_exponent(block: Sequence[float]) -> int:
    """Section 6.3: the largest power of two that isn't above the largest magnitude, by the
    largest of E2M1, which is 4; then what E8M0 can hold."""
    largest = max(map(abs, block))
    if largest == 0:
        return -127
    floor_log2 = math.frexp(largest)[1] - 1
    return min(max(floor_log2 - 2, -127), 127)


def to_mxfp4(block: Sequence[float]) -> tuple[list[int], int]:
    """E2M1 codes of a block and its E8M0 code."""
    exponent = shared_exponent(block)
    codes = []
    for value in block:
        scaled = Fraction(value) / Fraction(2) ** exponent
        sign = 0b1000 if math.copysign(1, value) < 0 else 0
        codes.append(nearest(scaled, E2M1_POSITIVE) | sign)
    return codes, exponent + 127
