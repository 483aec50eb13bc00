"""Running jitcache as a container does, without a container engine.

A root file system of Python, its libraries and jitcache, and nothing else: no compiler, no CK,
no shell, no home, nothing writable, no network, a user id that nobody knows.
"""

from __future__ import annotations

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
        script = [f"mount -t tmpfs -o mode=755 tmpfs {root}"]
        for target, source in {**_image(), **self.volumes}.items():
            script += _mount(root, target, source, "ro,noexec" if target in self.noexec else "ro")
        for target, source in self.writable.items():
            script += _mount(root, target, source, "rw")
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


def _mount(root: str, target: str, source: Path, how: str) -> list[str]:
    at, what = f"{root}{shlex.quote(target)}", shlex.quote(str(source.resolve()))
    make = f"mkdir -p {at}" if source.is_dir() else f"mkdir -p $(dirname {at}); touch {at}"
    return [make, f"mount --bind {what} {at}", f"mount -o remount,bind,{how} {at}"]


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
