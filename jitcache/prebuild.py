"""Build everything a plan needs, once: look up, compile what is missing, publish.

Several processes may prebuild the same thing at the same time. Each takes the locks of the
missing actions it can get without waiting and compiles those; what somebody else holds it
waits for afterwards, holding nothing itself, so nobody waits in a circle. Every output is
published the moment its compile ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jitcache import digest
from jitcache.action.actions import Action
from jitcache.action.command import launched
from jitcache.action.headers import HeaderSet
from jitcache.action.resolve import Resolver
from jitcache.codegen.native import Recipe
from jitcache.errors import StoreError
from jitcache.outcome import Built, Failure
from jitcache.publication import publish
from jitcache.store.model import ActionRecord, Hit
from jitcache.store.store import Store
from jitcache.toolchain.model import Toolchain

if TYPE_CHECKING:
    from jitcache.build.durations import Durations, Features
    from jitcache.build.model import Compiled, CompileJob, Event
    from jitcache.plan.model import Plan
    from jitcache.store.locks import Acquired, Busy


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
        from jitcache.build.rundir import run_directory
        from jitcache.build.runner import run
        from jitcache.store.layout import Bucket

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

        with run_directory(self._store.layout.bucket(Bucket.RUNS)) as directory:
            built.run_directory = directory
            self._describe(directory, ours, members, known)
            result = run(
                jobs,
                directory=directory,
                parallel=parallel,
                keep_going=self._keep_going,
                on_event=take,
            )
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
        device = recipe.kind == "device"
        record = publish(
            self._store,
            compiled,
            inputs=inputs,
            headers=headers,
            target=self._arch if device else "host",
            toolchain=self._toolchain.id,
            instance=recipe.context["name"] if device else "",
            mode=0o444 if device else 0o555,
        )
        built.records[action.key] = record
        built.built += 1
        self._keep_facts(record, recipe.output_name, built.run_directory)
        self._on_built(record)

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
