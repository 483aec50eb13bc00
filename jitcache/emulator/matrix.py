"""Matrix instructions: D = A B + C of 16x16 or 32x32, spread over the lanes of a wave."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from jitcache.emulator.numbers import E8M0, FP4, FP8, bf16, f16
from jitcache.emulator.program import Instruction, UnknownError
from jitcache.emulator.wave import LANES, Step, Wave, is_register, refuse, vector, vector_register

Matrix = NDArray[np.float64]

_NAME = re.compile(
    r"v_mfma(?P<scale>_scale)?_(?P<to>f32|i32)_(?P<m>\d+)x\d+x(?P<k>\d+)_?"
    r"(?P<type>bf16|f16|i8|fp8_fp8|f8f6f4)(?:_1k)?$"
)
_FORMAT = {0: "fp8", 4: "fp4"}
"""What `cbsz` and `blgp` call the types of A and B."""
_BITS = {"bf16": 16, "f16": 16, "i8": 8, "fp8": 8, "fp4": 4}
_BLOCK = 32
"""Values along K that share a scale."""


def step(i: Instruction, arch: str) -> Step | None:
    """What a matrix instruction does to a wave; None for one that isn't known here.

    Lane l holds row l mod M of A and column l mod M of B, of these the values along K from
    (l div M) * K * M / 64 on. Of D it holds column l mod M, of the rows groups of four in turn:
    lanes with one l div M take every (64 / M)th group. Scales: lane l's byte belongs to the
    values that it holds.
    """
    match = _NAME.match(i.name)
    if match is None:
        return None
    scaled = match["scale"] is not None
    refuse(i, "cbsz", "blgp", *(("op_sel", "op_sel_hi") if scaled else ()))
    number = np.float32 if match["to"] == "f32" else np.int32
    size, depth = int(match["m"]), int(match["k"])
    kinds = [match["type"].partition("_")[0]] * 2
    if match["type"] == "f8f6f4":
        codes = i.number("cbsz"), i.number("blgp")
        if not set(codes) <= set(_FORMAT):
            raise UnknownError(i.text)
        kinds = [_FORMAT[code] for code in codes]
    each = depth * size // LANES
    a, b = (_operand(o, kind, each, arch) for o, kind in zip(i.operands[1:3], kinds, strict=True))
    held = size * size // LANES
    target = vector_register(i.operands[0], held)
    if is_register(i.operands[3]):
        added: int | None = vector_register(i.operands[3], held)
    elif i.operands[3] == "0":
        added = None
    else:
        raise UnknownError(i.text)
    scales = _scales(i, each) if scaled else None
    lanes, values = np.meshgrid(np.arange(LANES), np.arange(held), indexing="xy")
    groups = LANES // size
    rows = (values // 4 * groups + lanes // size) * 4 + values % 4
    columns = lanes % size

    def run(wave: Wave) -> None:
        left, right = a(wave), b(wave)
        if scales is not None:
            by_a, by_b = scales(wave)
            left, right = left * by_a[:, None], right * by_b[:, None]
        product = _gather(left, size) @ _gather(right, size).T
        result = product[rows, columns]
        if added is not None:
            result = result + wave.v[added : added + held].view(number)
        # Matrix instructions run in every lane, active or not.
        if number is np.int32:
            result = result.astype(np.int64)
        wave.v[target : target + held] = result.astype(number).view(np.uint32)

    return run


def _gather(by_lane: Matrix, size: int) -> Matrix:
    """(lanes, values) to (rows, K)."""
    groups = LANES // size
    return by_lane.reshape(groups, size, -1).transpose(1, 0, 2).reshape(size, -1)


def _operand(operand: str, kind: str, each: int, arch: str) -> Callable[[Wave], Matrix]:
    """Reader of the values that every lane holds, the lowest bits first; shape (64, each)."""
    bits = _BITS[kind]
    count = each * bits // 32
    first = vector_register(operand, count)
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    mask = np.uint32(2**bits - 1)

    def read(wave: Wave) -> Matrix:
        words = wave.v[first : first + count].T
        codes = (words[:, :, None] >> shifts & mask).reshape(LANES, each)
        match kind:
            case "bf16":
                return bf16(codes).astype(np.float64)
            case "f16":
                return f16(codes).astype(np.float64)
            case "i8":
                return codes.astype(np.uint8).view(np.int8).astype(np.float64)
        found: Matrix = (FP8[arch] if kind == "fp8" else FP4)[codes]
        return found

    return read


def _scales(i: Instruction, each: int) -> Callable[[Wave], tuple[Matrix, Matrix]]:
    """Reader of both scales; which byte of the register it is, two bits say."""
    if each != _BLOCK:
        raise UnknownError(i.text)
    low, high = i.bits("op_sel", (0, 0, 0)), i.bits("op_sel_hi", (1, 1, 1))
    sources = [vector(o) for o in i.operands[4:6]]
    shifts = [np.uint32(8 * (low[n] + 2 * high[n])) for n in range(2)]

    def read(wave: Wave) -> tuple[Matrix, Matrix]:
        a, b = (
            E8M0[source(wave) >> shift & np.uint32(255)]
            for source, shift in zip(sources, shifts, strict=True)
        )
        return a, b

    return read
