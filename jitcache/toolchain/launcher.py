"""A compiler launcher: `ccache` or `sccache` before the compiler's command line.

Which launcher runs is in no key. It may only hand out what the same compiler wrote for the same
inputs, and to be sure of that it is told what it doesn't look at by itself: the digest of
every part of the toolchain, device libraries and flags' probes included. The compiler's
output doesn't depend on being launched, either, because our flags have `-fuse-cuid=none`:
otherwise clang writes a hash of its own command line, which launchers change, into the object.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jitcache import digest
from jitcache.errors import UsageError
from jitcache.toolchain.model import Toolchain

LAUNCHERS = ("ccache", "sccache")

_PASSED_ON = {
    "ccache": ("CCACHE_DIR", "CCACHE_MAXSIZE", "CCACHE_REMOTE_STORAGE", "CCACHE_REMOTE_ONLY"),
    "sccache": ("SCCACHE_", "AWS_", "XDG_CACHE_HOME"),
}
"""Prefixes of the user's variables that a launcher gets: where its cache is, nothing that
makes it take something for the same that isn't."""


@dataclass(frozen=True, slots=True)
class Launcher:
    """A launcher that was found.

    Attributes:
        words: stand before the compiler.
        env: variables that it needs.
    """

    words: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()


def find_launcher(name: str | None, toolchain: Toolchain, environ: Mapping[str, str]) -> Launcher:
    """The launcher to compile with; the server of `sccache` runs afterwards.

    Args:
        name: one of `LAUNCHERS`; none, where it is None.
        toolchain: what it will launch.
        environ: where its cache is, and the path to find it on.

    Raises:
        UsageError: it isn't installed.
    """
    if name is None:
        return Launcher()
    import shutil

    path = shutil.which(name, path=environ.get("PATH"))
    if path is None:
        raise UsageError(
            f"{name} is not installed", hint=f"install it, or leave --launcher {name} out"
        )
    passed = {
        variable: value
        for variable, value in sorted(environ.items())
        if variable.startswith(_PASSED_ON[name])
    }
    identity = digest.of_json({p.name: p.digest for p in toolchain.parts if p.digest})
    if name == "ccache":
        # No configuration file of the user: `sloppiness` there would be ours.
        passed |= {"CCACHE_COMPILERCHECK": f"string:{identity}", "CCACHE_CONFIGPATH": "/dev/null"}
        # ccache takes a word of ours that begins with -g for debug information, which would
        # hold the working directory. There is none, and each run has a directory of its own.
        passed["CCACHE_NOHASHDIR"] = "1"
        passed |= {} if "CCACHE_DIR" in passed else _default_ccache(environ)
    else:
        passed["SCCACHE_C_CUSTOM_CACHE_BUSTER"] = identity
        _start_server(path, environ)
    return Launcher((path,), tuple(passed.items()))


def _start_server(path: str, environ: Mapping[str, str]) -> None:
    """Start sccache's server, unless it runs: from a run directory it can't be.

    It tells its starter that it is ready by a socket below TMPDIR, and those of our runs are
    longer than a socket's path may be.
    """
    import subprocess

    subprocess.run([path, "--start-server"], env=dict(environ), capture_output=True, check=False)


def _default_ccache(environ: Mapping[str, str]) -> dict[str, str]:
    # ccache finds it by XDG_CACHE_HOME or HOME; compilers get only the second.
    place = environ.get("XDG_CACHE_HOME", "")
    return {"CCACHE_DIR": f"{place}/ccache"} if place.startswith("/") else {}
