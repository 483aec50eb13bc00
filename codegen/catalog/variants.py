"""The device kernels of an instance, and which one a K runs.

Source: CK device_moe_*.hpp (`RunImp`: which template arguments are instantiated) and the
block-GEMM pipelines' `PrefetchStages`, `BlockHasHotloop` and `BlockLoopTailNum`. For
split-K: AITER's gemm_moe_ck2stages_common_blockscale.cuh (`KBatch`) and the published
CK of 2026 (device_moe_gemm_blockscale.hpp, `K_split`); the wheel's older CK splits no K.
"""

from __future__ import annotations

from .dims import k_per_block
from .model import Instance, Tail, Variant
from .select import family_by_tag


def variants(instance: Instance) -> tuple[Variant, ...]:
    """Every device kernel that CK compiles for an instance."""
    family = family_by_tag(instance.family)
    pipeline = family.pipelines[instance.tile.pipeline]
    return tuple(
        Variant(hot_loop=hot, tail=tail, non_temporal=nt)
        for nt in ((False, True) if family.non_temporal else (None,))
        for hot in (True, False)
        for tail in pipeline.tails
    )


def steps(instance: Instance, k: int, *, splitk: int = 0) -> int:
    """Loop steps of one workgroup along K.

    Args:
        instance: the kernel.
        k: depth in elements, as passed to AITER's kernel function.
        splitk: AITER's ksplit. In stage 1 of a split-K module that many workgroups share
            one K: AITER passes `K / (splitk * KPerBlock)` as KBatch, and the CK whose
            operation can split takes that for the steps of one workgroup. A KBatch of 1
            means to it that nothing is split.
    """
    whole = -(-k // k_per_block(instance))
    if instance.module.splitk and instance.stage == 1 and splitk > 1:
        share = k // (splitk * k_per_block(instance))
        return share if share > 1 else whole
    return whole


def variant_for(
    instance: Instance, k: int, non_temporal: bool | None = None, *, splitk: int = 0
) -> Variant:
    """The one kernel that runs for a K that CK accepts.

    Args:
        instance: the kernel.
        k: depth in elements: model_dim in stage 1, inter_dim in stage 2.
        non_temporal: whether the host asks for non-temporal loads; ignored (None in the
            result) by families that don't tell them apart, off if not given.
        splitk: AITER's ksplit (see `steps`).
    """
    family = family_by_tag(instance.family)
    pipeline = family.pipelines[instance.tile.pipeline]
    count = steps(instance, k, splitk=splitk)
    parity: Tail = "even" if count % 2 == 0 else "odd"
    return Variant(
        hot_loop=count > pipeline.prefetch,
        tail=parity if parity in pipeline.tails else pipeline.tails[0],
        non_temporal=bool(non_temporal) if family.non_temporal else None,
    )
