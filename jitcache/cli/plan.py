"""`jitcache plan`: the kernels a deployment can dispatch, with a reason for each."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from jitcache.cli import output
from jitcache.codegen import catalog
from jitcache.errors import UsageError
from jitcache.manifest.load import BLOCK_M, Manifest, Target, load_manifest
from jitcache.manifest.products import DEFAULT_CU
from jitcache.manifest.raw import ScopeWord
from jitcache.plan.model import ModulePlan, Plan, StageRow, TokenRow, plan_json
from jitcache.plan.planner import plan
from jitcache.plan.tuned import TunedTable, read_tuned, tuned_files_of

_MOST = 200_000


def counts_of(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> tuple[int, ...] | None:
    """Token counts of an option: `16`, `1-64`, `40x4` (requests x tokens each), with commas."""
    found: list[int] = []
    for part in ",".join(values).split(",") if values else ():
        first, dash, last = part.partition("-")
        requests, cross, each = part.partition("x")
        try:
            if dash:
                span = range(int(first), int(last) + 1)
                counts: Sequence[int] = span if len(span) <= _MOST else ()
            else:
                counts = [int(requests) * int(each) if cross else int(part)]
        except (ValueError, OverflowError):
            counts = ()
        if not counts or min(counts) < 1 or max(counts) >= 2**31:
            raise click.BadParameter(
                f"{part!r} is no count (16), range (1-64) or product (40x4)", ctx, param
            )
        found.extend(counts)
    return tuple(found) or None


@click.command()
@click.argument("manifests", nargs=-1, required=True, metavar="MANIFEST...")
@click.option(
    "--arch",
    "arches",
    type=click.Choice(catalog.ARCHES),
    multiple=True,
    help="Plan for this architecture only (repeatable).",
)
@click.option(
    "--cu-num", type=click.IntRange(min=1), help="Compute units, instead of the target's."
)
@click.option(
    "--block-m",
    type=click.Choice([str(m) for m in BLOCK_M]),
    multiple=True,
    help="Only this block_m (repeatable).",
)
@click.option(
    "--scope",
    type=click.Choice(["reachable", "inter-dim", "module"]),
    help="What to plan; the manifest's scope when not given.",
)
@click.option(
    "--tokens",
    callback=counts_of,
    multiple=True,
    metavar="COUNTS",
    help="Token counts, instead of the manifest's: 16, 1-64, 40x4 (repeatable).",
)
@click.option("--tuned", type=Path, multiple=True, help="A tuned_fmoe CSV (repeatable, in order).")
@click.option("--aiter", "checkout", type=Path, help="AITER checkout: use all its tuned_fmoe CSVs.")
@click.option(
    "-o", "--output", "file", type=Path, help="Write a plan file for workers, with action keys."
)
@click.option("--provider", type=click.Choice(["rocm", "llvm"]), help="Toolchain that -o pins.")
@click.option("--ck", type=Path, help="CK tree or AITER checkout, for -o.")
@output.json_option
def command(
    manifests: tuple[str, ...],
    arches: tuple[str, ...],
    cu_num: int | None,
    block_m: tuple[str, ...],
    scope: ScopeWord | None,
    tokens: tuple[int, ...] | None,
    tuned: tuple[Path, ...],
    checkout: Path | None,
    file: Path | None,
    provider: str | None,
    ck: Path | None,
    as_json: bool,
) -> None:
    """Show which kernels the manifests' deployments can dispatch, and why.

    MANIFEST is a .toml file or the name of a shipped manifest.
    """
    extra = [*(tuned_files_of(checkout) if checkout is not None else ()), *tuned]
    plans = [
        plan(
            manifest,
            target=target,
            tuned=_table(manifest, extra),
            block_m=[int(m) for m in block_m] or None,
            scope=scope,
            tokens=tokens,
        )
        for manifest in map(load_manifest, manifests)
        for arch in arches or (None,)
        for target in targets_of(manifest, arch, cu_num)
    ]
    if file is not None:
        from jitcache.cli.planfile import write_plan

        write_plan(plans, file, provider=provider, ck=ck, as_json=as_json)
    elif as_json:
        output.emit_json(plans_json(plans))
    else:
        output.out("\n\n".join(text_of(p) for p in plans))


def targets_of(manifest: Manifest, arch: str | None, cu_num: int | None) -> Iterable[Target]:
    """The targets that the options leave of a manifest's, or the one they ask for."""
    listed = [t for t in manifest.targets if arch in (None, t.arch)]
    if not listed and arch is not None:
        listed = [Target(arch, cu_num or DEFAULT_CU[arch])]
    return dict.fromkeys(Target(t.arch, cu_num or t.cu_num) for t in listed)


