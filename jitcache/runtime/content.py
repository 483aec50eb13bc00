"""What a module holds: instances, their kernels, and the host shim that knows them.

It never changes: a module that gets a further kernel gets another content, so that a thread
that is in the middle of a launch goes on with what it began with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jitcache.errors import UnsupportedError
from jitcache.lockfile import Lock, LockedInstance, LockedModule, LockedVariant
from jitcache.runtime.objects import Loaded
from jitcache.runtime.policy import MissError
from jitcache.runtime.shim import Answer, Call, Launch, Problem, Shim, Unsupported

if TYPE_CHECKING:
    from jitcache.codegen.catalog import ModuleSpec, Variant


class Content:
    """One module of a lock, read and verified.

    Attributes:
        lock: the lock.
        locked: the module of it.
        host: the host shim's file.
        objects: code objects by action key.
        instances: its instances by name.
    """

    __slots__ = ("_index", "_shim", "host", "instances", "lock", "locked", "objects")

    def __init__(
        self,
        lock: Lock,
        locked: LockedModule,
        host: Loaded,
        objects: dict[str, Loaded],
        shim: Shim,
    ) -> None:
        self.lock = lock
        self.locked = locked
        self.host = host
        self.objects = objects
        self.instances: dict[str, LockedInstance] = {i.name: i for i in locked.instances}
        self._shim = shim
        self._index = {n: i for i, n in enumerate(shim.names) if n in self.instances}

    def choose(
        self, spec: ModuleSpec, stage: int, block_m: int, inter_dim: int, kernel_name: str
    ) -> str:
        """The instance that AITER would run; see `Module.choose`.

        Raises:
            MissError: it wasn't built.
            UnsupportedError: AITER has no kernel for this block_m.
        """
        from jitcache.codegen.catalog import Unsupported as NoKernel
        from jitcache.codegen.catalog import check_arch, dispatch, find

        arch = self.lock.arch
        check_arch(arch)
        if kernel_name in self.instances:
            if self.instances[kernel_name].stage != stage:
                raise UnsupportedError(f"is not a kernel of stage {stage}", where=kernel_name)
            return kernel_name
        if kernel_name and (named := find(kernel_name, spec, arch)) is not None:
            if named.stage != stage:
                raise UnsupportedError(f"is not a kernel of stage {stage}", where=kernel_name)
            raise MissError(
                kernel_name,
                "a tuned table or a caller names it",
                manifest=self.lock.manifest,
                line='scope = "module"',
            )
        wanted = dispatch(spec, arch, 1 if stage == 1 else 2, block_m, inter_dim)
        if isinstance(wanted, NoKernel):
            raise UnsupportedError(
                f"AITER dispatches nothing for stage {stage}, block_m {block_m}, inter_dim"
                f" {inter_dim}: {wanted.reason}",
                where=self.locked.name,
            )
        if wanted.name not in self.instances:
            heights = sorted({i.block_m for i in self.instances.values() if i.stage == stage})
            line = f"inter_dim = {inter_dim}" if block_m in heights else 'scope = "inter-dim"'
            raise MissError(
                wanted.name,
                f"AITER dispatches it for stage {stage}, block_m {block_m}, inter_dim {inter_dim};"
                f" block_m {', '.join(map(str, heights)) or 'none'} of this stage were built",
                manifest=self.lock.manifest,
                line=line,
            )
        return wanted.name

    def ask(self, name: str, problem: Problem) -> Call | Unsupported:
        """What the host shim says of a launch, in the calling thread's buffers.

        Raises:
            MissError: there is no such instance.
        """
        index = self._index.get(name)
        if index is None:
            raise MissError(
                name, "it isn't in the lock", manifest=self.lock.manifest, line='scope = "module"'
            )
        return self._shim.ask(index, problem)

    def variant(self, name: str, said: Answer, problem: Problem) -> LockedVariant:
        """Which of an instance's kernels runs.

        Raises:
            MissError: it wasn't built.
        """
        hot, even, non_temporal = bool(said.hot_loop), bool(said.tail_even), bool(said.non_temporal)
        for variant in self.instances[name].variants:
            if _fits(variant, hot, even, non_temporal):
                return variant
        wanted = f"{'hot' if hot else 'cold'}-{'even' if even else 'odd'}"
        wanted += "-nt" if non_temporal else ""
        dim = "model_dim" if self.instances[name].stage == 1 else "inter_dim"
        raise MissError(
            f"the {wanted} kernel of {name}",
            f"{dim} {problem.k} runs it",
            manifest=self.lock.manifest,
            line=f"{dim} = {problem.k}",
        )

    def kernel(self, name: str, launch: Launch) -> tuple[str, bytes]:
        """Symbol and code object of the variant that a prepared launch runs."""
        for variant in self.instances[name].variants:
            if _fits(variant, launch.hot_loop, launch.tail_even, launch.non_temporal):
                return variant.kernel, self.objects[variant.action.key].data
        raise KeyError(name)

    def holds(self, name: str, variant: Variant) -> bool:
        """Whether a kernel of an instance was built."""
        found = self.instances.get(name)
        return found is not None and any(
            (v.hot_loop, v.tail, v.non_temporal)
            == (variant.hot_loop, variant.tail, variant.non_temporal)
            for v in found.variants
        )

    def describe(self, resident: Mapping[str, Sequence[int]]) -> dict[str, Any]:
        """What it is and where it came from, as plain JSON.

        Args:
            resident: devices that a code object is loaded on, by action key.
        """
        return {
            "module": self.locked.name,
            "manifest": self.lock.manifest,
            "target": self.lock.arch,
            "cu_num": self.lock.cu_num,
            "toolchain": self.lock.toolchain,
            "host": _origin(self.host),
            "instances": [
                {
                    "name": i.name,
                    "stage": i.stage,
                    "block_m": i.block_m,
                    "variants": [
                        {
                            "hot_loop": v.hot_loop,
                            "tail": v.tail,
                            "non_temporal": v.non_temporal,
                            "kernel": v.kernel,
                            **_origin(self.objects[v.action.key]),
                            "devices": sorted(resident.get(v.action.key, ())),
                        }
                        for v in i.variants
                    ],
                }
                for i in self.locked.instances
            ],
        }


def _origin(item: Loaded) -> dict[str, Any]:
    return {"object": item.name, "digest": item.digest, "layer": item.layer, "path": item.path}


def _fits(variant: LockedVariant, hot: bool, even: bool, non_temporal: bool) -> bool:
    return (
        variant.hot_loop == hot
        and variant.tail in ("full", "even" if even else "odd")
        and variant.non_temporal in (None, non_temporal)
    )
