"""From a plan to the translation units that build it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from jitcache.codegen.catalog import Instance, Variant
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
    modules = []
    for module in plan.modules:
        if not module.instances:
            continue
        kernels = []
        for required in module.instances:
            for chosen in required.variants:
                recipe = device_recipe(required.instance, (chosen.variant,), plan.target.arch)
                kernels.append(
                    KernelWork(required.instance, required.block_m, chosen.variant, recipe)
                )
        shim = shim_recipe(module.spec, tuple(r.instance for r in module.instances))
        modules.append(ModuleWork(module.spec.name, shim, tuple(kernels)))
    return tuple(modules)
