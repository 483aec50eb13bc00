"""A kernel of a code object as a list of instructions, and the state that it starts in."""

from __future__ import annotations

import io
import re
import struct
from dataclasses import dataclass
from typing import Any

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from jitcache.errors import JitcacheError, UnsupportedError

_LINE = re.compile(
    r"^\t(?P<name>\S+)\s*(?P<rest>.*?)\s*// (?P<address>[0-9A-F]{12}): (?P<words>[0-9A-F ]+?)"
    r"(?: <.*\+0x(?P<target>[0-9a-f]+)>)?$"
)
_MODIFIER = re.compile(r"\b(?P<name>[a-z][a-z_0-9]*):(?P<value>\[[\d,]+\]|\w+)")
_FLAGS = frozenset({"offen", "lds", "sc0", "sc1", "nt"})
_PROPERTIES = (4, 2, 2, 2, 2, 2, 1)
"""Scalar registers of each thing a descriptor can ask for, by its bit in kernel_code_properties:
private segment buffer, dispatch packet, queue, kernarg segment, dispatch id, flat scratch,
private segment size."""
_KERNARG = 3
_NONSENSE = (
    ELFError,
    AttributeError,
    LookupError,
    OverflowError,
    TypeError,
    ValueError,
    struct.error,
)
"""What reading a damaged file runs into."""
_LARGEST = 1 << 28
"""Bytes of memory that a code object may ask for."""


class UnknownError(UnsupportedError):
    """The kernel needs something that the emulator doesn't know.

    Args:
        thing: what it is, for example an instruction as the disassembler writes it.
    """

    def __init__(self, thing: str) -> None:
        super().__init__(f"the emulator doesn't know {thing}")


