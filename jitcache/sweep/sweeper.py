"""Build kernels under many sets of back-end flags, paying their front end once.

The bitcode that the front end hands over is an action of its own, kept in the store. Each set
of `-mllvm` options then costs the optimiser and back end only, and its code object is
published under the very key that a whole compile with these flags has: the bytes are the
same (`tests/test_split.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jitcache import codeobject, digest
from jitcache.action import keys
from jitcache.action.headers import HeaderSet, listing
from jitcache.action.resolve import Resolver
from jitcache.action.split import back_argv, front_command
from jitcache.action.worklist import KernelWork
from jitcache.errors import ToolchainError
from jitcache.outcome import Failure
from jitcache.publication import publish
from jitcache.store.model import Hit
from jitcache.store.store import Store
from jitcache.sweep.figures import Figures, figures_of
from jitcache.sweep.flagset import FlagSet, with_flags
from jitcache.toolchain.base import run as run_tool
from jitcache.toolchain.model import Toolchain

if TYPE_CHECKING:
    from jitcache.build.model import Compiled, CompileJob, Event

BITCODE_OUTPUT = "kernel.bc"


@dataclass(frozen=True, slots=True)
class Row:
    """One kernel under one set.

    Attributes:
        kernel: its label.
        flags: the set.
        key: the action key of the code object.
        figures: what it came to; None where it could not be built.
        cpu_ms: of the back end; 0 where it was in the store.
        error: why it could not be built.
    """

    kernel: str
    flags: FlagSet
    key: str
    figures: Figures | None
    cpu_ms: int = 0
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {**asdict(self), "flags": list(self.flags.options)}


class Sweeper:
    """Builds kernels under flag sets.

    Args:
        store: where bitcode and code objects are looked up and published.
        toolchain: with the product's own flags.
        arch: target.
        salt: as in `Resolver`.
        jobs: compilers at once; None: as many as cores and memory allow.
        compiler_env: as in `Prebuilder`.
        on_event: told of every compile that starts and ends.
        on_start: told before compilers start: the jobs, and how many run at once.

    Raises:
        ToolchainError: there is no llvm-objdump beside the compiler.
    """

    def __init__(
        self,
        store: Store,
        toolchain: Toolchain,
        arch: str,
        salt: str = "",
        *,
        jobs: int | None = None,
        compiler_env: tuple[tuple[str, str], ...] = (),
        on_event: Callable[[Event], None] = lambda _: None,
        on_start: Callable[[list[CompileJob], int], None] = lambda _jobs, _parallel: None,
    ) -> None:
        self._store = store
        self._toolchain = toolchain
        self._arch = arch
        self._salt = salt
        self._jobs = jobs
        self._env = compiler_env
        self._on_event = on_event
        self._on_start = on_start
        self._objdump = Path(os.path.realpath(toolchain.compiler)).with_name("llvm-objdump")
        if not self._objdump.is_file():
            raise ToolchainError(
                "no llvm-objdump beside the compiler",
                where=str(self._objdump),
                hint="install llvm-22, or the ROCm package with LLVM's tools",
            )

    def sweep(self, kernels: Sequence[KernelWork], sets: Sequence[FlagSet]) -> list[Row]:
        """One row per kernel and set, kernel by kernel.

        Raises:
            StoreError: the store can't be written.
            ToolchainError: headers can't be read.
        """
        resolver = Resolver(self._store, self._toolchain, self._arch, self._salt)
        tasks = []
        for kernel in kernels:
            headers = resolver.resolve(kernel.recipe).headers
            tasks += [self._task(kernel, headers, flags) for flags in sets]
        missing = [t for t in tasks if not isinstance(self._store.lookup(t.key), Hit)]
        bitcode = self._bitcode({t.kernel.recipe.identity: t for t in missing}.values())
        done: dict[str, _Done] = {}
        ready = []
        for task in missing:
            found = bitcode[task.kernel.recipe.identity]
            if isinstance(found, Failure):
                done[task.key] = found
            else:
                ready.append((task, found))
        done |= self._code_objects(ready)
        return [self._row(task, done.get(task.key)) for task in tasks]

    def _task(self, kernel: KernelWork, headers: HeaderSet, flags: FlagSet) -> _Task:
        toolchain = with_flags(self._toolchain, flags)
        resolver = Resolver(self._store, toolchain, self._arch, self._salt)
        inputs = resolver.inputs(kernel.recipe, headers)
        return _Task(kernel, headers, flags, toolchain, inputs, keys.action_key(inputs))

    def _bitcode(self, tasks: Iterable[_Task]) -> dict[str, Path | Failure]:
        """The bitcode of each task's kernel, by the recipe's identity."""
        command = front_command(self._toolchain)
        found: dict[str, Path | Failure] = {}
        jobs: dict[str, tuple[CompileJob, _Task, dict[str, Any]]] = {}
        for task in tasks:
            recipe = task.kernel.recipe
            inputs = keys.action_inputs(
                kind="bitcode",
                source=digest.of_bytes(recipe.render().encode()),
                headers=digest.of_bytes(listing(task.headers)),
                command=command,
                toolchain=self._toolchain,
                arch=self._arch,
                salt=self._salt,
            )
            key = keys.action_key(inputs)
            known = self._store.lookup(key)
            if isinstance(known, Hit):
                found[recipe.identity] = known.paths[BITCODE_OUTPUT]
            else:
                label = f"{task.label} bitcode {self._arch}"
                job = self._job(key, label, task, BITCODE_OUTPUT, command.argv)
                jobs[key] = (job, task, inputs)

        def take(compiled: Compiled) -> None:
            _, task, inputs = jobs[compiled.job.key]
            self._publish(task, inputs, compiled, self._toolchain)
            hit = self._store.lookup(compiled.job.key)
            if isinstance(hit, Hit):
                found[task.kernel.recipe.identity] = hit.paths[BITCODE_OUTPUT]

        for key, failure in self._run([job for job, _, _ in jobs.values()], take).items():
            found[jobs[key][1].kernel.recipe.identity] = failure
        return found

    def _code_objects(self, ready: Sequence[tuple[_Task, Path]]) -> dict[str, _Done]:
        """What became of each task, by key: CPU milliseconds, or why not."""
        tasks = {task.key: task for task, _ in ready}
        jobs = []
        for task, bitcode in ready:
            names = {"@bitcode": str(bitcode), "@output": "{output}"}
            argv = tuple(names.get(w, w) for w in back_argv(task.toolchain, self._arch))
            label = " ".join((task.label, self._arch, *task.flags.options))
            jobs.append(self._job(task.key, label, task, task.kernel.recipe.output_name, argv))
        done: dict[str, _Done] = {}

        def take(compiled: Compiled) -> None:
            task = tasks[compiled.job.key]
            instance = task.kernel.instance.name
            self._publish(task, task.inputs, compiled, task.toolchain, instance)
            done[task.key] = round(compiled.usage.cpu_s * 1000)

        return done | self._run(jobs, take)

    def _job(
        self, key: str, label: str, task: _Task, output: str, argv: tuple[str, ...]
    ) -> CompileJob:
        from jitcache.build.model import CompileJob

        recipe = task.kernel.recipe
        return CompileJob(
            key, label, recipe.source_name, recipe.render(), output, argv, env=self._env
        )

    def _run(
        self, jobs: list[CompileJob], publish: Callable[[Compiled], None]
    ) -> dict[str, Failure]:
        """Run the jobs and publish each; what failed, by key."""
        if not jobs:
            return {}
        from jitcache.build.capacity import choose_jobs, read_machine
        from jitcache.build.model import CompileFailed, Finished
        from jitcache.build.rundir import run_directory
        from jitcache.build.runner import run
        from jitcache.store.layout import Bucket

        def take(event: Event) -> None:
            if isinstance(event, Finished):
                publish(event.compiled)
            self._on_event(event)

        parallel = self._jobs or choose_jobs(read_machine(), [None] * len(jobs)).jobs
        self._on_start(jobs, parallel)
        with run_directory(self._store.layout.bucket(Bucket.RUNS)) as directory:
            result = run(
                jobs, directory=directory, parallel=parallel, keep_going=True, on_event=take
            )
        return {
            o.job.key: Failure(o.job.label, o.first_error, str(o.log), o.command)
            for o in result.outcomes
            if isinstance(o, CompileFailed)
        }

    def _publish(
        self,
        task: _Task,
        inputs: dict[str, Any],
        compiled: Compiled,
        toolchain: Toolchain,
        instance: str = "",
    ) -> None:
        publish(
            self._store,
            compiled,
            inputs=inputs,
            headers=task.headers,
            target=self._arch,
            toolchain=toolchain.id,
            instance=instance,
        )

    def _row(self, task: _Task, done: _Done | None) -> Row:
        if isinstance(done, Failure):
            return Row(task.label, task.flags, task.key, None, error=done.error)
        hit = self._store.lookup(task.key)
        if not isinstance(hit, Hit):
            return Row(task.label, task.flags, task.key, None, error=hit.detail or hit.reason)
        path = hit.paths[task.kernel.recipe.output_name]
        said = run_tool([str(self._objdump), "-d", str(path)], os.environ)
        figures = figures_of(codeobject.read(path), said.out)
        return Row(task.label, task.flags, task.key, figures, done or 0)


@dataclass(frozen=True, slots=True)
class _Task:
    """One kernel under one set: its toolchain with the set's flags, and its action."""

    kernel: KernelWork
    headers: HeaderSet
    flags: FlagSet
    toolchain: Toolchain
    inputs: dict[str, Any]
    key: str

    @property
    def label(self) -> str:
        return f"{self.kernel.instance.short} {self.kernel.variant}"


_Done = int | Failure
