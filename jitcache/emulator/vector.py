"""Vector instructions: arithmetic on 64 lanes, comparisons, conversions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jitcache.emulator.division import div_fixup, div_fmas, div_scale
from jitcache.emulator.numbers import FP8, Encoder, f16, to_bf16, to_f16
from jitcache.emulator.program import Instruction, UnknownError
from jitcache.emulator.wave import (
    LANES,
    VCC,
    Step,
    Vector,
    Wave,
    bits_of,
    is_register,
    lanes_of,
    pair,
    refuse,
    scalar,
    scalar_register,
    vector,
    vector_register,
    wide,
)

Floats = NDArray[np.float32]
Read = Callable[[Wave], Vector]
Put = Callable[[Wave, Vector], None]

_U32 = np.uint32
_ENCODE = {arch: Encoder.of(table) for arch, table in FP8.items()}
_MOVES = ("v_mov_b32", "v_accvgpr_write_b32", "v_accvgpr_read_b32", "v_accvgpr_mov_b32")
_SELECT = {"BYTE_0": (0, 255), "BYTE_1": (8, 255), "BYTE_2": (16, 255), "BYTE_3": (24, 255),
           "WORD_0": (0, 65535), "WORD_1": (16, 65535), "DWORD": (0, 2**32 - 1)}  # fmt: skip
"""Shift and mask of each part of a register that SDWA can take."""


def _f(words: Vector) -> Floats:
    return words.view(np.float32)


def _i(words: Vector) -> NDArray[np.int32]:
    return words.view(np.int32)


def _w(numbers: NDArray[np.float32] | NDArray[np.float64] | NDArray[np.int32]) -> Vector:
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


def _fma(a: Vector, b: Vector, c: Vector) -> Vector:
    return _w(fma(_f(a), _f(b), _f(c)))


def _reciprocal(a: Vector) -> Vector:
    return _w(1.0 / _f(a).astype(np.float64))


def _whole(a: Vector, least: float, most: float) -> NDArray[np.int64]:
    """Float32 towards zero, as far as a type goes; NaN is 0."""
    cut = np.nan_to_num(np.trunc(_f(a).astype(np.float64)), nan=0.0)
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
    "v_exp_f32": lambda a: _w(np.exp2(_f(a).astype(np.float64))),
    "v_log_f32": lambda a: _w(np.log2(_f(a).astype(np.float64))),
    **dict.fromkeys(("v_rcp_f32", "v_rcp_iflag_f32"), _reciprocal),
    "v_trunc_f32": lambda a: _w(np.trunc(_f(a))),
    "v_rndne_f32": lambda a: _w(np.rint(_f(a))),
    "v_cvt_i32_f32": lambda a: _whole(a, -(2.0**31), 2.0**31 - 1).astype(np.uint32),
    "v_cvt_f32_i32": lambda a: _w(_i(a).astype(np.float32)),
    "v_cvt_f16_f32": lambda a: to_f16(_f(a)),
    "v_cvt_f32_f16": lambda a: _w(f16(a)),
    "v_cvt_f32_ubyte0": lambda a: _w((a & _U32(255)).astype(np.float32)),
    "v_cvt_f32_ubyte1": lambda a: _w((a >> _U32(8) & _U32(255)).astype(np.float32)),
    "v_cvt_f32_ubyte2": lambda a: _w((a >> _U32(16) & _U32(255)).astype(np.float32)),
    "v_cvt_f32_ubyte3": lambda a: _w((a >> _U32(24)).astype(np.float32)),
    "v_cvt_u32_f32": lambda a: _whole(a, 0.0, 2.0**32 - 1).astype(np.uint32),
    "v_cvt_f32_u32": lambda a: _w(a.astype(np.float32)),
    # A signed number of four bits, divided by 16.
    "v_cvt_off_f32_i4": lambda a: _w((_i(a << _U32(28)) >> 28).astype(np.float32) / 16),
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
    "v_add_f32": lambda a, b: _w(_f(a) + _f(b)),
    "v_sub_f32": lambda a, b: _w(_f(a) - _f(b)),
    "v_subrev_f32": lambda a, b: _w(_f(b) - _f(a)),
    "v_mul_f32": lambda a, b: _w(_f(a) * _f(b)),
    "v_max_f32": lambda a, b: _w(np.fmax(_f(a), _f(b))),
    "v_min_f32": lambda a, b: _w(np.fmin(_f(a), _f(b))),
    "v_ldexp_f32": lambda a, b: _w(np.ldexp(_f(a).astype(np.float64), _i(b))),
    "v_pack_b32_f16": lambda a, b: a & _U32(0xFFFF) | b << _U32(16),
    "v_cvt_pk_f16_f32": lambda a, b: to_f16(_f(a)) | to_f16(_f(b)) << _U32(16),
    "v_cvt_pk_bf16_f32": lambda a, b: to_bf16(_f(a)) | to_bf16(_f(b)) << _U32(16),
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
    **dict.fromkeys(("v_fma_f32", "v_fmaak_f32", "v_fmamk_f32"), _fma),
    "v_div_fixup_f32": lambda a, b, c: _w(div_fixup(_f(a), _f(b), _f(c))),
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

_TYPES = {"i32": np.int32, "u32": np.uint32, "f32": np.float32, "i64": np.int64, "u64": np.uint64}

PACKED: dict[str, Callable[..., Vector]] = {
    "v_pk_add_f32": BINARY["v_add_f32"],
    "v_pk_mul_f32": BINARY["v_mul_f32"],
    "v_pk_fma_f32": _fma,
}


def step(i: Instruction, arch: str) -> Step | None:
    """What a vector instruction does to a wave; None for one that isn't known here."""
    name = i.name.removesuffix("_e32").removesuffix("_e64")
    if name.endswith("_sdwa"):
        return _part(i, name.removesuffix("_sdwa"))
    if name.startswith("v_cmp_"):
        return _compare(i, name)
    if name == "v_cvt_pk_fp8_f32":
        return _to_fp8(i, arch)
    if name in PACKED:
        return _packed(i)
    rule: Callable[..., Vector] | None = UNARY.get(name) or BINARY.get(name) or TERNARY.get(name)
    if rule is None:
        return _other(i, name)
    refuse(i)
    target = vector_register(i.operands[0])
    sources = [vector(o) for o in i.operands[1:]]
    return lambda wave: wave.put(target, rule(*(read(wave) for read in sources)))


