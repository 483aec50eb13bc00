"""Further kernels for a module of a lock: what a deployment turned out to call.

What the module holds stays as it is; built are the kernels that it lacks, and where one is of
an instance that the host shim doesn't know, the shim of AITER's whole module. That one serves
every later kernel, too, and is the same for every process, whatever it missed first. All of a
module comes from one toolchain: a host shim of another CK could lay arguments out otherwise
than the kernels read them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from jitcache.action.worklist import KernelWork
from jitcache.codegen.catalog import (
    Instance,
    Variant,
    check_arch,
    find,
    instances,
    parse_module_name,
)
from jitcache.codegen.catalog import variants as variants_of
from jitcache.codegen.native import Recipe, device_recipe, shim_recipe
from jitcache.errors import InputError, ToolchainError
from jitcache.lockfile import Lock, LockedInstance, LockedModule
from jitcache.lockmaker import locked_action, locked_variant
from jitcache.store.model import ActionRecord
from jitcache.toolchain.model import Toolchain


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel to add, as it is asked for.

    Attributes:
        instance: AITER's name of the instance.
        variant: which of its kernels, as `hot-even`.
    """

    instance: str
    variant: str


def parse_kernel(text: str) -> Kernel:
    """Read `<instance>:<variant>`.

    Raises:
        InputError: it isn't that.
    """
    instance, colon, variant = text.rpartition(":")
    if not colon or not instance or not variant:
        raise InputError(
            "must be an instance's name, a colon and a variant such as hot-even", where=text
        )
    return Kernel(instance, variant)


@dataclass(frozen=True, slots=True)
class Work:
    """What has to be built.

    Attributes:
        kernels: the kernels that the module lacks.
        shim: the host shim to put in place of the module's; None where that will do.
    """

    kernels: tuple[KernelWork, ...]
    shim: Recipe | None

    def recipes(self) -> Iterator[tuple[Recipe, str]]:
        """Every translation unit with a label for people."""
        for kernel in self.kernels:
            yield kernel.recipe, f"{kernel.instance.short} {kernel.variant}"
        if self.shim is not None:
            yield self.shim, f"host shim of the whole {self.shim.stem}"


def missing_work(
    lock: Lock,
    locked: LockedModule,
    wanted: Sequence[Kernel],
    buildable: Callable[[Instance], bool],
) -> Work:
    """The kernels of a module that it lacks, and the host shim if it has to know more.

    Args:
        lock: the lock.
        locked: the module of it.
        wanted: the kernels.
        buildable: whether the CK at hand can build an instance.

    Raises:
        InputError: AITER's module has no such kernel.
    """
    check_arch(lock.arch)
    spec = parse_module_name(locked.name)
    held = {
        (i.name, Variant(v.hot_loop, v.tail, v.non_temporal))
        for i in locked.instances
        for v in i.variants
    }
    kernels: dict[tuple[str, Variant], KernelWork] = {}
    for kernel in wanted:
        instance = find(kernel.instance, spec, lock.arch)
        if instance is None:
            raise InputError(
                f"AITER's module has no instance {kernel.instance} on {lock.arch}",
                where=locked.name,
            )
        variant = _variant(instance, kernel.variant)
        if (instance.name, variant) not in held:
            recipe = device_recipe(instance, (variant,), lock.arch)
            work = KernelWork(instance, instance.tile.m, variant, recipe)
            kernels[instance.name, variant] = work
    known = {i.name for i in locked.instances}
    shim = None
    if any(name not in known for name, _ in kernels):
        every = (i for i in instances(spec, lock.arch) if i.name in known or buildable(i))
        shim = shim_recipe(spec, tuple(every))
    return Work(tuple(kernels.values()), shim)


def check_toolchain(lock: Lock, toolchain: Toolchain) -> None:
    """Refuse to mix toolchains in a module.

    Raises:
        ToolchainError: the lock was built with another one.
    """
    if toolchain.id != lock.toolchain:
        raise ToolchainError(
            f"was built with {lock.toolchain}, and here is {toolchain.id}: kernels of both can't"
            " be in one module",
            where=f"lock of {lock.manifest} for {lock.arch}",
            hint=f"`jitcache prebuild {lock.manifest}` builds all of it with the one that is here",
        )


def with_kernels(
    lock: Lock,
    locked: LockedModule,
    work: Work,
    record_of: Callable[[Recipe], ActionRecord],
) -> Lock:
    """The lock with what was built.

    Args:
        lock: the lock as it was.
        locked: the module of it.
        work: from `missing_work`.
        record_of: what became of a translation unit.
    """
    merged: dict[str, LockedInstance] = {i.name: i for i in locked.instances}
    for kernel in work.kernels:
        # New kernels come last: who has loaded the old ones knows them by their place.
        known = merged.get(kernel.instance.name)
        made = locked_variant(kernel.variant, record_of(kernel.recipe))
        merged[kernel.instance.name] = LockedInstance(
            name=kernel.instance.name,
            stage=kernel.instance.stage,
            block_m=kernel.block_m,
            variants=(*(known.variants if known else ()), made),
        )
    host = locked.host if work.shim is None else locked_action(record_of(work.shim))
    wider = LockedModule(locked.name, host, tuple(merged.values()))
    return replace(lock, modules=tuple(wider if m is locked else m for m in lock.modules))


def _variant(instance: Instance, word: str) -> Variant:
    known = variants_of(instance)
    for variant in known:
        if str(variant) == word:
            return variant
    raise InputError(
        f"has no variant {word}", where=instance.name, hint=f"known: {', '.join(map(str, known))}"
    )
