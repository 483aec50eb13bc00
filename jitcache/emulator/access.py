"""Instructions that reach memory: global, buffer and LDS."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from jitcache.emulator.memory import Lanes, Mask, Words
from jitcache.emulator.numbers import bf16, to_bf16
from jitcache.emulator.program import FaultError, Instruction, UnknownError
from jitcache.emulator.wave import (
    LANES,
    M0,
    Wave,
    pair,
    refuse,
    scalar,
    scalar_register,
    vector,
    vector_register,
    wide,
)

Step = Callable[[Wave], None]
Floats = NDArray[np.float32]

_WORDS = re.compile(
    r"(?P<kind>global|buffer|scratch)_(?P<what>load|store)_dword(?:x(?P<count>[234]))?$"
)
_LDS = re.compile(r"ds_(?P<what>read|write)(?:2(?P<stride>(?:st64)?))?_b(?P<bits>32|64|96|128)$")
_STRIDED = {"": 1, "st64": 64}


def step(i: Instruction) -> Step | None:
    """What a memory instruction does to a wave; None for one that isn't known here."""
    if i.name == "global_atomic_pk_add_bf16":
        return _atomic(i)
    if (lds := _LDS.match(i.name)) is not None:
        count = int(lds["bits"]) // 32
        offsets = _lds_offsets(i, count, lds["stride"])
        return _lds(i, count, offsets, loads=lds["what"] == "read")
    if (words := _WORDS.match(i.name)) is not None:
        make_words = {"global": _global, "buffer": _buffer, "scratch": _scratch}[words["kind"]]
        return make_words(i, int(words["count"] or 1), loads=words["what"] == "load")
    return None


def _address(i: Instruction, vector_part: str, base: str) -> Callable[[Wave], Lanes]:
    offset = i.number("offset")
    if base == "off":
        both = pair(vector_part)
        return lambda wave: wide(both(wave)).astype(np.int64) + offset
    start, lane = scalar_register(base, 2), vector(vector_part)
    return lambda wave: lane(wave).astype(np.int64) + (wave.read64(start) + offset)


def _global(i: Instruction, count: int, *, loads: bool) -> Step:
    refuse(i, "offset", "nt", "sc0", "sc1")
    if loads:
        target, where = i.operands[0], _address(i, i.operands[1], i.operands[2])
        first = vector_register(target, count)

        def load(wave: Wave) -> None:
            words = wave.device.load(where(wave), count, wave.mask, i.text)
            for n in range(count):
                wave.put(first + n, words[:, n])

        return load
    where = _address(i, i.operands[0], i.operands[2])
    first = vector_register(i.operands[1], count)

    def store(wave: Wave) -> None:
        wave.device.store(where(wave), wave.v[first : first + count].T, wave.mask, i.text)

    return store


def _scratch(i: Instruction, count: int, *, loads: bool) -> Step:
    """Every lane's own memory, at the same place for all: what spilled registers need."""
    refuse(i, "offset")
    offset = i.number("offset")
    data, *where = i.operands if loads else (i.operands[1], i.operands[0], i.operands[2])
    if where != ["off", "off"]:
        raise UnknownError(i.text)
    first = vector_register(data, count)

    def places(wave: Wave) -> Lanes:
        if offset + 4 * count > wave.scratch_size:
            raise FaultError(f"{i.text}: behind the end of scratch memory")
        return np.arange(LANES, dtype=np.int64) * wave.scratch_size + offset

    def load(wave: Wave) -> None:
        words = wave.scratch.load(places(wave), count, wave.mask, i.text)
        for n in range(count):
            wave.put(first + n, words[:, n])

    def store(wave: Wave) -> None:
        words = wave.v[first : first + count].T
        wave.scratch.store(places(wave), words, wave.mask, i.text)

    return load if loads else store


def _atomic(i: Instruction) -> Step:
    """Two bfloat16 added to two in memory, one lane after the other."""
    refuse(i, "offset", "sc1", "nt")
    where, value = _address(i, i.operands[0], i.operands[2]), vector(i.operands[1])

    def halves(words: Words) -> Floats:
        return np.stack([bf16(words & np.uint32(0xFFFF)), bf16(words >> np.uint32(16))])

    def run(wave: Wave) -> None:
        addresses, added = where(wave), halves(value(wave))
        for lane in np.flatnonzero(wave.mask):
            one = np.arange(LANES) == lane
            old = halves(wave.device.load(addresses, 1, one, i.text)[:, 0])
            low, high = to_bf16((old + added).astype(np.float32))
            wave.device.store(addresses, (low | high << np.uint32(16))[:, None], one, i.text)

    return run


