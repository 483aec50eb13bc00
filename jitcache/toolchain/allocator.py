"""A faster memory allocator, preloaded into the compiler alone.

clang spends a tenth of its time in the C library's `malloc` (docs/compile-time.md). mimalloc,
jemalloc and tcmalloc do the same work in less, and the compiler's output has the same bytes:
which one runs is in no key. A library that can't be loaded is not taken: the loader would only
warn, once per process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from jitcache.errors import InputError, UsageError
from jitcache.userconfig import user_config

VARIABLE = "JITCACHE_ALLOCATOR"
"""Names an allocator for this process: `auto`, `off`, one of `LIBRARIES`, or a library's path."""

LIBRARIES = {
    "mimalloc": ("libmimalloc.so.3", "libmimalloc.so.2"),
    "jemalloc": ("libjemalloc.so.2",),
    "tcmalloc": ("libtcmalloc_minimal.so.4", "libtcmalloc.so.4"),
}
"""Names of their shared libraries, the one that saves most first."""

WORDS = ("auto", "off", *LIBRARIES)

_PLACES = ("usr/local/lib", "usr/lib/*-linux-gnu", "usr/lib64", "usr/lib", "lib64")
_ELF_HEADER = 20


@dataclass(frozen=True, slots=True)
class Allocator:
    """An allocator that the compiler will run with.

    Attributes:
        name: for people.
        path: its shared library.
    """

    name: str
    path: Path

    @property
    def env(self) -> tuple[tuple[str, str], ...]:
        """Variables for the compiler's environment."""
        return (("LD_PRELOAD", str(self.path)),)


@dataclass(frozen=True, slots=True)
class SystemAllocator:
    """The compiler runs with the C library's allocator.

    Attributes:
        reason: why, for people.
    """

    reason: str
    env: tuple[tuple[str, str], ...] = ()


def wished(flag: str | None, environ: Mapping[str, str]) -> str:
    """What the user wants: by flag, by variable, by `[build] allocator` of config.toml; `auto`.

    Raises:
        InputError: the configuration is malformed, or can't be believed.
    """
    return flag or environ.get(VARIABLE) or _configured()


def find_allocator(
    wish: str, compiler: Path, *, root: Path = Path("/")
) -> Allocator | SystemAllocator:
    """The allocator to preload into a compiler.

    Args:
        wish: `auto`: the best that is installed; `off`: none; a name of `LIBRARIES`; or the
            absolute path of a shared library with a `malloc` of its own.
        compiler: the library must be for the same kind of machine.
        root: what stands for `/` in the search.

    Raises:
        UsageError: a library that was asked for by name or path isn't there, or doesn't fit.
    """
    if wish == "off":
        return SystemAllocator("switched off")
    machine = _elf_machine(compiler)
    if wish.startswith("/"):
        path = Path(wish)
        if machine is not None and _elf_machine(path) != machine:
            raise UsageError(
                "is no shared library that this compiler can load",
                where=wish,
                hint=f"--allocator takes {', '.join(WORDS)} or the path of one",
            )
        return Allocator(path.name, path)
    if wish != "auto" and wish not in LIBRARIES:
        raise UsageError(
            f"no allocator is called {wish!r}",
            hint=f"there are {', '.join(WORDS)}, or give the absolute path of a library",
        )
    names = tuple(LIBRARIES) if wish == "auto" else (wish,)
    if machine is not None:
        for name in names:
            for path in _candidates(name, root):
                if _elf_machine(path) == machine:
                    return Allocator(name, path)
    if wish != "auto":
        raise UsageError(
            f"{wish} is not installed",
            hint=f"install {LIBRARIES[wish][-1]}, or take --allocator auto",
        )
    if machine is None:
        return SystemAllocator(f"{compiler} is no program that takes one")
    return SystemAllocator(f"none of {', '.join(LIBRARIES)} is installed")


def _candidates(name: str, root: Path) -> Iterator[Path]:
    for library in LIBRARIES[name]:
        for place in _PLACES:
            yield from sorted(root.glob(f"{place}/{library}"))


def _elf_machine(path: Path) -> bytes | None:
    """What an ELF file is for: class, byte order and machine; None for anything else."""
    try:
        with path.open("rb") as f:
            head = f.read(_ELF_HEADER)
    except OSError:
        return None
    return head[4:6] + head[18:20] if head[:4] == b"\x7fELF" and len(head) == _ELF_HEADER else None


def _configured() -> str:
    where, document = user_config()
    build = document.get("build", {})
    value = build.get("allocator", "auto") if isinstance(build, dict) else None
    if not isinstance(value, str) or not value or set(build) - {"allocator"}:
        raise InputError('[build] holds nothing but allocator = "..."', where=where)
    return value
