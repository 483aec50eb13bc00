"""What a run is for, in kernel terms: `plan.json` and `facts.jsonl` of a run directory.

`plan.json` is written before anything is compiled: which kernel each translation unit holds,
which rows of the manifest need it, and what the stock modules hold that the plan leaves out,
with the cost that the duration database expects. `facts.jsonl` gets a line for each output
that is published: its size, and what its code object states. Both are for `jitcache report`;
a run without them is as good.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from jitcache.action.worklist import KernelWork, worklist
from jitcache.build.durations import Estimate
from jitcache.codegen.catalog import Instance, Variant, variants
from jitcache.codegen.native import Recipe, device_recipe
from jitcache.plan.model import ModulePlan, Plan
from jitcache.plan.needs import Needs, Rows, merged

PLAN = "plan.json"
FACTS = "facts.jsonl"

_LONGEST_FACTS = 1 << 20


class Unit(msgspec.Struct, frozen=True):
    """One translation unit of a plan.

    Attributes:
        key: its action key.
        label: for people.
        kind: `device` or `host-shim`.
        modules: AITER's names of the modules that hold it.
        family: the family's tag.
        instance: AITER's name of the instance; "" for a host shim, like the three that follow.
        stage: 1 or 2; 0 for a host shim.
        tile: `256x128x128x128_1x4_v3`.
        variant: which of the instance's kernels: `hot-even`.
        why: what dispatches to the instance.
        rows: the rows of the manifest that need it; none where only the scope does.
        cost_s: CPU seconds that were expected.
        basis: where that expectation comes from (`durations.Estimate`).
    """

    key: str
    label: str
    kind: str
    modules: tuple[str, ...]
    family: str
    instance: str
    stage: int
    tile: str
    variant: str
    why: str
    rows: tuple[Rows, ...]
    cost_s: float
    basis: str


class LeftOut(msgspec.Struct, frozen=True):
    """Kernels of a stock module that the plan doesn't need.

    Attributes:
        module: the module.
        family: the family's tag.
        instance: AITER's name of the instance.
        label: `gemm1 256x128x128x128 v3`.
        kernels: how many of its device kernels are left out.
        whole: whether that is all of them.
        why: why nothing runs them.
        cost_s: CPU seconds that compiling them for the device would probably take, sharing
            one front end.
        basis: where that comes from.
    """

    module: str
    family: str
    instance: str
    label: str
    kernels: int
    whole: bool
    why: str
    cost_s: float
    basis: str


class RunPlan(msgspec.Struct, frozen=True):
    """What `plan.json` says.

    Attributes:
        manifest: name of the manifest.
        arch: target.
        scope: `reachable`, `inter-dim` or `module`.
        commands: keys of the units that each command makes, by the command's id (the
            directory below `actions/`).
        units: the units that this run compiles.
        left_out: what pruning saved, in the order of the generator.
    """

    manifest: str
    arch: str
    scope: str
    commands: dict[str, tuple[str, ...]]
    units: tuple[Unit, ...]
    left_out: tuple[LeftOut, ...]


class Facts(msgspec.Struct, frozen=True):
    """What is known of a published output.

    Attributes:
        key: its action key.
        bytes: size of the code object or shared library.
        cpu_ms: CPU milliseconds; a packed unit's share of the pack.
        peak_rss: bytes; of a packed unit that of the pack.
        kernels: what its code object states of each kernel (`codeobject.Kernel`).
    """

    key: str
    bytes: int
    cpu_ms: int
    peak_rss: int
    kernels: tuple[dict[str, Any], ...] = ()


def run_plan(
    plan: Plan,
    keys: Mapping[str, str],
    commands: Mapping[str, Sequence[str]],
    estimate: Callable[[Recipe], Estimate],
) -> RunPlan:
    """Describe a run. Pure.

    Args:
        plan: what is built.
        keys: action keys by recipe identity, of the units that this run compiles.
        commands: keys of the units of each command, by the command's id.
        estimate: what compiling a recipe will probably cost.
    """
    return RunPlan(
        manifest=plan.manifest,
        arch=plan.target.arch,
        scope=plan.scope,
        commands={ident: tuple(members) for ident, members in commands.items()},
        units=tuple(u for u in _units(plan, keys, estimate).values()),
        left_out=tuple(
            part for m in plan.modules for part in _left_out(m, plan.target.arch, estimate)
        ),
    )


def _units(
    plan: Plan, keys: Mapping[str, str], estimate: Callable[[Recipe], Estimate]
) -> dict[str, Unit]:
    needs = Needs(plan)
    why = {(m.spec.name, i.instance.name): i.why for m in plan.modules for i in m.instances}
    units: dict[str, Unit] = {}

    def add(unit: Unit) -> None:
        known = units.get(unit.key)
        if known is not None:
            unit = msgspec.structs.replace(
                known,
                modules=(*known.modules, *unit.modules),
                rows=merged((known.rows, unit.rows)),
            )
        units[unit.key] = unit

    for module in worklist(plan):
        for kernel in module.kernels:
            if key := keys.get(kernel.recipe.identity):
                rows = needs.of_kernel(module.name, kernel.instance.name, kernel.variant)
                because = why[module.name, kernel.instance.name]
                add(_kernel(key, module.name, kernel, because, rows, estimate(kernel.recipe)))
        if key := keys.get(module.shim.identity):
            expected = estimate(module.shim)
            family = module.kernels[0].instance.family
            # Of its kernels here: another row of the module may run one that isn't planned.
            rows = needs.of_kernels(
                module.name, [(k.instance.name, k.variant) for k in module.kernels]
            )
            add(
                Unit(
                    key,
                    "host shim",
                    "host-shim",
                    (module.name,),
                    family,
                    "",
                    0,
                    "",
                    "",
                    "prepares the launches of its module",
                    rows,
                    expected.cost_s,
                    expected.basis,
                )
            )
    return units


def _kernel(
    key: str,
    module: str,
    kernel: KernelWork,
    why: str,
    rows: tuple[Rows, ...],
    expected: Estimate,
) -> Unit:
    instance = kernel.instance
    return Unit(
        key=key,
        label=f"{instance.short} {kernel.variant}",
        kind="device",
        modules=(module,),
        family=instance.family,
        instance=instance.name,
        stage=instance.stage,
        tile=str(instance.tile),
        variant=str(kernel.variant),
        why=why,
        rows=rows,
        cost_s=expected.cost_s,
        basis=expected.basis,
    )


def _left_out(
    module: ModulePlan, arch: str, estimate: Callable[[Recipe], Estimate]
) -> Iterable[LeftOut]:
    """What the stock generator writes for the module, less what is built."""

    def part(instance: Instance, built: Sequence[Variant], why: str) -> LeftOut:
        everything = variants(instance)
        whole = estimate(device_recipe(instance, everything, arch))
        spent = estimate(device_recipe(instance, tuple(built), arch)).cost_s if built else 0.0
        return LeftOut(
            module=module.spec.name,
            family=instance.family,
            instance=instance.name,
            label=instance.short,
            kernels=len(everything) - len(built),
            whole=not built,
            why=why,
            cost_s=max(0.0, whole.cost_s - spent),
            basis=whole.basis,
        )

    for required in module.instances:
        if required.pruned:
            built = [v.variant for v in required.variants]
            yield part(required.instance, built, required.pruned[0].why)
    for pruned in module.pruned:
        yield part(pruned.instance, (), pruned.why)


def write_plan(directory: Path, plan: RunPlan) -> None:
    """Write `plan.json`; where it can't be written, the report says less."""
    with contextlib.suppress(OSError):
        (directory / PLAN).write_bytes(msgspec.json.format(msgspec.json.encode(plan)) + b"\n")


def append_facts(directory: Path, facts: Facts) -> None:
    """Add a line to `facts.jsonl`; likewise."""
    with contextlib.suppress(OSError), (directory / FACTS).open("ab") as f:
        f.write(msgspec.json.encode(facts) + b"\n")


def read_plan(directory: Path) -> RunPlan | None:
    """What `plan.json` says; None where there is none that can be read."""
    try:
        return msgspec.json.decode((directory / PLAN).read_bytes(), type=RunPlan)
    except (OSError, ValueError, RecursionError):
        return None


def read_facts(directory: Path) -> dict[str, Facts]:
    """Facts by action key; lines that make no sense are left out."""
    found: dict[str, Facts] = {}
    decoder = msgspec.json.Decoder(Facts)
    with contextlib.suppress(OSError), (directory / FACTS).open("rb") as f:
        for line in iter(lambda: f.readline(_LONGEST_FACTS), b""):
            with contextlib.suppress(ValueError, RecursionError):
                facts = decoder.decode(line)
                found[facts.key] = facts
    return found
