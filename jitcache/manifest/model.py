"""What a manifest resolves to: targets, layers and token counts of one deployment.

Frozen and free of defaults: everything that a file may leave out is filled in by
`jitcache.manifest.load`.
"""

from __future__ import annotations

import msgspec

from jitcache.codegen.catalog.model import Quant
from jitcache.manifest.raw import ScopeWord


class Target(msgspec.Struct, frozen=True, order=True):
    """One GPU to plan and build for.

    Attributes:
        arch: architecture, e.g. `gfx950`.
        cu_num: compute units that AITER sees (fewer on a partitioned GPU).
    """

    arch: str
    cu_num: int

    def __str__(self) -> str:
        return f"{self.arch} with {self.cu_num} CUs"


class Layer(msgspec.Struct, frozen=True):
    """One kind of MoE layer as one rank runs it.

    Attributes:
        name: for people.
        model_dim: hidden size.
        inter_dim: this rank's inter_dim of one expert.
        experts: experts whose weights this rank holds, fused shared experts included.
        top_k: experts per token, fused shared experts included.
        quant: quantisation.
        a: activation type as the kernels see it; None: as AITER's `fused_moe` chooses it.
        w: weight type.
        out: output type.
        act: `silu`, `gelu` or `swiglu`.
        gate: `separated` or `interleaved` gate and up weights.
        preshuffle: whether the weights are shuffled.
        doweight_stage1: whether stage 1 multiplies by the routed weight.
    """

    name: str
    model_dim: int
    inter_dim: int
    experts: int
    top_k: int
    quant: Quant
    a: str | None
    w: str
    out: str
    act: str
    gate: str
    preshuffle: bool
    doweight_stage1: bool


class TunedFile(msgspec.Struct, frozen=True):
    """A tuned table that the manifest names.

    Attributes:
        path: where it is.
        digest: digest of its content: it decides what is planned.
    """

    path: str
    digest: str


class Attention(msgspec.Struct, frozen=True):
    """One attention forward call, for the audit.

    Attributes:
        hdim_q: head dim of queries and keys.
        hdim_v: head dim of values.
        dtype: `bf16` or `fp8bf16`.
        causal: whether the mask is causal.
        group: whether sequences have different lengths.
        rounding: AITER's bf16 conversion: 0 to nearest even, 1 away, 2 to zero.
    """

    hdim_q: int
    hdim_v: int
    dtype: str
    causal: bool
    group: bool
    rounding: int


class Manifest(msgspec.Struct, frozen=True):
    """A deployment, resolved.

    Attributes:
        name: for people and file names.
        description: one line.
        source: the file it came from.
        targets: GPUs, at least one.
        layers: kinds of MoE layers, at least one.
        tokens: token counts, ascending; empty: not said.
        scope: what to build, see docs/manifest.md.
        block_m: block heights to build for; empty: all that can be reached.
        tuned: further tuned tables.
        flydsl: whether FlyDSL is importable where this is deployed.
        gemms: (N, K) of bf16 GEMMs as this rank runs them, for the audit only.
        attention: attention calls, for the audit only.
    """

    name: str
    description: str
    source: str
    targets: tuple[Target, ...]
    layers: tuple[Layer, ...]
    tokens: tuple[int, ...]
    scope: ScopeWord
    block_m: tuple[int, ...]
    tuned: tuple[TunedFile, ...]
    flydsl: bool
    gemms: tuple[tuple[int, int], ...]
    attention: tuple[Attention, ...]
