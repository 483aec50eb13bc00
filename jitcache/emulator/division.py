"""The three instructions that a float32 division is made of, besides rcp and fma.

They scale operands that are so far apart, or so small, that the steps between would lose bits,
and put right what comes out for zeros, infinities and NaN.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

_SMALLEST = 2.0**-126
"""The smallest number that isn't denormal."""


def _exponent(x: Floats) -> NDArray[np.int64]:
    """The exponent field."""
    found: NDArray[np.int64] = (x.view(np.uint32) >> np.uint32(23) & np.uint32(255)).astype(
        np.int64
    )
    return found


def _denormal(x: Doubles) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (x != 0) & (np.abs(x) < _SMALLEST)
    return found


def div_scale(
    value: Floats, denominator: Floats, numerator: Floats
) -> tuple[Doubles, NDArray[np.bool_]]:
    """`v_div_scale_f32`: numerator or denominator (`value` is one of them), scaled if need be.

    Returns:
        The number, and where `v_div_fmas_f32` has to undo the scaling.
    """
    # Where both quotient and reciprocal are denormal the guide scales the denominator up, which
    # overflows, as it is next to the largest number; down is what makes the steps come out.
    v, d, n = (x.astype(np.float64) for x in (value, denominator, numerator))
    is_d, is_n = value == denominator, value == numerator
    up, down = v * 2.0**64, v * 2.0**-64
    reciprocal, quotient = _denormal(1.0 / d), _denormal(n / d)
    far = _exponent(numerator) - _exponent(denominator) >= 96
    small = _exponent(numerator) <= 23
    zero = (d == 0) | (n == 0)
    cases = [zero, far, _denormal(d), reciprocal & quotient, reciprocal, quotient, small]
    results = [
        np.full(v.shape, np.nan),
        np.where(is_d, up, v),
        up,
        np.where(is_d, down, v),
        down,
        np.where(is_n, up, v),
        up,
    ]
    undo = np.select(cases, [False, True, False, True, False, True, False], False)
    return np.select(cases, results, v), undo.astype(np.bool_)


def div_fmas(result: Doubles, undo: NDArray[np.bool_]) -> Doubles:
    """`v_div_fmas_f32`: what its fma gave, with the scaling undone."""
    size = np.abs(result)
    return np.where(undo, np.where(size < 1, result * 2.0**-64, result * 2.0**64), result)


def div_fixup(quotient: Floats, denominator: Floats, numerator: Floats) -> Doubles:
    """`v_div_fixup_f32`: the quotient, or what special operands make of it."""
    q, d, n = (x.astype(np.float64) for x in (quotient, denominator, numerator))
    sign = np.where(np.signbit(d) ^ np.signbit(n), -1.0, 1.0)
    nan = np.isnan(d) | np.isnan(n) | ((d == 0) & (n == 0)) | (np.isinf(d) & np.isinf(n))
    # A quotient that isn't a number is one whose steps overflowed.
    infinite = (d == 0) | np.isinf(n) | (np.isnan(q) & ~np.isinf(d) & (n != 0))
    zero = np.isinf(d) | (n == 0)
    return np.select([nan, infinite, zero], [np.nan, sign * np.inf, sign * 0.0], sign * np.abs(q))
