"""Which rows of a plan run which kernel. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import msgspec

from jitcache.codegen.catalog import Variant
from jitcache.plan.model import Plan


class Rows(msgspec.Struct, frozen=True):
    """Calls of one layer.

    Attributes:
        layer: the layer's name.
        tokens: token counts, rising.
    """

    layer: str
    tokens: tuple[int, ...]


class Needs:
    """The rows of a plan, by what they run.

    Args:
        plan: the plan.
    """

    def __init__(self, plan: Plan) -> None:
        self._kernels: dict[tuple[str, str, Variant], list[tuple[str, int]]] = defaultdict(list)
        for row in plan.rows:
            for stage in row.stages:
                if stage.variant is not None:
                    call = (row.layer, row.tokens)
                    self._kernels[stage.module, stage.kernel, stage.variant].append(call)

    def of_kernel(self, module: str, instance: str, variant: Variant) -> tuple[Rows, ...]:
        """The rows that run one device kernel, layer by layer."""
        return self.of_kernels(module, [(instance, variant)])

    def of_kernels(self, module: str, kernels: Iterable[tuple[str, Variant]]) -> tuple[Rows, ...]:
        """The rows that run any of a module's kernels, each an instance and a variant."""
        return grouped(
            call for name, v in kernels for call in self._kernels.get((module, name, v), ())
        )


def grouped(calls: Iterable[tuple[str, int]]) -> tuple[Rows, ...]:
    """Calls, each a layer and a token count, by layer in the order of their first call."""
    layers: dict[str, set[int]] = {}
    for layer, tokens in calls:
        layers.setdefault(layer, set()).add(tokens)
    return tuple(Rows(layer, tuple(sorted(tokens))) for layer, tokens in layers.items())


def merged(parts: Iterable[Sequence[Rows]]) -> tuple[Rows, ...]:
    """The rows of several, each once."""
    return grouped((rows.layer, t) for part in parts for rows in part for t in rows.tokens)
