"""A host shim behind ctypes: the C interface of csrc/jitcache/shim.h, for tests."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path

_POINTERS = (
    *("a", "a_scale", "b", "b_scale", "sorted_token_ids", "sorted_expert_ids"),
    *("num_valid_ids", "sorted_weights", "out"),
)
_NUMBERS = ("tokens", "topk", "sorted_size", "n", "k", "splitk", "non_temporal")
USUAL = {name: 0x1000 * (i + 1) for i, name in enumerate(_POINTERS)} | dict(
    zip(_NUMBERS, (64, 8, 4096, 2048, 2048, 1, 0), strict=True)
)


class _Problem(ctypes.Structure):
    _fields_ = [(n, ctypes.c_void_p) for n in _POINTERS] + [(n, ctypes.c_int32) for n in _NUMBERS]


class _Launch(ctypes.Structure):
    _fields_ = (
        ("grid", ctypes.c_uint32 * 3),
        ("block", ctypes.c_uint32 * 3),
        ("kernarg_size", ctypes.c_uint32),
        ("hot_loop", ctypes.c_uint32),
        ("tail_even", ctypes.c_uint32),
        ("non_temporal", ctypes.c_uint32),
        ("clear_bytes", ctypes.c_uint64),
    )


@dataclass(frozen=True)
class Launch:
    """What the shim says to launch; `refused` is its reason, or ""."""

    refused: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    hot_loop: bool
    tail_even: bool
    non_temporal: bool
    clear_bytes: int
    kernarg: bytes


class Shim:
    """A loaded host shim."""

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))
        self._library.jitcache_instance_name.restype = ctypes.c_char_p
        self._library.jitcache_kernarg_size.restype = ctypes.c_size_t
        count = self._library.jitcache_instance_count()
        self.names = [self._library.jitcache_instance_name(i).decode() for i in range(count)]

    def kernarg_size(self, instance: int) -> int:
        return self._library.jitcache_kernarg_size(instance)

    def prepare(self, instance: int, **problem: int) -> Launch:
        """Ask for one launch of the usual problem with some values changed."""
        asked = _Problem(**{**USUAL, **problem})
        size = self.kernarg_size(instance)
        kernarg = ctypes.create_string_buffer(b"\xff" * size, size)
        message = ctypes.create_string_buffer(200)
        launch = _Launch()
        status = self._library.jitcache_prepare(
            instance,
            ctypes.byref(asked),
            kernarg,
            ctypes.c_size_t(size),
            ctypes.byref(launch),
            message,
            ctypes.c_size_t(200),
        )
        assert status in (0, 1), message.value
        assert status == 1 or launch.kernarg_size == size
        return Launch(
            refused=message.value.decode() if status else "",
            grid=tuple(launch.grid),
            block=tuple(launch.block),
            hot_loop=bool(launch.hot_loop),
            tail_even=bool(launch.tail_even),
            non_temporal=bool(launch.non_temporal),
            clear_bytes=launch.clear_bytes,
            kernarg=kernarg.raw,
        )
