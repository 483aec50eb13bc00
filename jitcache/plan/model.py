"""What a plan says: the required kernels, each with its reason, and what was left out."""

from __future__ import annotations

from typing import Any

import msgspec

from jitcache.codegen.catalog import Instance, ModuleSpec, Stage, Variant
from jitcache.manifest.model import Target
from jitcache.plan.backend import Backend


class RequiredVariant(msgspec.Struct, frozen=True):
    """A device kernel to build, and the K that runs it."""

    variant: Variant
    why: str


class PrunedVariant(msgspec.Struct, frozen=True):
    """A device kernel that the stock build compiles and no shape here runs."""

    variant: Variant
    why: str


class RequiredInstance(msgspec.Struct, frozen=True):
    """An instance to build.

    Attributes:
        instance: the instance.
        block_m: the rows per block it serves.
        why: what dispatches to it.
        variants: the device kernels of it to build, at least one.
        pruned: the others that CK would compile.
    """

    instance: Instance
    block_m: int
    why: str
    variants: tuple[RequiredVariant, ...]
    pruned: tuple[PrunedVariant, ...]


class Pruned(msgspec.Struct, frozen=True):
    """An instance that the stock generator writes and nothing here dispatches to."""

    instance: Instance
    why: str


class ModulePlan(msgspec.Struct, frozen=True):
    """What is required of one AITER module.

    Attributes:
        spec: the module.
        family: its family's tag on the target.
        instances: required ones, in the generator's order.
        pruned: the rest, in the generator's order.
    """

    spec: ModuleSpec
    family: str
    instances: tuple[RequiredInstance, ...]
    pruned: tuple[Pruned, ...]


class StageRow(msgspec.Struct, frozen=True):
    """What runs one stage for a token count.

    Attributes:
        backend: whose kernel.
        kernel: its name; "" where it has none.
        module: for CK, the module's name.
        variant: for CK, the device kernel.
        problem: why the call raises, or "".
    """

    backend: Backend
    kernel: str
    module: str
    variant: Variant | None
    problem: str


class TokenRow(msgspec.Struct, frozen=True):
    """What AITER does for one layer and token count.

    Attributes:
        layer: the layer's name.
        tokens: the token count.
        padded: the one AITER decides by.
        block_m: rows per block.
        ksplit: split of K in stage 1; 0 or 1 mean none.
        stages: stage 1 and 2.
        planned: whether every CK kernel it needs is in the plan.
        why: what decided.
    """

    layer: str
    tokens: int
    padded: int
    block_m: int
    ksplit: int
    stages: tuple[StageRow, StageRow]
    planned: bool
    why: str


class Plan(msgspec.Struct, frozen=True):
    """The required set of one deployment on one target.

    Attributes:
        manifest: the manifest's name.
        digest: the manifest's digest.
        target: the GPU.
        scope: `reachable`, `inter-dim` or `module`.
        modules: what to build; empty if no layer needs CK.
        rows: per layer and token count.
        notes: what the reader should know: calls that would raise, layers without CK.
    """

    manifest: str
    digest: str
    target: Target
    scope: str
    modules: tuple[ModulePlan, ...]
    rows: tuple[TokenRow, ...]
    notes: tuple[str, ...]

    @property
    def device_kernels(self) -> int:
        """Number of device kernels to build."""
        return sum(len(i.variants) for m in self.modules for i in m.instances)


def variant_json(variant: Variant) -> dict[str, Any]:
    """The JSON form of a variant."""
    value: dict[str, Any] = {"hot_loop": variant.hot_loop, "tail": variant.tail}
    if variant.non_temporal is not None:
        value["non_temporal"] = variant.non_temporal
    return value


def plan_json(plan: Plan) -> dict[str, Any]:
    """The JSON form of a plan (docs/plan.md)."""
    return {
        "manifest": plan.manifest,
        "digest": plan.digest,
        "arch": plan.target.arch,
        "cu_num": plan.target.cu_num,
        "scope": plan.scope,
        "device_kernels": plan.device_kernels,
        "modules": [_module_json(m, plan.target) for m in plan.modules],
        "rows": [_row_json(r) for r in plan.rows],
        "notes": list(plan.notes),
    }


def _module_json(module: ModulePlan, target: Target) -> dict[str, Any]:
    return {
        "name": module.spec.name,
        "arch": target.arch,
        "family": module.family,
        "instances": [
            {
                "name": i.instance.name,
                "stage": i.instance.stage,
                "block_m": i.block_m,
                "why": i.why,
                "variants": [variant_json(v.variant) | {"why": v.why} for v in i.variants],
                "pruned_variants": [variant_json(v.variant) | {"why": v.why} for v in i.pruned],
            }
            for i in module.instances
        ],
        "pruned": [
            {"name": p.instance.name, "stage": p.instance.stage, "why": p.why}
            for p in module.pruned
        ],
    }


def _row_json(row: TokenRow) -> dict[str, Any]:
    return {
        "layer": row.layer,
        "tokens": row.tokens,
        "padded": row.padded,
        "block_m": row.block_m,
        "ksplit": row.ksplit,
        "stages": [_stage_json(s, i) for i, s in enumerate(row.stages, start=1)],
        "planned": row.planned,
        "why": row.why,
    }


def _stage_json(stage: StageRow, number: int) -> dict[str, Any]:
    return {
        "stage": number,
        "backend": stage.backend,
        "kernel": stage.kernel or None,
        "module": stage.module or None,
        "variant": variant_json(stage.variant) if stage.variant is not None else None,
        "problem": stage.problem or None,
    }


STAGES: tuple[Stage, Stage] = (1, 2)
