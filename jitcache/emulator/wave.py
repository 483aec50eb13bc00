"""A wave's registers, and how operands are read and written."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from jitcache.emulator.memory import Device, Own
from jitcache.emulator.program import Instruction, UnknownError

LANES = 64
Vector = NDArray[np.uint32]

_SPECIAL = {
    "vcc": 106, "vcc_lo": 106, "vcc_hi": 107, "m0": 124, "exec": 126, "exec_lo": 126,
    "exec_hi": 127,
}  # fmt: skip
VCC, M0, EXEC = 106, 124, 126
"""Scalar registers with names, by their numbers in the encoding."""
_REGISTER = re.compile(r"(?P<bank>[sva])(?:(?P<one>\d+)|\[(?P<first>\d+):(?P<last>\d+)\])$")
_GARBAGE = 0xFFC5A5A5
"""What registers hold at first: as float32 a NaN, as an address one that nobody has."""


class Wave:
    """The registers of 64 work items, and the memory that they see.

    Attributes:
        s: scalar registers by number, as ints.
        v: vector registers, shape (512, 64); accumulation registers are 256 and up.
        scc: the scalar condition.
        pc: address of the instruction that is next, as the code object says.
        load_address: where the code object's address 0 lies in memory.
        mask: which lanes `exec` names.
        full: whether it names all.
    """

    __slots__ = (
        "device",
        "full",
        "lds",
        "load_address",
        "mask",
        "pc",
        "s",
        "scc",
        "scratch",
        "scratch_size",
        "v",
    )

    def __init__(self, device: Device, lds: Own, scratch: int, pc: int, load_address: int) -> None:
        """All lanes active, garbage in every register.

        Args:
            device: memory.
            lds: the workgroup's LDS.
            scratch: bytes of scratch memory for each lane.
            pc: where it starts.
            load_address: see above.
        """
        self.device = device
        self.lds = lds
        self.scratch = Own(scratch * LANES)
        self.scratch_size = scratch
        self.pc = pc
        self.load_address = load_address
        self.s = [_GARBAGE] * 128
        self.v = np.full((512, LANES), _GARBAGE, np.uint32)
        self.scc = False
        self.mask = np.ones(LANES, np.bool_)
        self.full = True
        self.write(EXEC, 2**64 - 1, 2)

    def read64(self, register: int) -> int:
        """Two scalar registers."""
        return self.s[register] | self.s[register + 1] << 32

    def write(self, register: int, value: int, words: int = 1) -> None:
        """Set scalar registers, the lowest 32 bits first."""
        for i in range(words):
            self.s[register + i] = value >> 32 * i & 0xFFFFFFFF
        if register <= EXEC + 1 < register + words + 1:
            active = self.read64(EXEC)
            self.mask = lanes_of(active)
            self.full = active == 2**64 - 1

    def put(self, register: int, value: Vector | np.uint32) -> None:
        """Set a vector register in the active lanes."""
        if self.full:
            self.v[register] = value
        else:
            np.copyto(self.v[register], value, where=self.mask)

    def put_all(self, first: int, values: Sequence[Vector] | Vector) -> None:
        """Set vector registers, one after the other, in the active lanes; shape (n, 64)."""
        for n, value in enumerate(values):
            self.put(first + n, value)


Step = Callable[[Wave], None]
"""What an instruction does to a wave."""


def signed64(value: int) -> int:
    """The lowest 64 bits as numpy holds them: addresses, of which nobody has a negative one."""
    return (value + 2**63) % 2**64 - 2**63


def lanes_of(bits: int) -> NDArray[np.bool_]:
    """A mask of 64 bits as one bool per lane."""
    raw = np.frombuffer((bits & (2**64 - 1)).to_bytes(8, "little"), np.uint8)
    return np.unpackbits(raw, bitorder="little").astype(np.bool_)


def bits_of(lanes: NDArray[np.bool_]) -> int:
    """One bool per lane as a mask of 64 bits."""
    return int.from_bytes(np.packbits(lanes, bitorder="little").tobytes(), "little")


def register(operand: str) -> tuple[str, int, int]:
    """Bank, number and count of a register operand.

    Returns:
        `s` or `v`, the number in `Wave.s` or `Wave.v`, and how many registers.

    Raises:
        UnknownError: it isn't one.
    """
    if operand in _SPECIAL:
        return "s", _SPECIAL[operand], 2 if operand in {"vcc", "exec"} else 1
    match = _REGISTER.match(operand)
    if match is None:
        raise UnknownError(f"the operand {operand}")
    first = int(match["one"] or match["first"])
    last = int(match["one"] or match["last"])
    base = 256 if match["bank"] == "a" else 0
    return "s" if match["bank"] == "s" else "v", base + first, last - first + 1


def vector_register(operand: str, count: int = 1) -> int:
    """Number of a vector operand of `count` registers."""
    bank, number, found = register(operand)
    if bank != "v" or found != count:
        raise UnknownError(f"the operand {operand}")
    return number


def scalar_register(operand: str, count: int = 1) -> int:
    """Number of a scalar operand of `count` registers."""
    bank, number, found = register(operand)
    if bank != "s" or found != count:
        raise UnknownError(f"the operand {operand}")
    return number


def is_register(operand: str) -> bool:
    """Whether an operand is one."""
    return operand in _SPECIAL or _REGISTER.match(operand) is not None


def constant(operand: str, bits: int = 32) -> int:
    """A constant operand's value: integers as they are, 1.0 as the float32's bits.

    Raises:
        UnknownError: it is none.
    """
    text = operand.removeprefix("lit(").removesuffix(")")
    try:
        if "." in text:
            if bits != 32:
                raise UnknownError(f"the operand {operand}")
            return int(struct.unpack("<I", struct.pack("<f", float(text)))[0])
        value = int(text, 0)
    except ValueError:
        raise UnknownError(f"the operand {operand}") from None
    return value & ((1 << bits) - 1)


def scalar(operand: str, bits: int = 32) -> Callable[[Wave], int]:
    """Reader of a scalar operand of 32 or 64 bits."""
    if operand == "scc":
        return lambda wave: int(wave.scc)
    if not is_register(operand):
        value = constant(operand, bits)
        return lambda _: value
    number = scalar_register(operand, bits // 32)
    if bits == 64:
        return lambda wave: wave.read64(number)
    return lambda wave: wave.s[number]


def vector(operand: str) -> Callable[[Wave], Vector]:
    """Reader of one register, or of a constant, for every lane; `-` and `|x|` are float32's."""
    if operand.startswith("-") and is_register(operand.strip("-|")):
        inner = vector(operand[1:])
        return lambda wave: inner(wave) ^ np.uint32(0x80000000)
    if operand.startswith("|"):
        inner = vector(operand.strip("|"))
        return lambda wave: inner(wave) & np.uint32(0x7FFFFFFF)
    if not is_register(operand):
        fixed = np.full(LANES, constant(operand), np.uint32)
        return lambda _: fixed
    bank, number, _ = register(operand)
    if bank == "v":
        return lambda wave: wave.v[number]
    return lambda wave: np.full(LANES, wave.s[number], np.uint32)


