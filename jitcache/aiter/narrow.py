"""Which instances of a module a given shape needs, where there is no manifest: by flags.

AITER's generator is called with a module's types and options, and nothing about the model.
Added to that, the local inter_dim and the block heights decide what its heuristic dispatch
can pick; kernels named by tuned rows come on top.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jitcache.codegen import catalog
from jitcache.codegen.catalog import Arch, Instance, ModuleSpec, Stage
from jitcache.errors import UnsupportedError
from jitcache.plan.hostrules import block_ms_of

_STAGES: tuple[Stage, ...] = (1, 2)


@dataclass(frozen=True, slots=True)
class Shape:
    """What a module is narrowed to; nothing given means the whole module.

    Attributes:
        inter_dims: local inter_dim, in elements.
        block_ms: block heights.
        kernels: instances to hold in any case, by name.
    """

    inter_dims: tuple[int, ...] = ()
    block_ms: tuple[int, ...] = ()
    kernels: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether nothing is narrowed."""
        return not (self.inter_dims or self.block_ms or self.kernels)


def narrow(spec: ModuleSpec, arch: Arch, shape: Shape) -> tuple[str, ...]:
    """Names of the instances that a shape needs, in the generator's order.

    With an inter_dim: what the heuristic picks for it at each block height (all that AITER's
    untuned rule picks, if none is given; 256 is the tuner's only). With a block height alone:
    every kernel of that height.

    Raises:
        UnsupportedError: the module can't run on the architecture; AITER or CK has no
            kernel for a shape that was asked for; a kernel isn't the module's.
    """
    every = catalog.instances(spec, arch)
    if shape.whole:
        return tuple(i.name for i in every)
    if refused := catalog.refusal(spec, arch):
        raise UnsupportedError(f"these kernels can never run: {refused.reason}", where=spec.name)
    wanted = {i.name for i in every if i.name in shape.kernels}
    if unknown := set(shape.kernels) - wanted:
        raise UnsupportedError(
            f"the module has no kernel {min(unknown)}", where=f"{spec.name}, {arch}"
        )
    if shape.inter_dims:
        for inter_dim in shape.inter_dims:
            wanted |= _picked(spec, arch, inter_dim, shape.block_ms)
    else:
        for block_m in shape.block_ms:
            wanted |= _of_height(spec, arch, every, block_m)
    return tuple(i.name for i in every if i.name in wanted)


def _picked(spec: ModuleSpec, arch: Arch, inter_dim: int, block_ms: Sequence[int]) -> set[str]:
    """What the heuristic picks for an inter_dim, in both stages."""
    found: set[str] = set()
    for stage in _STAGES:
        answers = {
            m: _answer(spec, arch, stage, m, inter_dim) for m in block_ms or block_ms_of(spec.quant)
        }
        kernels = {a.name for a in answers.values() if isinstance(a, Instance)}
        # A height that was asked for must work; of the host's heights, one.
        bad = [f"block_m {m}: {a}" for m, a in answers.items() if isinstance(a, str)]
        if bad and (block_ms or not kernels):
            raise UnsupportedError(
                f"no stage {stage} kernel takes inter_dim {inter_dim}",
                where=f"{spec.name}, {arch}",
                details=tuple(bad),
                hint="pad the weights to an inter_dim that CK takes, or ask for other heights",
            )
        found |= kernels
    return found


def _answer(
    spec: ModuleSpec, arch: Arch, stage: Stage, block_m: int, inter_dim: int
) -> Instance | str:
    """The kernel for a shape, or what is against it."""
    picked = catalog.dispatch(spec, arch, stage, block_m, inter_dim)
    if isinstance(picked, catalog.Unsupported):
        return picked.reason
    # model_dim is the other dimension and isn't known here: any that fits will do.
    n = inter_dim if stage == 1 else picked.tile.n
    k = inter_dim if stage == 2 else catalog.k_per_block(picked)
    rejected = catalog.rejects(picked, n, k)
    return picked if rejected is None else f"CK rejects {picked.short}: {rejected}"


def _of_height(spec: ModuleSpec, arch: Arch, every: Sequence[Instance], block_m: int) -> set[str]:
    found = {i.name for i in every if i.tile.m == block_m}
    if not found:
        heights = sorted({i.tile.m for i in every})
        raise UnsupportedError(
            f"the module has no kernel of block_m {block_m}",
            where=f"{spec.name}, {arch}",
            hint=f"there are {', '.join(map(str, heights))}",
        )
    return found
