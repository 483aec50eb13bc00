"""Reading AITER's names back: of instances (tuned tables) and of modules.

Source: AITER 9bab8388, gemm_moe_ck2stages_common.py (`name`) and aiter/ops/moe_op.py:485-532.
"""

from __future__ import annotations

import re

import msgspec

from jitcache.errors import InputError

from .family import Arch
from .model import Instance, ModuleSpec, Quant, Stage, Tile
from .select import A_TYPES, ACTIVATIONS, B_TYPES, C_TYPES, instances

_INSTANCE = (
    r"moe_ck2stages_gemm(?P<stage>[12])"
    r"_(?P<threads>\d+)x(?P<m>\d+)x(?P<n>\d+)x(?P<k>\d+)_(?P<mw>\d+)x(?P<nw>\d+)"
    r"_(?P<op>[A-Za-z0-9]+)_v(?P<v>\d+)_Nswizzle0_Quant(?P<q>\d)_MulRoutedWeight(?P<r>[01])"
    r"(?:_(?P<act>silu|gelu))?_(?P<a>[A-Z0-9]+)_(?P<b>[A-Z0-9]+)_(?P<c>[A-Z0-9]+)"
)
_MODULE = (
    rf"module_moe_ck2stages_(?P<a>{'|'.join(A_TYPES)})_(?P<b>{'|'.join(B_TYPES)})"
    rf"_preshuffle_(?P<p>on|off)_(?P<c>{'|'.join(C_TYPES)})_(?P<act>{'|'.join(ACTIVATIONS)})"
    rf"_(?P<q>{'|'.join(q.word for q in Quant)})_mulWeightStage(?P<m>[12])(?P<s>_splitk)?"
)
_QUANTS = {q.number: q for q in Quant}


class ParsedName(msgspec.Struct, frozen=True):
    """An instance's name taken apart.

    Attributes:
        stage: 1 or 2.
        tile: block shape and pipeline.
        op: CDE element-wise operation.
        quant: quantisation.
        mul_routed_weight: whether this stage multiplies by the routed weight.
        act: activation; None in stage 2, whose names don't have it.
        a: activation type, as in module names.
        b: weight type.
        c: output type.
    """

    stage: Stage
    tile: Tile
    op: str
    quant: Quant
    mul_routed_weight: bool
    act: str | None
    a: str
    b: str
    c: str

    @property
    def splitk(self) -> bool:
        """Whether only a split-K module holds it."""
        return self.op.endswith("Splitk")

    @property
    def routed_weight_stage(self) -> Stage:
        """The stage of the module that multiplies by the routed weight."""
        return self.stage if self.mul_routed_weight else (2 if self.stage == 1 else 1)

    def module(self, *, act: str | None = None, preshuffle: bool | None = None) -> ModuleSpec:
        """A module that may hold the instance.

        Args:
            act: activation for a stage 2 name, which fits both; silu if not given.
            preshuffle: whether weights are shuffled; by default what the operation says
                for fp4, else on.
        """
        if preshuffle is None:
            preshuffle = self.b != "fp4x2" or self.op.endswith("Shuffled")
        return ModuleSpec(
            a=self.a,
            b=self.b,
            c=self.c,
            quant=self.quant,
            act=self.act or act or "silu",
            routed_weight_stage=self.routed_weight_stage,
            preshuffle=preshuffle,
            splitk=self.splitk,
        )


def parse_name(name: str) -> ParsedName:
    """Take an instance's name apart.

    Raises:
        InputError: it isn't the name of a CK2stages instance.
    """
    found = re.fullmatch(_INSTANCE, name)
    problem = "it doesn't have the form of a CK2stages kernel name"
    if found is not None:
        stage: Stage = 1 if found["stage"] == "1" else 2
        quant = _QUANTS.get(int(found["q"]))
        types = found["a"].lower(), found["b"].lower(), found["c"].lower()
        if (found["act"] is None) != (stage == 2):
            problem = "stage 1 names have an activation, stage 2 names have none"
        elif quant is None:
            problem = f"Quant{found['q']} is not a CK2stages quantisation"
        elif types[0] not in A_TYPES or types[1] not in B_TYPES or types[2] not in C_TYPES:
            problem = f"unknown types {found['a']} {found['b']} {found['c']}"
        else:
            return ParsedName(
                stage=stage,
                tile=Tile(*(int(found[g]) for g in ("threads", "m", "n", "k", "mw", "nw", "v"))),
                op=found["op"],
                quant=quant,
                mul_routed_weight=found["r"] == "1",
                act=found["act"],
                a=types[0],
                b=types[1],
                c=types[2],
            )
    raise InputError(f"not an instance name: {problem}", where=name)


def parse_module_name(name: str) -> ModuleSpec:
    """The module that AITER calls so at run time.

    Raises:
        InputError: it isn't the name of a CK2stages module that can exist.
    """
    found = re.fullmatch(_MODULE, name)
    if found is None:
        raise InputError(
            "not the name of a CK2stages module",
            where=name,
            hint="the form is module_moe_ck2stages_<A>_<B>_preshuffle_<on|off>_<C>"
            "_<silu|gelu>_<quant>_mulWeightStage<1|2>[_splitk]",
        )
    return ModuleSpec(
        a=found["a"],
        b=found["b"],
        c=found["c"],
        quant=next(q for q in Quant if q.word == found["q"]),
        act=found["act"],
        routed_weight_stage=1 if found["m"] == "1" else 2,
        preshuffle=found["p"] == "on",
        splitk=found["s"] is not None,
    )


def find(name: str, spec: ModuleSpec, arch: Arch) -> Instance | None:
    """The instance of a module that has this name, or None if the module lacks it.

    Raises:
        UnsupportedError: as `catalog.family_of`.
    """
    return next((i for i in instances(spec, arch) if i.name == name), None)
