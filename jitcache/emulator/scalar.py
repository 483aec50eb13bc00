"""Scalar instructions: arithmetic, conditions, branches, loads of the argument."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from jitcache.emulator.program import Instruction, UnknownError
from jitcache.emulator.wave import (
    EXEC,
    VCC,
    Step,
    Wave,
    constant,
    is_register,
    scalar,
    scalar_register,
    signed64,
)

_ROUND_TO_NEAREST = ("hwreg(HW_REG_MODE, 2, 2)", "0")
_LOAD = re.compile(r"s_load_dword(?:x(?P<count>2|4|8|16))?$")
Rule = Callable[[int, int, bool], tuple[int, bool]]
"""Two operands and the condition give a result and the condition."""


def _signed(value: int, bits: int = 32) -> int:
    value &= 2**bits - 1
    return value - 2**bits if value >> bits - 1 else value


def _add_signed(a: int, b: int, _: bool) -> tuple[int, bool]:
    total = _signed(a) + _signed(b)
    return total, not -(2**31) <= total < 2**31


def _sub_signed(a: int, b: int, _: bool) -> tuple[int, bool]:
    total = _signed(a) - _signed(b)
    return total, not -(2**31) <= total < 2**31


def _field(value: int, where: int, bits: int) -> int:
    """Bits of a value: the first is `where`'s lowest 5, how many its bits 16 to 22."""
    return value >> (where & 31) & ((1 << min(where >> 16 & 127, bits)) - 1)


def _field_signed(a: int, b: int, _: bool) -> tuple[int, bool]:
    width = b >> 16 & 127
    found = _field(_signed(a) & 2**64 - 1, b, 32)
    found = _signed(found, width) if width else 0
    return found, found != 0


def _truth(value: int) -> tuple[int, bool]:
    return value, value != 0


BINARY: dict[str, tuple[int, Rule]] = {
    "s_add_i32": (32, _add_signed),
    "s_addk_i32": (32, _add_signed),
    "s_sub_i32": (32, _sub_signed),
    "s_add_u32": (32, lambda a, b, _: (a + b, a + b >= 2**32)),
    "s_addc_u32": (32, lambda a, b, c: (a + b + c, a + b + c >= 2**32)),
    "s_sub_u32": (32, lambda a, b, _: (a - b, a < b)),
    "s_subb_u32": (32, lambda a, b, c: (a - b - c, a < b + c)),
    "s_mul_i32": (32, lambda a, b, c: (a * b, c)),
    "s_mulk_i32": (32, lambda a, b, c: (a * b, c)),
    "s_mul_hi_i32": (32, lambda a, b, c: (_signed(a) * _signed(b) >> 32, c)),
    "s_mul_hi_u32": (32, lambda a, b, c: (a * b >> 32, c)),
    "s_max_i32": (32, lambda a, b, _: (max(_signed(a), _signed(b)), _signed(a) >= _signed(b))),
    "s_min_i32": (32, lambda a, b, _: (min(_signed(a), _signed(b)), _signed(a) < _signed(b))),
    "s_max_u32": (32, lambda a, b, _: (max(a, b), a >= b)),
    "s_min_u32": (32, lambda a, b, _: (min(a, b), a < b)),
    "s_lshl_b32": (32, lambda a, b, _: _truth(a << (b & 31) & 2**32 - 1)),
    "s_lshr_b32": (32, lambda a, b, _: _truth(a >> (b & 31))),
    "s_ashr_i32": (32, lambda a, b, _: _truth(_signed(a) >> (b & 31))),
    "s_lshl_b64": (64, lambda a, b, _: _truth(a << (b & 63) & 2**64 - 1)),
    "s_lshr_b64": (64, lambda a, b, _: _truth(a >> (b & 63))),
    "s_ashr_i64": (64, lambda a, b, _: _truth(_signed(a, 64) >> (b & 63))),
    "s_and_b32": (32, lambda a, b, _: _truth(a & b)),
    "s_or_b32": (32, lambda a, b, _: _truth(a | b)),
    "s_xor_b32": (32, lambda a, b, _: _truth(a ^ b)),
    "s_andn2_b32": (32, lambda a, b, _: _truth(a & ~b)),
    "s_and_b64": (64, lambda a, b, _: _truth(a & b)),
    "s_or_b64": (64, lambda a, b, _: _truth(a | b)),
    "s_xor_b64": (64, lambda a, b, _: _truth(a ^ b)),
    "s_andn2_b64": (64, lambda a, b, _: _truth(a & ~b)),
    "s_bfe_u32": (32, lambda a, b, _: _truth(_field(a, b, 32))),
    "s_bfe_i32": (32, _field_signed),
    "s_cselect_b32": (32, lambda a, b, c: (a if c else b, c)),
    "s_cselect_b64": (64, lambda a, b, c: (a if c else b, c)),
}
"""Bits of the result and the rule of every instruction with two operands."""

_NARROW_SHIFT = frozenset({"s_lshl_b64", "s_lshr_b64", "s_ashr_i64"})

COMPARE: dict[str, Callable[[int, int], bool]] = {
    "eq": lambda a, b: a == b,
    "lg": lambda a, b: a != b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
}

IGNORED = frozenset({"s_nop", "s_waitcnt", "s_setprio", "s_sleep", "s_sched_barrier"})
"""Time isn't modelled."""

