"""Are two kernels the same machine code? The proof, without a GPU, that pruning is harmless.

A kernel compiled alone sits at another address than the same kernel inside a larger object, so
the only operands that may differ are PC-relative distances to constants. They are not
ignored: each is resolved to the bytes it points at, and those must agree. Everything
else must be equal to the letter: instructions, operands, branch distances, and the resources
that the kernel descriptor asks for.

Pure: text and bytes in, verdict out. `tools/identity` supplies the disassembly.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_FUNCTION = re.compile(r"^([0-9a-f]+) <(.+)>:$")
_INSTRUCTION = re.compile(r"^\s+(.+?)\s*//\s*([0-9A-F]+):((?: [0-9A-F]{8})+)")
_GETPC = re.compile(r"s_getpc_b64 s\[(\d+):(\d+)\]")
_ADD = re.compile(r"s_(?:add|addc)_u32 s(\d+), s(\d+), (?:lit\()?(-?(?:0x)?[0-9a-f]+)\)?")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One disassembled instruction.

    Attributes:
        address: in the code object's address space.
        size: bytes.
        text: mnemonic and operands.
    """

    address: int
    size: int
    text: str


@dataclass(frozen=True, slots=True)
class Blob:
    """Constant data that code refers to.

    Attributes:
        address: first address.
        data: the bytes.
    """

    address: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Same:
    """Two kernels are the same machine code.

    Attributes:
        instructions: how many were compared.
        constants: how many PC-relative references were resolved to equal bytes.
    """

    instructions: int
    constants: int


@dataclass(frozen=True, slots=True)
class Different:
    """Two kernels differ.

    Attributes:
        differences: `index: left | right`, the first ones.
        count: how many positions differ; the difference in length counts, too.
    """

    differences: tuple[str, ...]
    count: int


Verdict = Same | Different


def parse_disassembly(text: str) -> dict[str, tuple[Instruction, ...]]:
    """Functions of an `llvm-objdump -d` listing, by symbol."""
    functions: dict[str, list[Instruction]] = {}
    current: list[Instruction] | None = None
    for line in text.splitlines():
        if head := _FUNCTION.match(line):
            current = functions.setdefault(head[2], [])
        elif current is not None and (found := _INSTRUCTION.match(line)):
            words = found[3].split()
            current.append(Instruction(int(found[2], 16), 4 * len(words), found[1].strip()))
    return {name: tuple(code) for name, code in functions.items()}


def normalise(code: Sequence[Instruction], constants: Sequence[Blob]) -> tuple[list[str], int]:
    """The texts of a function with PC-relative distances replaced by what they point at.

    Args:
        code: the function.
        constants: data symbols of its code object.

    Returns:
        The texts, and how many references were resolved.
    """
    texts = [_strip_padding(i.text) for i in code]
    resolved = 0
    for at, instruction in enumerate(code):
        pc = _GETPC.fullmatch(instruction.text)
        if pc is None:
            continue
        low, high = _following_adds(code, at, int(pc[1]), int(pc[2]))
        if low is None or high is None:
            continue
        base = instruction.address + instruction.size
        distance = (_literal(code[high]) << 32 | _literal(code[low])) & (2**64 - 1)
        target = (base + distance) & (2**64 - 1)
        blob = next((b for b in constants if b.address <= target < b.address + len(b.data)), None)
        if blob is None:
            continue
        meaning = f"<{blob.data.hex()}+{target - blob.address}>"
        for index in (low, high):
            texts[index] = re.sub(r", [^,]+$", f", {meaning}", texts[index])
        resolved += 1
    return texts, resolved


def compare(
    left: Sequence[Instruction],
    left_constants: Sequence[Blob],
    left_resources: Mapping[str, int],
    right: Sequence[Instruction],
    right_constants: Sequence[Blob],
    right_resources: Mapping[str, int],
    *,
    show: int = 20,
) -> Verdict:
    """Compare two kernels.

    Args:
        left: instructions of the first kernel.
        left_constants: data symbols of its code object.
        left_resources: what its metadata asks for (registers, LDS, scratch, argument size).
        right: likewise of the second.
        right_constants: likewise.
        right_resources: likewise.
        show: how many differences to spell out.
    """
    a, resolved = normalise(without_tail(left), left_constants)
    b, _ = normalise(without_tail(right), right_constants)
    found: list[str] = []
    count = abs(len(a) - len(b))
    if count:
        found.append(f"length: {len(a)} | {len(b)} instructions")
    for index, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            count += 1
            if len(found) < show:
                found.append(f"{index}: {x} | {y}")
    for key in sorted({*left_resources, *right_resources}):
        if left_resources.get(key) != right_resources.get(key):
            count += 1
            found.append(f"{key}: {left_resources.get(key)} | {right_resources.get(key)}")
    if count or not a:
        return Different(tuple(found) or ("no instructions to compare",), max(count, 1))
    return Same(len(a), resolved)


def _strip_padding(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def without_tail(code: Sequence[Instruction]) -> Sequence[Instruction]:
    """Leave out the padding after the last `s_endpgm` (`s_code_end`, `s_nop`)."""
    last = max((i for i, c in enumerate(code) if c.text.startswith("s_endpgm")), default=-1)
    return code[: last + 1]


def _following_adds(
    code: Sequence[Instruction], at: int, low_register: int, high_register: int
) -> tuple[int | None, int | None]:
    """Indices of the two additions that turn the PC in a register pair into an address."""
    low = high = None
    for index in range(at + 1, min(at + 9, len(code))):
        add = _ADD.fullmatch(_strip_padding(code[index].text))
        if add is None or add[1] != add[2]:
            continue
        if int(add[1]) == low_register and low is None:
            low = index
        elif int(add[1]) == high_register and low is not None:
            high = index
            break
    return low, high


def _literal(instruction: Instruction) -> int:
    add = _ADD.fullmatch(_strip_padding(instruction.text))
    if add is None:
        raise AssertionError(instruction.text)
    return int(add[3], 0) & 0xFFFFFFFF
