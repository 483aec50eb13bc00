"""Runs every workgroup of a grid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from jitcache.emulator import access, matrix, scalar, vector
from jitcache.emulator.memory import Device, Own
from jitcache.emulator.numbers import FP8
from jitcache.emulator.program import FaultError, Instruction, Program, UnknownError
from jitcache.emulator.wave import LANES, Step, Wave

_PAGE = 4096
_ENDED = object()
_MOST_LDS = 160 * 1024
"""Bytes that a workgroup of gfx950 can have; no kernel needs as much scratch per work item."""
_MOST = 20_000_000
"""Instructions of one wave after which it counts as one that never ends: minutes."""


@dataclass(frozen=True, slots=True)
class Pointer:
    """A buffer, and where its address stands in the argument."""

    data: bytes
    offsets: tuple[int, ...]


def launch(
    program: Program,
    grid: tuple[int, int, int],
    block: tuple[int, int, int],
    lds: int,
    kernarg: bytes,
    buffers: Mapping[str, Pointer],
) -> dict[str, bytes]:
    """Run a kernel.

    Args:
        program: the kernel.
        grid: workgroups.
        block: work items of each; y and z are 1.
        lds: bytes of LDS beyond those that the kernel asks for.
        kernarg: argument bytes; addresses are filled in.
        buffers: what they point at.

    Returns:
        The buffers' bytes afterwards.

    Raises:
        FaultError: it reaches memory that isn't there.
        UnknownError: it has an instruction that isn't known.
    """
    if program.arch not in FP8:
        raise UnknownError(f"the architecture {program.arch}")
    if program.lds + lds > _MOST_LDS or program.scratch > _MOST_LDS:
        raise UnknownError(
            f"{program.lds + lds} bytes of LDS and {program.scratch} of scratch memory"
        )
    if block[1:] != (1, 1) or block[0] % LANES:
        raise UnknownError(f"blocks of {block} work items")
    size = sum(len(b.data) + 4 for b in buffers.values()) + len(kernarg)
    device = Device(size + len(program.image) + _PAGE)
    load_address = device.allocate(program.image, alignment=_PAGE)
    argument = bytearray(kernarg)
    places = {}
    for name, buffer in buffers.items():
        places[name] = device.allocate(buffer.data)
        for offset in buffer.offsets:
            argument[offset : offset + 8] = places[name].to_bytes(8, "little")
    where = device.allocate(bytes(argument))
    steps = Steps(program)
    with np.errstate(all="ignore"):
        for z, y, x in np.ndindex(grid[2], grid[1], grid[0]):
            shared = Own(program.lds + lds)
            waves = [
                _start(program, device, shared, load_address, where, (x, y, z), n)
                for n in range(block[0] // LANES)
            ]
            _workgroup(waves, steps)
    return {n: device.read(places[n], len(b.data)) for n, b in buffers.items()}


def _start(
    program: Program,
    device: Device,
    lds: Own,
    load_address: int,
    kernarg: int,
    workgroup: tuple[int, int, int],
    number: int,
) -> Wave:
    """A wave as the hardware starts it."""
    wave = Wave(device, lds, program.scratch, program.entry, load_address)
    wave.write(program.kernarg_register, kernarg, 2)
    register = program.user_registers
    for given, index in zip(program.workgroup, workgroup, strict=True):
        if given:
            wave.write(register, index)
            register += 1
    # x, y and z of the work item lie in one register, ten bits each; y and z are 0.
    wave.v[0] = np.arange(LANES, dtype=np.uint32) + np.uint32(number * LANES)
    return wave


class Steps(dict[int, tuple[int, "Step | str"]]):
    """By address: that of the next instruction, and what this one does.

    That is a function, or the name of an instruction that is the launch's own. Instructions are
    looked at when they are reached first: one that isn't known does no harm where nothing runs it.
    """

    def __init__(self, program: Program) -> None:
        super().__init__()
        self._program = program

    def __missing__(self, address: int) -> tuple[int, Step | str]:
        instruction = self._program.code.get(address)
        if instruction is None:
            raise FaultError(f"there is no instruction at {address:#x}")
        found = self[address] = address + instruction.size, _step(instruction, self._program.arch)
        return found


def _step(i: Instruction, arch: str) -> Step | str:
    if i.name in {"s_barrier", "s_endpgm"}:
        return i.name
    found: Step | None
    if i.name.startswith("s_"):
        found = scalar.step(i)
    elif i.name.startswith("v_mfma"):
        found = matrix.step(i, arch)
    elif i.name.startswith("v_"):
        found = vector.step(i, arch)
    else:
        found = access.step(i)
    if found is None:
        raise UnknownError(i.text)
    return found


def _run(wave: Wave, steps: Steps) -> Iterator[None]:
    """Run a wave; stops at every barrier."""
    for _ in range(_MOST):
        wave.pc, action = steps[wave.pc]
        if not isinstance(action, str):
            action(wave)
        elif action == "s_barrier":
            yield
        else:
            return
    raise FaultError(f"a wave is still running after {_MOST} instructions")


def _workgroup(waves: list[Wave], steps: Steps) -> None:
    """Run a workgroup's waves from barrier to barrier; those that ended count as there."""
    running = [_run(wave, steps) for wave in waves]
    while running:
        running = [run for run in running if next(run, _ENDED) is not _ENDED]
