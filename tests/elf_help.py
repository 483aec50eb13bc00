"""Writes the smallest ELF file that is an AMDGPU code object with metadata."""

from __future__ import annotations

import struct
from typing import Any

import msgspec

EM_AMDGPU = 224
SHT_STRTAB, SHT_NOTE = 3, 7


def kernel(symbol: str = "_Z6kernelv", **overrides: Any) -> dict[str, Any]:
    """Metadata of one kernel, as LLVM writes it."""
    return {
        ".symbol": f"{symbol}.kd",
        ".kernarg_segment_size": 200,
        ".vgpr_count": 256,
        ".agpr_count": 0,
        ".sgpr_count": 54,
        ".vgpr_spill_count": 46,
        ".sgpr_spill_count": 0,
        ".group_segment_fixed_size": 32768,
        ".private_segment_fixed_size": 188,
        ".max_flat_workgroup_size": 256,
        **overrides,
    }


def code_object(
    kernels: list[dict[str, Any]] | None = None,
    *,
    target: str = "amdgcn-amd-amdhsa--gfx950",
    machine: int = EM_AMDGPU,
    note: bytes | None = None,
) -> bytes:
    """Bytes of a code object: an ELF header, one note section, one string table."""
    if note is None:
        note = msgspec.msgpack.encode(
            {"amdhsa.target": target, "amdhsa.kernels": kernels or [kernel()]}
        )
    name = b"AMDGPU\0\0"
    padded = note + b"\0" * (-len(note) % 4)
    notes = struct.pack("<III", 7, len(note), 32) + name + padded
    strings = b"\0.note\0.shstrtab\0"
    header_size = 64
    notes_at = header_size
    strings_at = notes_at + len(notes)
    sections_at = strings_at + len(strings)
    ident = b"\x7fELF" + bytes([2, 1, 1, 64, 4]) + b"\0" * 7
    header = ident + struct.pack(
        "<HHIQQQIHHHHHH", 3, machine, 1, 0, 0, sections_at, 0, header_size, 0, 0, 64, 3, 2
    )

    def section(name_at: int, kind: int, offset: int, size: int) -> bytes:
        return struct.pack("<IIQQQQIIQQ", name_at, kind, 0, 0, offset, size, 0, 0, 4, 0)

    table = (
        bytes(64)
        + section(1, SHT_NOTE, notes_at, len(notes))
        + section(7, SHT_STRTAB, strings_at, len(strings))
    )
    return header + notes + strings + table
