"""Build everything a plan needs, once: look up, compile what is missing, publish, lock.

Several processes may prebuild the same thing at the same time. Each takes the locks of the
missing actions it can get without waiting and compiles those; what somebody else holds it
waits for afterwards, holding nothing itself, so nobody waits in a circle. Every output is
published the moment its compile ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from jitcache import digest
from jitcache.action.command import launched
from jitcache.action.headers import HeaderSet, listing
from jitcache.action.resolve import Resolved, Resolver
from jitcache.action.worklist import ModuleWork
from jitcache.codegen.native import Recipe
from jitcache.errors import StoreError
from jitcache.lockfile import Lock, LockedAction, LockedInstance, LockedModule, LockedVariant
from jitcache.store.durable import explained
from jitcache.store.model import ActionRecord, Hit, Output
from jitcache.store.store import Store
from jitcache.toolchain.model import Toolchain

if TYPE_CHECKING:
    from jitcache.build.durations import Durations, Features
    from jitcache.build.model import Compiled, CompileJob, Event
    from jitcache.plan.model import Plan
    from jitcache.store.locks import Acquired, Busy

HEADERS_OUTPUT = "headers.json"
"""Output that lists the headers a translation unit read: what `why-miss` compares."""


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to build: its resolved key and a label for people."""

    resolved: Resolved
    label: str

    @property
    def key(self) -> str:
        """The action key."""
        return self.resolved.key


@dataclass(frozen=True, slots=True)
class Failure:
    """An action that could not be built.

    Attributes:
        label: the instance and variant.
        error: the compiler's first error, or why it was not published.
        log: all diagnostics, where there are any.
        command: reproduces it, where a compiler ran.
    """

    label: str
    error: str
    log: str | None = None
    command: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "label": self.label,
            "error": self.error,
            "log": self.log,
            "command": self.command,
        }


@dataclass(slots=True)
class Built:
    """What became of the actions of one target.

    Attributes:
        records: the record of every action that is there now, by key.
        hits: actions that were there already, or that another process built.
        fetched: actions that a remote had.
        built: actions compiled and published by us.
        failed: actions that could not be built.
        not_run: labels of actions that were not tried, because an earlier one failed.
        cpu_s: CPU seconds of our compilers.
        wall_s: seconds in all.
        run_directory: of our last ninja run, where there was one.
    """

    records: dict[str, ActionRecord] = field(default_factory=dict)
    hits: int = 0
    fetched: int = 0
    built: int = 0
    failed: list[Failure] = field(default_factory=list)
    not_run: list[str] = field(default_factory=list)
    cpu_s: float = 0.0
    wall_s: float = 0.0
    run_directory: Path | None = None


def actions_of(modules: Sequence[ModuleWork], resolver: Resolver) -> dict[str, Action]:
    """Every action of a work list once, by its recipe's identity.

    Raises:
        ToolchainError: headers can't be read.
    """
    found: dict[str, Action] = {}
    for module in modules:
        for recipe, label in module.recipes():
            if recipe.identity not in found:
                found[recipe.identity] = Action(resolver.resolve(recipe), label)
    return found


