"""`jitcache widen`: build further kernels for a module of a lock file."""

from __future__ import annotations

import os
from pathlib import Path

import click

from jitcache.action.actions import Action
from jitcache.action.ckfeatures import missing, require
from jitcache.action.resolve import Resolver
from jitcache.cli import output
from jitcache.cli.building import SALT_VARIABLE, Show, fetch_from_remotes, heed_policy
from jitcache.errors import BuildError
from jitcache.lockfile import load_lock, write_lock
from jitcache.prebuild import Prebuilder
from jitcache.runtime.load import pick
from jitcache.store.store import Store
from jitcache.toolchain.allocator import find_allocator, wished
from jitcache.toolchain.find import find_toolchain, path_of
from jitcache.widen import check_toolchain, missing_work, parse_kernel, with_kernels


@click.command()
@click.argument("lock", type=Path)
@click.option("--module", help="Which module, where the lock holds several.")
@click.option(
    "--kernel",
    "kernels",
    multiple=True,
    required=True,
    metavar="NAME:VARIANT",
    help="Instance and variant to add, such as <name>:hot-even (repeatable).",
)
@click.option("--out", "out_path", type=Path, help="Write the lock file here; LOCK by default.")
@click.option("-j", "--jobs", type=click.IntRange(min=1), help="Compilers at once.")
@click.option("--provider", type=click.Choice(["rocm", "llvm"]), help="Toolchain provider.")
@click.option("--ck", type=Path, help="CK tree or AITER checkout.")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no report.")
@output.json_option
def command(
    lock: Path,
    module: str | None,
    kernels: tuple[str, ...],
    out_path: Path | None,
    jobs: int | None,
    provider: str | None,
    ck: Path | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Build further kernels for a module of LOCK, and write the lock file with them."""
    held = load_lock(lock)
    locked = pick(held, module)
    wanted = [parse_kernel(k) for k in kernels]
    store = Store.of_user()
    toolchain = find_toolchain(
        held.arch, provider=provider, ck=ck, cache_dir=store.layout.root, stat_memo=store.stat_memo
    )
    check_toolchain(held, toolchain)
    ck_include = path_of(toolchain, "ck", "")
    work = missing_work(held, locked, wanted, lambda i: missing(ck_include, i) is None)
    require(ck_include, toolchain.ck_commit, ((k.instance, k.variant) for k in work.kernels))
    resolver = Resolver(store, toolchain, held.arch, os.environ.get(SALT_VARIABLE, ""))
    actions = {r.identity: Action(resolver.resolve(r), label) for r, label in work.recipes()}
    fetch = fetch_from_remotes(store, {held.arch, "host"})
    heed_policy(store, str(lock), list(actions.values()), fetch)
    show = Show(quiet=quiet)
    builder = Prebuilder(
        store,
        toolchain,
        held.arch,
        resolver,
        jobs=jobs,
        on_event=show.event,
        on_wait=show.wait,
        on_start=show.start,
        fetch=fetch,
        compiler_env=find_allocator(wished(None, os.environ), toolchain.compiler).env,
    )
    try:
        built = builder.build(list(actions.values()))
    finally:
        show.close()
        store.stat_memo.save()
        store.save_counters()
    if built.failed:
        raise BuildError(
            f"{len(built.failed)} of {len(actions)} translation units could not be built",
            where=str(lock),
            details=tuple(f"{f.label}: {f.error}" for f in built.failed),
            hint="the lock file stays as it was",
        )
    wider = with_kernels(held, locked, work, lambda r: built.records[actions[r.identity].key])
    write_lock(out_path or lock, wider)
    if as_json:
        output.emit_json(
            {
                "lock": str(out_path or lock),
                "added": [f"{k.instance.name}:{k.variant}" for k in work.kernels],
                "built": built.built,
                "fetched": built.fetched,
                "hits": built.hits,
            }
        )
    elif not quiet:
        output.out(
            f"{locked.name}: {len(work.kernels)} kernels added, {built.built} built,"
            f" {built.fetched} fetched, {built.hits} found"
        )
        output.out(f"lock: {out_path or lock}")
