"""Running jitcache as a container does, without a container engine.

A root file system of Python, its libraries and jitcache, and nothing else: no compiler, no CK,
no shell, no home, nothing writable, no network, a user id that nobody knows.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent
UID = 54321
SEED = "/opt/jitcache/seed"
_PYTHON = "/opt/python/bin/python3"
_NEEDED = ("click", "msgspec", "zstandard", "cryptography", "_cffi_backend", "filelock")
_OPTIONAL = ("obstore",)
_SYSTEM = (
    *("/lib64", "/usr/lib64", "/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu"),
    *("/etc/ssl/certs", "/usr/share/ca-certificates"),
)


def needs_namespaces() -> None:
    """Skip where we may not make a mount namespace and become another user."""
    if os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("chroot") is None:
        pytest.skip("needs root, unshare and chroot")
    if subprocess.run(["unshare", "--mount", "--net", "true"], capture_output=True).returncode:
        pytest.skip("this machine allows no namespaces")


@dataclass
class Container:
    """What is started as containers of one image.

    Attributes:
        place: an empty directory; the root file system is mounted there, for us alone.
        volumes: directories and files, by the path where they are mounted read-only.
        writable: directories that are mounted writable.
        env: the environment, besides an empty PATH.
        network: whether loopback can be reached, as a registry in tests has to be.
        noexec: volumes from which nothing can be mapped as code.
    """

    place: Path
    volumes: dict[str, Path] = field(default_factory=dict)
    writable: dict[str, Path] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    network: bool = False
    noexec: frozenset[str] = frozenset()

    def python(self, *words: object) -> subprocess.CompletedProcess[str]:
        """Run Python in it."""
        root = shlex.quote(str(self.place))
        script = [f"mount -t tmpfs -o mode=755 tmpfs {root}", f"cd {root}"]
        mounted = {**_image(), **self.volumes, **self.writable}
        script += _mount_points(mounted)
        for target, source in mounted.items():
            how = "rw" if target in self.writable else "ro"
            if target in self.noexec:
                how += ",noexec"
            at = shlex.quote(f".{target}")
            script.append(f"mount -o bind,{how} {shlex.quote(str(source.resolve()))} {at}")
        script.append(f"mount -o remount,ro {root}")
        # An absolute path, because what is run must find nothing on its own PATH.
        run = ["env", "PATH=/nonexistent", str(shutil.which("chroot")), f"--userspec={UID}:0"]
        run += [str(self.place), _PYTHON, *map(str, words)]
        script.append("exec " + shlex.join(run))
        self.place.mkdir(exist_ok=True)
        return subprocess.run(
            [
                *("unshare", "--mount", "--propagation", "private"),
                *(() if self.network else ("--net",)),
                *("sh", "-ec", "\n".join(script)),
            ],
            env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "LD_LIBRARY_PATH": "/opt/python/lib",
                "PYTHONPATH": "/opt/jitcache-source:/opt/packages",
                "PYTHONDONTWRITEBYTECODE": "1",
                "JITCACHE_DIR": "/nonexistent/store",
                **self.env,
            },
            capture_output=True,
            text=True,
        )

    def jitcache(self, *words: object) -> subprocess.CompletedProcess[str]:
        """Run a command of jitcache in it."""
        return self.python("-m", "jitcache", *words)


def _mount_points(mounted: dict[str, Path]) -> list[str]:
    """Commands that make what is mounted over, below the current directory."""
    files = [t for t, source in mounted.items() if not source.is_dir()]
    directories = [t for t in mounted if t not in files] + [str(Path(t).parent) for t in files]
    # A few processes for all: containers are started by the dozen.
    return [
        "mkdir -p " + shlex.join(f".{d}" for d in directories),
        "touch " + shlex.join(f".{f}" for f in files),
    ]


@functools.cache
def _image() -> dict[str, Path]:
    """What the image of every container holds."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    base = Path(sys.base_prefix)
    found = {
        "/proc": Path("/proc"),
        _PYTHON: base / "bin" / version,
        f"/opt/python/lib/{version}": base / "lib" / version,
    }
    for library in base.glob(f"lib/lib{version}*.so.*"):
        found[f"/opt/python/lib/{library.name}"] = library
    for name in ("jitcache", "codegen", "csrc", "manifests"):
        found[f"/opt/jitcache-source/{name}"] = CHECKOUT / name
    for name in (*_NEEDED, *_OPTIONAL):
        spec = importlib.util.find_spec(name)
        if spec is None and name in _OPTIONAL:
            continue
        assert spec is not None, name
        assert spec.origin is not None, name
        origin = Path(spec.origin)
        source = origin.parent if origin.name == "__init__.py" else origin
        found[f"/opt/packages/{source.name}"] = source
    for directory in map(Path, _SYSTEM):
        if directory.is_dir():
            found[str(directory)] = directory
    return found
