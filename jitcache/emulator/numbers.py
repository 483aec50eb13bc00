"""Small number formats, both ways, by tables made from their definitions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def _minifloat(exponent_bits: int, mantissa_bits: int, bias: int) -> Floats:
    """Value of every code: sign, exponent, mantissa, with denormals, no infinities."""
    codes = np.arange(2 ** (1 + exponent_bits + mantissa_bits))
    mantissa = codes & 2**mantissa_bits - 1
    exponent = codes >> mantissa_bits & 2**exponent_bits - 1
    sign = np.where(codes >> (exponent_bits + mantissa_bits), -1.0, 1.0)
    fraction = mantissa / 2.0**mantissa_bits + (exponent > 0)
    values: Floats = sign * fraction * 2.0 ** (np.maximum(exponent, 1) - bias)
    return values


def _fp8_fn() -> Floats:
    """OCP E4M3: bias 7, all ones is NaN."""
    table = _minifloat(4, 3, 7)
    table[[0x7F, 0xFF]] = np.nan
    return table


def _fp8_fnuz() -> Floats:
    """E4M3 of gfx942: bias 8, no negative zero, whose code is NaN."""
    table = _minifloat(4, 3, 8)
    table[0x80] = np.nan
    return table


FP8 = {"gfx942": _fp8_fnuz(), "gfx950": _fp8_fn()}
"""Values of the 256 codes of what the architecture's instructions call fp8."""

FP4 = _minifloat(2, 1, 1)
"""Values of the 16 codes of OCP E2M1."""

E8M0 = 2.0 ** (np.arange(256) - 127.0)
"""Values of the 256 codes of OCP's scale; 255 is NaN."""
E8M0[255] = np.nan


@dataclass(frozen=True, slots=True)
class Encoder:
    """Rounds to the nearest value of a table, ties to the even code."""

    values: Floats
    codes: NDArray[np.int64]

    @classmethod
    def of(cls, table: Floats) -> Encoder:
        """An encoder for a table with one code for zero."""
        codes = np.flatnonzero(~np.isnan(table) & ~((table == 0) & np.signbit(table)))
        codes = codes[np.argsort(table[codes], kind="stable")]
        return cls(table[codes], codes)

    def encode(self, numbers: Floats) -> NDArray[np.int64]:
        """Codes of numbers.

        Raises:
            ValueError: one is further out than the format goes; what hardware makes of it depends
                on a mode that isn't modelled.
        """
        if not (np.abs(numbers) <= self.values[-1]).all():
            what = "out of the format's range"
            raise ValueError(what)
        above = np.clip(np.searchsorted(self.values, numbers), 1, len(self.values) - 1)
        up, down = self.values[above] - numbers, numbers - self.values[above - 1]
        even = self.codes[above] % 2 == 0
        higher = (up < down) | ((up == down) & even)
        found: NDArray[np.int64] = np.where(higher, self.codes[above], self.codes[above - 1])
        return found


def bf16(words: NDArray[np.uint32]) -> NDArray[np.float32]:
    """Values of bfloat16 codes that stand in the low halves of words."""
    return (words << np.uint32(16)).view(np.float32)


def to_bf16(numbers: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Codes of numbers, rounded to nearest, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(numbers, np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) >> np.uint32(16)
    quiet = bits >> np.uint32(16) | np.uint32(0x40)
    found: NDArray[np.uint32] = np.where(np.isnan(numbers), quiet, rounded).astype(np.uint32)
    return found


def f16(words: NDArray[np.uint32]) -> NDArray[np.float32]:
    """Values of float16 codes that stand in the low halves of words."""
    return (words & np.uint32(0xFFFF)).astype(np.uint16).view(np.float16).astype(np.float32)


def to_f16(numbers: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Codes of numbers, rounded to nearest, ties to even."""
    return numbers.astype(np.float16).view(np.uint16).astype(np.uint32)
