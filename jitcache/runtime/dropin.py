"""Modules that AITER's own loader imports, in place of what it would compile.

AITER 9bab8388 (aiter/jit/core.py:574-582, 1412-1540) imports `<module name>` from where
`jitcache.runtime.jitdir` says, and builds only if that raises ModuleNotFoundError. A package
directory is found before a shared object of the same name, so an installed module wins over
one that AITER compiled earlier, which stays where it is.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jitcache.errors import InputError, JitcacheError
from jitcache.lockfile import Lock, dump_lock, load_lock
from jitcache.runtime.jitdir import MARK, MODULES, Place
from jitcache.runtime.load import load, open_module, pick
from jitcache.runtime.module import Module
from jitcache.runtime.stages import Stages
from jitcache.store.durable import replace_file
from jitcache.store.layout import Bucket
from jitcache.store.store import Store

HOST_MEMORY_VARIABLE = "JITCACHE_HOST_MEMORY"
"""Set to 1 where the GPU reads host memory, or no GPU runs anything: see `Stages`."""
KNOWN_COUNTS = (15, 19)
"""Numbers of arguments of AITER's stages: releases of 2025, and 9bab8388."""

_LOCK = "jitcache.lock.json"

_TEXT = '''\
{mark}"""{name}: kernels of the lock beside this file."""

from pathlib import Path

try:
    from jitcache.runtime.dropin import attach

    ck_moe_stage1, ck_moe_stage2 = attach("{name}", Path(__file__).with_name("{lock}"))
except ModuleNotFoundError as e:
    # A ModuleNotFoundError would make AITER compile the module instead.
    raise ImportError(f"jitcache is not importable here: {{e}}") from e
'''

_SIGNATURE = (
    "ck_moe_stage{s}({states}: torch.Tensor, w1: torch.Tensor, w2: torch.Tensor,"
    " sorted_token_ids: torch.Tensor, sorted_expert_ids: torch.Tensor,"
    " num_valid_ids: torch.Tensor, out: torch.Tensor, topk: int,"
    " kernelName: Optional[str] = None, w{s}_scale: Optional[torch.Tensor] = None,"
    " a{s}_scale: Optional[torch.Tensor] = None, block_m: Optional[int] = 32,"
    " sorted_weights: Optional[torch.Tensor] = None, quant_type: int = 0, activation: int = 0"
)
_NEWER = (
    ", splitk: {splitk} = 1, use_non_temporal_load: bool = False,"
    " dst_type: Optional[str] = None, is_shuffled: bool = True"
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
            # Older AITER doesn't say whether weights are shuffled; its module's name does. Nor
            # does torch pass on trailing arguments that are the defaults.
            known: dict[str, Any] = {}
            if len(arguments) < KNOWN_COUNTS[-1]:
                known["is_shuffled"] = module.spec.preshuffle
            stages.launch(stages.check(stage, *arguments, **known))

        call.__name__ = call.__qualname__ = f"ck_moe_stage{stage}"
        call.__doc__ = signature(stage, _count(stage))
        return call

    return made(1), made(2)


def signature(stage: int, count: int) -> str:
    """The first line of a stage's docs: the types are those that AITER's own stub has."""
    text = _SIGNATURE + (_NEWER if count == KNOWN_COUNTS[-1] else "") + ") -> None"
    return text.format(
        s=stage,
        states="hidden_states" if stage == 1 else "inter_states",
        splitk="Optional[int]" if stage == 1 else "int",
    )


def _count(stage: int) -> int:
    """How many arguments this process's AITER gives, by the op that it registers."""
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch.ops.aiter, f"ck_moe_stage{stage}"):
        return KNOWN_COUNTS[-1]
    op = getattr(torch.ops.aiter, f"ck_moe_stage{stage}").default
    return len(op._schema.arguments)  # noqa: SLF001 - torch has no public name for it


