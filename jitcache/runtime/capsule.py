"""Capsules: one launch in one file, to be replayed elsewhere (docs/capsule.md has the format).

A capsule holds the code object, the kernel's symbol, grid, block, argument bytes and, for every
pointer in them, the buffer that it refers to with its bytes before the launch. Which argument
bytes are pointers is found by asking the host shim for the same launch with marked addresses.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jitcache import digest
from jitcache.errors import InputError, UnsupportedError
from jitcache.jsonread import Reader, ShapeError, parse
from jitcache.runtime.hip import Hip, launch_parameters
from jitcache.runtime.memory import held
from jitcache.runtime.module import Module
from jitcache.runtime.shim import POINTERS, Problem, Unsupported

MAGIC = b"JCCAPS1\n"
"""First bytes of a capsule."""
SCHEMA = 1
ALIGNMENT = 16
EPSILON = {"bfloat16": 2.0**-7, "float16": 2.0**-10, "float32": 2.0**-23}
"""Distance of 1 from the next larger number of a type: at most what two ways to round differ by,
relative to the value."""
_HEAD = len(MAGIC) + 8
# Addresses that no buffer has and no two pointers share, in any 4 bytes of theirs.
_MARK = 0x7A5C_0001_0000_0000
_NUMBERS = ("tokens", "topk", "sorted_size", "n", "k", "splitk", "non_temporal")


@dataclass(frozen=True, slots=True)
class Buffer:
    """Memory that the kernel's argument points at.

    Attributes:
        field: which pointer of `jitcache_problem` it is.
        offsets: where its address stands in the argument, in bytes.
        before: its bytes before the launch.
        expected: its bytes after a correct launch, where known.
        dtype: how its bytes are to be read, for people and comparers.
        roundings: how often a correct kernel rounds a value to the type on its way to
            `expected`, where known; decides how much may differ.
    """

    field: str
    offsets: tuple[int, ...]
    before: bytes
    expected: bytes | None = None
    dtype: str = ""
    roundings: int | None = None

    @property
    def tolerance(self) -> float | None:
        """Largest error of a correct kernel relative to the largest value, where known."""
        if self.roundings is None or self.dtype not in EPSILON:
            return None
        return self.roundings * EPSILON[self.dtype]


@dataclass(frozen=True, slots=True)
class Capsule:
    """One launch.

    Attributes:
        arch: architecture of the code object.
        module: AITER's name of the module.
        instance: AITER's name of the instance.
        symbol: kernel in the code object.
        code: the code object.
        grid: workgroups.
        block: threads per workgroup.
        lds: bytes of dynamic LDS; 0 for CK's kernels.
        kernarg: argument bytes; addresses in it are those of another process, or zero.
        clear_bytes: leading bytes of `out` to set to zero before the launch.
        problem: sizes that the argument was made for.
        buffers: what it points at.
    """

    arch: str
    module: str
    instance: str
    symbol: str
    code: bytes
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    lds: int
    kernarg: bytes
    clear_bytes: int
    problem: dict[str, int]
    buffers: tuple[Buffer, ...]

    @property
    def out(self) -> Buffer:
        """The buffer that the kernel writes."""
        return next(b for b in self.buffers if b.field == "out")

    def with_expected(self, out: bytes, roundings: int | None = None) -> Capsule:
        """The same launch with what `out` must hold afterwards; see `Buffer`."""
        buffers = tuple(
            replace(b, expected=out, roundings=roundings) if b.field == "out" else b
            for b in self.buffers
        )
        return replace(self, buffers=buffers)

    def without_addresses(self) -> Capsule:
        """The same launch with zeros for the addresses, which nobody needs any more."""
        kernarg = bytearray(self.kernarg)
        for buffer in self.buffers:
            for offset in buffer.offsets:
                kernarg[offset : offset + 8] = bytes(8)
        return replace(self, kernarg=bytes(kernarg))


def capture(
    module: Module,
    name: str,
    problem: Problem,
    buffers: Mapping[str, Any],
    *,
    read: Callable[[int, int], bytes],
) -> Capsule:
    """Make a capsule of a launch that hasn't been made yet.

    Args:
        module: the module.
        name: the instance.
        problem: the problem.
        buffers: tensors by pointer field; None where the pointer is null.
        read: gives the bytes at an address: `Hip.read`, or `ctypes.string_at` for host memory.

    Raises:
        UnsupportedError: CK refuses the problem.
        MissError: the kernel wasn't built.
    """
    launch = module.prepare(name, problem)
    if isinstance(launch, Unsupported):
        raise UnsupportedError(launch.reason, where=name)
    symbol, code = module.kernel(name, launch)
    marks = {
        field: _MARK + (i << 33) for i, field in enumerate(POINTERS) if getattr(problem, field)
    }
    numbers = {field: int(getattr(problem, field)) for field in _NUMBERS}
    marked = module.prepare(name, Problem(**marks, **numbers))
    if isinstance(marked, Unsupported):
        raise UnsupportedError(marked.reason, where=name)
    held = []
    for field, mark in marks.items():
        offsets = _places(marked.kernarg, mark)
        tensor = buffers[field]
        if not offsets:
            continue
        size = tensor.numel() * tensor.element_size()
        dtype = str(tensor.dtype).removeprefix("torch.")
        held.append(Buffer(field, offsets, read(tensor.data_ptr(), size), None, dtype))
    return Capsule(
        arch=module.lock.arch,
        module=module.name,
        instance=name,
        symbol=symbol,
        code=code,
        grid=launch.grid,
        block=launch.block,
        lds=0,
        kernarg=launch.kernarg,
        clear_bytes=launch.clear_bytes,
        problem=numbers,
        buffers=tuple(held),
    )


def _places(kernarg: bytes, mark: int) -> tuple[int, ...]:
    wanted = mark.to_bytes(8, "little")
    return tuple(i for i in range(0, len(kernarg) - 7, 8) if kernarg[i : i + 8] == wanted)


def dump(capsule: Capsule) -> bytes:
    """The bytes of a capsule's file; equal capsules give equal bytes."""
    blobs: list[bytes] = []
    at = 0

    def add(data: bytes) -> dict[str, Any]:
        nonlocal at
        place = {"offset": at, "size": len(data), "digest": digest.of_bytes(data)}
        padded = data + bytes(-len(data) % ALIGNMENT)
        blobs.append(padded)
        at += len(padded)
        return place

    header = {
        "schema": SCHEMA,
        "arch": capsule.arch,
        "module": capsule.module,
        "instance": capsule.instance,
        "symbol": capsule.symbol,
        "grid": list(capsule.grid),
        "block": list(capsule.block),
        "lds": capsule.lds,
        "clear_bytes": capsule.clear_bytes,
        "problem": capsule.problem,
        "code": add(capsule.code),
        "kernarg": add(capsule.kernarg),
        "buffers": [
            {
                "field": b.field,
                "offsets": list(b.offsets),
                "dtype": b.dtype,
                "before": add(b.before),
                **({} if b.expected is None else {"expected": add(b.expected)}),
                **({} if b.roundings is None else {"roundings": b.roundings}),
            }
            for b in capsule.buffers
        ],
    }
    text = digest.canonical_json(header)
    text += b" " * (-(_HEAD + len(text)) % ALIGNMENT)
    return MAGIC + len(text).to_bytes(8, "little") + text + b"".join(blobs)