def _table(manifest: Manifest, extra: Sequence[Path]) -> TunedTable | None:
    files = [*(Path(t.path) for t in manifest.tuned), *extra]
    if len(set(files)) < len(files):
        raise UsageError(
            "a tuned table is named twice", hint="it is in the manifest or on the command line"
        )
    return _read(tuple(files)) if files else None


@functools.lru_cache(maxsize=1)
def _read(files: tuple[Path, ...]) -> TunedTable:
    """Tables that several manifests share are read once."""
    return read_tuned(files)


def plans_json(plans: Sequence[Plan]) -> dict[str, Any]:
    """One plan's JSON, or that of several with `modules` of all of them at the top."""
    values = [plan_json(p) for p in plans]
    if len(values) == 1:
        return values[0]
    return {"modules": [m for v in values for m in v["modules"]], "plans": values}


def text_of(planned: Plan) -> str:
    """A plan for people."""
    stock = sum(
        len(catalog.variants(i))
        for m in planned.modules
        for i in catalog.instances(m.spec, planned.target.arch)
    )
    head = (
        f"{planned.manifest} on {planned.target}, scope {planned.scope}: "
        f"{planned.device_kernels} device kernels"
    )
    lines = [f"{head}; AITER's modules hold {stock}" if stock else head]
    lines.extend(f"note: {note}" for note in planned.notes)
    for module in planned.modules:
        lines.extend(["", f"{module.spec.name} ({module.family})", *_module_lines(module)])
    if planned.rows:
        lines.extend(["", _rows_table(planned.rows, several=len(_layers(planned)) > 1)])
    return "\n".join(lines)


def _layers(planned: Plan) -> set[str]:
    return {r.layer for r in planned.rows}


def _module_lines(module: ModulePlan) -> Iterable[str]:
    for kept in module.instances:
        yield f"  build  {kept.instance.short}: {kept.why}"
        for v in kept.variants:
            yield f"           build  {v.variant}: {v.why}"
        for p in kept.pruned:
            yield f"           leave  {p.variant}: {p.why}"
    for left in module.pruned:
        yield f"  leave  {left.instance.short}: {left.why}"


def _rows_table(rows: Sequence[TokenRow], *, several: bool) -> str:
    """Token counts, neighbours with the same answer in one line."""
    cells = []
    for key, group in itertools.groupby(rows, key=_answer):
        members = list(group)
        first, last = members[0].tokens, members[-1].tokens
        span = str(first) if first == last else f"{first} to {last}"
        cells.append([*([members[0].layer] if several else []), span, *key[1:]])
    header = ["tokens", "block_m", "ksplit", "stage 1", "stage 2", "planned", "decided by"]
    return output.table(
        ["layer", *header] if several else header, cells, right="lrrr" if several else "rrr"
    )


def _answer(row: TokenRow) -> tuple[str, ...]:
    return (
        row.layer,
        str(row.block_m),
        str(row.ksplit) if row.ksplit > 1 else "-",
        *(_stage_words(s) for s in row.stages),
        "yes" if row.planned else "NO",
        row.why.replace(f" for {row.padded} tokens", ""),
    )


def _stage_words(stage: StageRow) -> str:
    if stage.problem:
        return f"raises: {stage.problem}"
    if stage.backend == "ck":
        parsed = catalog.parse_name(stage.kernel)
        tile = parsed.tile
        return f"ck {tile.block_size}x{tile.m}x{tile.n}x{tile.k} v{tile.pipeline} {stage.variant}"
    return stage.backend
