"""A host shim behind ctypes: what to launch for a problem (csrc/jitcache/shim.h).

A shim is pure computation on the host. It is asked through `Call`, a set of buffers that a
thread uses again for every launch, so that a launch allocates nothing.
"""

from __future__ import annotations

import ctypes
import os
import struct
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from jitcache import digest
from jitcache.errors import DamagedError, InputError, JitcacheError
from jitcache.runtime.hip import launch_parameters

ABI = 1
"""JITCACHE_SHIM_ABI of the interface that this module speaks."""

POINTERS = (
    *("a", "a_scale", "b", "b_scale", "sorted_token_ids", "sorted_expert_ids"),
    *("num_valid_ids", "sorted_weights", "out"),
)
"""Pointer fields of a problem, in the order of the struct."""

_OK, _UNSUPPORTED = 0, 1
_MESSAGE_BYTES = 256


class Problem(ctypes.Structure):
    """One launch of one stage: `jitcache_problem`, with the meaning that shim.h gives.

    Pointers are device addresses; `n` and `k` count elements (fp4 unpacked).
    """

    _fields_ = [(name, ctypes.c_void_p) for name in POINTERS] + [
        (name, ctypes.c_int32)
        for name in ("tokens", "topk", "sorted_size", "n", "k", "splitk", "non_temporal")
    ]


class Answer(NamedTuple):
    """`jitcache_launch`, field by field; `Launch` says what they mean."""

    grid_x: int
    grid_y: int
    grid_z: int
    block_x: int
    block_y: int
    block_z: int
    kernarg_size: int
    hot_loop: int
    tail_even: int
    non_temporal: int
    clear_bytes: int


_ANSWER = struct.Struct("=10IQ")


@dataclass(frozen=True, slots=True)
class Launch:
    """What to launch.

    Attributes:
        grid: workgroups.
        block: threads per workgroup.
        kernarg: bytes of the kernel's argument.
        hot_loop: whether the kernel with the main K loop runs.
        tail_even: whether the kernel for an even number of loop steps runs.
        non_temporal: whether the kernel with non-temporal weight loads runs.
        clear_bytes: bytes of `out` to set to zero first (split K).
    """

    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    kernarg: bytes
    hot_loop: bool
    tail_even: bool
    non_temporal: bool
    clear_bytes: int


@dataclass(frozen=True, slots=True)
class Unsupported:
    """CK refuses the problem.

    Attributes:
        reason: CK's rule that it breaks.
    """

    reason: str


class Call:
    """Buffers of one call, used again and again by one thread.

    Args:
        capacity: bytes for the kernel's argument.

    Attributes:
        extra: address of HIP's launch parameters, which name the argument bytes.
        buffers: arguments of `jitcache_prepare` after the problem.
    """

    __slots__ = ("_answer", "_extra", "_kernarg", "_message", "_size", "buffers", "extra")

    def __init__(self, capacity: int) -> None:
        self._kernarg = ctypes.create_string_buffer(capacity)
        self._message = ctypes.create_string_buffer(_MESSAGE_BYTES)
        self._answer = ctypes.create_string_buffer(_ANSWER.size)
        self._size = ctypes.c_size_t()
        self._extra = launch_parameters(ctypes.addressof(self._kernarg), self._size)
        self.extra = ctypes.addressof(self._extra)
        self.buffers = (
            self._kernarg,
            ctypes.c_size_t(capacity),
            self._answer,
            self._message,
            ctypes.c_size_t(_MESSAGE_BYTES),
        )

    def answer(self) -> Answer:
        """What the shim said last; the launch parameters are those of it from now on."""
        said = Answer._make(_ANSWER.unpack(self._answer))
        self._size.value = said.kernarg_size
        return said

    def message(self) -> str:
        """Why the shim refused."""
        return self._message.value.decode(errors="replace")

    def snapshot(self) -> Launch:
        """A copy of what the shim said last."""
        said = self.answer()
        return Launch(
            grid=(said.grid_x, said.grid_y, said.grid_z),
            block=(said.block_x, said.block_y, said.block_z),
            kernarg=self._kernarg.raw[: said.kernarg_size],
            hot_loop=bool(said.hot_loop),
            tail_even=bool(said.tail_even),
            non_temporal=bool(said.non_temporal),
            clear_bytes=said.clear_bytes,
        )