def _other(i: Instruction, name: str) -> Step | None:
    match name:
        case "v_bitop3_b32":
            return _bitop3(i)
        case "v_cndmask_b32":
            refuse(i)
            whole = vector_register(i.operands[0])
            no, yes = vector(i.operands[1]), vector(i.operands[2])
            return _choose(i, lambda w, result: w.put(whole, result), no, yes)
        case "v_fmac_f32":
            refuse(i)
            target = vector_register(i.operands[0])
            a, b = vector(i.operands[1]), vector(i.operands[2])
            return lambda w: w.put(target, _fma(a(w), b(w), w.v[target]))
        case "v_readfirstlane_b32":
            return _first_lane(i)
        case "v_readlane_b32" | "v_writelane_b32":
            return _one_lane(i, reads=name == "v_readlane_b32")
        case "v_div_scale_f32" | "v_div_fmas_f32":
            return _division(i, name)
        case "v_add_co_u32" | "v_addc_co_u32" | "v_sub_co_u32" | "v_subb_co_u32":
            return _carry(i, add=name.startswith("v_add"))
        case "v_mad_u64_u32":
            return _mad64(i)
        case "v_mov_b64" | "v_pk_mov_b32" | "v_lshl_add_u64" | "v_lshlrev_b64":
            return _two_registers(i, name)
    return None


def _part(i: Instruction, name: str) -> Step | None:
    """SDWA: operands are parts of registers."""
    refuse(i, "dst_sel", "dst_unused", "src0_sel", "src1_sel")
    put = _put_part(i)

    def part(n: int) -> Read:
        read = vector(i.operands[n + 1])
        shift, mask = _SELECT[str(i.modifiers.get(f"src{n}_sel", "DWORD"))]
        return lambda wave: read(wave) >> _U32(shift) & _U32(mask)

    if name == "v_cndmask_b32":
        return _choose(i, put, part(0), part(1))
    rule: Callable[..., Vector] | None = UNARY.get(name) or BINARY.get(name)
    if rule is None:
        return None
    sources = [part(n) for n in range(len(i.operands) - 1)]
    return lambda wave: put(wave, rule(*(read(wave) for read in sources)))


