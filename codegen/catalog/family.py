"""What a family file says: tiles, when the heuristic picks each, operations, pipelines.

One file per family under `families/` holds nothing but such data, so that a tile or a
family is added in one place. A tile and the condition under which AITER's heuristic
dispatch picks it stand on one line: in all of AITER's dispatch texts the tile chosen for a
`block_m` has exactly that many rows.
"""

from __future__ import annotations

import msgspec

from .model import Quant, Stage, Tail, Tile

Arch = str
"""A GPU architecture without features, e.g. `gfx950`."""

ARCHES: tuple[Arch, ...] = ("gfx942", "gfx950")
"""Architectures that AITER's CK2stages kernels are made for."""


class When(msgspec.Struct, frozen=True):
    """Condition on inter_dim under which the heuristic picks a tile.

    Attributes:
        rule: the condition's kind, a key of the table in `holds`.
        value: its number; 0 where it has none.
    """

    rule: str
    value: int = 0

    def holds(self, inter_dim: int) -> bool:
        """Whether the heuristic picks the tile at this (local) inter_dim."""
        match self.rule:
            case "always":
                return True
            case "never":
                return False
            case "<=":
                return inter_dim <= self.value
            case ">":
                return inter_dim > self.value
            case "%":
                return inter_dim % self.value == 0
            case "!%":
                return inter_dim % self.value != 0
        raise AssertionError(self.rule)

    def why_not(self, inter_dim: int) -> str:
        """What speaks against the tile at this inter_dim, for people."""
        match self.rule:
            case "<=":
                return f"inter_dim {inter_dim} > {self.value}"
            case ">":
                return f"inter_dim {inter_dim} <= {self.value}"
            case "%":
                return f"inter_dim {inter_dim} is not a multiple of {self.value}"
            case "!%":
                return f"inter_dim {inter_dim} is a multiple of {self.value}"
        return "the heuristic has no rule for this tile"


ALWAYS = When("always")
NEVER = When("never")


def up_to(inter_dim: int) -> When:
    """inter_dim is at most this."""
    return When("<=", inter_dim)


def over(inter_dim: int) -> When:
    """inter_dim is more than this."""
    return When(">", inter_dim)


def multiple(of: int) -> When:
    """inter_dim is a multiple of this."""
    return When("%", of)


def not_multiple(of: int) -> When:
    """inter_dim is no multiple of this."""
    return When("!%", of)


class Row(msgspec.Struct, frozen=True):
    """One line of a family's table.

    Attributes:
        tile: the tile.
        when: when the heuristic picks it for `block_m == tile.m`.
    """

    tile: Tile
    when: When


def row(
    threads: int, m: int, n: int, k: int, m_waves: int, n_waves: int, pipeline: int, when: When
) -> Row:
    """A line of a family's table, column by column (see `Tile` for their meaning)."""
    return Row(Tile(threads, m, n, k, m_waves, n_waves, pipeline), when)


class Op(msgspec.Struct, frozen=True):
    """Name of the CDE element-wise operation of a stage, as AITER writes it in the name.

    Attributes:
        plain: the usual one.
        routed: when this stage multiplies by the routed weight; None where it's the same.
        splitk: when the module splits K in stage 1; None where it's the same.
    """

    plain: str
    routed: str | None = None
    splitk: str | None = None

    def name(self, *, routed: bool, splitk: bool) -> str:
        """The operation of an instance."""
        if splitk and self.splitk is not None:
            return self.splitk
        if routed and self.routed is not None:
            return self.routed
        return self.plain


class Pipeline(msgspec.Struct, frozen=True):
    """What decides the device kernel of a block-GEMM pipeline.

    Attributes:
        prefetch: CK's `PrefetchStages`: the hot loop runs if there are more loop steps.
        tails: the tails that the device op instantiates; `("full",)` where it ignores parity.
    """

    prefetch: int
    tails: tuple[Tail, ...]


PARITY = Pipeline(prefetch=2, tails=("odd", "even"))
"""Two prefetch stages, tail by parity: all pipelines but one."""


class Family(msgspec.Struct, frozen=True):
    """One CK device operation with its tiles and rules.

    Attributes:
        tag: AITER's tag.
        a: activation types it is selected for.
        b: weight types.
        quants: quantisations.
        arches: architectures whose module is generated from this family.
        runs_on: architectures on which its kernels can run.
        preshuffle: whether weights must be shuffled (True), must not be (False), or both (None).
        packed: values per stored element of A: 2 for fp4 pairs, else 1.
        header: suffix of AITER's `gemm_moe_ck2stages_common{}.cuh`.
        device_op: CK's device operation.
        ops: element-wise operation of stage 1 and 2.
        pipelines: the pipeline versions that tiles may name.
        non_temporal: whether each kernel exists with and without non-temporal loads.
        stage1: the gate-and-up tiles, in the generator's order.
        stage2: the down tiles, in the generator's order.
    """

    tag: str
    a: tuple[str, ...]
    b: tuple[str, ...]
    quants: tuple[Quant, ...]
    arches: tuple[Arch, ...]
    runs_on: tuple[Arch, ...]
    preshuffle: bool | None
    packed: int
    header: str
    device_op: str
    ops: tuple[Op, Op]
    pipelines: dict[int, Pipeline]
    non_temporal: bool
    stage1: tuple[Row, ...]
    stage2: tuple[Row, ...]

    def rows(self, stage: Stage) -> tuple[Row, ...]:
        """The table of one stage."""
        return self.stage1 if stage == 1 else self.stage2
