"""The environment that compilers and their tools run in. Pure.

There is one rule, for probes as for builds: a search path, a home, a place for temporary
files and a fixed language. Everything else stays out: `CPATH`, `CCC_OVERRIDE_OPTIONS`,
`ROCM_PATH`, `LD_PRELOAD`, `LD_LIBRARY_PATH` and their like change what is compiled behind the
command line's back, and would have to be in every key.
"""

from __future__ import annotations

from collections.abc import Mapping

PASSED_ON = ("PATH", "HOME")
"""Variables of the caller that a compiler gets."""

FIXED = {"LANG": "C", "LC_ALL": "C"}
"""What it gets besides: diagnostics in one language."""


def clean_environment(caller: Mapping[str, str], temporary: str | None = None) -> dict[str, str]:
    """The environment of a compiler.

    Args:
        caller: environment of this process.
        temporary: directory for temporary files; the caller's TMPDIR when not given.
    """
    env = {name: caller[name] for name in PASSED_ON if name in caller} | FIXED
    place = temporary or caller.get("TMPDIR")
    return env | ({"TMPDIR": place} if place else {})
