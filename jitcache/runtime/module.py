"""A loaded module: from an instance's name, or stage and block_m, to a launch.

Everything that a launch needs is read and checked when the module is loaded, except what
takes a GPU: a device gets its code objects on `prewarm`, or on the first launch there.
"""

from __future__ import annotations

import os
import threading
import time
import warnings
import weakref
from typing import TYPE_CHECKING, Any

from jitcache.errors import ForbiddenError, UnsupportedError
from jitcache.lockfile import Lock, LockedInstance, LockedModule, LockedVariant
from jitcache.runtime import devices
from jitcache.runtime import hip as hip_module
from jitcache.runtime.devices import OtherCuNum
from jitcache.runtime.hip import Hip, UnavailableError
from jitcache.runtime.objects import Loaded
from jitcache.runtime.policy import MissError, Refusal, RefusedError
from jitcache.runtime.shim import Answer, Call, Launch, Problem, Shim, Unsupported

if TYPE_CHECKING:
    from jitcache.codegen.catalog import ModuleSpec


class Module:
    """A module that was built, ready to be launched. May be used from any thread.

    Attributes:
        name: AITER's name of the module.
        lock: the lock it was resolved by.
        locked: its part of the lock.
        built: what had to be built for it, and why, as sentences; usually none.
        told: (remote, object, why), where a remote was asked in vain or was not believed.
    """

    def __init__(
        self,
        lock: Lock,
        locked: LockedModule,
        host: Loaded,
        objects: dict[str, Loaded],
        shim: Shim,
        *,
        built: tuple[str, ...] = (),
        told: tuple[tuple[str, str, str], ...] = (),
        load_ms: float = 0.0,
    ) -> None:
        self.name = locked.name
        self.lock = lock
        self.locked = locked
        self.built = built
        self.told = told
        self._host = host
        self._objects = objects
        self._shim = shim
        self._load_ms = load_ms
        self._instances: dict[str, LockedInstance] = {i.name: i for i in locked.instances}
        self._index = {name: i for i, name in enumerate(shim.names)}
        self._chosen: dict[tuple[int, int, int, str], str] = {}
        self._functions: dict[tuple[int, str, int], int] = {}
        self._ready: dict[tuple[int, str, int, int, int], int] = {}
        self._modules: dict[tuple[int, str], int] = {}
        self._checked: dict[int, float] = {}
        self._other_cu_num: dict[int, OtherCuNum] = {}
        self._spec: ModuleSpec | None = None
        self._guard = threading.Lock()
        _live.add(self)

    @property
    def instances(self) -> tuple[LockedInstance, ...]:
        """The instances that it was built with."""
        return self.locked.instances

    @property
    def spec(self) -> ModuleSpec:
        """Types, quantisation and activation, taken from the module's name."""
        if self._spec is None:
            from jitcache.codegen.catalog import parse_module_name

            self._spec = parse_module_name(self.name)
        return self._spec

    def choose(self, stage: int, block_m: int, inter_dim: int, kernel_name: str = "") -> str:
        """The instance that AITER would run, by its name.

        Args:
            stage: 1 or 2.
            block_m: rows of the block.
            inter_dim: N of stage 1, K of stage 2, in elements.
            kernel_name: a tuned table's choice. A name that even AITER's whole module has not
                (that of the other activation) is passed over for its heuristic, as AITER does.

        Raises:
            MissError: it wasn't built.
            UnsupportedError: AITER has no kernel for this block_m.
        """
        key = (stage, block_m, inter_dim, kernel_name)
        found = self._chosen.get(key)
        if found is None:
            found = self._chosen[key] = self._choose(*key)
        return found

    def _choose(self, stage: int, block_m: int, inter_dim: int, kernel_name: str) -> str:
        from jitcache.codegen.catalog import Unsupported as NoKernel
        from jitcache.codegen.catalog import check_arch, dispatch, find

        arch = self.lock.arch
        check_arch(arch)
        if kernel_name in self._instances:
            if self._instances[kernel_name].stage != stage:
                raise UnsupportedError(f"is not a kernel of stage {stage}", where=kernel_name)
            return kernel_name
        if kernel_name and find(kernel_name, self.spec, arch) is not None:
            raise MissError(
                kernel_name,
                "a tuned table or a caller names it",
                manifest=self.lock.manifest,
                line='scope = "module"',
            )
        wanted = dispatch(self.spec, arch, 1 if stage == 1 else 2, block_m, inter_dim)
        if isinstance(wanted, NoKernel):
            raise UnsupportedError(
                f"AITER dispatches nothing for stage {stage}, block_m {block_m}, inter_dim"
                f" {inter_dim}: {wanted.reason}",
                where=self.name,
            )
        if wanted.name not in self._instances:
            heights = sorted({i.block_m for i in self.instances if i.stage == stage})
            line = f"inter_dim = {inter_dim}" if block_m in heights else 'scope = "inter-dim"'
            raise MissError(
                wanted.name,
                f"AITER dispatches it for stage {stage}, block_m {block_m}, inter_dim {inter_dim};"
                f" block_m {', '.join(map(str, heights)) or 'none'} of this stage were built",
                manifest=self.lock.manifest,
                line=line,
            )
        return wanted.name

    def prepare(self, name: str, problem: Problem) -> Launch | Unsupported:
        """What a launch of an instance would be; needs no GPU.

        Raises:
            MissError: the module lacks the instance, or the variant that the problem runs.
        """
        call = self._ask(name, problem)
        if isinstance(call, Unsupported):
            return call
        self._variant(name, call.answer(), problem)
        return call.snapshot()

    def kernel(self, name: str, launch: Launch) -> tuple[str, bytes]:
        """Symbol and code object of the variant that a prepared launch runs."""
        for variant in self._instances[name].variants:
            if _fits(variant, launch.hot_loop, launch.tail_even, launch.non_temporal):
                return variant.kernel, self._objects[variant.action.key].data
        raise KeyError(name)

    def launch(self, name: str, problem: Problem, *, stream: int = 0, device: int = -1) -> None:
        """Launch an instance; returns as soon as it is queued.

        Args:
            name: the instance, from `choose`.
            problem: pointers and sizes.
            stream: HIP stream handle; 0 is the default stream.
            device: device index; -1 is the thread's current one.

        Raises:
            MissError: the module lacks the instance or the variant.
            ForbiddenError: it isn't loaded yet, and the stream is being captured.
            UnsupportedError: CK refuses the problem.
            UnavailableError: there is no HIP runtime or no GPU.
            RefusedError: the GPU or the runtime isn't what the module was built for.
            HipError: HIP refuses the launch.
        """
        call = self._ask(name, problem)
        if isinstance(call, Unsupported):
            raise UnsupportedError(call.reason, where=name)
        said = call.answer()
        # The first launch asks for a GPU, so that the answer is clear where there is none.
        driver = hip_module.open_hip() if self._functions else hip_module.require_hip()
        if not isinstance(driver, Hip):
            raise UnavailableError(driver)
        current = driver.current_device()
        if device < 0:
            device = current
        wanted = (device, name, said.hot_loop, said.tail_even, said.non_temporal)
        function = self._ready.get(wanted)
        if function is None:
            index = self._variant(name, said, problem)
            function = self._function(driver, device, name, index, stream)
            self._ready[wanted] = function
        if current == device:
            self._go(driver, function, said, call.extra, problem, stream)
        else:
            with driver.on_device(device):
                self._go(driver, function, said, call.extra, problem, stream)

    @staticmethod
    def _go(
        driver: Hip, function: int, said: Answer, extra: int, problem: Problem, stream: int
    ) -> None:
        if said.clear_bytes:
            driver.clear(problem.out, said.clear_bytes, stream)
        driver.launch(function, said[:3], said[3:6], extra, stream)

    def prewarm(self, devices: tuple[int, ...] | None = None) -> int:
        """Load every kernel on devices, so that no later launch has to; how many were loaded.

        Args:
            devices: device indices; all visible ones when not given.

        Raises:
            UnavailableError: there is no HIP runtime or no GPU.
            RefusedError: a GPU or the runtime isn't what the module was built for.
            HipError: HIP refuses a code object.
        """
        driver = hip_module.require_hip()
        if devices is None:
            count = driver.device_count()
            devices = tuple(range(count)) if isinstance(count, int) else ()
        before = len(self._functions)
        for device in devices:
            for instance in self.instances:
                for index in range(len(instance.variants)):
                    if (device, instance.name, index) not in self._functions:
                        self._function(driver, device, instance.name, index, None)
        # The tables of the catalog, which the first nameless call would import otherwise.
        _ = self.spec
        return len(self._functions) - before

    def check(self, device: int) -> Refusal | None:
        """Why a device can't run this module, or None if it can.

        Raises:
            UnavailableError: there is no HIP runtime or no GPU.
            HipError: there is no such device.
        """
        return devices.refusal(self.lock, self._objects.values(), hip_module.require_hip(), device)

    def other_cu_num(self, device: int) -> OtherCuNum | None:
        """Whether a device has another number of compute units than was planned for.

        Raises:
            UnavailableError: there is no HIP runtime or no GPU.
            HipError: there is no such device.
        """
        return devices.other_cu_num(self.lock, hip_module.require_hip(), device)

    def explain(self) -> dict[str, Any]:
        """What was loaded, from which layer, what was built and why, and where it is resident."""
        with self._guard:
            resident: dict[str, list[int]] = {}
            for device, key in self._modules:
                resident.setdefault(key, []).append(device)
            checked = dict(self._checked)
            other = dict(self._other_cu_num)
        return {
            "module": self.name,
            "manifest": self.lock.manifest,
            "target": self.lock.arch,
            "cu_num": self.lock.cu_num,
            "toolchain": self.lock.toolchain,
            "load_ms": round(self._load_ms, 3),
            "built": list(self.built),
            "remotes": [{"remote": r, "object": o, "reason": why} for r, o, why in self.told],
            "host": _origin(self._host),
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
                            **_origin(self._objects[v.action.key]),
                            "devices": sorted(resident.get(v.action.key, [])),
                        }
                        for v in i.variants
                    ],
                }
                for i in self.instances
            ],
            "devices": {
                str(d): {
                    "load_ms": round(ms, 3),
                    "cu_num": other[d].found if d in other else self.lock.cu_num,
                }
                for d, ms in sorted(checked.items())
            },
        }

    def _ask(self, name: str, problem: Problem) -> Call | Unsupported:
        if name not in self._instances:
            raise MissError(
                name, "it isn't in the lock", manifest=self.lock.manifest, line='scope = "module"'
            )
        return self._shim.ask(self._index[name], problem)

    def _variant(self, name: str, said: Answer, problem: Problem) -> int:
        variants = self._instances[name].variants
        for index, variant in enumerate(variants):
            if _fits(variant, bool(said.hot_loop), bool(said.tail_even), bool(said.non_temporal)):
                return index
        wanted = f"{'hot' if said.hot_loop else 'cold'}-{'even' if said.tail_even else 'odd'}"
        wanted += "-nt" if said.non_temporal else ""
        dim = "model_dim" if self._instances[name].stage == 1 else "inter_dim"
        raise MissError(
            f"the {wanted} kernel of {name}",
            f"{dim} {problem.k} runs it",
            manifest=self.lock.manifest,
            line=f"{dim} = {problem.k}",
        )

    def _function(self, driver: Hip, device: int, name: str, index: int, stream: int | None) -> int:
        """Load a kernel on a device, once; while a stream is captured that is refused."""
        key = (device, name, index)
        variant = self._instances[name].variants[index]
        if key not in self._functions and stream is not None and driver.capturing(stream):
            raise ForbiddenError(
                f"it isn't loaded on device {device} yet, and loading it would break the graph"
                " capture that is in progress",
                where=name,
                hint="call prewarm() on the module before capturing",
            )
        with self._guard:
            if (known := self._functions.get(key)) is not None:
                return known
            begin = time.perf_counter()
            if device not in self._checked:
                if (refusal := self.check(device)) is not None:
                    raise RefusedError(
                        self.name,
                        (refusal,),
                        f"build for this machine: `jitcache prebuild {self.lock.manifest}`",
                    )
                self._checked[device] = 0.0
                if (other := self.other_cu_num(device)) is not None:
                    self._other_cu_num[device] = other
                    warnings.warn(f"jitcache: {self.name}: {other}", RuntimeWarning, stacklevel=4)
            with driver.on_device(device):
                where = (device, variant.action.key)
                if where not in self._modules:
                    image = self._objects[variant.action.key].data
                    self._modules[where] = driver.load_module(image)
                self._functions[key] = driver.function(self._modules[where], variant.kernel)
            self._checked[device] += (time.perf_counter() - begin) * 1000
            return self._functions[key]

    def _forked(self) -> None:
        self._guard = threading.Lock()
        self._functions.clear()
        self._ready.clear()
        self._modules.clear()
        self._checked.clear()
        self._other_cu_num.clear()


def _fits(variant: LockedVariant, hot: bool, even: bool, non_temporal: bool) -> bool:
    return (
        variant.hot_loop == hot
        and variant.tail in ("full", "even" if even else "odd")
        and variant.non_temporal in (None, non_temporal)
    )


def _origin(item: Loaded) -> dict[str, Any]:
    return {"object": item.name, "digest": item.digest, "layer": item.layer, "path": item.path}


_live: weakref.WeakSet[Module] = weakref.WeakSet()


def _after_fork() -> None:
    for module in list(_live):
        module._forked()  # noqa: SLF001


os.register_at_fork(after_in_child=_after_fork)
