"""From a module to its family, as AITER's generator chooses it, and whether it can run.

Source: AITER 9bab8388, gemm_moe_ck2stages_common.py:368-408 (choice of the list) and
gen_instances.py:1145-1222 (the generator derives A's type from B's and ignores `-a`).
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from dataclasses import replace

import msgspec

from jitcache.errors import UnsupportedError

from . import families
from .family import ARCHES, Arch, Family, Op
from .model import Instance, ModuleSpec, Quant, Stage

A_TYPES = ("b16", "f16", "f8", "fp4x2", "i8")
B_TYPES = (*A_TYPES, "i4")
C_TYPES = ("b16", "f16")
ACTIVATIONS = ("silu", "gelu")
"""Activations that CK2stages kernels are generated for (there is no swiglu)."""


class Refusal(msgspec.Struct, frozen=True):
    """A module that can be asked for and can never run.

    Attributes:
        reason: why, one sentence without a final period.
    """

    reason: str


@functools.cache
def all_families() -> tuple[Family, ...]:
    """Every family, by tag."""
    found: list[Family] = []
    for module in pkgutil.iter_modules(families.__path__):
        family: Family = importlib.import_module(f"{families.__name__}.{module.name}").FAMILY
        found.append(family)
    return tuple(sorted(found, key=lambda f: f.tag))


def check_arch(arch: Arch) -> None:
    """Refuse an architecture that AITER has no CK2stages kernels for.

    Raises:
        UnsupportedError: it isn't one of `ARCHES`.
    """
    if arch not in ARCHES:
        raise UnsupportedError(
            f"no CK2stages kernels for {arch}",
            hint=f"known architectures: {', '.join(ARCHES)}",
        )


def derived_a(b: str) -> str:
    """The activation type that the generator uses for a weight type, whatever `-a` says."""
    return "f8" if b == "i4" else b


def emitted(spec: ModuleSpec) -> ModuleSpec:
    """The module that the generator really writes when asked for `spec`."""
    a = derived_a(spec.b)
    return spec if a == spec.a else replace(spec, a=a)


@functools.cache
def family_of(spec: ModuleSpec, arch: Arch) -> Family:
    """The family whose tiles the generator writes for a module.

    A family may still be unable to run what was asked for: see `refusal`.

    Raises:
        UnsupportedError: the generator refuses the module's types or activation, or has
            no kernels for the architecture.
    """
    check_arch(arch)
    for what, value, allowed in (
        ("activation type", spec.a, A_TYPES),
        ("weight type", spec.b, B_TYPES),
        ("output type", spec.c, C_TYPES),
        ("activation", spec.act, ACTIVATIONS),
    ):
        if value not in allowed:
            raise UnsupportedError(
                f"no CK2stages kernel has the {what} {value}",
                where=spec.name,
                hint=f"there are {', '.join(allowed)}",
            )
    real = emitted(spec)
    for family in all_families():
        if (
            arch in family.arches
            and real.a in family.a
            and real.b in family.b
            and real.quant in family.quants
            and family.preshuffle in (None, real.preshuffle)
        ):
            return family
    raise AssertionError(f"no family for {spec.name} on {arch}")


@functools.cache
def refusal(spec: ModuleSpec, arch: Arch) -> Refusal | None:
    """Why a module that can be asked for can never run on an architecture; None if it can.

    Raises:
        UnsupportedError: as `family_of`.
    """
    family = family_of(spec, arch)
    if spec.a != derived_a(spec.b):
        return Refusal(
            f"AITER's generator ignores the activation type and writes "
            f"{derived_a(spec.b)} x {spec.b} kernels, which never match {spec.a} activations"
        )
    if arch not in family.runs_on:
        return Refusal(
            f"the {spec.a} dispatch is compiled only where __Float4_e2m1fn_x2 is defined, "
            f"which AITER doesn't define on {arch}"
        )
    if family.header == "_blockscale" and spec.quant is not Quant.PER_1X128:
        return Refusal(
            f"{spec.a} with {spec.quant.word} selects the blockscale operation but a header "
            "that lacks it: the module doesn't compile"
        )
    if family.header == "_blockscale" and spec.a == "i8":
        return Refusal(
            "CK's blockscale operation scales its sums in float32: for i8 it doesn't compile"
        )
    if family.packed == 2 and spec.quant is not Quant.PER_1X32:
        return Refusal("fp4x2 kernels read one E8M0 scale per 32 values: only per_1x32 exists")
    return None


@functools.cache
def instances(spec: ModuleSpec, arch: Arch) -> tuple[Instance, ...]:
    """Every instance that the stock generator writes for a module, in its order.

    Raises:
        UnsupportedError: as `family_of`.
    """
    family = family_of(spec, arch)
    return tuple(
        instance(spec, family, stage, index)
        for stage in _STAGES
        for index in range(len(family.rows(stage)))
    )


def instance(spec: ModuleSpec, family: Family, stage: Stage, index: int) -> Instance:
    """The instance of one line of a family's table."""
    real = emitted(spec)
    op: Op = family.ops[stage - 1]
    return Instance(
        family=family.tag,
        stage=stage,
        tile=family.rows(stage)[index].tile,
        op=op.name(
            routed=real.routed_weight_stage == stage,
            splitk=real.splitk,
        ),
        module=real,
    )


@functools.cache
def family_by_tag(tag: str) -> Family:
    """The family of a tag (every `Instance.family` has one)."""
    return {f.tag: f for f in all_families()}[tag]


_STAGES: tuple[Stage, ...] = (1, 2)
