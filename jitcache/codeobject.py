"""Facts of an AMDGPU code object: architecture, kernels, registers, LDS, argument size.

Source: LLVM's AMDGPUUsage, "Code Object V3 and above": a note of owner `AMDGPU`, type
`NT_AMDGPU_METADATA` (32), whose description is MessagePack.
"""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jitcache.errors import InputError

_NT_AMDGPU_METADATA = 32
_EM_AMDGPU = "EM_AMDGPU"

_MACH = {
    0x2F: "gfx906",
    0x30: "gfx908",
    0x3F: "gfx90a",
    0x40: "gfx940",
    0x4B: "gfx941",
    0x4C: "gfx942",
    0x4F: "gfx950",
}
"""EF_AMDGPU_MACH, the low byte of the ELF header's flags (AMDGPUUsage, "ELF header")."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel of a code object.

    Attributes:
        symbol: mangled name of the kernel function; what `hipModuleGetFunction` wants.
        kernarg_size: bytes of its argument segment that the launch must supply.
        vgprs: vector registers, accumulation registers included.
        agprs: accumulation registers.
        sgprs: scalar registers.
        vgpr_spills: spilled vector registers.
        sgpr_spills: spilled scalar registers.
        lds: bytes of LDS fixed at compile time.
        scratch: bytes of private memory per thread.
        workgroup: largest number of threads it may be launched with.
    """

    symbol: str
    kernarg_size: int
    vgprs: int
    agprs: int
    sgprs: int
    vgpr_spills: int
    sgpr_spills: int
    lds: int
    scratch: int
    workgroup: int

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class CodeObject:
    """What a code object states of itself.

    Attributes:
        arch: processor, e.g. `gfx950`.
        features: target features after the processor, e.g. `("sramecc+", "xnack-")`.
        kernels: in the order of the metadata, helper kernels without arguments left out.
    """

    arch: str
    features: tuple[str, ...]
    kernels: tuple[Kernel, ...]


def read(source: Path | bytes) -> CodeObject:
    """Read a code object's metadata.

    Args:
        source: a file, or the bytes of one.

    Raises:
        InputError: it can't be read, or is not an AMDGPU code object.
    """
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile
    from elftools.elf.sections import NoteSection

    where = str(source) if isinstance(source, Path) else "code object"
    try:
        data = source.read_bytes() if isinstance(source, Path) else source
    except OSError as e:
        raise InputError(f"can't be read: {e.strerror}", where=where) from e
    try:
        elf = ELFFile(io.BytesIO(data))
        if elf["e_machine"] != _EM_AMDGPU:
            raise InputError(f"is for {elf['e_machine']}, not an AMD GPU", where=where)
        for section in elf.iter_sections():
            for note in section.iter_notes() if isinstance(section, NoteSection) else ():
                kind: object = note["n_type"]
                if kind == _NT_AMDGPU_METADATA and note["n_name"] == "AMDGPU":
                    return _parse(note["n_descdata"], where, elf["e_flags"])
    except (ELFError, ValueError, KeyError, IndexError, TypeError, UnicodeDecodeError) as e:
        raise InputError(
            f"is not a well-formed AMDGPU code object ({e or type(e).__name__})",
            where=where,
            hint="rebuild it, or check how it was copied here",
        ) from e
    raise InputError("has no AMDGPU metadata note", where=where)


def _parse(note: bytes, where: str, flags: int) -> CodeObject:
    import msgspec

    try:
        metadata = msgspec.msgpack.decode(note)
        if "amdhsa.target" in metadata:
            arch, *features = metadata["amdhsa.target"].rsplit("--", 1)[1].split(":")
        else:
            arch, features = _from_flags(flags)
        kernels = tuple(
            Kernel(
                symbol=k[".symbol"].removesuffix(".kd"),
                kernarg_size=k[".kernarg_segment_size"],
                vgprs=k[".vgpr_count"],
                agprs=k.get(".agpr_count", 0),
                sgprs=k[".sgpr_count"],
                vgpr_spills=k.get(".vgpr_spill_count", 0),
                sgpr_spills=k.get(".sgpr_spill_count", 0),
                lds=k[".group_segment_fixed_size"],
                scratch=k[".private_segment_fixed_size"],
                workgroup=k[".max_flat_workgroup_size"],
            )
            for k in metadata["amdhsa.kernels"]
            # CK's headers bring a `flush_icache` kernel along that takes no argument.
            if k[".kernarg_segment_size"] > 0
        )
    except (msgspec.MsgspecError, KeyError, IndexError, TypeError, AttributeError) as e:
        raise InputError(f"has malformed AMDGPU metadata ({e})", where=where) from e
    return CodeObject(arch=arch, features=tuple(features), kernels=kernels)


def _from_flags(flags: int) -> tuple[str, list[str]]:
    """Processor and target features from the ELF header's flags.

    Hand-written kernels often carry metadata of version 1.0, which has no target.

    Raises:
        KeyError: the processor is none that we know.
    """
    features = []
    for name, shift in (("sramecc", 10), ("xnack", 8)):
        state = flags >> shift & 3  # 0 unsupported, 1 any, 2 off, 3 on
        if state > 1:
            features.append(name + ("+" if state == 3 else "-"))
    return _MACH[flags & 0xFF], features