def _put_part(i: Instruction) -> Put:
    """Writer of a part of a register; the others become 0, or stay."""
    target = vector_register(i.operands[0])
    shift, mask = _SELECT[str(i.modifiers.get("dst_sel", "DWORD"))]
    unused = i.modifiers.get("dst_unused", "UNUSED_PAD")
    if unused not in ("UNUSED_PAD", "UNUSED_PRESERVE"):
        raise UnknownError(i.text)
    kept = _U32(0 if unused == "UNUSED_PAD" else ~(mask << shift) & 0xFFFFFFFF)

    def put(wave: Wave, result: Vector) -> None:
        wave.put(target, (result & _U32(mask)) << _U32(shift) | wave.v[target] & kept)

    return put


def _choose(i: Instruction, put: Put, no: Read, yes: Read) -> Step:
    mask = scalar_register(i.operands[3], 2)
    return lambda w: put(w, np.where(lanes_of(w.read64(mask)), yes(w), no(w)))


def _compare(i: Instruction, name: str) -> Step:
    refuse(i)
    _, _, relation, kind = name.split("_")
    rule, dtype = COMPARE[relation], _TYPES[kind]
    target = scalar_register(i.operands[0], 2)

    def typed(operand: str) -> Callable[[Wave], NDArray[np.generic]]:
        if kind.endswith("64"):
            both = pair(operand)
            return lambda wave: wide(both(wave)).view(dtype)
        one = vector(operand)
        return lambda wave: one(wave).view(dtype)

    first, second = typed(i.operands[1]), typed(i.operands[2])
    return lambda w: w.write(target, bits_of(rule(first(w), second(w)) & w.mask), 2)


def _to_fp8(i: Instruction, arch: str) -> Step:
    refuse(i, "op_sel")
    target = vector_register(i.operands[0])
    a, b = vector(i.operands[1]), vector(i.operands[2])
    high = bool(i.bits("op_sel", (0, 0, 0))[2])
    encode = _ENCODE[arch].encode

    def run(wave: Wave) -> None:
        both = [np.where(wave.mask, _f(x(wave)), 0).astype(np.float64) for x in (a, b)]
        codes = (encode(both[0]) | encode(both[1]) << 8).astype(np.uint32)
        old = wave.v[target]
        if high:
            wave.put(target, old & _U32(0xFFFF) | codes << _U32(16))
        else:
            wave.put(target, old & _U32(0xFFFF0000) | codes)

    return run


def _packed(i: Instruction) -> Step:
    """The same on both registers of a pair; which of a source's two each takes can be chosen."""
    refuse(i, "op_sel", "op_sel_hi", "neg_lo", "neg_hi")
    rule = PACKED[i.name]
    target = vector_register(i.operands[0], 2)
    sources = [_halves(o) for o in i.operands[1:]]
    count = len(sources)
    low = i.bits("op_sel", (0,) * count), i.bits("neg_lo", (0,) * count)
    high = i.bits("op_sel_hi", (1,) * count), i.bits("neg_hi", (0,) * count)

    def run(wave: Wave) -> None:
        found = [read(wave) for read in sources]
        results = []
        for chosen, negated in (low, high):
            picked = [found[n][chosen[n]] ^ _U32(0x80000000 * negated[n]) for n in range(count)]
            results.append(rule(*picked))
        wave.put_all(target, results)

    return run


def _halves(operand: str) -> Callable[[Wave], tuple[Vector, Vector]]:
    """A pair of registers, or a float32 constant, of which only the low half is known."""
    if is_register(operand):
        return pair(operand)
    read = vector(operand)
    unknown = np.full(LANES, 0x7FC00000, np.uint32)
    return lambda wave: (read(wave), unknown)


def _bitop3(i: Instruction) -> Step:
    """Any function of three bits, by its table: the first operand is the index's high bit."""
    refuse(i, "bitop3")
    table = i.number("bitop3")
    target = vector_register(i.operands[0])
    sources = [vector(o) for o in i.operands[1:]]

    def run(wave: Wave) -> None:
        words = [read(wave) for read in sources]
        result = np.zeros(LANES, np.uint32)
        for index in range(8):
            if table >> index & 1:
                term = np.full(LANES, 0xFFFFFFFF, np.uint32)
                for n, word in enumerate(words):
                    term &= word if index >> 2 - n & 1 else ~word
                result |= term
        wave.put(target, result)

    return run