def _buffer(i: Instruction, count: int, *, loads: bool) -> Step:
    """Raw buffers: an address is base plus offset, and what lies behind the range is dropped."""
    refuse(i, "offset", "offen", "lds", "nt", "sc0", "sc1")
    data = 0 if "lds" in i.flags else 1
    value = i.operands[0] if data else None
    vaddr, descriptor, soffset = i.operands[data:]
    fixed, resource = i.number("offset"), scalar_register(descriptor, 4)
    by_lane = vector(vaddr) if "offen" in i.flags else None
    by_wave = scalar(soffset)

    def places(wave: Wave) -> tuple[Lanes, Mask]:
        """Addresses, and which words of each lane lie in the range."""
        w0, w1, size = wave.s[resource : resource + 3]
        if w1 >> 16 & 0x3FFF or w1 >> 31:
            raise UnknownError(f"a buffer with a stride, as in {i.text}")
        offset = np.zeros(LANES, np.int64) if by_lane is None else by_lane(wave).astype(np.int64)
        offset = offset + fixed + by_wave(wave)
        words = offset[:, None] + 4 * np.arange(count)
        return (w0 | (w1 & 0xFFFF) << 32) + words, words + 4 <= size

    def load(wave: Wave) -> Words:
        addresses, inside = places(wave)
        inside = inside & wave.mask[:, None]
        found = wave.device.load(addresses.ravel(), 1, inside.ravel(), i.text)[:, 0]
        return np.where(inside, found.reshape(LANES, count), np.uint32(0))

    if value is None and not loads:
        raise UnknownError(i.text)
    if value is None:
        where = np.arange(LANES, dtype=np.int64) * 4 * count

        def to_lds(wave: Wave) -> None:
            start = (wave.s[M0] & 0xFFFF) + fixed
            wave.lds.store(start + where, load(wave), wave.mask, i.text)

        if fixed:
            # It would be added to both addresses; nothing seen so far asks for it.
            raise UnknownError(i.text)
        return to_lds
    first = vector_register(value, count)
    if loads:

        def to_registers(wave: Wave) -> None:
            found = load(wave)
            for n in range(count):
                wave.put(first + n, found[:, n])

        return to_registers

    def store(wave: Wave) -> None:
        addresses, inside = places(wave)
        inside = inside & wave.mask[:, None]
        words = np.ascontiguousarray(wave.v[first : first + count].T)
        wave.device.store(addresses.ravel(), words.reshape(-1, 1), inside.ravel(), i.text)

    return store


def _lds(i: Instruction, count: int, offsets: tuple[int, ...], *, loads: bool) -> Step:
    """One access or two; addresses are sums of 32 bits, so that a base may lie below 0."""
    where = vector(i.operands[1 if loads else 0])

    def places(wave: Wave, offset: int) -> Lanes:
        return (where(wave) + np.uint32(offset)).astype(np.int64)

    if loads:
        first = vector_register(i.operands[0], count * len(offsets))

        def read(wave: Wave) -> None:
            found = [wave.lds.load(places(wave, o), count, wave.mask, i.text) for o in offsets]
            for n in range(count * len(offsets)):
                wave.put(first + n, found[n // count][:, n % count])

        return read
    values = [vector_register(o, count) for o in i.operands[1:]]

    def write(wave: Wave) -> None:
        for offset, value in zip(offsets, values, strict=True):
            words = wave.v[value : value + count].T
            wave.lds.store(places(wave, offset), words, wave.mask, i.text)

    return write


def _lds_offsets(i: Instruction, count: int, stride: str | None) -> tuple[int, ...]:
    """Bytes; those of two accesses in one are counted in elements, or in 64 of them."""
    if stride is None:
        refuse(i, "offset")
        return (i.number("offset"),)
    refuse(i, "offset0", "offset1")
    scale = 4 * count * _STRIDED[stride]
    return i.number("offset0") * scale, i.number("offset1") * scale