def write(path: Path, capsule: Capsule) -> None:
    """Write a capsule; a reader sees all of it or nothing.

    Raises:
        StoreError: it can't be written.
    """
    from jitcache.store.durable import replace_file

    replace_file(path, dump(capsule))


def read(path: Path) -> Capsule:
    """Read a capsule's file and check every digest.

    Raises:
        InputError: it can't be read, isn't a capsule, or is damaged.
    """
    try:
        data = path.read_bytes()
    except OSError as e:
        raise InputError(f"can't be read ({e.strerror})", where=str(path)) from None
    return load(data, where=str(path))


def load(data: bytes, *, where: str) -> Capsule:
    """Read the bytes of a capsule's file.

    Raises:
        InputError: they aren't a capsule, or are damaged.
    """
    if data[: len(MAGIC)] != MAGIC:
        raise InputError("is not a capsule", where=where)
    length = int.from_bytes(data[len(MAGIC) : _HEAD], "little")
    if length > len(data) - _HEAD:
        raise InputError("is cut off", where=where, hint="copy it again")
    try:
        return _capsule(parse(data[_HEAD : _HEAD + length]), memoryview(data)[_HEAD + length :])
    except ShapeError as e:
        raise InputError(f"{e.path} {e.problem}", where=where, hint="copy it again") from None


