"""What a toolchain is: the parts that turn a translation unit into a code object.

A `Toolchain` is found once per process by a provider (`rocm`, `llvm`) and is pure data: the
build writes its command lines from it and the action key takes its digests. Paths never
enter a key; digests and names do.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ProviderName = Literal["rocm", "llvm"]


@dataclass(frozen=True, slots=True)
class Part:
    """One found part of a toolchain.

    Attributes:
        name: `clang`, `lld`, `hip-headers`, `device-libs`, `ck`, ...
        path: file or directory.
        version: as the part states it, or "" where it states none.
        digest: digest of its content (of the sorted listing with digests, for a directory);
            "" for header trees, whose files enter each key one by one.
        host_only: whether it goes into host shims only, not into code objects.
    """

    name: str
    path: Path
    version: str
    digest: str
    host_only: bool = False


@dataclass(frozen=True, slots=True)
class IncludeRoot:
    """A directory of headers with the stable name it has in keys.

    Attributes:
        name: `ck`, `ck-config`, `csrc`, `hip`, `clang`, `system`...; the header
            `<path>/ck/ck.hpp` is `ck/ck/ck.hpp` in a key.
        path: the directory.
        flag: how the compiler is told (`-I`, `-isystem`), or None where it finds it itself.
    """

    name: str
    path: Path
    flag: str | None


@dataclass(frozen=True, slots=True)
class Toolchain:
    """A complete toolchain for one GPU architecture.

    Attributes:
        provider: which provider found it.
        id: `llvm-22.1.8-hip5.2-ck<12 hex>-<12 hex>`: readable, and unique through the digest
            of all parts and flags at its end.
        compiler: the clang driver.
        parts: everything that was found, for `doctor` and for the key.
        include_roots: header directories in search order.
        base_flags: flags of every compile (language, macros, rocm paths), without include
            flags; entries that hold a machine's path are in `path_flags` instead.
        path_flags: flags that name local paths (`--rocm-path=...`): on the command line,
            never in a key.
        device_flags: flags of device passes (optimisation, probed -mllvm flags).
        host_flags: flags of host-only compiles.
        hip_version: (major, minor) of the HIP headers.
        ck_commit: what is known of CK's origin: a commit, or a digest of its headers.
        rejected_flags: optional flags that this compiler does not know, for `doctor`.
        no_shortcuts: why kernels are compiled without our shortcuts, for `doctor`; "" where
            they are compiled with them.
    """

    provider: ProviderName
    id: str
    compiler: Path
    parts: tuple[Part, ...]
    include_roots: tuple[IncludeRoot, ...]
    base_flags: tuple[str, ...]
    path_flags: tuple[str, ...]
    device_flags: tuple[str, ...]
    host_flags: tuple[str, ...]
    hip_version: tuple[int, int]
    ck_commit: str
    rejected_flags: tuple[str, ...] = ()
    no_shortcuts: str = ""

    @property
    def compiler_name(self) -> str:
        """Name and version of the compiler: `clang 22.1.8`."""
        return f"clang {next((p.version for p in self.parts if p.name == 'clang'), '')}"
