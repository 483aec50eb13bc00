"""Whether kernels are compiled with our replacements of CK's hottest templates.

`csrc/jitcache/shortcuts` gives the compiler less to instantiate for the same machine code. That
it is the same is no law but an observation, made by `tools/identity` for one CK and one
compiler; with any other, CK is compiled as it is. Whether they are in use is a macro, and
so a flag in every key; docs/compile-time.md has the figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

MACRO = "-DJITCACHE_CK_SHORTCUTS"
"""What makes `jitcache/shortcuts/begin.hpp` do something, in device passes."""

VARIABLE = "JITCACHE_SHORTCUTS"
"""Set to `off`, it leaves the shortcuts out."""

PROVED = frozenset(
    {
        # CK of amd-aiter 0.1.7.post2.dev18, Debian's clang.
        ("sha256:92d4b5fefdec43731d716c456d69dbb7f6b19af8d069f3671ff62ae763cb7233", "22.1.8"),
    }
)
"""CK (commit, or digest of its headers) and clang version for which the code is the same."""


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


def decide(ck_origin: str, clang_version: str, environ: Mapping[str, str]) -> Shortcuts:
    """Whether to use them. Pure.

    Args:
        ck_origin: CK's commit, or digest of its headers.
        clang_version: `22.1.8`.
        environ: may hold `JITCACHE_SHORTCUTS`.
    """
    if environ.get(VARIABLE) == "off":
        return Shortcuts(False, f"{VARIABLE} is off")
    if (ck_origin, clang_version) not in PROVED:
        return Shortcuts(False, f"not proved for this CK with clang {clang_version}")
    return Shortcuts(True)
