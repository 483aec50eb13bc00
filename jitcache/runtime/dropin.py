"""Modules that AITER's own loader imports, in place of what it would compile.

AITER 9bab8388 (aiter/jit/core.py:574-582, 1412-1540) imports `<module name>` from AITER_JIT_DIR,
or `aiter.jit.<module name>`, and builds only if that raises ModuleNotFoundError. A package
directory is found before a shared object of the same name, so an installed module wins over
one that AITER compiled earlier, which stays where it is.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jitcache.errors import InputError, JitcacheError
from jitcache.lockfile import dump_lock, load_lock
from jitcache.runtime.load import load, open_module
from jitcache.runtime.stages import Stages
from jitcache.store.durable import replace_file
from jitcache.store.store import Store

DIRECTORY_VARIABLE = "AITER_JIT_DIR"
HOST_MEMORY_VARIABLE = "JITCACHE_HOST_MEMORY"
"""Set to 1 where the GPU reads host memory, or no GPU runs anything: see `Stages`."""

_MARK = "# Installed by jitcache. `jitcache aiter uninstall` removes it.\n"
_LOCK = "jitcache.lock.json"
_SHUFFLED_AT = 18
_OLD_LOCK_S = 600
_ELF_HEADER = 64

_TEXT = '''\
{mark}"""{name}: kernels of the lock beside this file."""

from pathlib import Path

try:
    from jitcache.runtime.dropin import attach
except ModuleNotFoundError as e:
    # A ModuleNotFoundError would make AITER compile the module instead.
    raise ImportError(f"jitcache is not importable here: {{e}}") from e

ck_moe_stage1, ck_moe_stage2 = attach("{name}", Path(__file__).with_name("{lock}"))
'''

_SIGNATURE = (
    "ck_moe_stage{s}({states}: torch.Tensor, w1: torch.Tensor, w2: torch.Tensor,"
    " sorted_token_ids: torch.Tensor, sorted_expert_ids: torch.Tensor,"
    " num_valid_ids: torch.Tensor, out: torch.Tensor, topk: int,"
    " kernelName: Optional[str] = None, w{s}_scale: Optional[torch.Tensor] = None,"
    " a{s}_scale: Optional[torch.Tensor] = None, block_m: Optional[int] = 32,"
    " sorted_weights: Optional[torch.Tensor] = None, quant_type: int = 0, activation: int = 0,"
    " splitk: {splitk} = 1, use_non_temporal_load: bool = False,"
    " dst_type: Optional[str] = None, is_shuffled: bool = True) -> None"
)

Stage = Callable[..., None]


def attach(name: str, lock: Path) -> tuple[Stage, Stage]:
    """The two functions of a module, as AITER calls them: 15 or 19 positional arguments.

    Their docs begin with a signature as pybind writes it, which AITER checks arguments by.

    Raises:
        JitcacheError: as `jitcache.load`; never ModuleNotFoundError, which AITER would answer
            by compiling.
    """
    module = load(lock, module=name)
    stages = Stages(module, host_memory=os.environ.get(HOST_MEMORY_VARIABLE) == "1")

    def made(stage: int) -> Stage:
        def call(*arguments: Any) -> None:
            # Older AITER doesn't say whether weights are shuffled; its module's name does.
            known: dict[str, Any] = {}
            if len(arguments) <= _SHUFFLED_AT:
                known["is_shuffled"] = module.spec.preshuffle
            stages.launch(stages.check(stage, *arguments, **known))

        call.__name__ = call.__qualname__ = f"ck_moe_stage{stage}"
        call.__doc__ = _SIGNATURE.format(
            s=stage,
            states="hidden_states" if stage == 1 else "inter_states",
            splitk="Optional[int]" if stage == 1 else "int",
        )
        return call

    return made(1), made(2)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something in AITER's directory.

    Attributes:
        kind: `installed`: a module of ours that loads; `broken`: one that doesn't;
            `shadowed`: a compiled module that ours is found before; `truncated`: a shared object
            that is cut off, and kills who loads it; `other-arch`: one for other GPUs;
            `stale-lock`: a lock that no builder has touched for ten minutes; `unwritable`: the
            directory can't be written.
        path: the file or directory.
        detail: what exactly, for people.
    """

    kind: Literal[
        "installed", "broken", "shadowed", "truncated", "other-arch", "stale-lock", "unwritable"
    ]
    path: Path
    detail: str