def _first_lane(i: Instruction) -> Step:
    refuse(i)
    target, source = scalar_register(i.operands[0]), vector(i.operands[1])

    def run(wave: Wave) -> None:
        lane = int(np.argmax(wave.mask)) if wave.mask.any() else 0
        wave.write(target, int(source(wave)[lane]))

    return run


def _one_lane(i: Instruction, *, reads: bool) -> Step:
    """A lane that a scalar names, active or not: what spilled scalars are kept in."""
    refuse(i)
    lane = scalar(i.operands[2])
    if reads:
        target, source = scalar_register(i.operands[0]), vector(i.operands[1])
        return lambda w: w.write(target, int(source(w)[lane(w) & LANES - 1]))
    register, value = vector_register(i.operands[0]), scalar(i.operands[1])

    def write(wave: Wave) -> None:
        wave.v[register, lane(wave) & LANES - 1] = value(wave)

    return write


def _division(i: Instruction, name: str) -> Step:
    refuse(i)
    target = vector_register(i.operands[0])
    if name == "v_div_fmas_f32":
        a, b, c = (vector(o) for o in i.operands[1:])
        return lambda w: w.put(
            target,
            _w(div_fmas(fma(_f(a(w)), _f(b(w)), _f(c(w))), lanes_of(w.read64(VCC)))),
        )
    flags = scalar_register(i.operands[1], 2)
    a, b, c = (vector(o) for o in i.operands[2:])

    def run(wave: Wave) -> None:
        result, scaled = div_scale(_f(a(wave)), _f(b(wave)), _f(c(wave)))
        wave.put(target, _w(result))
        wave.write(flags, bits_of(scaled & wave.mask), 2)

    return run


def _carry(i: Instruction, *, add: bool) -> Step:
    """A sum or difference of two words, with the carry of the words below where there is one."""
    refuse(i)
    target, flags = vector_register(i.operands[0]), scalar_register(i.operands[1], 2)
    a, b = vector(i.operands[2]), vector(i.operands[3])
    carried = scalar_register(i.operands[4], 2) if len(i.operands) > 4 else None

    def run(wave: Wave) -> None:
        one = np.zeros(LANES, np.bool_) if carried is None else lanes_of(wave.read64(carried))
        first, second = a(wave).astype(np.int64), b(wave).astype(np.int64) + one
        total = first + second if add else first - second
        wave.put(target, total.astype(np.uint32))
        wave.write(flags, bits_of((total >> 32 != 0) & wave.mask), 2)

    return run


def _mad64(i: Instruction) -> Step:
    refuse(i)
    target, flags = vector_register(i.operands[0], 2), scalar_register(i.operands[1], 2)
    a, b, c = vector(i.operands[2]), vector(i.operands[3]), pair(i.operands[4])

    def run(wave: Wave) -> None:
        product = a(wave).astype(np.uint64) * b(wave)
        total = product + wide(c(wave))
        _put64(wave, target, total)
        wave.write(flags, bits_of((total < product) & wave.mask), 2)

    return run


def _two_registers(i: Instruction, name: str) -> Step:
    target = vector_register(i.operands[0], 2)
    if name == "v_pk_mov_b32":
        refuse(i, "op_sel", "op_sel_hi")
        first, second = pair(i.operands[1]), pair(i.operands[2])
        low, high = i.bits("op_sel", (0, 0))[:2]

        def run(wave: Wave) -> None:
            wave.put_all(target, (first(wave)[low].copy(), second(wave)[high].copy()))

        return run
    refuse(i)
    if name == "v_mov_b64":
        source = pair(i.operands[1])
        return lambda wave: _put64(wave, target, wide(source(wave)))
    if name == "v_lshlrev_b64":
        count, source = vector(i.operands[1]), pair(i.operands[2])
        return lambda w: _put64(
            w, target, wide(source(w)) << (count(w) & _U32(63)).astype(np.uint64)
        )
    source, count, added = pair(i.operands[1]), vector(i.operands[2]), pair(i.operands[3])
    return lambda w: _put64(
        w, target, (wide(source(w)) << (count(w) & _U32(7)).astype(np.uint64)) + wide(added(w))
    )


def _put64(wave: Wave, target: int, value: NDArray[np.uint64]) -> None:
    halves = value, value >> np.uint64(32)
    wave.put_all(target, [half.astype(np.uint32) for half in halves])
