"""`jitcache worker`: build a share of a plan, and publish it."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from jitcache.cli import output
from jitcache.cli.building import fetch_from_remotes, launcher_option
from jitcache.cli.signing import key_option, load_signers
from jitcache.errors import BuildError, JitcacheError, LostError, UsageError
from jitcache.fleet.dynamic import run_leased
from jitcache.fleet.lease import EXPIRY_S, Leases
from jitcache.fleet.model import FleetPlan
from jitcache.fleet.planfile import load_plan, plan_id
from jitcache.fleet.publish import Publisher, open_publisher
from jitcache.fleet.recipes import Workshop
from jitcache.fleet.shard import Shard, parse_shard, shard_of
from jitcache.fleet.worker import Worker
from jitcache.prebuild import Prebuilder
from jitcache.remote.config import load_remotes
from jitcache.store.model import ActionRecord
from jitcache.store.store import Store
from jitcache.toolchain.allocator import find_allocator, wished
from jitcache.toolchain.find import find_toolchain
from jitcache.toolchain.launcher import find_launcher
from jitcache.toolchain.model import Toolchain


@click.command()
@click.option("--plan", "plan_path", type=Path, required=True, help="The plan file.")
@click.option("--shard", "shard_text", metavar="I/N", help="Which share; I counts from 0.")
@click.option("--lease", metavar="PLACE", help="Directory or bucket to share the work through.")
@click.option(
    "--lease-expiry",
    type=click.FloatRange(1, 3600),
    default=EXPIRY_S,
    show_default=True,
    help="Seconds of silence after which a lease may be taken over.",
)
@click.option("-j", "--jobs", type=click.IntRange(min=1), help="Compilers at once.")
@click.option("--provider", type=click.Choice(["rocm", "llvm"]), help="Toolchain provider.")
@click.option("--ck", type=Path, help="CK tree or AITER checkout.")
@click.option("--allocator", metavar="NAME", help="Allocator of the compiler: auto, off, a name.")
@launcher_option
@key_option
@output.json_option
def command(
    plan_path: Path,
    shard_text: str | None,
    lease: str | None,
    lease_expiry: float,
    jobs: int | None,
    provider: str | None,
    ck: Path | None,
    allocator: str | None,
    launcher: str | None,
    keys: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Build one share of a plan, and publish every result at once.

    The share is --shard's, else that of the scheduler that started us (Slurm array, Kubernetes
    Indexed Job, RANK and WORLD_SIZE).
    """
    plan = load_plan(plan_path)
    shard = _shard(shard_text, leased=lease is not None)
    store = Store.of_user()
    publisher = open_publisher(store, load_remotes(), load_signers(keys))
    fetch = fetch_from_remotes(store, {*plan.toolchains, "host"})

    def toolchain_of(arch: str) -> Toolchain:
        return find_toolchain(
            arch,
            provider=provider or plan.toolchains[arch].provider,
            ck=ck,
            cache_dir=store.layout.root,
            stat_memo=store.stat_memo,
        )

    workshop = Workshop(plan, store, toolchain_of)

    def prebuilder_of(arch: str, on_built: Callable[[ActionRecord], None]) -> Prebuilder:
        toolchain, resolver = workshop.tools(arch)
        found = find_launcher(launcher, toolchain, os.environ)
        allocating = find_allocator(wished(allocator, os.environ), toolchain.compiler)
        return Prebuilder(
            store,
            toolchain,
            arch,
            resolver,
            jobs=jobs,
            keep_going=True,
            fetch=fetch,
            compiler_env=(*allocating.env, *found.env),
            launcher=found.words,
            on_built=on_built,
            pack=True,
        )

    worker = Worker(plan, store, workshop, prebuilder_of, publisher, _say_built)
    name = _name(shard)
    output.say(f"worker {name}: plan {plan_id(plan)[:19]}, share {shard} ({shard.source})")
    try:
        if lease is None:
            worker.run_share(shard)
        else:
            from jitcache.fleet.board import open_board

            leases = Leases(open_board(lease, plan_id(plan)), name, expiry_s=lease_expiry)
            run_leased(worker, leases, shard, jobs or len(os.sched_getaffinity(0)))
    finally:
        store.stat_memo.save()
        store.save_counters()
        _report(plan, shard, name, worker, publisher, as_json=as_json)
    _judge(worker, publisher)


def _shard(text: str | None, *, leased: bool) -> Shard:
    found = parse_shard(text) if text is not None else shard_of(os.environ)
    if found is not None:
        return found
    if leased:
        return Shard(0, 1, "leases alone")
    raise UsageError(
        "which share is this worker's?",
        hint="--shard I/N, or --lease PLACE to let the workers share the work out",
    )


def _name(shard: Shard) -> str:
    """A name that no other worker has, now or later, and that people can place."""
    host = "".join(c for c in socket.gethostname() if c.isalnum() or c == "-")[:40]
    return f"{host}-{shard.index}-{secrets.token_hex(6)}"


def _say_built(record: ActionRecord, before: bool) -> None:
    note = " (somebody else was faster)" if before else ""
    output.say(f"built {record.key[7:19]} {record.label}{note}")


def _report(
    plan: FleetPlan,
    shard: Shard,
    name: str,
    worker: Worker,
    publisher: Publisher,
    *,
    as_json: bool,
) -> None:
    work, total = worker.work, publisher.total
    if as_json:
        said: dict[str, Any] = {"plan": plan_id(plan), "shard": str(shard), "worker": name}
        said |= work.to_json()
        said |= {"pushed": total.pushed, "present": total.present}
        said["problems"] = [
            {"remote": r, "label": label, "detail": d} for r, label, d in total.problems
        ]
        output.emit_json(said)
        return
    output.out(
        f"worker {name}: {work.built} built, {work.fetched} fetched, {work.hits} found,"
        f" {work.elsewhere} built by others, {work.duplicates} duplicates, {total.pushed} pushed,"
        f" {output.seconds(work.wall_s)} ({output.seconds(work.cpu_s)} CPU)"
    )


def _judge(worker: Worker, publisher: Publisher) -> None:
    """Raise what the exit code has to say.

    Raises:
        BuildError: something could not be built, or gave other bytes than it did elsewhere.
        LostError: something is not on every remote.
    """
    work, total = worker.work, publisher.total
    details = tuple(f"{f.label}: {f.error}" for f in work.failed)
    details += tuple(f"{label}: {d}" for _, label, d in total.problems)
    if work.failed:
        raise BuildError(
            f"{len(work.failed)} actions could not be built",
            details=details,
            hint="what did build is published; the diagnostics are in the store's run directories",
        )
    if total.divergent:
        raise JitcacheError(
            f"{len(total.divergent)} actions gave other bytes here than elsewhere",
            details=details,
            hint="the first result stays; ours is in the quarantine of the local store",
        )
    if work.incomplete:
        raise LostError(
            f"{len(work.incomplete)} actions could not be pushed everywhere",
            details=details,
            hint="start the worker again: it pushes them without building them again",
        )
