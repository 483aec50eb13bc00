"""Instructions that reach memory: global, buffer and LDS."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from jitcache.emulator.memory import Lanes, Mask, Words
from jitcache.emulator.numbers import bf16, f16, to_bf16, to_f16
from jitcache.emulator.program import FaultError, Instruction, UnknownError
from jitcache.emulator.wave import (
    LANES,
    M0,
    Step,
    Wave,
    pair,
    refuse,
    scalar,
    scalar_register,
    signed64,
    vector,
    vector_register,
    wide,
)

Floats = NDArray[np.float32]

_WORDS = re.compile(
    r"(?P<kind>global|buffer|scratch)_(?P<what>load|store)_dword(?:x(?P<count>[234]))?$"
)
_LDS = re.compile(r"ds_(?P<what>read|write)(?:2(?P<stride>(?:st64)?))?_b(?P<bits>32|64|96|128)$")
_ATOMIC = re.compile(r"(global|buffer)_atomic_pk_add_(bf16|f16)$")
_ATOMICS: dict[str, tuple[Callable[[Words], Floats], Callable[[Floats], Words]]] = {
    "bf16": (bf16, to_bf16),
    "f16": (f16, to_f16),
}
_STRIDED = {"": 1, "st64": 64}


def step(i: Instruction) -> Step | None:
    """What a memory instruction does to a wave; None for one that isn't known here."""
    if _ATOMIC.match(i.name) is not None:
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
    return lambda wave: lane(wave).astype(np.int64) + signed64(wave.read64(start) + offset)


def _global(i: Instruction, count: int, *, loads: bool) -> Step:
    refuse(i, "offset", "nt", "sc0", "sc1")
    if loads:
        target, where = i.operands[0], _address(i, i.operands[1], i.operands[2])
        first = vector_register(target, count)

        def load(wave: Wave) -> None:
            wave.put_all(first, wave.device.load(where(wave), count, wave.mask, i.text).T)

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
        wave.put_all(first, wave.scratch.load(places(wave), count, wave.mask, i.text).T)

    def store(wave: Wave) -> None:
        words = wave.v[first : first + count].T
        wave.scratch.store(places(wave), words, wave.mask, i.text)

    return load if loads else store


def _atomic(i: Instruction) -> Step:
    """Two numbers of 16 bits added to two in memory, one lane after the other."""
    refuse(i, "offset", "offen", "sc1", "nt")
    kind, _, number = i.name.partition("_atomic_pk_add_")
    read, written = _ATOMICS[number]
    if kind == "buffer":
        value, ranged = vector(i.operands[0]), _ranged(i, i.operands[1:], 1)
    else:
        value, where = vector(i.operands[1]), _address(i, i.operands[0], i.operands[2])

        def ranged(wave: Wave) -> tuple[Lanes, Mask]:
            return where(wave)[:, None], wave.mask[:, None]

    def halves(words: Words) -> Floats:
        return np.stack([read(words & np.uint32(0xFFFF)), read(words >> np.uint32(16))])

    def run(wave: Wave) -> None:
        addresses, inside = ranged(wave)
        added = halves(value(wave))
        for lane in np.flatnonzero(inside):
            one = np.arange(LANES) == lane
            old = halves(wave.device.load(addresses[:, 0], 1, one, i.text)[:, 0])
            low, high = written((old + added).astype(np.float32))
            word = (low | high << np.uint32(16))[:, None]
            wave.device.store(addresses[:, 0], word, one, i.text)

    return run


def _ranged(
    i: Instruction, operands: tuple[str, ...], count: int
) -> Callable[[Wave], tuple[Lanes, Mask]]:
    """Addresses of words in a raw buffer, and which of each active lane lie in its range."""
    vaddr, descriptor, soffset = operands
    fixed, resource = i.number("offset"), scalar_register(descriptor, 4)
    by_lane = vector(vaddr) if "offen" in i.flags else None
    by_wave = scalar(soffset)

    def places(wave: Wave) -> tuple[Lanes, Mask]:
        w0, w1, size = wave.s[resource : resource + 3]
        if w1 >> 16 & 0x3FFF or w1 >> 31:
            raise UnknownError(f"a buffer with a stride, as in {i.text}")
        offset = np.zeros(LANES, np.int64) if by_lane is None else by_lane(wave).astype(np.int64)
        offset = offset + fixed + by_wave(wave)
        words = offset[:, None] + 4 * np.arange(count)
        inside = (words + 4 <= size) & wave.mask[:, None]
        return (w0 | (w1 & 0xFFFF) << 32) + words, inside

    return places


def _buffer(i: Instruction, count: int, *, loads: bool) -> Step:
    """Raw buffers: what lies behind the range is 0, and dropped where it is stored."""
    refuse(i, "offset", "offen", "lds", "nt", "sc0", "sc1")
    if "lds" in i.flags:
        return _buffer_to_lds(i, count, loads=loads)
    first, places = vector_register(i.operands[0], count), _ranged(i, i.operands[1:], count)

    def load(wave: Wave) -> None:
        wave.put_all(first, _load_ranged(wave, places, i.text).T)

    def store(wave: Wave) -> None:
        addresses, inside = places(wave)
        words = np.ascontiguousarray(wave.v[first : first + count].T)
        wave.device.store(addresses.ravel(), words.reshape(-1, 1), inside.ravel(), i.text)

    return load if loads else store


def _load_ranged(wave: Wave, places: Callable[[Wave], tuple[Lanes, Mask]], text: str) -> Words:
    addresses, inside = places(wave)
    found = wave.device.load(addresses.ravel(), 1, inside.ravel(), text)[:, 0]
    return np.where(inside, found.reshape(inside.shape), np.uint32(0))


def _buffer_to_lds(i: Instruction, count: int, *, loads: bool) -> Step:
    """Loads past the registers: lane after lane, from where M0 says."""
    if not loads or i.number("offset"):
        # An offset would be added to both addresses; nothing seen so far asks for it.
        raise UnknownError(i.text)
    places = _ranged(i, i.operands, count)
    where = np.arange(LANES, dtype=np.int64) * 4 * count

    def run(wave: Wave) -> None:
        start = wave.s[M0] & 0xFFFF
        wave.lds.store(start + where, _load_ranged(wave, places, i.text), wave.mask, i.text)

    return run


def _lds(i: Instruction, count: int, offsets: tuple[int, ...], *, loads: bool) -> Step:
    """One access or two; addresses are sums of 32 bits, so that a base may lie below 0."""
    where = vector(i.operands[1 if loads else 0])

    def places(wave: Wave, offset: int) -> Lanes:
        return (where(wave) + np.uint32(offset)).astype(np.int64)

    if loads:
        first = vector_register(i.operands[0], count * len(offsets))

        def read(wave: Wave) -> None:
            found = [wave.lds.load(places(wave, o), count, wave.mask, i.text) for o in offsets]
            wave.put_all(first, np.concatenate(found, axis=1).T)

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