def pair(operand: str) -> Callable[[Wave], tuple[Vector, Vector]]:
    """Reader of two registers, low and high, or of a constant of 64 bits."""
    if not is_register(operand):
        value = constant(operand)
        signed = value - 2**32 if value >> 31 and operand.startswith("-") else value
        low = np.full(LANES, signed & 0xFFFFFFFF, np.uint32)
        high = np.full(LANES, signed >> 32 & 0xFFFFFFFF, np.uint32)
        return lambda _: (low, high)
    bank, number, count = register(operand)
    if count != 2:
        raise UnknownError(f"the operand {operand}")
    if bank == "v":
        return lambda wave: (wave.v[number], wave.v[number + 1])
    return lambda wave: (
        np.full(LANES, wave.s[number], np.uint32),
        np.full(LANES, wave.s[number + 1], np.uint32),
    )


def wide(halves: tuple[Vector, Vector]) -> NDArray[np.uint64]:
    """Two registers as one number of 64 bits."""
    return halves[0].astype(np.uint64) | halves[1].astype(np.uint64) << np.uint64(32)


def refuse(instruction: Instruction, *allowed: str) -> None:
    """Refuse an instruction with modifiers or flags that its handler doesn't know.

    Raises:
        UnknownError: there are some.
    """
    strange = (set(instruction.modifiers) | instruction.flags) - set(allowed)
    if strange:
        raise UnknownError(instruction.text)
