"""Device memory and LDS: bytes with addresses, and a fault for every other address."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from jitcache.emulator.program import FaultError

Words = NDArray[np.uint32]
Lanes = NDArray[np.int64]
Mask = NDArray[np.bool_]

_BASE = 0x7E00_0000_0000
"""Where allocations begin; like a GPU's addresses it needs 47 bits."""
_ALIGNMENT = 256
_GAP = 4096
"""Bytes between allocations that belong to nobody."""


class Words32:
    """Memory in words of 32 bits, of which only some belong to somebody."""

    def __init__(self, base: int, size: int, fill: int) -> None:
        """Nothing of it belongs to anybody yet."""
        self.base = base
        self.words = np.full(size // 4, fill, np.uint32)
        self.owned = np.zeros(size // 4, np.bool_)

    def bytes(self) -> NDArray[np.uint8]:
        """All of it, byte by byte."""
        return self.words.view(np.uint8)

    def _places(self, addresses: Lanes, count: int, mask: Mask, what: str) -> Lanes:
        offsets = addresses - self.base
        places: Lanes = (offsets[:, None] >> 2) + np.arange(count)
        active = places[mask]
        if (offsets[mask] & 3).any():
            raise FaultError(f"{what}: not aligned to 4 bytes")
        outside = (active < 0) | (active >= len(self.words))
        missing = outside | ~self.owned[np.where(outside, 0, active)]
        if missing.any():
            bad = addresses[mask][missing.any(axis=1)]
            raise FaultError(f"{what}: {int(bad[0]):#x} isn't allocated")
        return np.where(mask[:, None], places, 0)

    def load(self, addresses: Lanes, count: int, mask: Mask, what: str) -> Words:
        """Words at addresses, by lane; shape (lanes, count). Lanes not in `mask` get garbage.

        Raises:
            FaultError: an address belongs to nobody.
        """
        found: Words = self.words[self._places(addresses, count, mask, what)]
        return found

    def store(self, addresses: Lanes, values: Words, mask: Mask, what: str) -> None:
        """Put words at addresses; of lanes with one address the last wins.

        Raises:
            FaultError: an address belongs to nobody.
        """
        places = self._places(addresses, values.shape[1], mask, what)
        self.words[places[mask]] = values[mask]


class Device(Words32):
    """Memory that buffers, the argument and the code object are put into."""

    def __init__(self, size: int) -> None:
        """Room for `size` bytes, gaps and rounding not counted among them.

        Args:
            size: bytes of all that will be allocated.
        """
        super().__init__(_BASE, size + 64 * (_GAP + _ALIGNMENT), fill=0xA5A5A5A5)
        self._next = _GAP

    def allocate(self, data: bytes, alignment: int = _ALIGNMENT) -> int:
        """Put bytes into memory.

        Args:
            data: the bytes.
            alignment: what the address is a multiple of.

        Returns:
            Their address. The words that they end in belong to them wholly.
        """
        size = len(data)
        start = -(-self._next // alignment) * alignment
        self._next = start + size + _GAP
        self.owned[start // 4 : -(-(start + size) // 4)] = True
        self.bytes()[start : start + size] = np.frombuffer(data, np.uint8)
        return self.base + start

    def read(self, address: int, size: int) -> bytes:
        """Bytes at an address."""
        start = address - self.base
        return self.bytes()[start : start + size].tobytes()


class Own(Words32):
    """What a workgroup or a wave has for itself: addresses from 0 on, garbage at first."""

    def __init__(self, size: int) -> None:
        """All of it may be used.

        Args:
            size: bytes.
        """
        super().__init__(0, -(-size // 4) * 4, fill=0xFFC0FFC0)
        self.owned[:] = True
