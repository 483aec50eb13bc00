"""An AITER tree: which AITER it is, by the files that the AITER dialect must fit.

The dialect's text is compiled together with AITER's own files: its entry point includes our
headers, our instance files use its macros and template arguments, and the choice of kernels
repeats its generator's. Another AITER may differ in any of these without a compile error, so
a tree is known by the digests of those files or it is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jitcache import digest
from jitcache.errors import InputError, UnsupportedError

CODEGEN = Path("csrc/ck_gemm_moe_2stages_codegen")
"""Where the generator is in a checkout, and below `aiter_meta/` in a wheel."""

_LAYOUTS = (CODEGEN, Path("aiter_meta") / CODEGEN)

KNOWN: dict[str, dict[str, str]] = {
    "9bab8388": {
        "gen_instances.py": "06e8c3b04a41273784848cf9e65814d3bcdd077041bbf0ecc272515387e970dd",
        "gemm_moe_ck2stages_common.py": (
            "7133d943eb0e4366d930d5de81292341430e459d18efdb68c347b904f76df9c8"
        ),
        "gemm_moe_ck2stages.cu": (
            "85cc2ce19708fc0d96ab8cb049b7d5899dfd1b3bddc789b78c263b7ce9a36678"
        ),
        "gemm_moe_ck2stages.h": (
            "8a0fb31d1612b64b4b1174a2f3b4147c963c0da9e954404dfb26fc721566d6c9"
        ),
        "gemm_moe_ck2stages_common.cuh": (
            "a4eeddd1360fb2a2071bf5bb02584ce74c9a0981e5f67966e25428e8fd144337"
        ),
        "gemm_moe_ck2stages_common_blockscale.cuh": (
            "dcd3c2745620b5c73ff5a4612d9124593588fe7a923263b5d5fbcd9eddf7cc7c"
        ),
        "gemm_moe_ck2stages_common_mxfp4.cuh": (
            "a860050f8637f856fae6d006f07d0a14c4e6e1dcef13764eb5c26a1425752e7f"
        ),
        "gemm_moe_ck2stages_common_mxfp4_bns.cuh": (
            "4f2317578805a36967e6c010804fedd6b80ebc65981d55ab23012bcad8fdb9c4"
        ),
    },
}
"""SHA-256 of the generator's files and of what its output is compiled with, by commit."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A file that isn't as in the nearest known AITER.

    Attributes:
        name: file name in the generator's directory.
        found: its digest; None where the file is missing.
        known: the digest it has in the known AITER.
    """

    name: str
    found: str | None
    known: str

    def __str__(self) -> str:
        found = "is missing" if self.found is None else f"is {self.found}"
        return f"{self.name} {found}, expected {self.known}"


@dataclass(frozen=True, slots=True)
class KnownTree:
    """A tree whose files are those of a known AITER.

    Attributes:
        directory: the generator's directory.
        commit: AITER's commit, abbreviated.
    """

    directory: Path
    commit: str


@dataclass(frozen=True, slots=True)
class UnknownTree:
    """A tree that isn't a known AITER.

    Attributes:
        directory: the generator's directory.
        nearest: the known commit that it shares most files with.
        differences: the files that differ from that one.
    """

    directory: Path
    nearest: str
    differences: tuple[Difference, ...]


def identify(tree: Path) -> KnownTree | UnknownTree:
    """Tell which AITER a checkout or an unpacked wheel is, by reading its files.

    Args:
        tree: a checkout, a directory with `aiter_meta` in it (site-packages, an unpacked
            wheel), `aiter_meta` itself, or the generator's directory.

    Raises:
        InputError: there is no CK2stages generator, or a file can't be read.
    """
    directory = _find(tree)
    found: dict[str, str | None] = {}
    for name in sorted({name for files in KNOWN.values() for name in files}):
        try:
            found[name] = digest.of_file(directory / name)
        except FileNotFoundError:
            found[name] = None
        except OSError as e:
            raise InputError(
                f"can't read this file of AITER's generator: {e.strerror}",
                where=str(directory / name),
            ) from e
    candidates = {commit: _differences(found, files) for commit, files in KNOWN.items()}
    nearest = min(candidates, key=lambda commit: len(candidates[commit]))
    if candidates[nearest]:
        return UnknownTree(directory, nearest, candidates[nearest])
    return KnownTree(directory, nearest)


def require(tree: Path, commit: str) -> KnownTree:
    """Identify a tree and refuse any but one AITER.

    Args:
        tree: as for `identify`.
        commit: the AITER that the dialect is for, a key of `KNOWN`.

    Raises:
        UnsupportedError: the tree is another AITER; names the files and their digests.
        InputError: as `identify`.
    """
    details: tuple[str, ...] = ()
    match identify(tree):
        case KnownTree(commit=found) as known if found == commit:
            return known
        case KnownTree(directory=directory, commit=found):
            what = f"this is AITER {found}"
        case UnknownTree(directory=directory, differences=differences):
            what = "the CK2stages generator here isn't one that jitcache knows"
            details = tuple(map(str, differences))
    raise UnsupportedError(
        f"{what}; the AITER dialect is for {commit}",
        where=str(directory),
        details=details,
        hint=f"use AITER {commit}, or its own generator; a kernel list made for another AITER "
        "could dispatch other kernels than it expects",
    )


def _find(tree: Path) -> Path:
    places = [tree, *(tree / layout for layout in _LAYOUTS)]
    for place in places:
        if (place / "gen_instances.py").is_file() and place.name == CODEGEN.name:
            return place
    raise InputError(
        "no CK2stages generator here",
        where=str(tree),
        details=tuple(f"looked for {place / 'gen_instances.py'}" for place in places[1:]),
        hint="name an AITER checkout, an unpacked amd-aiter wheel or its aiter_meta directory",
    )


def _differences(found: dict[str, str | None], files: dict[str, str]) -> tuple[Difference, ...]:
    return tuple(
        Difference(name, found[name], f"sha256:{known}")
        for name, known in files.items()
        if found[name] != f"sha256:{known}"
    )
