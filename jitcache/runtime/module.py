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
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from jitcache.errors import ForbiddenError, JitcacheError, UnsupportedError
from jitcache.lockfile import Lock, LockedInstance, LockedVariant
from jitcache.runtime import devices
from jitcache.runtime import hip as hip_module
from jitcache.runtime.content import Content
from jitcache.runtime.devices import OtherCuNum
from jitcache.runtime.hip import Hip, UnavailableError
from jitcache.runtime.policy import MissError, Refusal, RefusedError, jit_policy
from jitcache.runtime.shim import Answer, Call, Launch, Problem, Unsupported

if TYPE_CHECKING:
    from jitcache.codegen.catalog import ModuleSpec, Variant

    Widen = Callable[[Content, str, Variant, str], Content]
    """Builds a kernel of an instance, by name and for a reason; what the module holds then."""


class Module:
    """A module that was built, ready to be launched. May be used from any thread.

    Args:
        content: what it holds.
        built: what had to be built for it, and why, as sentences; usually none.
        told: (remote, object, why), where a remote was asked in vain or was not believed.
        load_ms: what loading it took, in milliseconds.
        widen: builds a kernel that it doesn't hold, for a content that does.

    Attributes:
        name: AITER's name of the module.
        built: as given, and what calls had built since.
        told: as given.
    """

    def __init__(
        self,
        content: Content,
        *,
        widen: Widen,
        built: tuple[str, ...] = (),
        told: tuple[tuple[str, str, str], ...] = (),
        load_ms: float = 0.0,
    ) -> None:
        self.name = content.locked.name
        self.built = built
        self.told = told
        self._content = content
        self._widen = widen
        self._load_ms = load_ms
        self._chosen: dict[tuple[int, int, int, str], str] = {}
        self._functions: dict[tuple[int, str, str], int] = {}
        self._ready: dict[tuple[int, str, int, int, int], int] = {}
        self._modules: dict[tuple[int, str], int] = {}
        self._checked: dict[int, float] = {}
        self._other_cu_num: dict[int, OtherCuNum] = {}
        self._missed: dict[str, MissError] = {}
        self._failed: dict[tuple[str, Variant], JitcacheError] = {}
        self._spec: ModuleSpec | None = None
        self._guard = threading.Lock()
        self._building = threading.Lock()
        _live.add(self)

    @property
    def lock(self) -> Lock:
        """The lock it was resolved by, with what was built since."""
        return self._content.lock

    @property
    def instances(self) -> tuple[LockedInstance, ...]:
        """The instances that it holds."""
        return self._content.locked.instances

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
            MissError: it wasn't built, and `JITCACHE_JIT` forbids to build it when it is launched.
            UnsupportedError: AITER has no kernel for this block_m.
        """
        key = (stage, block_m, inter_dim, kernel_name)
        found = self._chosen.get(key)
        if found is None:
            try:
                found = self._chosen[key] = self._content.choose(self.spec, *key)
            except MissError as miss:
                # It is built when it is launched: only then its K is known.
                if jit_policy() == "forbid":
                    raise
                self._missed[miss.kernel] = miss
                return miss.kernel
        return found

    def prepare(self, name: str, problem: Problem) -> Launch | Unsupported:
        """What a launch of an instance would be; needs no GPU.

        Raises:
            JitcacheError: the module lacks the kernel, as for `launch`.
        """
        call = self._ask(name, problem, 0)
        if isinstance(call, Unsupported):
            return call
        self._variant(name, call.answer(), problem, 0)
        return call.snapshot()

    def kernel(self, name: str, launch: Launch) -> tuple[str, bytes]:
        """Symbol and code object of the variant that a prepared launch runs."""
        return self._content.kernel(name, launch)

    def launch(self, name: str, problem: Problem, *, stream: int = 0, device: int = -1) -> None:
        """Launch an instance; returns as soon as it is queued.

        Args:
            name: the instance, from `choose`.
            problem: pointers and sizes.
            stream: HIP stream handle; 0 is the default stream.
            device: device index; -1 is the thread's current one.

        Raises:
            MissError: the module lacks the kernel, and `JITCACHE_JIT` forbids to build it.
            ForbiddenError: it isn't built or loaded yet, and the stream is being captured.
            BuildError: it was tried to build it, and that failed.
            UnsupportedError: CK refuses the problem.
            UnavailableError: there is no HIP runtime or no GPU.
            RefusedError: the GPU or the runtime isn't what the module was built for.
            HipError: HIP refuses the launch.
        """
        call = self._ask(name, problem, stream)
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
            variant = self._variant(name, said, problem, stream)
            function = self._function(driver, device, name, variant, stream)
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
                for variant in instance.variants:
                    self._function(driver, device, instance.name, variant, None)
        # The tables of the catalog, which the first nameless call would import otherwise.
        _ = self.spec
        return len(self._functions) - before

    def check(self, device: int) -> Refusal | None:
        """Why a device can't run this module, or None if it can.

        Raises:
            UnavailableError: there is no HIP runtime or no GPU.
            HipError: there is no such device.
        """
        return devices.refusal(
            self.lock, self._content.objects.values(), hip_module.require_hip(), device
        )

    def other_cu_num(self, device: int) -> OtherCuNum | None:
        """Whether a device has another number of compute units than was planned for.

        Raises:
            UnavailableError: there is no HIP runtime or no GPU.
            HipError: there is no such device.
        """
        return devices.other_cu_num(self.lock, hip_module.require_hip(), device)

    def explain(self) -> dict[str, Any]:
        """What was loaded, from which layer, what was built and why, and where it is resident."""
        content = self._content
        with self._guard:
            resident: dict[str, list[int]] = {}
            for device, key in self._modules:
                resident.setdefault(key, []).append(device)
            checked = dict(self._checked)
            other = dict(self._other_cu_num)
        return {
            **content.describe(resident),
            "load_ms": round(self._load_ms, 3),
            "built": list(self.built),
            "remotes": [{"remote": r, "object": o, "reason": why} for r, o, why in self.told],
            "devices": {
                str(d): {
                    "load_ms": round(ms, 3),
                    "cu_num": other[d].found if d in other else content.lock.cu_num,
                }
                for d, ms in sorted(checked.items())
            },
        }

    def _ask(self, name: str, problem: Problem, stream: int) -> Call | Unsupported:
        try:
            return self._content.ask(name, problem)
        except MissError as miss:
            self._build(miss, name, problem, stream)
            return self._content.ask(name, problem)

    def _variant(self, name: str, said: Answer, problem: Problem, stream: int) -> LockedVariant:
        try:
            return self._content.variant(name, said, problem)
        except MissError as miss:
            self._build(miss, name, problem, stream)
            return self._content.variant(name, said, problem)

    def _build(self, miss: MissError, name: str, problem: Problem, stream: int) -> None:
        """Have the kernel built that a call misses, as the policy says."""
        policy = jit_policy()
        # Whoever chose it knew better why.
        miss = self._missed.get(name, miss)
        if policy == "forbid":
            raise miss
        driver = hip_module.open_hip()
        if isinstance(driver, Hip) and driver.capturing(stream):
            raise ForbiddenError(
                f"{miss.what}; it can't be built while a graph is captured",
                where=miss.where,
                hint=f"launch it once before capturing, or {miss.hint}",
            )
        variant = self._wanted(name, problem)
        with self._building:
            if self._content.holds(name, variant):
                return
            if (failed := self._failed.get((name, variant))) is not None:
                raise failed.with_traceback(None)
            if policy == "warn":
                what = f"jitcache compiles {variant} of {name} now: {miss.why}"
                warnings.warn(what, RuntimeWarning, stacklevel=4)
            try:
                self._content = self._widen(self._content, name, variant, miss.what)
            except JitcacheError as e:
                self._failed[name, variant] = e
                raise
            self.built += (f"built {variant} of {name}: {miss.why}",)

    def _wanted(self, name: str, problem: Problem) -> Variant:
        """The kernel of an instance that runs for a problem."""
        from jitcache.codegen.catalog import find, variant_for

        instance = find(name, self.spec, self.lock.arch)
        if instance is None:
            raise UnsupportedError(f"AITER's {self.name} has no such kernel", where=name)
        return variant_for(instance, problem.k, bool(problem.non_temporal), splitk=problem.splitk)

    def _function(
        self, driver: Hip, device: int, name: str, variant: LockedVariant, stream: int | None
    ) -> int:
        """Load a kernel on a device, once; while a stream is captured that is refused."""
        key = (device, variant.action.key, variant.kernel)
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
                    image = self._content.objects[variant.action.key].data
                    self._modules[where] = driver.load_module(image)
                self._functions[key] = driver.function(self._modules[where], variant.kernel)
            self._checked[device] += (time.perf_counter() - begin) * 1000
            return self._functions[key]

    def _forked(self) -> None:
        self._guard = threading.Lock()
        self._building = threading.Lock()
        self._functions.clear()
        self._ready.clear()
        self._modules.clear()
        self._checked.clear()
        self._other_cu_num.clear()


_live: weakref.WeakSet[Module] = weakref.WeakSet()


def _after_fork() -> None:
    for module in list(_live):
        module._forked()  # noqa: SLF001


os.register_at_fork(after_in_child=_after_fork)