class Shim:
    """A loaded host shim. May be asked from any thread.

    Args:
        library: its file, or its bytes where it has none.

    Raises:
        DamagedError: it can't be loaded.
        InputError: it isn't a host shim, or one of another interface version.

    Attributes:
        names: the instances, in the order of their indices.
    """

    def __init__(self, library: Path | bytes) -> None:
        where = str(library) if isinstance(library, Path) else "host shim in memory"
        opened = _open(library) if isinstance(library, Path) else _in_memory(library, where)
        try:
            abi = opened.jitcache_shim_abi()
            self._prepare = opened.jitcache_prepare
            name = opened.jitcache_instance_name
            size = opened.jitcache_kernarg_size
        except AttributeError as e:
            raise InputError(f"is not a host shim: {e}", where=where) from None
        if abi != ABI:
            raise InputError(
                f"is a host shim of interface version {abi}, but this jitcache speaks {ABI}",
                where=where,
                hint="build it again with `jitcache prebuild`",
            )
        name.restype = ctypes.c_char_p
        size.restype = ctypes.c_size_t
        count = opened.jitcache_instance_count()
        self.names: tuple[str, ...] = tuple(name(i).decode() for i in range(count))
        self._sizes = [size(i) for i in range(count)]
        self._capacity = max(self._sizes, default=0)
        self._threads = threading.local()

    def kernarg_size(self, instance: int) -> int:
        """Bytes of the argument of an instance's kernels."""
        return int(self._sizes[instance])

    def prepare(self, instance: int, problem: Problem) -> Launch | Unsupported:
        """What to launch for a problem, or why nothing can be.

        Args:
            instance: index into `names`.
            problem: the problem.

        Raises:
            IndexError: no instance has that index.
            JitcacheError: CK's host code failed; the message is its own.
        """
        call = self.ask(instance, problem)
        return call if isinstance(call, Unsupported) else call.snapshot()

    def ask(self, instance: int, problem: Problem) -> Call | Unsupported:
        """As `prepare`, into the calling thread's buffers: valid until its next call."""
        if not 0 <= instance < len(self._sizes):
            raise IndexError(f"no instance {instance}: the shim has {len(self._sizes)}")
        call: Call | None = getattr(self._threads, "call", None)
        if call is None:
            call = self._threads.call = Call(self._capacity)
        status = self._prepare(instance, ctypes.byref(problem), *call.buffers)
        if status == _OK:
            return call
        reason = call.message()
        if status == _UNSUPPORTED:
            return Unsupported(reason)
        raise JitcacheError(
            f"the host shim failed ({status}): {reason}",
            where=self.names[instance],
            hint="this is a defect of CK's host code or of jitcache: please report it",
        )


def _open(path: Path) -> ctypes.PyDLL:
    # PyDLL keeps the interpreter lock: a call takes microseconds, and giving the lock away
    # and taking it back costs as much.
    try:
        return ctypes.PyDLL(str(path))
    except OSError as first:
        # A store on a file system mounted noexec: the same bytes from memory can be mapped.
        try:
            return _in_memory(path.read_bytes(), str(path))
        except (OSError, DamagedError):
            raise _unloadable(str(path), first) from None


_mapped: dict[str, ctypes.PyDLL] = {}


def _in_memory(data: bytes, where: str) -> ctypes.PyDLL:
    """Map a library that has no file, or none that may be executed; once per process."""
    name = digest.of_bytes(data)
    if name not in _mapped:
        try:
            _mapped[name] = _map(data)
        except OSError as e:
            raise _unloadable(where, e) from None
    return _mapped[name]


def _map(data: bytes) -> ctypes.PyDLL:
    try:
        handle = os.memfd_create("jitcache-shim")
    except OSError:
        # A kernel that was told to make no such files; the mapping outlives the directory.
        import tempfile

        with tempfile.TemporaryDirectory(prefix="jitcache-") as place:
            file = Path(place) / "shim.so"
            file.write_bytes(data)
            return ctypes.PyDLL(str(file))
    try:
        with open(handle, "wb", closefd=False) as memory:
            memory.write(data)
        # It stays open: the loader knows a library by its path, and would take the next one
        # that is opened under the same number for this one.
        return ctypes.PyDLL(f"/proc/self/fd/{handle}")
    except OSError:
        os.close(handle)
        raise


def _unloadable(where: str, why: OSError) -> DamagedError:
    return DamagedError(
        f"the host shim can't be loaded: {why}",
        where=where,
        hint="`jitcache verify` checks the store; a shim built for another machine type"
        " has to be built again",
    )
