"""`jitcache sweep`: kernels under many sets of back-end flags, and what each came to."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path

import click

from jitcache.action.ckfeatures import require
from jitcache.action.worklist import KernelWork, module_work, worklist
from jitcache.cli import output
from jitcache.cli.building import SALT_VARIABLE, Show
from jitcache.codegen import catalog
from jitcache.errors import BuildError, UsageError
from jitcache.manifest.load import load_manifest
from jitcache.plan.planner import plan
from jitcache.store.store import Store
from jitcache.sweep.flagset import FlagSet, parse_flag_set
from jitcache.sweep.sweeper import Row, Sweeper
from jitcache.toolchain.allocator import find_allocator, wished
from jitcache.toolchain.find import find_toolchain, path_of

_INSTANCE = "moe_ck2stages_"
_COLUMNS = (
    ("vgprs", "VGPR"),
    ("agprs", "AGPR"),
    ("sgprs", "SGPR"),
    ("vgpr_spills", "spilt"),
    ("scratch", "scratch"),
    ("lds", "LDS"),
    ("instructions", "instr"),
    ("waits", "waits"),
    ("mfma", "MFMA"),
)


@click.command()
@click.argument("what", metavar="MANIFEST|INSTANCE")
@click.option(
    "--mllvm",
    "sets",
    multiple=True,
    metavar="OPTIONS",
    help="A set of LLVM options to try, separated by blanks (repeatable).",
)
@click.option("--arch", type=click.Choice(catalog.ARCHES), help="Target; gfx950 for an instance.")
@click.option("--block-m", type=int, multiple=True, help="Of a manifest, only this block_m.")
@click.option("--k", type=click.IntRange(min=1), help="Of an instance: K in elements.")
@click.option("--act", default="silu", show_default=True, help="Of an instance of stage 2.")
@click.option("-j", "--jobs", type=click.IntRange(min=1), help="Compilers at once.")
@click.option("--provider", type=click.Choice(["rocm", "llvm"]), help="Toolchain provider.")
@click.option("--ck", type=Path, help="CK tree or AITER checkout.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@output.json_option
def command(
    what: str,
    sets: tuple[str, ...],
    arch: catalog.Arch | None,
    block_m: tuple[int, ...],
    k: int | None,
    act: str,
    jobs: int | None,
    provider: str | None,
    ck: Path | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Build kernels under many sets of back-end flags; their front end is compiled once.

    The product's own flags are always among the sets.
    """
    flags = list(dict.fromkeys([FlagSet(()), *map(parse_flag_set, sets)]))
    if what.startswith(_INSTANCE):
        target, kernels = _of_instance(what, arch or "gfx950", k, act)
    else:
        target, kernels = _of_manifest(what, arch, block_m)
    store = Store.of_user()
    toolchain = find_toolchain(
        target, provider=provider, ck=ck, cache_dir=store.layout.root, stat_memo=store.stat_memo
    )
    require(
        path_of(toolchain, "ck", ""),
        toolchain.ck_commit,
        ((kernel.instance, kernel.variant) for kernel in kernels),
    )
    show = Show(quiet=quiet)
    sweeper = Sweeper(
        store,
        toolchain,
        target,
        os.environ.get(SALT_VARIABLE, ""),
        jobs=jobs,
        compiler_env=find_allocator(wished(None, os.environ), toolchain.compiler).env,
        on_event=show.event,
        on_start=show.start,
    )
    try:
        rows = sweeper.sweep(kernels, flags)
    finally:
        show.close()
    store.stat_memo.save()
    store.save_counters()
    if as_json:
        output.emit_json({"target": target, "rows": [r.to_json() for r in rows]})
    else:
        _say(rows)
    failed = [r for r in rows if r.figures is None]
    if failed:
        raise BuildError(
            f"{len(failed)} of {len(rows)} could not be built",
            details=tuple(f"{r.kernel}, {r.flags}: {r.error}" for r in failed),
            hint="`clang -mllvm --help-hidden` lists what this compiler knows",
        )


def _of_instance(
    name: str, arch: catalog.Arch, k: int | None, act: str
) -> tuple[str, list[KernelWork]]:
    if k is None:
        raise UsageError(
            "an instance holds several kernels: --k says which one runs",
            where=name,
            hint="K is model_dim in stage 1 and inter_dim in stage 2, in elements",
        )
    spec = catalog.parse_name(name).module(act=act)
    instance = catalog.find(name, spec, arch)
    if instance is None:
        raise UsageError(f"{spec.name} on {arch} has no such instance", where=name)
    variant = catalog.variant_for(instance, k)
    work = module_work(spec, [(instance, instance.tile.m, [variant])], arch)
    return arch, list(work.kernels)


def _of_manifest(
    name: str, arch: catalog.Arch | None, block_m: tuple[int, ...]
) -> tuple[str, list[KernelWork]]:
    manifest = load_manifest(name)
    targets = [t for t in manifest.targets if arch in (None, t.arch)]
    if len(targets) != 1:
        raise UsageError(
            f"{len(targets)} targets of {manifest.name} fit",
            where=name,
            hint="choose one with --arch: " + ", ".join(t.arch for t in manifest.targets),
        )
    planned = plan(manifest, target=targets[0], block_m=block_m or None)
    kernels = {k.recipe.identity: k for m in worklist(planned) for k in m.kernels}
    if not kernels:
        raise UsageError(f"{manifest.name} needs no CK2stages kernel", where=name)
    return targets[0].arch, list(kernels.values())


def _say(rows: Sequence[Row]) -> None:
    for kernel, group in itertools.groupby(rows, key=lambda r: r.kernel):
        some = list(group)
        base = next((r.figures.code for r in some if r.figures and not r.flags.options), None)
        output.out(kernel)
        lines = []
        for row in some:
            if row.figures is None:
                lines.append((str(row.flags), "failed", *[""] * (len(_COLUMNS) + 1)))
                continue
            cells = [str(getattr(row.figures, field)) for field, _ in _COLUMNS]
            same = bool(row.flags.options) and row.figures.code == base
            cost = output.seconds(row.cpu_ms / 1000) if row.cpu_ms else "found"
            lines.append((str(row.flags), "same code" if same else "", *cells, cost))
        head = ("flags", "", *(title for _, title in _COLUMNS), "CPU")
        output.out(output.table(head, lines, right="ll" + "r" * (len(_COLUMNS) + 1)))
        output.out()
