"""What the CK at hand can build, told from its headers and not from its version.

CK's device operations drift: AITER 9bab8388 passes `IsSplitK` and `NonTemporalLoadB` to the
blockscale operation, which older CK does not know. This reads one header per family, so that
a plan is refused before anything is compiled; csrc/jitcache/op/blockscale.hpp tells the forms
apart in C++ by the same parameters.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from pathlib import Path

from jitcache.codegen.catalog import Instance, Variant, family_by_tag
from jitcache.errors import UnsupportedError

_OPERATIONS = Path("ck", "tensor_operation", "gpu", "device", "impl")
_HEADERS = {
    "DeviceMoeGemm": "device_moe_gemm.hpp",
    "DeviceMoeGemmBlockScale": "device_moe_gemm_blockscale.hpp",
    "DeviceMoeGemmMXBPreShuffle": "device_moe_mx_gemm_bpreshuffle.hpp",
    "DeviceMoeGemmMXBNS": "device_moe_mx_gemm_bns.hpp",
}
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_PARAMETER = re.compile(r"(\w+)\s*(?:=[^,]*)?(?:,|$)")

SPLIT_K = "IsSplitK"
"""Template parameter of a blockscale operation that can split K."""
NON_TEMPORAL = "NonTemporalLoadB"
"""Template parameter of a blockscale operation that can load weights past the cache."""


def template_parameters(text: str, struct: str) -> tuple[str, ...] | None:
    """Names of a class template's parameters, in order. Pure.

    Args:
        text: a C++ header.
        struct: the class template's name.

    Returns:
        The names, or None if the header does not define the template.
    """
    plain = _COMMENT.sub("", text)
    found = re.search(rf"\bstruct\s+{re.escape(struct)}\b\s*(?:final\s*)?[:{{]", plain)
    if found is None:
        return None
    start = plain.rfind("template", 0, found.start())
    listed = re.fullmatch(r"template\s*<(.*)>\s*", plain[start : found.start()], re.DOTALL)
    if start < 0 or listed is None:
        return None
    return tuple(m[1] for m in _PARAMETER.finditer(listed[1].strip()))


def missing(ck_include: Path, instance: Instance, variant: Variant | None = None) -> str | None:
    """What a kernel needs that this CK lacks, as a clause for people; None if nothing.

    Args:
        ck_include: CK's include directory (that of `ck/ck.hpp`).
        instance: the kernel's instance.
        variant: the kernel; without one, what every kernel of the instance needs.
    """
    operation = family_by_tag(instance.family).device_op
    parameters = _parameters(ck_include, operation)
    if parameters is None:
        return f"it has no operation {operation} in {_HEADERS[operation]}"
    if operation != "DeviceMoeGemmBlockScale":
        return None
    if instance.module.a == "i8":
        # blockwise_gemm_pipeline_xdlops_moe_blockscale_b_preshuffle_*.hpp pass sums to
        # __builtin_elementwise_fma, which takes no integers; in the newest CK, too.
        return f"its {operation} applies scales in float32 and doesn't compile for int8 sums"
    has_split, has_hint = SPLIT_K in parameters, NON_TEMPORAL in parameters
    if has_split != has_hint:
        one, other = (SPLIT_K, NON_TEMPORAL) if has_split else (NON_TEMPORAL, SPLIT_K)
        return f"its {operation} takes {one} but not {other}, a form that AITER doesn't call"
    if instance.module.splitk and instance.stage == 1 and not has_split:
        return f"its {operation} can't split K: it has no template parameter {SPLIT_K}"
    if variant is not None and variant.non_temporal and not has_hint:
        return (
            f"its {operation} has no non-temporal loads: "
            f"it has no template parameter {NON_TEMPORAL}"
        )
    return None


def require(
    ck_include: Path, ck_name: str, kernels: Iterable[tuple[Instance, Variant | None]]
) -> None:
    """Refuse kernels that this CK can't build.

    Args:
        ck_include: CK's include directory.
        ck_name: which CK it is, for people: its commit or version.
        kernels: what is to be built.

    Raises:
        UnsupportedError: names CK, each kernel that it can't build, and what is missing.
    """
    lacks = []
    for instance, variant in kernels:
        lack = missing(ck_include, instance, variant)
        if lack is not None:
            kernel = instance.short if variant is None else f"{instance.short} {variant}"
            lacks.append(f"{kernel} of family {instance.family}: {lack}")
    if lacks:
        raise UnsupportedError(
            f"{len(lacks)} kernels can't be built with CK {ck_name}",
            where=str(ck_include),
            details=tuple(lacks),
            hint="name a newer CK with --ck or CK_DIR, such as the submodule of an AITER checkout",
        )


@functools.lru_cache(maxsize=32)
def _parameters(ck_include: Path, operation: str) -> tuple[str, ...] | None:
    try:
        text = (ck_include / _OPERATIONS / _HEADERS[operation]).read_text(
            encoding="utf-8", errors="replace"
        )
    except OSError:
        return None
    return template_parameters(text, operation)
