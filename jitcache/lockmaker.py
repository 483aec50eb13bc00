"""From a work list and the records of its actions to the lock file's content. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from jitcache.action.headers import HEADERS_OUTPUT
from jitcache.action.worklist import ModuleWork
from jitcache.codegen.catalog import Variant
from jitcache.lockfile import Lock, LockedAction, LockedInstance, LockedModule, LockedVariant
from jitcache.store.model import ActionRecord


class Keyed(Protocol):
    """What has an action key."""

    @property
    def key(self) -> str:
        """The action key."""


class Identified(Protocol):
    """What a lock says of the toolchain; a `Toolchain`, or what a plan file pins of one."""

    @property
    def id(self) -> str:
        """Its id."""

    @property
    def provider(self) -> str:
        """`rocm` or `llvm`."""

    @property
    def hip_version(self) -> tuple[int, int]:
        """(major, minor) of the HIP headers."""


def make_lock(
    *,
    manifest: str,
    manifest_digest: str,
    arch: str,
    cu_num: int,
    toolchain: Identified,
    modules: Sequence[ModuleWork],
    actions: Mapping[str, Keyed],
    records: Mapping[str, ActionRecord],
) -> Lock:
    """The lock of a completely built plan.

    Args:
        manifest: name of the manifest.
        manifest_digest: digest of its content.
        arch: target architecture.
        cu_num: compute units of the target.
        toolchain: what it was built with.
        modules: the work list.
        actions: by recipe identity, from `actions_of`.
        records: by key, from `Prebuilder.build`.
    """

    def record_of(identity: str) -> ActionRecord:
        return records[actions[identity].key]

    locked = []
    for module in modules:
        instances: dict[str, LockedInstance] = {}
        for kernel in module.kernels:
            variant = locked_variant(kernel.variant, record_of(kernel.recipe.identity))
            known = instances.get(kernel.instance.name)
            instances[kernel.instance.name] = LockedInstance(
                name=kernel.instance.name,
                stage=kernel.instance.stage,
                block_m=kernel.block_m,
                variants=(*(known.variants if known else ()), variant),
            )
        locked.append(
            LockedModule(
                name=module.name,
                host=locked_action(record_of(module.shim.identity)),
                instances=tuple(instances.values()),
            )
        )
    return Lock(
        manifest=manifest,
        manifest_digest=manifest_digest,
        arch=arch,
        cu_num=cu_num,
        toolchain=toolchain.id,
        provider=toolchain.provider,
        hip_version=toolchain.hip_version,
        modules=tuple(locked),
    )


def locked_variant(variant: Variant, record: ActionRecord) -> LockedVariant:
    """A kernel as a lock names it."""
    return LockedVariant(
        hot_loop=variant.hot_loop,
        tail=variant.tail,
        non_temporal=variant.non_temporal,
        kernel=record.facts["kernels"][0]["symbol"],
        action=locked_action(record),
    )


def locked_action(record: ActionRecord) -> LockedAction:
    """An action as a lock names it: without what only explains a build."""
    return LockedAction(record.key, tuple(o for o in record.outputs if o.name != HEADERS_OUTPUT))
