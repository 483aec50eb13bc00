"""The command line of AITER's generator: which modules a set of flags means.

Source: AITER 9bab8388, gen_instances.py:1021-1222. The generator derives the activation
type from the weight type and ignores `-a`; without a weight type it writes everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from .catalog import ModuleSpec, Quant, Stage, emitted

QUANT_WORDS: dict[str, Quant] = {q.word: q for q in Quant} | {"per_128x128": Quant.PER_1X128}
"""Words for `-q`; AITER treats per_128x128 as per_1x128."""

_STAGES: tuple[Stage, ...] = (1, 2)


def asked(
    weights: Sequence[str],
    output: str,
    quant: Quant,
    act: str,
    routed_weight_stage: Stage,
    *,
    preshuffle: bool,
    splitk: bool,
) -> tuple[ModuleSpec, ...]:
    """The modules that the generator writes for these flags, one per weight type."""
    specs = (
        ModuleSpec(b, b, output, quant, act, routed_weight_stage, preshuffle, splitk)
        for b in weights
    )
    return tuple(dict.fromkeys(map(emitted, specs)))


def everything() -> tuple[ModuleSpec, ...]:
    """The modules that the generator writes when no weight type is given."""
    outputs, acts = ("f16", "b16"), ("silu", "gelu")
    found: list[ModuleSpec] = []
    for b, c, act, stage in product(("f8", "i8", "i4"), outputs, acts, _STAGES):
        for quant in (Quant.PER_TENSOR, Quant.PER_TOKEN):
            found += asked((b,), c, quant, act, stage, preshuffle=True, splitk=False)
    for c, act, stage, shuffled in product(outputs, acts, _STAGES, (True, False)):
        found += asked(("fp4x2",), c, Quant.PER_1X32, act, stage, preshuffle=shuffled, splitk=False)
    for c, act, stage, splitk in product(outputs, acts, _STAGES, (False, True)):
        found += asked(("f8",), c, Quant.PER_1X128, act, stage, preshuffle=True, splitk=splitk)
    for b, act, stage in product(("f16", "b16"), acts, _STAGES):
        found += asked((b,), b, Quant.NO, act, stage, preshuffle=True, splitk=False)
    return tuple(found)


def flags(specs: Sequence[ModuleSpec]) -> list[str]:
    """The generator's flags for modules that differ in nothing but the weight type."""
    first = specs[0]
    return [
        *("-b", *(s.b for s in specs)),
        *("-c", first.c),
        *("-q", first.quant.word),
        *("-act", first.act),
        *("-m", str(first.routed_weight_stage)),
        *(["--preshuffle"] if first.preshuffle else []),
        *(["--issplitk"] if first.splitk else []),
    ]
