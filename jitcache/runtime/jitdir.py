"""Where AITER's loader finds modules, and making it find ours where its directory is read-only.

AITER (9bab8388, aiter/jit/core.py:406-418 and 574-582; the releases of 2025 alike) imports
`<module name>` from AITER_JIT_DIR where that is set, and else `aiter.jit.<module name>`, which
Python looks for in `aiter.jit.__path__`: in AITER's own directory. If it can't write there it
builds below the home directory instead, but imports from its own all the same. Such an install
may hold modules that were compiled with it, which AITER_JIT_DIR would hide. So there a file
`.pth` of a site directory has Python look for the modules of CK2stages in a directory of ours
first, as if that stood at the front of `aiter.jit.__path__`.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import site
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jitcache.errors import InputError
from jitcache.store.durable import replace_file

DIRECTORY_VARIABLE = "AITER_JIT_DIR"
MARK = "# Installed by jitcache. `jitcache aiter uninstall` removes it.\n"
"""First line of every Python file that we install."""
MODULES = "module_moe_ck2stages_"
"""What the names of AITER's modules of CK2stages kernels begin with."""

_HOOK = "jitcache_aiter"
_HOOK_TEXT = f'''\
{MARK}"""Has Python find AITER's modules in this directory before AITER's own."""

import sys
from importlib.machinery import PathFinder


class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.startswith("aiter.jit.{MODULES}"):
            return PathFinder.find_spec(name, __path__)
        return None


sys.meta_path.insert(0, Finder)
'''


@dataclass(frozen=True, slots=True)
class Place:
    """Where modules go, and where AITER looks and builds.

    Attributes:
        modules: directory that holds modules of ours.
        imported: directory whose modules AITER imports.
        builds: directory that AITER compiles into.
        hook: `.pth` file that has Python look in `modules`; None where AITER does by itself.
    """

    modules: Path
    imported: Path
    builds: Path
    hook: Path | None = None

    @classmethod
    def of(cls, directory: Path) -> Place:
        """One directory for all, as with AITER_JIT_DIR."""
        return cls(directory, directory, directory)

    @property
    def hook_works(self) -> bool:
        """Whether this Python has read the hook, where one is needed."""
        return self.hook is None or _HOOK in sys.modules

    def prepare(self) -> None:
        """Write the hook, where one is needed.

        Raises:
            StoreError: it can't be written.
        """
        if self.hook is None:
            return
        replace_file(self.modules / "__init__.py", _HOOK_TEXT.encode())
        # Last: Python reads it at every start, and what it imports has to be there.
        replace_file(self.hook, f"import {_HOOK}\n".encode())

    def clear(self) -> None:
        """Remove the hook, where there is one.

        Raises:
            OSError: it can't be removed.
        """
        if self.hook is None:
            return
        self.hook.unlink(missing_ok=True)
        if self.modules.exists():
            shutil.rmtree(self.modules)


def find_place() -> Place:
    """Where AITER's loader looks in this environment.

    Raises:
        InputError: AITER isn't installed and AITER_JIT_DIR isn't set, or neither AITER's own
            directory nor a site directory can be written.
    """
    if own := os.environ.get(DIRECTORY_VARIABLE):
        return Place.of(Path(own))
    package = aiter_package()
    if package is None:
        raise InputError(
            "AITER is not installed here",
            where=DIRECTORY_VARIABLE,
            hint="set it to a directory, here and where AITER runs, or give --jit-dir",
        )
    own_directory = package / "jit"
    if os.access(own_directory, os.W_OK):
        return Place.of(own_directory)
    directories = tuple(_site_directories())
    hooked = [d for d in directories if (d / f"{_HOOK}.pth").exists()]
    chosen = next(iter(hooked or [d for d in directories if can_write(d)]), None)
    if chosen is None:
        raise InputError(
            "AITER's own directory is read-only, and so is every site directory of this Python",
            where=str(own_directory),
            hint=f"set {DIRECTORY_VARIABLE} to a writable directory, here and where AITER runs;"
            " looked for a site directory in: " + ", ".join(map(str, directories)),
        )
    builds = Path.home() / ".aiter" / "jit"
    return Place(chosen / _HOOK, own_directory, builds, chosen / f"{_HOOK}.pth")


def aiter_package() -> Path | None:
    """Directory of the AITER that this Python would import; None where it has none."""
    spec = importlib.util.find_spec("aiter")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def _site_directories() -> Iterator[Path]:
    """Directories whose `.pth` files this Python reads, the environment's first."""
    yield Path(sysconfig.get_path("purelib"))
    if site.ENABLE_USER_SITE:
        yield Path(site.getusersitepackages())


def can_write(directory: Path) -> bool:
    """Whether files can be made in a directory, which need not exist yet."""
    there = next(d for d in (directory, *directory.parents) if d.exists())
    return os.access(there, os.W_OK)
