"""The words of the catalog: tile, instance, variant, module.

Names and numbers are AITER's (commit 9bab8388), so that what we plan, print and store can
be compared with its tuned tables letter by letter. Nothing here does I/O.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Literal

Stage = Literal[1, 2]
Tail = Literal["odd", "even", "full"]
"""CK's `TailNumber` as the kernel is instantiated: `full` where the op ignores the parity."""


class Quant(enum.Enum):
    """Quantisation of a module: AITER's command-line word and its QuantType number."""

    NO = ("no", 0)
    PER_TENSOR = ("per_tensor", 1)
    PER_TOKEN = ("per_token", 2)
    PER_1X32 = ("per_1x32", 3)
    PER_1X128 = ("per_1x128", 4)

    def __init__(self, word: str, number: int) -> None:
        self.word = word
        self.number = number


@dataclass(frozen=True, slots=True)
class Tile:
    """What one workgroup computes, and with which pipeline.

    Attributes:
        block_size: threads per workgroup (64 per wave).
        m: rows of the block; AITER's `block_m`.
        n: columns of the block.
        k: depth of one loop step, in elements of the *stored* type (fp4 pairs count once).
        m_waves: waves along M.
        n_waves: waves along N.
        pipeline: CK block-GEMM pipeline version, 1 or 3.
    """

    block_size: int
    m: int
    n: int
    k: int
    m_waves: int
    n_waves: int
    pipeline: int

    def __str__(self) -> str:
        return (
            f"{self.block_size}x{self.m}x{self.n}x{self.k}_"
            f"{self.m_waves}x{self.n_waves}_v{self.pipeline}"
        )


@dataclass(frozen=True, slots=True)
class ModuleSpec:
    """What AITER builds as one shared object: types, quantisation, activation, routed weight.

    Attributes:
        a: activation type: `f8 i8 f16 b16 fp4x2`.
        b: weight type: those, or `i4`.
        c: output type: `f16 b16`.
        quant: quantisation granularity.
        act: `silu` or `gelu`.
        routed_weight_stage: the stage that multiplies by the routed weight, 1 or 2.
        preshuffle: whether the weights are shuffled (kernels differ for fp4 only).
        splitk: whether stage 1 splits K and writes float32 (per_1x128 only).
    """

    a: str
    b: str
    c: str
    quant: Quant
    act: str
    routed_weight_stage: Stage
    preshuffle: bool
    splitk: bool = False

    @property
    def name(self) -> str:
        """AITER's run-time module name (aiter/ops/moe_op.py:485-532)."""
        return "_".join(
            [
                "module_moe_ck2stages",
                self.a,
                self.b,
                "preshuffle_on" if self.preshuffle else "preshuffle_off",
                self.c,
                self.act,
                self.quant.word,
                f"mulWeightStage{self.routed_weight_stage}",
                *(["splitk"] if self.splitk else []),
            ]
        )


@dataclass(frozen=True, slots=True)
class Instance:
    """One CK device operation of a module: family + stage + tile + element operation.

    Attributes:
        family: the family's tag, e.g. `a4w4`.
        stage: 1 (gate and up projection) or 2 (down projection).
        tile: block shape and pipeline.
        op: name of the CDE element-wise operation, as in the instance name.
        module: the module it belongs to.
    """

    family: str
    stage: Stage
    tile: Tile
    op: str
    module: ModuleSpec

    @property
    def mul_routed_weight(self) -> bool:
        """Whether this stage multiplies by the routed weight."""
        return self.module.routed_weight_stage == self.stage

    @property
    def name(self) -> str:
        """The instance's name, exactly as AITER names it (gemm_moe_ck2stages_common.py)."""
        t = self.tile
        m = self.module
        return "_".join(
            [
                f"moe_ck2stages_gemm{self.stage}",
                f"{t.block_size}x{t.m}x{t.n}x{t.k}",
                f"{t.m_waves}x{t.n_waves}",
                self.op,
                f"v{t.pipeline}",
                "Nswizzle0",
                f"Quant{m.quant.number}",
                f"MulRoutedWeight{int(self.mul_routed_weight)}",
                *([m.act] if self.stage == 1 else []),
                m.a.upper(),
                m.b.upper(),
                m.c.upper(),
            ]
        )

    @property
    def short(self) -> str:
        """A short form for people: `gemm1 256x128x128x128 v3`."""
        t = self.tile
        return f"gemm{self.stage} {t.block_size}x{t.m}x{t.n}x{t.k} v{t.pipeline}"


@dataclass(frozen=True, slots=True, order=True)
class Variant:
    """One device kernel of an instance: what CK decides at launch from K (and nt).

    Attributes:
        hot_loop: whether the main K loop runs.
        tail: parity of the number of loop steps, or `full` where CK ignores it.
        non_temporal: non-temporal weight loads; None where the family doesn't tell them apart.
    """

    hot_loop: bool
    tail: Tail
    non_temporal: bool | None = None

    def __str__(self) -> str:
        parts = ["hot" if self.hot_loop else "cold", self.tail]
        if self.non_temporal is not None:
            parts.append("nt" if self.non_temporal else "t")
        return "-".join(parts)
