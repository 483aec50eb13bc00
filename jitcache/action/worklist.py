"""From a plan to the translation units that build it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jitcache.codegen.catalog import Instance, ModuleSpec, Variant
from jitcache.codegen.native import Recipe, device_recipe, shim_recipe
from jitcache.plan.model import Plan


@dataclass(frozen=True, slots=True)
class KernelWork:
    """One kernel to build.

    Attributes:
        instance: its instance.
        block_m: rows of the block.
        variant: which of the instance's kernels.
        recipe: the translation unit that holds it.
    """

    instance: Instance
    block_m: int
    variant: Variant
    recipe: Recipe


@dataclass(frozen=True, slots=True)
class ModuleWork:
    """One module to build: its kernels and the host shim that prepares their launches."""

    name: str
    shim: Recipe
    kernels: tuple[KernelWork, ...]

    def recipes(self) -> Iterator[tuple[Recipe, str]]:
        """Every translation unit with a label for people, kernels first."""
        for kernel in self.kernels:
            yield kernel.recipe, f"{kernel.instance.short} {kernel.variant}"
        yield self.shim, f"host shim of {self.name.removeprefix('module_moe_ck2stages_')}"


def worklist(plan: Plan) -> tuple[ModuleWork, ...]:
    """The translation units of a plan, module by module; a module without kernels has none."""
    return tuple(
        module_work(
            module.spec,
            [(r.instance, r.block_m, [v.variant for v in r.variants]) for r in module.instances],
            plan.target.arch,
        )
        for module in plan.modules
        if module.instances
    )


def module_work(
    spec: ModuleSpec, required: Sequence[tuple[Instance, int, Sequence[Variant]]], arch: str
) -> ModuleWork:
    """The translation units of one module.

    Args:
        spec: the module.
        required: its instances, each with its block height and the kernels to build.
        arch: target.
    """
    kernels = [
        KernelWork(instance, block_m, variant, device_recipe(instance, (variant,), arch))
        for instance, block_m, variants in required
        for variant in variants
    ]
    shim = shim_recipe(spec, tuple(instance for instance, _, _ in required))
    return ModuleWork(spec.name, shim, tuple(kernels))