class Prebuilder:
    """Builds the actions of one target.

    Args:
        store: where results are looked up and published.
        toolchain: what they are built with.
        arch: target architecture.
        resolver: computes the records of what is built.
        jobs: compilers at once; None: as many as cores and memory allow.
        keep_going: after a failure, still build everything else.
        on_event: told of every compile that starts and ends.
        on_wait: told when we wait for another process, and then every ten seconds.
        on_start: told before compilers start: the jobs, and how many run at once.
        fetch: asked for what the store lacks, before anything is compiled: puts an action
            into the store and hands back its record, or None where no remote has it.
        compiler_env: variables for compilers that change no byte of what they write.
        launcher: words before the compiler's command line (`jitcache.toolchain.launcher`).
        on_built: told of every action that we compiled, once it is published.
        pack: whether kernels may share a front end where that makes the build shorter.
        plan: what the actions are for, which a run directory records for `jitcache report`.
    """

    def __init__(
        self,
        store: Store,
        toolchain: Toolchain,
        arch: str,
        resolver: Resolver,
        *,
        jobs: int | None = None,
        keep_going: bool = False,
        on_event: Callable[[Event], None] = lambda _: None,
        on_wait: Callable[[Busy], None] | None = None,
        on_start: Callable[[list[CompileJob], int], None] = lambda _jobs, _parallel: None,
        fetch: Callable[[str], ActionRecord | None] | None = None,
        compiler_env: tuple[tuple[str, str], ...] = (),
        launcher: tuple[str, ...] = (),
        on_built: Callable[[ActionRecord], None] = lambda _: None,
        pack: bool = False,
        plan: Plan | None = None,
    ) -> None:
        self._store = store
        self._toolchain = toolchain
        self._arch = arch
        self._resolver = resolver
        self._jobs = jobs
        self._keep_going = keep_going
        self._on_event = on_event
        self._on_wait = on_wait
        self._on_start = on_start
        self._fetch = fetch
        self._compiler_env = compiler_env
        self._launcher = launcher
        self._on_built = on_built
        self._pack = pack
        self._plan = plan

    def build(self, actions: Sequence[Action]) -> Built:
        """Have every action in the store, or know why not.

        Raises:
            StoreError: the store can't be written and something has to be built.
            BusyError: another process held a lock for too long.
        """
        begin = time.monotonic()
        built = Built()
        missing = self._look_up({a.key: a for a in actions}, built)
        if missing and self._fetch is not None:
            self._check_writable()
            missing = self._fetch_each(missing, self._fetch, built)
        while missing:
            missing = self._round(missing, built)
        built.wall_s = time.monotonic() - begin
        return built

    def _round(self, missing: dict[str, Action], built: Built) -> dict[str, Action]:
        """Build what nobody else is building, or else wait for one of those; what is left."""
        from jitcache.store.locks import Acquired

        if not built.run_directory:
            self._check_writable()
        held: dict[str, Acquired] = {}
        try:
            for key in sorted(missing):
                got = self._store.try_lock(key)
                if isinstance(got, Acquired):
                    held[key] = got
            # Somebody may have published between our lookup and our lock.
            left = self._look_up(missing, built)
            ours = {k: a for k, a in left.items() if k in held}
            for key in set(held) - set(ours):
                held.pop(key).release()
            if ours:
                tried = self._compile(ours, held, built)
                left = {k: a for k, a in left.items() if k not in tried}
                if (built.failed or built.not_run) and not self._keep_going:
                    built.not_run.extend(a.label for a in left.values())
                    return {}
            elif left:
                with self._store.lock(next(iter(left)), on_wait=self._on_wait):
                    pass
                left = self._look_up(left, built)
        finally:
            for lock in held.values():
                lock.release()
        return left

    def _look_up(self, wanted: dict[str, Action], built: Built) -> dict[str, Action]:
        missing = {}
        for key, action in wanted.items():
            found = self._store.lookup(key)
            if isinstance(found, Hit):
                built.records[key] = found.record
                built.hits += 1
            else:
                missing[key] = action
        return missing

    @staticmethod
    def _fetch_each(
        wanted: dict[str, Action], fetch: Callable[[str], ActionRecord | None], built: Built
    ) -> dict[str, Action]:
        missing = {}
        for key, action in wanted.items():
            record = fetch(key)
            if record is None:
                missing[key] = action
            else:
                built.records[key] = record
                built.fetched += 1
        return missing

    def _check_writable(self) -> None:
        from jitcache.store.reports import NotWritable

        state = self._store.writable()
        if isinstance(state, NotWritable):
            raise StoreError(
                f"something has to be built, but the store can't be written: {state.detail}",
                where=str(self._store.layout.root),
                hint="set JITCACHE_DIR to a writable directory, or fetch the results instead",
            )

    def _compile(
        self, ours: dict[str, Action], held: dict[str, Acquired], built: Built
    ) -> set[str]:
        """Compile and publish; the keys that were tried, with success or without."""
        from jitcache.build import durations
        from jitcache.build.capacity import choose_jobs, read_machine
        from jitcache.build.model import CompileFailed, Finished, NotRun
        from jitcache.build.packed import pack_jobs, unpacked
        from jitcache.build.rundir import clean_runs, new_run_directory, release_run_directory
        from jitcache.build.runner import run
        from jitcache.store.layout import Bucket

        runs = self._store.layout.bucket(Bucket.RUNS)
        clean_runs(runs)
        learned = self._store.layout.bucket(Bucket.DURATIONS)
        known = durations.load(learned)
        machine = read_machine()

        def jobs_for(memories: Sequence[int]) -> int:
            return self._jobs or choose_jobs(machine, memories).jobs

        alone = [(self._job(a, known), a.resolved.recipe) for a in ours.values()]
        # A launcher sends single compiles elsewhere, which packed ones are not.
        if self._pack and not self._launcher:
            packed = pack_jobs(alone, self._toolchain, self._arch, jobs_for)
        else:
            packed = [(job, [job]) for job, _ in alone]
        members = {job.key: parts for job, parts in packed}
        jobs = [job for job, _ in packed]
        parallel = jobs_for([job.memory or 0 for job in jobs])
        self._on_start(jobs, parallel)
        directory = new_run_directory(runs)
        built.run_directory = directory
        self._describe(directory, ours, members, known)

        def take(event: Event) -> None:
            if isinstance(event, Finished):
                parts = members[event.compiled.job.key]
                for compiled in unpacked(event.compiled, parts):
                    action = ours[compiled.job.key]
                    self._publish(action, compiled, built)
                    held.pop(action.key).release()
                if len(parts) == 1:
                    sample = durations.sample_of(
                        self._features(action.resolved.recipe), compiled.usage, int(time.time())
                    )
                    durations.append(learned, [sample])
            self._on_event(event)

        try:
            result = run(
                jobs,
                directory=directory,
                parallel=parallel,
                keep_going=self._keep_going,
                on_event=take,
            )
        finally:
            release_run_directory(directory)
        built.cpu_s += result.cpu_s
        failed = [o for o in result.outcomes if isinstance(o, CompileFailed)]
        not_run = [o for o in result.outcomes if isinstance(o, NotRun)]
        packs = [o for o in failed if len(members[o.job.key]) > 1]
        again: list[CompileFailed | NotRun] = []
        if packs:
            # Which kernel it was is told by compiling each alone.
            self._pack = False
            again = [*packs, *not_run]
        else:
            built.not_run.extend(o.job.label for o in not_run)
        built.failed.extend(
            Failure(o.job.label, o.first_error, str(o.log), o.command)
            for o in failed
            if o not in packs
        )
        return set(ours) - {job.key for o in again for job in members[o.job.key]}

    def _describe(
        self,
        directory: Path,
        ours: dict[str, Action],
        members: dict[str, list[CompileJob]],
        known: Durations,
    ) -> None:
        if self._plan is None:
            return
        from jitcache.build.action import action_id
        from jitcache.build.runplan import run_plan, write_plan

        described = run_plan(
            self._plan,
            {a.resolved.recipe.identity: key for key, a in ours.items()},
            {action_id(key): [job.key for job in jobs] for key, jobs in members.items()},
            lambda recipe: known.estimate(self._features(recipe)),
        )
        write_plan(directory, described)

    def _features(self, recipe: Recipe) -> Features:
        from jitcache.build.durations import features_of

        return features_of(recipe, self._arch, self._toolchain.compiler_name)

    def _job(self, action: Action, known: Durations) -> CompileJob:
        from jitcache.build.model import CompileJob

        recipe = action.resolved.recipe
        expected = known.estimate(self._features(recipe))
        return CompileJob(
            key=action.key,
            label=f"{action.label} {self._arch}",
            source_name=recipe.source_name,
            source=recipe.render(),
            output_name=recipe.output_name,
            argv=self._argv(action),
            cost_s=expected.cost_s,
            memory=expected.memory,
            env=self._compiler_env,
        )

    def _launched(self, recipe: Recipe) -> bool:
        # A host shim is linked at once, which no launcher keeps.
        return bool(self._launcher) and recipe.kind == "device"

    def _argv(self, action: Action) -> tuple[str, ...]:
        argv = action.resolved.command.argv
        return launched(argv, self._launcher) if self._launched(action.resolved.recipe) else argv

    def _headers_of(self, recipe: Recipe, compiled: Compiled) -> HeaderSet:
        """What a compile has read; behind a launcher, what it would read now."""
        if self._launched(recipe):
            return self._resolver.scan(recipe)
        return self._resolver.headers_read(tuple(map(str, compiled.headers)))

    def _publish(self, action: Action, compiled: Compiled, built: Built) -> None:
        """Put a finished compile into the store, under the key of what it really read."""
        recipe = action.resolved.recipe
        headers = self._headers_of(recipe, compiled)
        inputs = self._resolver.inputs(recipe, headers)
        if digest.of_json(inputs) != action.key:
            before = {(h.name, h.digest) for h in action.resolved.headers}
            changed = sorted({name for name, _ in before ^ {(h.name, h.digest) for h in headers}})
            built.failed.append(
                Failure(
                    f"{action.label} {self._arch}",
                    "its inputs changed while it was compiled, so it was not published: "
                    + (", ".join(changed[:3]) or "jitcache itself was updated"),
                )
            )
            return
        header_file = compiled.output.with_name(HEADERS_OUTPUT)
        with explained("keep what a compile has read", header_file):
            header_file.write_bytes(listing(headers))
        files = {recipe.output_name: compiled.output, HEADERS_OUTPUT: header_file}
        mode = 0o444 if recipe.kind == "device" else 0o555
        record = ActionRecord(
            key=action.key,
            inputs=inputs,
            outputs=tuple(
                Output(
                    name,
                    digest.of_file(path),
                    path.stat().st_size,
                    mode if name == recipe.output_name else 0o444,
                )
                for name, path in sorted(files.items())
            ),
            target=self._arch if recipe.kind == "device" else "host",
            toolchain=self._toolchain.id,
            label=f"{action.label} {self._arch}",
            created=int(time.time()),
            facts=_facts(recipe, compiled),
        )
        built.records[action.key] = self._store.put(record, files)
        built.built += 1
        self._keep_facts(record, recipe.output_name, built.run_directory)
        # What was published needs no second copy on the disk.
        compiled.output.unlink(missing_ok=True)
        header_file.unlink(missing_ok=True)
        self._on_built(built.records[action.key])

    def _keep_facts(
        self, record: ActionRecord, output_name: str, run_directory: Path | None
    ) -> None:
        """For `jitcache report`, which finds no output in the run directory any more."""
        if self._plan is None or run_directory is None:
            return
        from jitcache.build.runplan import Facts, append_facts

        size = next(o.size for o in record.outputs if o.name == output_name)
        known = record.facts
        kernels = tuple(known.get("kernels", ()))
        facts = Facts(record.key, size, known["cpu_ms"], known["peak_rss"], kernels)
        append_facts(run_directory, facts)


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
            record = record_of(kernel.recipe.identity)
            variant = LockedVariant(
                hot_loop=kernel.variant.hot_loop,
                tail=kernel.variant.tail,
                non_temporal=kernel.variant.non_temporal,
                kernel=record.facts["kernels"][0]["symbol"],
                action=_locked(record),
            )
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
                host=_locked(record_of(module.shim.identity)),
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


def _locked(record: ActionRecord) -> LockedAction:
    return LockedAction(record.key, tuple(o for o in record.outputs if o.name != HEADERS_OUTPUT))


def _facts(recipe: Recipe, compiled: Compiled) -> dict[str, Any]:
    usage = compiled.usage
    facts: dict[str, Any] = {
        "cpu_ms": round(usage.cpu_s * 1000),
        "wall_ms": round(usage.wall_s * 1000),
        "peak_rss": usage.peak_rss,
    }
    if recipe.kind == "device":
        from jitcache import codeobject

        facts["instance"] = recipe.context["name"]
        facts["kernels"] = [k.to_json() for k in codeobject.read(compiled.output).kernels]
    return facts