class FaultError(JitcacheError):
    """The kernel does what a GPU would stop it for, or never ends."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction.

    Attributes:
        address: where it lies, as the code object says.
        size: its bytes.
        name: mnemonic.
        operands: as the disassembler writes them, modifiers taken off.
        modifiers: `offset:16` and the like; lists as tuples.
        flags: modifiers without a value.
        target: address that it branches to.
        text: all of it, for messages.
    """

    address: int
    size: int
    name: str
    operands: tuple[str, ...]
    modifiers: dict[str, int | tuple[int, ...] | str]
    flags: frozenset[str]
    target: int | None
    text: str

    def number(self, modifier: str) -> int:
        """A modifier's value; 0 where it isn't there.

        Raises:
            UnknownError: it is no number.
        """
        found = self.modifiers.get(modifier, 0)
        if not isinstance(found, int):
            raise UnknownError(self.text)
        return found

    def bits(self, modifier: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """A modifier that is a list of bits, filled up with the default."""
        found = self.modifiers.get(modifier, default)
        if not isinstance(found, tuple):
            raise UnknownError(self.text)
        return found + default[len(found) :]


@dataclass(frozen=True, slots=True)
class Program:
    """A kernel.

    Attributes:
        code: its instructions by address.
        entry: address of the first.
        image: what lies in memory, from the code object's address 0 on.
        lds: bytes of LDS for a workgroup.
        scratch: bytes of scratch memory for a work item.
        user_registers: scalar registers set before the workgroup's numbers.
        kernarg_register: the first of the two that point at the argument.
        workgroup: whether the number of the workgroup in x, y, z is given.
        arch: the architecture.
    """

    code: dict[int, Instruction]
    entry: int
    image: bytes
    lds: int
    scratch: int
    user_registers: int
    kernarg_register: int
    workgroup: tuple[bool, bool, bool]
    arch: str


def read(code: bytes, symbol: str, arch: str, listing: str) -> Program:
    """Read a kernel.

    Args:
        code: the code object.
        symbol: the kernel's name.
        arch: its architecture.
        listing: what `llvm-objdump -d` says of the kernel.

    Raises:
        UnknownError: it isn't a code object with such a kernel, or arguments are preloaded into
            registers.
    """
    try:
        elf = ELFFile(io.BytesIO(code))
        image = _image(elf)
        table = elf.get_section_by_name(".symtab") or elf.get_section_by_name(".dynsym")
        kernel, place = (_symbol(table, name) for name in (symbol, f"{symbol}.kd"))
        descriptor = image[place : place + 64]
        lds, scratch = struct.unpack_from("<II", descriptor, 0)
        rsrc1, rsrc2, properties, preload = struct.unpack_from("<IIHH", descriptor, 48)
    except _NONSENSE as e:
        raise UnknownError(f"such a code object ({type(e).__name__}: {e})") from None
    if rsrc1 >> 12 & 15:
        raise UnknownError("kernels that don't round to nearest")
    if preload or properties >> _KERNARG & 1 == 0:
        raise UnknownError("kernels without an argument, or with some of it in registers")
    return Program(
        code=instructions(listing),
        entry=kernel,
        image=image,
        lds=lds,
        scratch=scratch,
        user_registers=rsrc2 >> 1 & 31,
        kernarg_register=sum(
            n for i, n in enumerate(_PROPERTIES[:_KERNARG]) if properties >> i & 1
        ),
        workgroup=(bool(rsrc2 >> 7 & 1), bool(rsrc2 >> 8 & 1), bool(rsrc2 >> 9 & 1)),
        arch=arch,
    )


def _image(elf: ELFFile) -> bytes:
    """The segments, put where a loader would."""
    segments = [s for s in elf.iter_segments() if s["p_type"] == "PT_LOAD"]
    size = max(s["p_vaddr"] + max(s["p_memsz"], s["p_filesz"]) for s in segments)
    if size > _LARGEST:
        raise UnknownError(f"code objects of more than {_LARGEST} bytes")
    image = bytearray(size)
    for segment in segments:
        data = segment.data()
        image[segment["p_vaddr"] : segment["p_vaddr"] + len(data)] = data
    return bytes(image)


def _symbol(table: Any, name: str) -> int:
    """Address of a symbol."""
    found = table.get_symbol_by_name(name)
    if not found:
        raise UnknownError(f"a code object without {name}")
    return int(found[0]["st_value"])


def instructions(listing: str) -> dict[int, Instruction]:
    """A listing's instructions by address; it holds one function.

    Raises:
        UnknownError: there is none.
    """
    found: dict[int, Instruction] = {}
    start = None
    for line in listing.splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        start = int(match["address"], 16) if start is None else start
        instruction = _instruction(match, start)
        found[instruction.address] = instruction
    if not found:
        raise UnknownError("a kernel without instructions")
    return found


def _instruction(match: re.Match[str], start: int) -> Instruction:
    """An instruction of a line of the disassembly; `start` is the kernel's first address."""
    rest = match["rest"]
    modifiers: dict[str, int | tuple[int, ...] | str] = {}
    for found in _MODIFIER.finditer(rest):
        modifiers[found["name"]] = _value(found["value"])
    words = _MODIFIER.sub("", rest).split()
    flags = frozenset(w for w in words if w in _FLAGS)
    operands = " ".join(w for w in words if w not in flags)
    target = match["target"]
    return Instruction(
        address=int(match["address"], 16),
        size=4 * len(match["words"].split()),
        name=match["name"],
        operands=_operands(operands),
        modifiers=modifiers,
        flags=flags,
        target=None if target is None else start + int(target, 16),
        text=f"{match['address'].lstrip('0')}: {match['name']} {rest}",
    )


def _value(text: str) -> int | tuple[int, ...] | str:
    if text.startswith("["):
        return tuple(int(part) for part in text[1:-1].split(","))
    try:
        return int(text, 0)
    except ValueError:
        return text


def _operands(text: str) -> tuple[str, ...]:
    """Split at commas that stand in no brackets."""
    return tuple(part.strip() for part in re.split(r",(?![^(\[]*[)\]])", text) if part.strip())
