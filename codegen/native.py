"""The native dialect: one translation unit per device kernel, one host shim per module.

A `Recipe` says what a translation unit is made from: the template and the values that go
into it. Its identity is known without rendering, which keeps jinja2 off the path of a warm
`prebuild`; the text follows from it and from nothing else. Pure but for reading the
templates that lie beside this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jitcache import digest

from . import templating
from .catalog import Instance, ModuleSpec, Variant

DEVICE_SUFFIX = ".co"
"""File name ending of a code object."""
SHIM_SUFFIX = ".so"
"""File name ending of a host shim."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What one translation unit is made from.

    Attributes:
        kind: `device` or `host-shim`.
        stem: readable file name without ending.
        template: file name below templates/.
        context: the template's values, plain JSON.
    """

    kind: str
    stem: str
    template: str
    context: dict[str, Any]

    @property
    def identity(self) -> str:
        """Digest of everything the rendered text depends on."""
        return digest.of_json(
            {"template": templating.digest_of(self.template), "context": self.context}
        )

    @property
    def source_name(self) -> str:
        """File name of the source."""
        return f"{self.stem}.hip"

    @property
    def output_name(self) -> str:
        """File name of what the compiler makes of it."""
        return self.stem + (DEVICE_SUFFIX if self.kind == "device" else SHIM_SUFFIX)

    def render(self) -> str:
        """The text of the translation unit."""
        return templating.render(self.template, **self.context)


def device_recipe(instance: Instance, variants: tuple[Variant, ...], arch: str) -> Recipe:
    """The translation unit that holds the given kernels of an instance.

    Args:
        instance: the instance.
        variants: one kernel, or several that are to share the cost of one front end.
        arch: target; part of the file name only.
    """
    ordered = tuple(sorted(variants, key=str))
    tile = instance.tile
    stem = f"gemm{instance.stage}_{tile}_{'_'.join(map(str, ordered))}_{arch}"
    return Recipe(
        kind="device",
        stem=stem,
        template="device_tu.hip.j2",
        context={
            "name": instance.name,
            "header": header(instance),
            "pipeline": tile.pipeline,
            "parameters": parameters(instance),
            "variants": [{"arguments": _kernel_arguments(v)} for v in ordered],
        },
    )


def packed_recipe(recipes: Sequence[Recipe]) -> Recipe:
    """One translation unit with the kernels of several, in their order, and a list of them.

    What is made of it is taken apart again (jitcache/build/packjob.py): it has no key.

    Raises:
        ValueError: the kernels are of several families, or a recipe holds more than one.
    """
    headers = {r.context["header"] for r in recipes}
    if len(headers) != 1 or any(r.kind != "device" for r in recipes):
        raise ValueError(f"kernels of {sorted(headers)} can't share a translation unit")
    kernels = []
    for recipe in recipes:
        context = recipe.context
        (variant,) = context["variants"]
        kernels.append(
            {
                "name": context["name"],
                "pipeline": context["pipeline"],
                "parameters": context["parameters"],
                "arguments": variant["arguments"],
            }
        )
    return Recipe(
        kind="device",
        stem=f"pack_of_{len(kernels)}",
        template="packed_tu.hip.j2",
        context={"header": headers.pop(), "kernels": kernels},
    )


def shim_recipe(module: ModuleSpec, instances: tuple[Instance, ...]) -> Recipe:
    """The host shim that prepares launches for the given instances of a module."""
    headers = {header(i) for i in instances}
    if len(headers) != 1:
        raise ValueError(f"instances of {len(headers)} families in one module: {sorted(headers)}")
    return Recipe(
        kind="host-shim",
        stem=module.name,
        template="host_shim.hip.j2",
        context={
            "module": module.name,
            "header": headers.pop(),
            "instances": [{"name": i.name, "parameters": parameters(i)} for i in instances],
        },
    )


def header(instance: Instance) -> str:
    """Name of the C++ header of an instance's family, which is also its namespace.

    The lists that AITER keeps apart per architecture name the same device operation.
    """
    return instance.family.removesuffix("_gfx950")


def parameters(instance: Instance) -> str:
    """Template arguments of `jitcache::Instance` (csrc/jitcache/instance.hpp)."""
    module = instance.module
    tile = instance.tile
    splits = module.splitk and instance.stage == 1
    values: list[str | int] = [
        instance.stage,
        module.a.upper(),
        module.b.upper(),
        # Split K adds up partial sums, which takes float (gen_instances.py: gemm1_fp32).
        "F32" if splits else module.c.upper(),
        instance.op,
        f"jitcache::pipeline_v{tile.pipeline}",
        tile.block_size,
        tile.m,
        tile.n,
        tile.k,
        tile.m_waves,
        tile.n_waves,
        _flag(module.quant.word == "per_tensor"),
        _flag(instance.mul_routed_weight),
        int(instance.stage == 1 and module.act == "silu"),
    ]
    return ", ".join(map(str, values))


def _kernel_arguments(variant: Variant) -> str:
    arguments = [_flag(variant.hot_loop), f"ck::TailNumber::{variant.tail.capitalize()}"]
    if variant.non_temporal is not None:
        arguments.append(_flag(variant.non_temporal))
    return ", ".join(arguments)


def _flag(value: bool) -> str:
    return "true" if value else "false"
