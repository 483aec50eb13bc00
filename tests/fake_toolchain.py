"""A toolchain of a fake compiler and a small CK tree, for tests of keys and prebuild."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from jitcache import digest
from jitcache.toolchain.model import IncludeRoot, Part, Toolchain

ROOT = Path(__file__).parent.parent
CSRC = ROOT / "csrc"


def make_ck(directory: Path) -> Path:
    """A tree with a header for every one that our csrc includes from CK."""
    import re

    wanted = set()
    for file in CSRC.rglob("*.[hH]*"):
        wanted |= set(re.findall(r'#include "(ck/[^"]+)"', file.read_text()))
    for name in wanted:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"// {name}\n")
    return directory


def make_toolchain(
    place: Path,
    *,
    sleep: float = 0,
    fail: str = "",
    flags: tuple[str, ...] = (),
    compiler: str = "compiler-1",
    csrc: Path = CSRC,
    arch: str = "gfx950",
    no_shortcuts: str = "",
) -> Toolchain:
    """The toolchain; its compile log is `place/compiles`, its CK `place/ck`.

    What only steers the fake compiler stands in path_flags, which are in no key.
    """
    ck = place / "ck"
    if not ck.exists():
        make_ck(ck)
    wrapper = place / "clang"
    if not wrapper.exists():
        _write_program(wrapper, "fake_clang")
    steering = [f"-DFAKE_LOG={place / 'compiles'}", f"-DFAKE_SLEEP={sleep}"]
    if fail:
        steering.append(f"-DFAKE_FAIL={fail}")
    return Toolchain(
        provider="llvm",
        id=f"fake-{compiler}",
        compiler=wrapper,
        parts=(
            Part("clang", wrapper, "1", digest.of_bytes(compiler.encode())),
            Part("host-runtime", wrapper, "1", digest.of_bytes(b"runtime"), host_only=True),
            Part("ck", ck, "1", ""),
        ),
        include_roots=(IncludeRoot("csrc", csrc, "-I"), IncludeRoot("ck", ck, "-isystem")),
        base_flags=("-O3", f"--offload-arch={arch}", *flags),
        path_flags=tuple(steering),
        device_flags=("-mllvm", "-x"),
        host_flags=("-fPIC",),
        hip_version=(7, 1),
        ck_commit="test",
        no_shortcuts=no_shortcuts,
    )


def add_bitcode_tools(place: Path) -> None:
    """The programs that packed compiles and sweeps need, beside the compiler."""
    for name in ("llvm-extract", "llvm-nm", "opt", "llvm-objdump"):
        _write_program(place / name, "fake_bitcode")


def _write_program(path: Path, module: str) -> None:
    """A program that runs `main(path, words)` of a module beside this one."""
    # Imported, not run as a script: so its bytecode is kept.
    code = f"import sys; sys.path.insert(0, '{ROOT}'); from tests.{module} import main"
    code += "; sys.exit(main(sys.argv[1], sys.argv[2:]))"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S -c "{code}" "$0" "$@"\n')
    path.chmod(0o755)


def compiles(place: Path) -> list[str]:
    """Names of the sources that were compiled, in order."""
    log = place / "compiles"
    return log.read_text().splitlines() if log.exists() else []


def copy_csrc(to: Path) -> Path:
    """A second checkout's csrc."""
    shutil.copytree(CSRC, to)
    return to
