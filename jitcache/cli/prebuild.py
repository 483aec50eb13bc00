"""`jitcache prebuild`: build every kernel a deployment needs, once."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from jitcache.action.actions import Action, actions_of
from jitcache.action.ckfeatures import require
from jitcache.action.resolve import Resolver
from jitcache.action.worklist import worklist
from jitcache.cli import output
from jitcache.cli.building import (
    SALT_VARIABLE,
    Show,
    default_lock_path,
    fetch_from_remotes,
    heed_policy,
    launcher_option,
)
from jitcache.errors import BuildError, ExitCode, UsageError
from jitcache.manifest.load import Manifest, Target, load_manifest, manifest_digest
from jitcache.manifest.raw import ScopeWord
from jitcache.outcome import Built, Failure
from jitcache.plan.model import Plan
from jitcache.plan.planner import plan
from jitcache.plan.tuned import read_tuned
from jitcache.prebuild import Prebuilder
from jitcache.store.store import Store
from jitcache.toolchain.allocator import find_allocator, wished
from jitcache.toolchain.find import find_toolchain, path_of
from jitcache.toolchain.launcher import find_launcher


@click.command()
@click.argument("manifests", nargs=-1, required=True, metavar="MANIFEST...")
@click.option("--arch", help="Only targets of this architecture.")
@click.option("--block-m", type=int, multiple=True, help="Only this block_m (repeatable).")
@click.option(
    "--scope",
    type=click.Choice(["reachable", "inter-dim", "module"]),
    help="What to build; the manifest's scope when not given.",
)
@click.option("--tuned", type=Path, multiple=True, help="A tuned_fmoe CSV to plan with.")
@click.option("-j", "--jobs", type=click.IntRange(min=1), help="Compilers at once.")
@click.option("-k", "--keep-going", is_flag=True, help="Build what can be built after a failure.")
@click.option("--provider", type=click.Choice(["rocm", "llvm"]), help="Toolchain provider.")
@click.option("--ck", type=Path, help="CK tree or AITER checkout.")
@click.option("--allocator", metavar="NAME", help="Allocator of the compiler: auto, off, a name.")
@click.option(
    "--pack",
    type=click.Choice(["auto", "off"]),
    default="auto",
    show_default=True,
    help="Let kernels share a front end where the build gets shorter.",
)
@launcher_option
@click.option("--lock", "lock_path", type=Path, help="Write the lock file here, too.")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no report.")
@output.json_option
def command(
    manifests: tuple[str, ...],
    arch: str | None,
    block_m: tuple[int, ...],
    scope: ScopeWord | None,
    tuned: tuple[Path, ...],
    jobs: int | None,
    keep_going: bool,
    provider: str | None,
    ck: Path | None,
    allocator: str | None,
    pack: str,
    launcher: str | None,
    lock_path: Path | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Build every kernel that the manifests' deployments need, and write their lock files.

    MANIFEST is a .toml file or the name of a shipped manifest.
    """
    begin = time.monotonic()
    store = Store.of_user()
    wanted = [
        (manifest, target)
        for manifest in map(load_manifest, manifests)
        for target in manifest.targets
        if arch in (None, target.arch)
    ]
    if not wanted:
        raise UsageError(
            f"no target of the manifests has the architecture {arch}",
            hint="`jitcache plan MANIFEST` shows their targets",
        )
    if lock_path is not None and len(wanted) > 1:
        raise UsageError(
            f"--lock names one file, but there are {len(wanted)} manifests and targets",
            hint="choose one with --arch, or leave --lock out: each gets its own in the store",
        )
    results = []
    for manifest, target in wanted:
        files = [*(Path(t.path) for t in manifest.tuned), *tuned]
        planned = plan(
            manifest,
            target=target,
            tuned=read_tuned(files) if files else None,
            block_m=block_m or None,
            scope=scope,
        )
        show = Show(quiet=quiet)
        results.append(
            _one(
                store,
                manifest,
                target,
                planned,
                show,
                jobs=jobs,
                keep_going=keep_going,
                provider=provider,
                ck=ck,
                allocator=allocator,
                pack=pack,
                launcher=launcher,
                lock_path=lock_path,
            )
        )
        if results[-1].built.failed and not keep_going:
            break
    store.stat_memo.save()
    store.save_counters()
    _finish(results, time.monotonic() - begin, store, as_json=as_json, quiet=quiet)


class _Result:
    """One manifest and target, built."""

    def __init__(
        self,
        manifest: Manifest,
        target: Target,
        actions: int,
        built: Built,
        lock: Path | None,
        no_shortcuts: str,
    ) -> None:
        self.manifest = manifest
        self.target = target
        self.actions = actions
        self.built = built
        self.lock = lock
        self.no_shortcuts = no_shortcuts


