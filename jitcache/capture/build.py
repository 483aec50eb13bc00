"""Kernels that no manifest asked for, built by way of the store like every other kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from jitcache import digest
from jitcache.action.actions import actions_of
from jitcache.action.ckfeatures import require
from jitcache.action.resolve import Resolver
from jitcache.action.worklist import ModuleWork, module_work
from jitcache.capture.choice import Choice
from jitcache.errors import BuildError
from jitcache.lockfile import Lock
from jitcache.lockmaker import make_lock
from jitcache.prebuild import Prebuilder
from jitcache.store.store import Store
from jitcache.toolchain.find import find_toolchain, path_of

if TYPE_CHECKING:
    from jitcache.build.model import CompileJob, Event
    from jitcache.store.model import ActionRecord

LOCK_NAME = "capture"
"""What stands for the manifest's name in the locks of samples."""

_CU_NUM = {"gfx942": 304, "gfx950": 256}


def work_of(choice: Choice) -> ModuleWork:
    """The two kernels of a family and the host shim that prepares their launches."""
    required = [
        (launch.instance, launch.instance.tile.m, [launch.variant]) for launch in choice.launches
    ]
    return module_work(choice.spec, required, choice.arch)


def build(
    store: Store,
    arch: str,
    works: Mapping[str, ModuleWork],
    *,
    salt: str = "",
    compiler_env: Callable[[Path], tuple[tuple[str, str], ...]] = lambda _compiler: (),
    on_start: Callable[[list[CompileJob], int], None] = lambda _jobs, _parallel: None,
    on_event: Callable[[Event], None] = lambda _: None,
    fetch: Callable[[str], ActionRecord | None] | None = None,
) -> dict[str, Lock]:
    """Have kernels of one architecture in the store.

    Args:
        store: where they are looked up and published.
        arch: the architecture.
        works: what to build: a module under each name.
        salt: as for `prebuild`: part of every key.
        compiler_env: variables for a compiler that change no byte of what it writes.
        on_start: told before compilers start.
        on_event: told of every compile that starts and ends.
        fetch: as for `Prebuilder`: asked for what the store lacks.

    Returns:
        A lock under each name.

    Raises:
        ToolchainError: there is no compiler or CK.
        UnsupportedError: this CK can't build one of them.
        BuildError: one doesn't compile.
    """
    toolchain = find_toolchain(arch, cache_dir=store.layout.root, stat_memo=store.stat_memo)
    require(
        path_of(toolchain, "ck", ""),
        toolchain.ck_commit,
        ((k.instance, k.variant) for w in works.values() for k in w.kernels),
    )
    resolver = Resolver(store, toolchain, arch, salt)
    actions = actions_of(tuple(works.values()), resolver)
    builder = Prebuilder(
        store,
        toolchain,
        arch,
        resolver,
        keep_going=True,
        compiler_env=compiler_env(toolchain.compiler),
        on_start=on_start,
        on_event=on_event,
        fetch=fetch,
    )
    built = builder.build(list({a.key: a for a in actions.values()}.values()))
    if built.failed:
        raise BuildError(
            f"{len(built.failed)} translation units could not be built",
            details=tuple(f"{f.label}: {f.error} ({f.log})" for f in built.failed),
        )
    return {
        name: make_lock(
            manifest=LOCK_NAME,
            manifest_digest=digest.of_bytes(LOCK_NAME.encode()),
            arch=arch,
            cu_num=_CU_NUM[arch],
            toolchain=toolchain,
            modules=(work,),
            actions=actions,
            records=built.records,
        )
        for name, work in works.items()
    }
