"""The compiler command of a translation unit. Pure.

Device code is compiled alone, without a host pass and without bundling, to a plain code
object; a host shim is compiled without any device pass and must link without HIP.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jitcache.toolchain.model import Toolchain

Kind = Literal["device", "host-shim"]

_DEVICE = ("--cuda-device-only", "--no-gpu-bundle-output")
_HOST = (
    "--cuda-host-only",
    "-shared",
    "-fvisibility=hidden",
    # A container of a serving engine may lack the C++ runtime, or have an older one.
    "-static-libstdc++",
    "-static-libgcc",
    "-Wl,--exclude-libs,ALL",
    # A host shim that needs HIP would not load where it has to: fail at build time.
    "-Wl,-z,defs",
    "-Wl,--strip-all",
    "-Wl,--build-id=none",
)
# The driver writes no dependency file for a device-only compile, so the front end is asked.
_DEPENDENCIES = tuple(
    word
    for option in ("-dependency-file", "{depfile}", "-MT", "{output}", "-sys-header-deps")
    for word in ("-Xclang", option)
)
# CK's headers warn by the hundred; what matters is whether they compile.
_QUIET = ("-w",)


@dataclass(frozen=True, slots=True)
class Command:
    """A compiler command.

    Attributes:
        argv: the command line; `{source}`, `{output}`, `{depfile}` stand for paths.
        flags: the words of it that can change the output: they enter the key. No word of
            them holds a path of this machine.
        includes: name and kind of each include root, in search order; they enter the key.
    """

    argv: tuple[str, ...]
    flags: tuple[str, ...]
    includes: tuple[str, ...]


def compile_command(toolchain: Toolchain, kind: Kind) -> Command:
    """The command that makes a code object or a host shim."""
    own = (
        (*toolchain.device_flags, *_DEVICE) if kind == "device" else (*toolchain.host_flags, *_HOST)
    )
    flags = (*toolchain.base_flags, *own, *_QUIET)
    return Command(
        argv=(
            str(toolchain.compiler),
            *flags,
            *toolchain.path_flags,
            *_include_words(toolchain),
            *_DEPENDENCIES,
            "-o",
            "{output}",
            "{source}",
        ),
        flags=flags,
        includes=tuple(f"{r.flag} {r.name}" for r in toolchain.include_roots if r.flag),
    )


def scan_command(toolchain: Toolchain, kind: Kind) -> tuple[str, ...]:
    """The command that only finds out which headers a translation unit reads."""
    own = toolchain.device_flags if kind == "device" else toolchain.host_flags
    mode = "--cuda-device-only" if kind == "device" else "--cuda-host-only"
    return (
        str(toolchain.compiler),
        *toolchain.base_flags,
        *own,
        mode,
        *_QUIET,
        *toolchain.path_flags,
        *_include_words(toolchain),
        *_DEPENDENCIES,
        "-E",
        "-o",
        "{output}",
        "{source}",
    )


def launched(argv: tuple[str, ...], launcher: tuple[str, ...]) -> tuple[str, ...]:
    """A device compile behind a compiler launcher.

    Launchers keep an object only of a command with `-c`, and either don't know the front end's
    own option for a dependency file (sccache compiles without its cache then) or forget the
    file on a hit (ccache). A code object has the same bytes with and without both.
    """
    words = list(argv)
    start = words.index(_DEPENDENCIES[1]) - 1
    words[start : start + len(_DEPENDENCIES)] = ["-c"]
    return (*launcher, *words)


def _include_words(toolchain: Toolchain) -> tuple[str, ...]:
    return tuple(w for r in toolchain.include_roots if r.flag for w in (r.flag, str(r.path)))
