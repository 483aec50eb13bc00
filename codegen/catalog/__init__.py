"""The catalog: AITER's CK2stages families as data, and the rules over them.

Pure: no I/O. Facts are AITER's (commit `AITER_COMMIT`) and its CK's; each module names its
source.
"""

from .dims import k_per_block, rejects
from .dispatch import Unsupported, dispatch, why_not_dispatched
from .family import ARCHES, Arch, Family, Pipeline
from .layout import SHUFFLED, weight_pack
from .model import Instance, ModuleSpec, Quant, Stage, Tail, Tile, Variant
from .names import ParsedName, find, parse_module_name, parse_name
from .select import (
    ACTIVATIONS,
    Refusal,
    all_families,
    check_arch,
    emitted,
    family_by_tag,
    family_of,
    instances,
    refusal,
)
from .variants import steps, variant_for, variants

AITER_COMMIT = "9bab8388"
"""The AITER whose tables these are."""

AITER_SELECTION = "9e8cb26b4842c8f4c7df864adbad79f7a3f6aa4292a512ce964ea3330d71b9ef"
"""Digest of that AITER's code that chooses a family, as tools/sync-aiter computes it: when it
changes, `family_of` has to be compared with it by hand."""

__all__ = [
    "ACTIVATIONS",
    "AITER_COMMIT",
    "AITER_SELECTION",
    "ARCHES",
    "SHUFFLED",
    "Arch",
    "Family",
    "Instance",
    "ModuleSpec",
    "ParsedName",
    "Pipeline",
    "Quant",
    "Refusal",
    "Stage",
    "Tail",
    "Tile",
    "Unsupported",
    "Variant",
    "all_families",
    "check_arch",
    "dispatch",
    "emitted",
    "family_by_tag",
    "family_of",
    "find",
    "instances",
    "k_per_block",
    "parse_module_name",
    "parse_name",
    "refusal",
    "rejects",
    "steps",
    "variant_for",
    "variants",
    "weight_pack",
    "why_not_dispatched",
]
