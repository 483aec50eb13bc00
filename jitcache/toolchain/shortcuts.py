"""Whether kernels are compiled with our replacements of CK's hottest templates.

`csrc/jitcache/shortcuts` gives the compiler less to instantiate for the same machine code. That
it is the same is no law but an observation, made by comparing code objects for one CK, one
compiler and one version of HIP's headers; with any other, CK is compiled as it is. Whether they
are in use is a macro, and so a flag in every key; docs/compile-time.md has the figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

MACRO = "-DJITCACHE_CK_SHORTCUTS"
"""What makes `jitcache/shortcuts/begin.hpp` do something, in device passes."""

VARIABLE = "JITCACHE_SHORTCUTS"
"""Set to `off`, it leaves the shortcuts out."""


class Proof(NamedTuple):
    """What the same code was seen with; or what a toolchain has, to be looked for among these.

    Attributes:
        ck: digest of all headers below `ck/`, since a whole kernel was compared, of which the
            replaced templates are the least part. No commit: files may have been edited.
        compiler: whose build of which clang (`compiler.build_of`): a version alone is also that
            of AMD's fork, and a digest would end with every package of the distribution.
        hip: version of HIP's headers.
    """

    ck: str
    compiler: str
    hip: str


PROVED = frozenset(
    {
        # CK of amd-aiter 0.1.7.post2.dev18, Debian's clang and HIP.
        Proof(
            "sha256:92d4b5fefdec43731d716c456d69dbb7f6b19af8d069f3671ff62ae763cb7233",
            "Debian clang version 22.1.8",
            "5.2.21153",
        ),
    }
)
"""With what the code is the same. docs/compile-time.md says how another one gets here."""


class Shortcuts(NamedTuple):
    """The decision.

    Attributes:
        used: whether kernels are compiled with them.
        detail: why not, for people; "" where they are used.
    """

    used: bool
    detail: str = ""

    @property
    def flags(self) -> tuple[str, ...]:
        """What to add to the flags of device passes."""
        return (MACRO,) if self.used else ()


def decide(met: Proof, environ: Mapping[str, str]) -> Shortcuts:
    """Whether to use them. Pure.

    Args:
        met: what this toolchain has.
        environ: may hold `JITCACHE_SHORTCUTS`.
    """
    if environ.get(VARIABLE) == "off":
        return Shortcuts(False, f"{VARIABLE} is off")
    if met in PROVED:
        return Shortcuts(True)
    said = {
        "ck": f"these CK headers ({met.ck[:19]})",
        "compiler": met.compiler,
        "hip": f"HIP headers {met.hip}",
    }
    strange = [
        words
        for field, words in said.items()
        if getattr(met, field) not in {getattr(proof, field) for proof in PROVED}
    ]
    return Shortcuts(False, f"not proved with {' or '.join(strange or ['all of these together'])}")