def _one(
    store: Store,
    manifest: Manifest,
    target: Target,
    planned: Plan,
    show: Show,
    *,
    jobs: int | None,
    keep_going: bool,
    provider: str | None,
    ck: Path | None,
    allocator: str | None,
    pack: str,
    launcher: str | None,
    lock_path: Path | None,
) -> _Result:
    modules = worklist(planned)
    for note in planned.notes:
        output.say(f"note: {note}")
    if not modules:
        # Nothing of ours runs: the plan says why, and an empty lock says so to `warm`.
        output.say(f"{manifest.name}: no CK2stages kernel is needed on {target}")
    toolchain = find_toolchain(
        target.arch,
        provider=provider,
        ck=ck,
        cache_dir=store.layout.root,
        stat_memo=store.stat_memo,
    )
    require(
        path_of(toolchain, "ck", ""),
        toolchain.ck_commit,
        ((k.instance, k.variant) for m in modules for k in m.kernels),
    )
    resolver = Resolver(store, toolchain, target.arch, os.environ.get(SALT_VARIABLE, ""))
    actions = actions_of(modules, resolver)
    fetch = fetch_from_remotes(store, {target.arch, "host"})
    heed_policy(store, manifest.name, _distinct(actions.values()), fetch)
    found = find_launcher(launcher, toolchain, os.environ)
    builder = Prebuilder(
        store,
        toolchain,
        target.arch,
        resolver,
        jobs=jobs,
        keep_going=keep_going,
        on_event=show.event,
        on_wait=show.wait,
        on_start=show.start,
        fetch=fetch,
        compiler_env=(
            *find_allocator(wished(allocator, os.environ), toolchain.compiler).env,
            *found.env,
        ),
        launcher=found.words,
        pack=pack == "auto",
        plan=planned,
    )
    try:
        built = builder.build(_distinct(actions.values()))
    finally:
        show.close()
    path = None
    if not built.failed and not built.not_run:
        from jitcache.lockfile import write_lock
        from jitcache.lockmaker import make_lock

        lock = make_lock(
            manifest=manifest.name,
            manifest_digest=manifest_digest(manifest),
            arch=target.arch,
            cu_num=target.cu_num,
            toolchain=toolchain,
            modules=modules,
            actions=actions,
            records=built.records,
        )
        path = lock_path or default_lock_path(store, manifest.name, target.arch)
        write_lock(path, lock)
    return _Result(
        manifest,
        target,
        len({a.key for a in actions.values()}),
        built,
        path,
        toolchain.no_shortcuts,
    )


def _distinct(actions: Any) -> list[Action]:
    return list({a.key: a for a in actions}.values())


def _finish(
    results: Sequence[_Result], wall_s: float, store: Store, *, as_json: bool, quiet: bool
) -> None:
    failed = [f for r in results for f in r.built.failed]
    not_run = [label for r in results for label in r.built.not_run]
    for notice in store.notices:
        output.say(f"note: {notice.where}: {notice.detail}")
    if as_json:
        locks = [str(r.lock) for r in results if r.lock is not None]
        output.emit_json(
            {
                "actions": sum(r.actions for r in results),
                "built": sum(r.built.built for r in results),
                "hits": sum(r.built.hits for r in results),
                "fetched": sum(r.built.fetched for r in results),
                "wall_s": round(wall_s, 3),
                "cpu_s": round(sum(r.built.cpu_s for r in results), 3),
                "lock": locks[0] if locks else None,
                "locks": locks,
                "failed": [f.to_json() for f in failed],
                "not_run": not_run,
                "runs": [str(r.built.run_directory) for r in results if r.built.run_directory],
                "no_shortcuts": next((r.no_shortcuts for r in results if r.no_shortcuts), ""),
            }
        )
    elif not quiet:
        for result in results:
            _say(result)
    if failed:
        raise _error(failed, not_run)


def _say(result: _Result) -> None:
    built = result.built
    fetched = f"{built.fetched} fetched, " if built.fetched else ""
    output.out(
        f"{result.manifest.name} on {result.target}: {result.actions} actions, "
        f"{built.built} built, {fetched}{built.hits} found, {output.seconds(built.wall_s)} "
        f"({output.seconds(built.cpu_s)} CPU)"
    )
    if result.lock is not None:
        output.out(f"lock: {result.lock}")
    if built.run_directory is not None:
        output.out(f"report: jitcache report {built.run_directory}")
    if built.built and result.no_shortcuts:
        output.out(f"compiled without the shortcuts through CK: {result.no_shortcuts}")


def _error(failed: list[Failure], not_run: list[str]) -> BuildError:
    details = []
    for failure in failed:
        details.append(f"{failure.label}: {failure.error}")
        if failure.log:
            details.append(f"  diagnostics: {failure.log}")
        if failure.command:
            details.append(f"  reproduce: {failure.command}")
    if not_run:
        details.append(f"not tried after that: {', '.join(not_run)}")
    error = BuildError(
        f"{len(failed)} of the translation units could not be built",
        details=tuple(details),
        hint="what did build is kept; with -k everything that can be built is",
    )
    assert error.exit_code is ExitCode.FAILED  # noqa: S101
    return error
