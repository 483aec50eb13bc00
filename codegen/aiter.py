"""The AITER dialect: a blob directory as AITER's generator writes it, but pruned.

AITER's build compiles every file under `instances/` and one file of its own, which includes
the lookup header (kernels by name, for tuned rows) and two heuristic dispatch headers
(kernels by shape). What is written here fits that file of AITER 9bab8388: macro name,
function signatures, template arguments (csrc/ck_gemm_moe_2stages_codegen/
gemm_moe_ck2stages.{cu,h}). The dispatch conditions are the catalog's.

A reduced module answers as the full one or raises: where AITER's dispatch would pick a kernel
that is left out, and where a left-out kernel is asked for by name, the call ends with a message
that names the shape, what the module holds, and what to do.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from jitcache import digest

from . import catalog
from .catalog import Arch, Family, Instance, ModuleSpec, Quant, Stage
from .catalog.family import When
from .templating import c_string, render

LOOKUP = "gemm_moe_ck2stages_lookup.h"
DISPATCH = (
    "ck2stages_moe_stage1_heuristic_dispatch.hpp",
    "ck2stages_moe_stage2_heuristic_dispatch.hpp",
)
INSTANCES = "instances"

_STAGES: tuple[Stage, ...] = (1, 2)
_MADE_BY = f"Written by jitcache for AITER {catalog.AITER_COMMIT}: generate again, don't edit."


@dataclass(frozen=True, slots=True)
class Holding:
    """What a blob directory holds of one module.

    Attributes:
        spec: the module, as the generator writes it (activation type derived from the weights').
        kept: the instances it holds.
        left_out: the module's other instances.
    """

    spec: ModuleSpec
    kept: tuple[Instance, ...]
    left_out: tuple[Instance, ...]


@dataclass(frozen=True, slots=True)
class Advice:
    """What a person does to add what a module lacks; ASCII, one line each.

    Attributes:
        shape: for a shape; `{block_m}` and `{inter_dim}` stand for the call's values.
        kernel: for a kernel asked for by its name.
    """

    shape: str
    kernel: str


def describe(spec: ModuleSpec) -> str:
    """A module in words; says whether weights are shuffled only where kernels differ."""
    fp4 = "fp4x2" in spec.b
    return ", ".join(
        [
            f"{spec.a} x {spec.b} -> {spec.c}",
            f"quant {spec.quant.word}",
            spec.act,
            f"routed weight in stage {spec.routed_weight_stage}",
            *(["shuffled" if spec.preshuffle else "not shuffled"] if fp4 else []),
            *(["split K"] if spec.splitk else []),
        ]
    )


def hold(spec: ModuleSpec, arch: Arch, keep: Collection[str] | None = None) -> Holding:
    """Divide a module's instances into those to hold and the rest.

    Args:
        spec: the module.
        arch: the architecture.
        keep: names of the instances to hold; all when not given.

    Raises:
        UnsupportedError: the generator has no such module.
        ValueError: a name isn't the module's.
    """
    every = catalog.instances(spec, arch)
    if keep is None:
        keep = [i.name for i in every]
    if unknown := set(keep) - {i.name for i in every}:
        raise ValueError(f"not in {spec.name} on {arch}: {', '.join(sorted(unknown))}")
    wanted = set(keep)
    return Holding(
        spec=catalog.emitted(spec),
        kept=tuple(i for i in every if i.name in wanted),
        left_out=tuple(i for i in every if i.name not in wanted),
    )


def blob(holdings: Sequence[Holding], arch: Arch, advice: Advice) -> dict[str, str]:
    """The files of a blob directory, by relative path.

    Args:
        holdings: the modules in it: one for every module that AITER builds at run time, more
            where the generator is asked for several weight types or for everything.
        arch: the one architecture it is for (instances and names differ between two).
        advice: what the error messages advise.
    """
    # Modules that differ in the activation share their stage 2 instances.
    kept = {i.name: i for h in holdings for i in h.kept}
    left_out = {i.name: i for h in holdings for i in h.left_out if i.name not in kept}
    common = _preamble(holdings, arch, advice, sorted(kept), sorted(left_out))
    files = {f"{INSTANCES}/{name}.cu": _instance(i, arch) for name, i in kept.items()}
    files[LOOKUP] = render(
        "aiter_lookup.h.j2",
        kernels=[{"name": name, "function": _function(i, arch)} for name, i in kept.items()],
        left_out=[_pieces(i) for i in left_out.values()],
        **common,
    )
    for stage, path in zip(_STAGES, DISPATCH, strict=True):
        files[path] = render(
            "aiter_dispatch.hpp.j2",
            stage=stage,
            cases=_cases(holdings, arch, stage, kept.keys()),
            **common,
        )
    return files


def _preamble(
    holdings: Sequence[Holding],
    arch: Arch,
    advice: Advice,
    kept: Sequence[str],
    left_out: Sequence[str],
) -> dict[str, Any]:
    """What the three headers have in common."""
    modules = [f"{describe(h.spec)}, {arch}: {_counts(h)}" for h in holdings]
    identity = [arch, list(kept), list(left_out), advice.shape, advice.kernel]
    return {
        "made_by": _MADE_BY,
        "modules": modules,
        "id": "0x" + digest.of_json(identity).removeprefix("sha256:")[:8],
        "holds": c_string(_holds(holdings, arch)),
        "add_shape": _stream(advice.shape),
        "add_kernel": c_string(advice.kernel),
        "fp4": any(catalog.family_of(h.spec, arch).packed == 2 for h in holdings),
    }


def _counts(h: Holding) -> str:
    return f"{len(h.kept)} of {len(h.kept) + len(h.left_out)} instances"


def _holds(holdings: Sequence[Holding], arch: Arch) -> str:
    """What the blob holds, in a sentence for an error message."""
    parts = []
    for h in holdings:
        listed = ", ".join(i.short for i in h.kept)
        parts.append(f"The module ({describe(h.spec)}, {arch}) holds {_counts(h)}: {listed}.")
    return " ".join(parts)


def _instance(i: Instance, arch: Arch) -> str:
    """One translation unit: the explicit instantiation of one kernel launcher."""
    family = catalog.family_of(i.module, arch)
    return render(
        "aiter_instance.cu.j2",
        made_by=_MADE_BY,
        guard=family.packed == 2,  # as AITER: gfx942 has no fp4 instructions
        # AITER takes the blockscale header only for its own quantisation, not for per_1x32.
        header="" if _plain_header(family, i.module) else family.header,
        stage=i.stage,
        tile=i.tile,
        **_types(i, family),
    )


def _plain_header(family: Family, spec: ModuleSpec) -> bool:
    return family.header == "_blockscale" and spec.quant is not Quant.PER_1X128


def _types(i: Instance, family: Family) -> dict[str, str]:
    """Template arguments that aren't numbers of the tile, as C++ text."""
    m = i.module
    return {
        "a": m.a.upper(),
        "b": m.b.upper(),
        "acc": "I32" if m.a == "i8" else "F32",
        "e": _output(i.stage, m, family),
        "op": i.op,
        "per_tensor": _bool(m.quant is Quant.PER_TENSOR),
        "routed": _bool(i.mul_routed_weight),
        "act": _act(i.stage, m),
    }


def _output(stage: Stage, spec: ModuleSpec, family: Family) -> str:
    """Type that a stage writes: a split-K stage 1 sums in float32."""
    splitk = spec.splitk and stage == 1 and family.header == "_blockscale"
    return "F32" if splitk and not _plain_header(family, spec) else spec.c.upper()


def _act(stage: Stage, spec: ModuleSpec) -> str:
    """AITER's ActOP: 1 for silu, 0 for gelu, and 0 in stage 2, which has no activation."""
    return str(int(stage == 1 and spec.act == "silu"))


def _function(i: Instance, arch: Arch) -> str:
    """The launcher that an instance's file instantiates, with its template arguments."""
    t = i.tile
    x = _types(i, catalog.family_of(i.module, arch))
    numbers = (t.block_size, t.m, t.n, t.k, t.m_waves, t.n_waves)
    args = [
        *(x["a"], x["b"], x["acc"], x["e"], x["op"], f"V{t.pipeline}"),
        *map(str, numbers),
        *("false", x["per_tensor"], x["routed"], x["act"]),
    ]
    return f"ck_moe_stage{i.stage}_gemm<{', '.join(args)}>"


def _pieces(i: Instance) -> tuple[str, str, str]:
    """An instance's name in the pieces of the lookup header's macro: stage, tile, rest."""
    t = i.tile
    stage = f"gemm{i.stage}"
    tile = f"{t.block_size}x{t.m}x{t.n}x{t.k}_{t.m_waves}x{t.n_waves}"
    return stage, tile, i.name.removeprefix(f"moe_ck2stages_{stage}_{tile}_")


def _cases(
    holdings: Sequence[Holding], arch: Arch, stage: Stage, kept: Collection[str]
) -> list[dict[str, Any]]:
    """One branch of a dispatch function for each set of types and options."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for h in holdings:
        family = catalog.family_of(h.spec, arch)
        routed = h.spec.routed_weight_stage == stage
        case = {
            "module": describe(h.spec),
            "family": family.tag,
            "fp4": family.packed == 2,
            "x": h.spec.a.upper(),
            "w": h.spec.b.upper(),
            "y": _output(stage, h.spec, family),
            "act": _act(stage, h.spec),
            "quant": str(h.spec.quant.number),
            "routed": _bool(routed),
            "routed_digit": str(int(routed)),
            "shuffled": _bool(h.spec.preshuffle),
            "shuffled_digit": str(int(h.spec.preshuffle)),
        }
        asked = ("x", "w", "y", "act", "quant", "routed", *(("shuffled",) if case["fp4"] else ()))
        key = tuple(str(case[k]) for k in asked)
        if key not in found:
            blocks = _blocks(h, arch, stage, kept)
            found[key] = case | {
                "blocks": blocks,
                "block_ms": ", ".join(str(b["block_m"]) for b in blocks),
            }
    return list(found.values())


def _blocks(h: Holding, arch: Arch, stage: Stage, kept: Collection[str]) -> list[dict[str, Any]]:
    """The choices of a stage by block_m: a kernel that the blob holds, or a refusal."""
    of_tile = {i.tile: i for i in (*h.kept, *h.left_out) if i.stage == stage}
    blocks: dict[int, list[dict[str, Any]]] = {}
    for row in catalog.family_of(h.spec, arch).rows(stage):
        if row.when.rule == "never":
            continue
        i = of_tile[row.tile]
        blocks.setdefault(row.tile.m, []).append(
            {
                "condition": _condition(row.when),
                "function": _function(i, arch) if i.name in kept else None,
                "short": i.short,
            }
        )
    return [{"block_m": m, "choices": blocks[m]} for m in sorted(blocks)]


def _condition(when: When) -> str:
    """A condition on inter_dim as C++; empty where there is none."""
    match when.rule:
        case "always":
            return ""
        case "<=" | ">":
            return f"inter_dim {when.rule} {when.value}"
        case "%":
            return f"inter_dim % {when.value} == 0"
        case "!%":
            return f"inter_dim % {when.value} != 0"
    raise AssertionError(when.rule)


def _bool(value: bool) -> str:
    return "true" if value else "false"


def _stream(text: str) -> str:
    """Arguments of TORCH_CHECK for a text with `{block_m}` and `{inter_dim}` in it."""
    pieces = re.split(r"\{(block_m|inter_dim)\}", text)
    return ", ".join(p if n % 2 else c_string(p) for n, p in enumerate(pieces) if p)