BRANCHES: dict[str, Callable[[Wave], bool]] = {
    "s_branch": lambda _: True,
    "s_cbranch_scc0": lambda wave: not wave.scc,
    "s_cbranch_scc1": lambda wave: wave.scc,
    "s_cbranch_vccz": lambda wave: not wave.read64(VCC),
    "s_cbranch_vccnz": lambda wave: bool(wave.read64(VCC)),
    "s_cbranch_execz": lambda wave: not wave.read64(EXEC),
    "s_cbranch_execnz": lambda wave: bool(wave.read64(EXEC)),
}


def step(i: Instruction) -> Step | None:
    """What a scalar instruction does to a wave; None for one that isn't known here.

    The program counter already points at the next instruction. `s_barrier` and `s_endpgm` are
    the launch's.
    """
    if i.modifiers or i.flags:
        return None
    if i.name in IGNORED:
        return lambda _: None
    if i.name in BRANCHES:
        return _branch(i)
    if i.name in BINARY:
        return _binary(i)
    if i.name.startswith("s_cmp_"):
        return _compare(i)
    if (words := _LOAD.match(i.name)) is not None:
        return _load(i, int(words["count"] or 1))
    if i.name.startswith("s_setreg"):
        # Whether denormal float32 become 0, which they never do here, or to round other floats to
        # nearest, as always.
        known = i.operands[0] == "hwreg(HW_REG_MODE, 4, 2)" or i.operands == _ROUND_TO_NEAREST
        return (lambda _: None) if known else None
    return _unary(i)


def _branch(i: Instruction) -> Step:
    taken, target = BRANCHES[i.name], i.target
    if target is None:
        raise UnknownError(i.text)

    def run(wave: Wave) -> None:
        if taken(wave):
            wave.pc = target

    return run


def _binary(i: Instruction) -> Step:
    bits, rule = BINARY[i.name]
    words = bits // 32
    operands = i.operands
    if i.name in {"s_addk_i32", "s_mulk_i32"}:
        operands = (operands[0], operands[0], str(_signed(constant(operands[1]), 16)))
    target = scalar_register(operands[0], words)
    first = scalar(operands[1], bits)
    second = scalar(operands[2], 32 if i.name in _NARROW_SHIFT else bits)

    def run(wave: Wave) -> None:
        result, wave.scc = rule(first(wave), second(wave), wave.scc)
        wave.write(target, result, words)

    return run


def _compare(i: Instruction) -> Step | None:
    _, _, relation, kind = i.name.split("_")
    bits = int(kind[1:])
    rule = COMPARE.get(relation)
    if rule is None:
        return None
    first, second = scalar(i.operands[0], bits), scalar(i.operands[1], bits)

    def run(wave: Wave) -> None:
        a, b = first(wave), second(wave)
        wave.scc = rule(_signed(a, bits), _signed(b, bits)) if kind[0] == "i" else rule(a, b)

    return run


def _load(i: Instruction, count: int) -> Step:
    target = scalar_register(i.operands[0], count)
    base = scalar_register(i.operands[1], 2)
    if is_register(i.operands[2]):
        raise UnknownError(i.text)
    offset = _signed(constant(i.operands[2]))
    here = np.ones(1, np.bool_)

    def run(wave: Wave) -> None:
        address = np.array([signed64(wave.read64(base) + offset & ~3)], np.int64)
        words = wave.device.load(address, count, here, i.text)[0]
        for n, word in enumerate(words.tolist()):
            wave.write(target + n, word)

    return run


def _unary(i: Instruction) -> Step | None:
    match i.name:
        case "s_brev_b32":
            target, source = scalar_register(i.operands[0]), scalar(i.operands[1])
            return lambda wave: wave.write(target, int(f"{source(wave):032b}"[::-1], 2))
        case "s_bitcmp0_b32" | "s_bitcmp1_b32":
            return _bit(i)
        case "s_mov_b32" | "s_movk_i32":
            value = str(_signed(constant(i.operands[1]), 16)) if "k" in i.name else i.operands[1]
            target, source = scalar_register(i.operands[0]), scalar(value)
            return lambda wave: wave.write(target, source(wave))
        case "s_mov_b64":
            target, source = scalar_register(i.operands[0], 2), scalar(i.operands[1], 64)
            return lambda wave: wave.write(target, source(wave), 2)
        case "s_getpc_b64":
            target = scalar_register(i.operands[0], 2)
            return lambda wave: wave.write(target, wave.pc + wave.load_address, 2)
        case "s_and_saveexec_b64" | "s_or_saveexec_b64" | "s_andn2_saveexec_b64":
            return _save_exec(i)
    return None


def _bit(i: Instruction) -> Step:
    source, where = scalar(i.operands[0]), scalar(i.operands[1])
    wanted = "1" in i.name.split("_")[1]

    def run(wave: Wave) -> None:
        wave.scc = bool(source(wave) >> (where(wave) & 31) & 1) == wanted

    return run


def _save_exec(i: Instruction) -> Step:
    target, source = scalar_register(i.operands[0], 2), scalar(i.operands[1], 64)
    rules: dict[str, Callable[[int, int], int]] = {
        "s_and_saveexec_b64": lambda a, b: a & b,
        "s_or_saveexec_b64": lambda a, b: a | b,
        "s_andn2_saveexec_b64": lambda a, b: a & ~b,
    }
    rule = rules[i.name]

    def run(wave: Wave) -> None:
        before = wave.read64(EXEC)
        after = rule(source(wave), before)
        wave.write(target, before, 2)
        wave.write(EXEC, after, 2)
        wave.scc = after != 0

    return run