def jit_directory() -> Path:
    """Where AITER's loader looks for modules in this environment.

    Raises:
        InputError: AITER isn't installed and AITER_JIT_DIR isn't set, or its own directory is
            read-only.
    """
    if own := os.environ.get(DIRECTORY_VARIABLE):
        return Path(own)
    spec = importlib.util.find_spec("aiter")
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            "AITER is not installed here",
            where=DIRECTORY_VARIABLE,
            hint="set it to a directory, here and where AITER runs, or give --jit-dir",
        )
    found = Path(next(iter(spec.submodule_search_locations))) / "jit"
    if not os.access(found, os.W_OK):
        raise InputError(
            "AITER's own directory is read-only, and it imports modules from nowhere else",
            where=str(found),
            hint=f"set {DIRECTORY_VARIABLE} to a writable directory, here and where AITER runs",
        )
    return found


def install(lock_path: Path, directory: Path, store: Store) -> tuple[Path, ...]:
    """Install every module of a lock, after checking that it loads; the packages.

    Raises:
        RefusedError: a module doesn't load; then nothing was written.
        InputError: something else stands where a module belongs.
        StoreError: the directory can't be written.
    """
    lock = load_lock(lock_path)
    for locked in lock.modules:
        open_module(lock, locked, store)
        package = directory / locked.name
        if package.exists() and not _ours(package):
            raise InputError("is not a module that jitcache installed", where=str(package))
    made = []
    for locked in lock.modules:
        package = directory / locked.name
        package.mkdir(parents=True, exist_ok=True)
        # The lock first: whoever imports the module finds what it was installed with.
        replace_file(package / _LOCK, dump_lock(lock))
        text = _TEXT.format(mark=_MARK, name=locked.name, lock=_LOCK)
        replace_file(package / "__init__.py", text.encode())
        made.append(package)
    return tuple(made)


def uninstall(directory: Path) -> tuple[Path, ...]:
    """Remove what `install` wrote, and nothing else; the packages.

    Raises:
        OSError: one can't be removed.
    """
    removed = tuple(_packages(directory))
    for package in removed:
        shutil.rmtree(package)
    return removed


def status(directory: Path, store: Store) -> Iterator[Finding]:
    """The modules of ours that AITER would import, and whether they load."""
    for package in _packages(directory):
        try:
            lock = load_lock(package / _LOCK)
            locked = next((m for m in lock.modules if m.name == package.name), None)
            if locked is None:
                yield Finding("broken", package, "its lock doesn't hold it")
                continue
            open_module(lock, locked, store)
        except JitcacheError as e:
            yield Finding("broken", package, "; ".join((e.what, *e.details)))
            continue
        count = sum(len(i.variants) for i in locked.instances)
        yield Finding("installed", package, f"{lock.manifest} for {lock.arch}, {count} kernels")
        for built in sorted(directory.glob(f"{package.name}*.so")):
            yield Finding(
                "shadowed", built, "AITER compiled it; the installed module is found first"
            )


def doctor(directory: Path, store: Store, arch: str | None = None) -> Iterator[Finding]:
    """What `status` says, and what else can go wrong in AITER's directory.

    Args:
        directory: AITER's directory.
        store: where objects are.
        arch: this machine's GPU; shared objects for others are told.
    """
    yield from status(directory, store)
    if not os.access(directory, os.W_OK):
        yield Finding("unwritable", directory, "AITER can't put what it compiles here")
    for path in sorted(directory.glob("*.so")):
        data = path.read_bytes()
        if _cut_off(data):
            yield Finding("truncated", path, f"only {len(data)} bytes; remove it")
            continue
        arches = {m.decode() for m in re.findall(rb"amdhsa--(gfx[0-9a-f]+)", data)}
        if arch and arches and arch not in arches:
            yield Finding("other-arch", path, f"holds {', '.join(sorted(arches))}, not {arch}")
    now = time.time()
    locks = [*directory.glob("build/lock_*"), *directory.glob("build/*/build/lock")]
    for path in sorted(locks):
        age = now - path.stat().st_mtime
        if age > _OLD_LOCK_S:
            yield Finding("stale-lock", path, f"{age / 60:.0f} minutes old; AITER waits for it")


def _packages(directory: Path) -> Iterator[Path]:
    for package in sorted(directory.glob("module_moe_ck2stages_*")):
        if package.is_dir() and _ours(package):
            yield package


def _ours(package: Path) -> bool:
    try:
        return (package / "__init__.py").read_text().startswith(_MARK)
    except OSError:
        return False


def _cut_off(data: bytes) -> bool:
    """Whether an ELF file ends before its section headers do."""
    if len(data) < _ELF_HEADER or data[:4] != b"\x7fELF":
        return True
    start = int.from_bytes(data[40:48], "little")
    size, count = (int.from_bytes(data[i : i + 2], "little") for i in (58, 60))
    return len(data) < start + size * count
