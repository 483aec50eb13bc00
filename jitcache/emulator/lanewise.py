"""What vector instructions compute, lane by lane: from words to words, without a wave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jitcache.emulator.division import div_fixup
from jitcache.emulator.numbers import f16, to_bf16, to_f16
from jitcache.emulator.wave import Vector, wide

Floats = NDArray[np.float32]

_U32 = np.uint32
_MOVES = ("v_mov_b32", "v_accvgpr_write_b32", "v_accvgpr_read_b32", "v_accvgpr_mov_b32")


def floats(words: Vector) -> Floats:
    """Words as float32."""
    return words.view(np.float32)


def _i(words: Vector) -> NDArray[np.int32]:
    return words.view(np.int32)


def words_of(numbers: NDArray[np.float32] | NDArray[np.float64] | NDArray[np.int32]) -> Vector:
    """Results as registers hold them."""
    kind = np.float32 if numbers.dtype.kind == "f" else np.int32
    return np.ascontiguousarray(numbers.astype(kind)).view(np.uint32)


def fma(a: Floats, b: Floats, c: Floats) -> NDArray[np.float64]:
    """A * b + c, so that rounding it to float32 rounds the exact value once.

    The product is exact in float64. The sum is rounded to odd, which no later rounding to fewer
    bits mistakes for a tie (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums",
    2008); the bits that it lacks are Knuth's two-sum.
    """
    product, added = a.astype(np.float64) * b, c.astype(np.float64)
    total: NDArray[np.float64] = product + added
    back = total - product
    rest = (product - (total - back)) + (added - back)
    even = total.view(np.uint64) & np.uint64(1) == 0
    inexact = np.isfinite(total) & np.isfinite(rest) & (rest != 0) & even
    return np.where(inexact, np.nextafter(total, np.where(rest > 0, np.inf, -np.inf)), total)


def fma_words(a: Vector, b: Vector, c: Vector) -> Vector:
    """`fma` from words to a word."""
    return words_of(fma(floats(a), floats(b), floats(c)))


def _reciprocal(a: Vector) -> Vector:
    return words_of(1.0 / floats(a).astype(np.float64))


def _whole(a: Vector, least: float, most: float) -> NDArray[np.int64]:
    """Float32 towards zero, as far as a type goes; NaN is 0."""
    cut = np.nan_to_num(np.trunc(floats(a).astype(np.float64)), nan=0.0)
    found: NDArray[np.int64] = np.clip(cut, least, most).astype(np.int64)
    return found


def _reverse(a: Vector) -> Vector:
    bits = np.unpackbits(a.astype("<u4").view(np.uint8).reshape(-1, 4), axis=1, bitorder="little")
    return np.packbits(bits[:, ::-1], axis=1, bitorder="little").copy().view("<u4")[:, 0]


def _permute(a: Vector, b: Vector, selector: Vector) -> Vector:
    """Bytes of b (0 to 3) and a (4 to 7), signs of the odd ones (8 to 11), 0 (12), 255 (more)."""
    both = np.concatenate([b[:, None].view(np.uint8), a[:, None].view(np.uint8)], axis=1)
    signs = np.where(both[:, 1::2] >> 7, 255, 0).astype(np.uint8)
    fixed = np.tile(np.array([0, 255], np.uint8), (len(both), 1))
    choices = np.concatenate([both, signs, fixed], axis=1)
    picks = np.minimum(selector[:, None].copy().view(np.uint8), choices.shape[1] - 1)
    chosen = np.take_along_axis(choices, picks.astype(np.int64), axis=1)
    found: Vector = chosen.view(np.uint32)[:, 0]
    return found


def _bits(a: Vector, where: Vector, count: Vector) -> Vector:
    mask: Vector = (_U32(1) << (count & _U32(31))) - _U32(1)
    found: Vector = np.bitwise_and(a >> (where & _U32(31)), mask)
    return found


def _bits_signed(a: Vector, where: Vector, count: Vector) -> Vector:
    width = count & _U32(31)
    free = (_U32(32) - width) & _U32(31)
    moved = _i(_bits(a, where, count) << free) >> _i(free)
    found: Vector = np.where(width == 0, 0, moved).astype(np.int32).view(np.uint32)
    return found


def _shifted(high: Vector, low: Vector, count: Vector) -> Vector:
    """The low word of two words that are shifted right."""
    found: Vector = (wide((low, high)) >> (count & _U32(31)).astype(np.uint64)).astype(np.uint32)
    return found


UNARY: dict[str, Callable[[Vector], Vector]] = {
    **dict.fromkeys(_MOVES, lambda a: a),
    "v_not_b32": lambda a: ~a,
    "v_bfrev_b32": _reverse,
    "v_exp_f32": lambda a: words_of(np.exp2(floats(a).astype(np.float64))),
    "v_log_f32": lambda a: words_of(np.log2(floats(a).astype(np.float64))),
    **dict.fromkeys(("v_rcp_f32", "v_rcp_iflag_f32"), _reciprocal),
    "v_trunc_f32": lambda a: words_of(np.trunc(floats(a))),
    "v_rndne_f32": lambda a: words_of(np.rint(floats(a))),
    "v_cvt_i32_f32": lambda a: _whole(a, -(2.0**31), 2.0**31 - 1).astype(np.uint32),
    "v_cvt_f32_i32": lambda a: words_of(_i(a).astype(np.float32)),
    "v_cvt_f16_f32": lambda a: to_f16(floats(a)),
    "v_cvt_f32_f16": lambda a: words_of(f16(a)),
    "v_cvt_f32_ubyte0": lambda a: words_of((a & _U32(255)).astype(np.float32)),
    "v_cvt_f32_ubyte1": lambda a: words_of((a >> _U32(8) & _U32(255)).astype(np.float32)),
    "v_cvt_f32_ubyte2": lambda a: words_of((a >> _U32(16) & _U32(255)).astype(np.float32)),
    "v_cvt_f32_ubyte3": lambda a: words_of((a >> _U32(24)).astype(np.float32)),
    "v_cvt_u32_f32": lambda a: _whole(a, 0.0, 2.0**32 - 1).astype(np.uint32),
    "v_cvt_f32_u32": lambda a: words_of(a.astype(np.float32)),
    # A signed number of four bits, divided by 16.
    "v_cvt_off_f32_i4": lambda a: words_of((_i(a << _U32(28)) >> 28).astype(np.float32) / 16),
}

BINARY: dict[str, Callable[[Vector, Vector], Vector]] = {
    "v_add_u32": lambda a, b: a + b,
    "v_sub_u32": lambda a, b: a - b,
    "v_subrev_u32": lambda a, b: b - a,
    "v_mul_lo_u32": lambda a, b: a * b,
    "v_mul_hi_u32": lambda a, b: (a.astype(np.uint64) * b >> np.uint64(32)).astype(np.uint32),
    "v_mul_hi_i32": lambda a, b: (_i(a).astype(np.int64) * _i(b) >> 32).astype(np.uint32),
    "v_and_b32": lambda a, b: a & b,
    "v_or_b32": lambda a, b: a | b,
    "v_xor_b32": lambda a, b: a ^ b,
    "v_lshlrev_b32": lambda a, b: b << (a & _U32(31)),
    # The upper half of a register becomes 0.
    "v_lshlrev_b16": lambda a, b: b << (a & _U32(15)) & _U32(0xFFFF),
    "v_lshrrev_b16": lambda a, b: (b & _U32(0xFFFF)) >> (a & _U32(15)),
    "v_lshrrev_b32": lambda a, b: b >> (a & _U32(31)),
    "v_ashrrev_i32": lambda a, b: (_i(b) >> _i(a & _U32(31))).view(np.uint32),
    "v_max_i32": lambda a, b: np.maximum(_i(a), _i(b)).view(np.uint32),
    "v_min_i32": lambda a, b: np.minimum(_i(a), _i(b)).view(np.uint32),
    "v_max_u32": np.maximum,
    "v_min_u32": np.minimum,
    "v_add_f32": lambda a, b: words_of(floats(a) + floats(b)),
    "v_sub_f32": lambda a, b: words_of(floats(a) - floats(b)),
    "v_subrev_f32": lambda a, b: words_of(floats(b) - floats(a)),
    "v_mul_f32": lambda a, b: words_of(floats(a) * floats(b)),
    "v_max_f32": lambda a, b: words_of(np.fmax(floats(a), floats(b))),
    "v_min_f32": lambda a, b: words_of(np.fmin(floats(a), floats(b))),
    "v_ldexp_f32": lambda a, b: words_of(np.ldexp(floats(a).astype(np.float64), _i(b))),
    "v_pack_b32_f16": lambda a, b: a & _U32(0xFFFF) | b << _U32(16),
    "v_cvt_pk_f16_f32": lambda a, b: to_f16(floats(a)) | to_f16(floats(b)) << _U32(16),
    "v_cvt_pk_bf16_f32": lambda a, b: to_bf16(floats(a)) | to_bf16(floats(b)) << _U32(16),
}

TERNARY: dict[str, Callable[[Vector, Vector, Vector], Vector]] = {
    "v_add3_u32": lambda a, b, c: a + b + c,
    "v_add_lshl_u32": lambda a, b, c: (a + b) << (c & _U32(31)),
    "v_lshl_add_u32": lambda a, b, c: (a << (b & _U32(31))) + c,
    "v_lshl_or_b32": lambda a, b, c: a << (b & _U32(31)) | c,
    "v_and_or_b32": lambda a, b, c: a & b | c,
    "v_bfi_b32": lambda a, b, c: a & b | ~a & c,
    "v_or3_b32": lambda a, b, c: a | b | c,
    "v_xad_u32": lambda a, b, c: (a ^ b) + c,
    "v_mad_u32_u24": lambda a, b, c: (a & _U32(0xFFFFFF)) * (b & _U32(0xFFFFFF)) + c,
    "v_alignbit_b32": _shifted,
    "v_bfe_u32": _bits,
    "v_bfe_i32": _bits_signed,
    "v_perm_b32": _permute,
    **dict.fromkeys(("v_fma_f32", "v_fmaak_f32", "v_fmamk_f32"), fma_words),
    "v_div_fixup_f32": lambda a, b, c: words_of(div_fixup(floats(a), floats(b), floats(c))),
}

COMPARE: dict[str, Callable[[Any, Any], NDArray[np.bool_]]] = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lg": lambda a, b: (a < b) | (a > b),
    "gt": np.greater,
    "ge": np.greater_equal,
    "lt": np.less,
    "le": np.less_equal,
    "nlt": lambda a, b: ~(a < b),
    "ngt": lambda a, b: ~(a > b),
    "nge": lambda a, b: ~(a >= b),
    "nle": lambda a, b: ~(a <= b),
    "neq": lambda a, b: ~(a == b),
    "o": lambda a, b: (a == a) & (b == b),
    "u": lambda a, b: (a != a) | (b != b),
}

PACKED: dict[str, Callable[..., Vector]] = {
    "v_pk_add_f32": BINARY["v_add_f32"],
    "v_pk_mul_f32": BINARY["v_mul_f32"],
    "v_pk_fma_f32": fma_words,
}