@dataclass(frozen=True, slots=True)
class Finding:
    """Something where AITER looks for modules or builds them.

    Attributes:
        kind: `installed`: a module of ours that loads; `broken`: one that doesn't, or that
            AITER doesn't find; `skew`: parts that don't belong together; `shadowed`: a compiled
            module that ours is found before; `truncated`: a shared object that is cut off, and
            kills who loads it; `other-arch`: code for other GPUs than this machine's;
            `other-rocm`, `old-rocm`: a module of ours that the HIP runtime can't load;
            `other-cu-num`: one planned for another number of compute units; `stale-lock`: a
            lock that no builder has touched for ten minutes; `orphan-blob`: generated sources
            of a build that gave no module; `unwritable`: a directory that AITER has to write.
        path: the file or directory.
        detail: what exactly, for people.
    """

    kind: Literal[
        "installed",
        "broken",
        "skew",
        "shadowed",
        "truncated",
        "other-arch",
        "other-rocm",
        "old-rocm",
        "other-cu-num",
        "stale-lock",
        "orphan-blob",
        "unwritable",
    ]
    path: Path
    detail: str


def install(lock_path: Path, place: Place, store: Store) -> tuple[Path, ...]:
    """Install every module of a lock, after checking that it loads; the packages.

    Raises:
        RefusedError: a module doesn't load; then nothing was written.
        InputError: something else stands where a module belongs.
        StoreError: the directory can't be written.
    """
    lock = load_lock(lock_path)
    for locked in lock.modules:
        open_module(lock, locked, store)
        package = place.modules / locked.name
        if package.exists() and not _ours(package):
            raise InputError("is not a module that jitcache installed", where=str(package))
    made = []
    for locked in lock.modules:
        package = place.modules / locked.name
        # The lock first: whoever imports the module finds what it was installed with.
        replace_file(package / _LOCK, dump_lock(lock))
        replace_file(package / "__init__.py", _text(locked.name))
        made.append(package)
    place.prepare()
    return tuple(made)


def uninstall(place: Place) -> tuple[Path, ...]:
    """Remove what `install` wrote, and nothing else; the packages.

    Raises:
        OSError: one can't be removed.
    """
    removed = tuple(_packages(place.modules))
    for package in removed:
        shutil.rmtree(package)
    place.clear()
    return removed


def status(place: Place, store: Store) -> Iterator[Finding]:
    """The modules of ours that AITER would import, and whether they load."""
    if place.hook is not None and place.hook.exists() and not place.hook_works:
        yield Finding("broken", place.hook, "this Python has not read it: AITER finds no module")
    for package, opened in open_installed(place, store):
        if isinstance(opened, JitcacheError):
            yield Finding("broken", package, "; ".join((opened.what, *opened.details)))
            continue
        lock = opened.lock
        count = sum(len(i.variants) for i in opened.instances)
        yield Finding("installed", package, f"{lock.manifest} for {lock.arch}, {count} kernels")
        yield from _skew(package, lock, store)
        for built in sorted(place.imported.glob(f"{package.name}*.so")):
            yield Finding(
                "shadowed", built, "AITER compiled it; the installed module is found first"
            )


def open_installed(place: Place, store: Store) -> Iterator[tuple[Path, Module | JitcacheError]]:
    """Every installed package, loaded, or why it can't be."""
    for package in _packages(place.modules):
        try:
            lock = load_lock(package / _LOCK)
            yield package, open_module(lock, pick(lock, package.name), store)
        except JitcacheError as e:
            yield package, e


def _skew(package: Path, lock: Lock, store: Store) -> Iterator[Finding]:
    if (package / "__init__.py").read_bytes() != _text(package.name):
        yield Finding("skew", package, "another version of jitcache installed it; install it again")
    newer = store.layout.bucket(Bucket.LOCKS) / f"{lock.manifest}.{lock.arch}.lock.json"
    if newer.exists() and newer.read_bytes() != (package / _LOCK).read_bytes():
        yield Finding("skew", package, f"differs from {newer}; install that to use what it names")


def _text(name: str) -> bytes:
    return _TEXT.format(mark=MARK, name=name, lock=_LOCK).encode()


def _packages(directory: Path) -> Iterator[Path]:
    for package in sorted(directory.glob(f"{MODULES}*")):
        if package.is_dir() and _ours(package):
            yield package


def _ours(package: Path) -> bool:
    try:
        return (package / "__init__.py").read_text().startswith(MARK)
    except OSError:
        return False