def _capsule(r: Reader, blobs: memoryview) -> Capsule:
    names = ("schema", "arch", "module", "instance", "symbol", "grid", "block", "lds")
    r.only(*names, "clear_bytes", "problem", "code", "kernarg", "buffers")
    if r["schema"].integer() != SCHEMA:
        raise r["schema"].fail(f"is not {SCHEMA}, which this jitcache reads")
    kernarg = _blob(r["kernarg"], blobs)
    buffers = []
    for b in r["buffers"].each():
        b.only("field", "offsets", "dtype", "before", optional=("expected", "roundings"))
        buffers.append(
            Buffer(
                field=b["field"].one_of(*POINTERS),
                offsets=tuple(o.integer(0, len(kernarg) - 8) for o in b["offsets"].each()),
                before=_blob(b["before"], blobs),
                expected=_blob(b["expected"], blobs) if b.has("expected") else None,
                dtype=b["dtype"].text(),
                roundings=b["roundings"].integer() if b.has("roundings") else None,
            )
        )
    problem = r["problem"].only(*_NUMBERS)
    return Capsule(
        arch=r["arch"].text(),
        module=r["module"].text(),
        instance=r["instance"].text(),
        symbol=r["symbol"].text(),
        code=_blob(r["code"], blobs),
        grid=_three(r["grid"]),
        block=_three(r["block"]),
        lds=r["lds"].integer(),
        kernarg=kernarg,
        clear_bytes=r["clear_bytes"].integer(),
        problem={name: problem[name].integer() for name in _NUMBERS},
        buffers=tuple(buffers),
    )


def _three(r: Reader) -> tuple[int, int, int]:
    found = [v.integer(1, 2**32 - 1) for v in r.each()]
    if len(found) != 3:
        raise r.fail("must have three numbers")
    return found[0], found[1], found[2]


def _blob(r: Reader, blobs: memoryview) -> bytes:
    r.only("offset", "size", "digest")
    at, size = r["offset"].integer(), r["size"].integer()
    data = bytes(blobs[at : at + size])
    if len(data) != size:
        raise r.fail("lies behind the end of the file")
    if digest.of_bytes(data) != r["digest"].digest():
        raise r.fail("has other bytes than its digest says")
    return data


def replay(capsule: Capsule, hip: Hip, device: int = 0) -> dict[str, bytes]:
    """Run a capsule on a GPU.

    Args:
        capsule: what to run.
        hip: the runtime.
        device: device index.

    Returns:
        The bytes of every buffer afterwards, by field.

    Raises:
        UnsupportedError: the device has another architecture.
        HipError: HIP refuses something.
    """
    arch = hip.arch(device).partition(":")[0]
    if arch != capsule.arch:
        raise UnsupportedError(f"device {device} is {arch}, the capsule is for {capsule.arch}")
    patched = bytearray(capsule.kernarg)
    kernarg = (ctypes.c_char * len(patched)).from_buffer(patched)
    with held(hip, device, {b.field: b.before for b in capsule.buffers}) as addresses:
        for buffer in capsule.buffers:
            for offset in buffer.offsets:
                patched[offset : offset + 8] = addresses[buffer.field].to_bytes(8, "little")
        if capsule.clear_bytes and "out" in addresses:
            hip.clear(addresses["out"], capsule.clear_bytes, 0)
        function = hip.function(hip.load_module(capsule.code), capsule.symbol)
        size = ctypes.c_size_t(len(capsule.kernarg))
        extra = launch_parameters(ctypes.addressof(kernarg), size)
        hip.launch(function, capsule.grid, capsule.block, ctypes.addressof(extra), 0)
        # Copies wait for the default stream, so what is read is what the kernel wrote.
        return {b.field: hip.read(addresses[b.field], len(b.before)) for b in capsule.buffers}


def describe(capsule: Capsule) -> str:
    """A capsule as text for people."""
    grid, block = ("x".join(map(str, sizes)) for sizes in (capsule.grid, capsule.block))
    lines = [
        f"{capsule.instance} for {capsule.arch}",
        f"  grid {grid}, block {block}, {len(capsule.kernarg)} argument bytes",
        f"  problem {json.dumps(capsule.problem)}",
    ]
    lines += [
        f"  {b.field}: {len(b.before)} bytes of {b.dtype} at argument offset"
        f" {', '.join(map(str, b.offsets))}{'' if b.expected is None else ', result known'}"
        for b in capsule.buffers
    ]
    return "\n".join(lines)
