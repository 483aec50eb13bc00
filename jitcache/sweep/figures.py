"""What a kernel came to, as its metadata and its disassembly say. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from jitcache import codeobject, digest, identity


@dataclass(frozen=True, slots=True)
class Figures:
    """What a kernel asks of the hardware, and what it is made of.

    Attributes:
        vgprs: vector registers, accumulation registers included.
        agprs: accumulation registers.
        sgprs: scalar registers.
        vgpr_spills: spilled vector registers.
        sgpr_spills: spilled scalar registers.
        scratch: bytes of private memory per thread.
        lds: bytes of LDS.
        instructions: all of them, padding left out.
        waits: `s_waitcnt`.
        mfma: matrix instructions.
        code: digest of the instructions' text: equal for equal code.
    """

    vgprs: int
    agprs: int
    sgprs: int
    vgpr_spills: int
    sgpr_spills: int
    scratch: int
    lds: int
    instructions: int
    waits: int
    mfma: int
    code: str


def figures_of(code: codeobject.CodeObject, disassembly: str) -> Figures:
    """The figures of a code object with one kernel.

    Args:
        code: its metadata.
        disassembly: what `llvm-objdump -d` says of it.
    """
    (kernel,) = code.kernels
    instructions = identity.parse_disassembly(disassembly)[kernel.symbol]
    texts = [i.text for i in identity.without_tail(instructions)]
    mnemonics = [text.split()[0] for text in texts]
    return Figures(
        vgprs=kernel.vgprs,
        agprs=kernel.agprs,
        sgprs=kernel.sgprs,
        vgpr_spills=kernel.vgpr_spills,
        sgpr_spills=kernel.sgpr_spills,
        scratch=kernel.scratch,
        lds=kernel.lds,
        instructions=len(texts),
        waits=sum(m.startswith("s_waitcnt") for m in mnemonics),
        mfma=sum(m.startswith(("v_mfma", "v_smfmac")) for m in mnemonics),
        code=digest.of_json(texts),
    )
