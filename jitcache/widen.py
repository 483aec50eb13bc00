"""Further kernels for a module of a lock: what a deployment turned out to call.

What the module holds stays as it is; built are the kernels that it lacks, and a host shim
that knows them all. All of a module comes from one toolchain: a host shim of another CK could
lay arguments out otherwise than the kernels read them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from jitcache.action.actions import Action
from jitcache.action.worklist import KernelWork, ModuleWork
from jitcache.codegen.catalog import Instance, Variant, check_arch, find, parse_module_name
from jitcache.codegen.catalog import variants as variants_of
from jitcache.codegen.native import device_recipe, shim_recipe
from jitcache.errors import InputError, ToolchainError
from jitcache.lockfile import Lock, LockedInstance, LockedModule
from jitcache.lockmaker import make_lock
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


def missing_work(lock: Lock, locked: LockedModule, wanted: Sequence[Kernel]) -> ModuleWork:
    """The kernels of a module that it lacks, and the host shim of it with them.

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
    instances = {i.name: _instance(i.name, locked.name, lock.arch) for i in locked.instances}
    kernels: dict[tuple[str, Variant], KernelWork] = {}
    for kernel in wanted:
        instance = _instance(kernel.instance, locked.name, lock.arch)
        variant = _variant(instance, kernel.variant)
        instances.setdefault(instance.name, instance)
        if (instance.name, variant) not in held:
            recipe = device_recipe(instance, (variant,), lock.arch)
            work = KernelWork(instance, instance.tile.m, variant, recipe)
            kernels[instance.name, variant] = work
    shim = shim_recipe(spec, tuple(instances.values()))
    return ModuleWork(locked.name, shim, tuple(kernels.values()))


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
    work: ModuleWork,
    *,
    toolchain: Toolchain,
    actions: Mapping[str, Action],
    records: Mapping[str, ActionRecord],
) -> Lock:
    """The lock with what was built.

    Args:
        lock: the lock as it was.
        locked: the module of it.
        work: from `missing_work`.
        toolchain: what it was built with.
        actions: by recipe identity, from `actions_of`.
        records: by key, from `Prebuilder.build`.
    """
    made = make_lock(
        manifest=lock.manifest,
        manifest_digest=lock.manifest_digest,
        arch=lock.arch,
        cu_num=lock.cu_num,
        toolchain=toolchain,
        modules=(work,),
        actions=actions,
        records=records,
    ).modules[0]
    # New kernels come last: who has loaded the old ones knows them by their place.
    merged: dict[str, LockedInstance] = {i.name: i for i in locked.instances}
    for instance in made.instances:
        known = merged.get(instance.name)
        before = known.variants if known else ()
        merged[instance.name] = replace(instance, variants=(*before, *instance.variants))
    wider = LockedModule(locked.name, made.host, tuple(merged.values()))
    return replace(lock, modules=tuple(wider if m is locked else m for m in lock.modules))


def _instance(name: str, module: str, arch: str) -> Instance:
    found = find(name, parse_module_name(module), arch)
    if found is None:
        raise InputError(f"AITER's module has no instance {name} on {arch}", where=module)
    return found


def _variant(instance: Instance, word: str) -> Variant:
    known = variants_of(instance)
    for variant in known:
        if str(variant) == word:
            return variant
    raise InputError(
        f"has no variant {word}", where=instance.name, hint=f"known: {', '.join(map(str, known))}"
    )
