"""Vector instructions: which operands they take, and where the result of a rule goes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from jitcache.emulator.division import div_fmas, div_scale
from jitcache.emulator.lanewise import (
    BINARY,
    COMPARE,
    PACKED,
    TERNARY,
    UNARY,
    floats,
    fma,
    fma_words,
    words_of,
)
from jitcache.emulator.numbers import FP8, Encoder
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

Read = Callable[[Wave], Vector]
Put = Callable[[Wave, Vector], None]

_U32 = np.uint32
_ENCODE = {arch: Encoder.of(table) for arch, table in FP8.items()}
_SELECT = {"BYTE_0": (0, 255), "BYTE_1": (8, 255), "BYTE_2": (16, 255), "BYTE_3": (24, 255),
           "WORD_0": (0, 65535), "WORD_1": (16, 65535), "DWORD": (0, 2**32 - 1)}  # fmt: skip
"""Shift and mask of each part of a register that SDWA can take."""
_TYPES = {"i32": np.int32, "u32": np.uint32, "f32": np.float32, "i64": np.int64, "u64": np.uint64}


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
            return lambda w: w.put(target, fma_words(a(w), b(w), w.v[target]))
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
        both = [np.where(wave.mask, floats(x(wave)), 0).astype(np.float64) for x in (a, b)]
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

        def undo(wave: Wave) -> None:
            result = fma(floats(a(wave)), floats(b(wave)), floats(c(wave)))
            wave.put(target, words_of(div_fmas(result, lanes_of(wave.read64(VCC)))))

        return undo
    flags = scalar_register(i.operands[1], 2)
    a, b, c = (vector(o) for o in i.operands[2:])

    def run(wave: Wave) -> None:
        result, scaled = div_scale(floats(a(wave)), floats(b(wave)), floats(c(wave)))
        wave.put(target, words_of(result))
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
