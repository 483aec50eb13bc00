"""torch custom ops over the MoE stages: `torch.ops.jitcache.moe_stage1` and `moe_stage2`.

The ops write `out` and return nothing; their schema says so, hence `torch.compile` keeps their
order and functionalises them, and graph capture sees a plain launch. They have no autocast rule:
types are what the module was built for. A module is named by a key, because an op's arguments
are tensors and plain values; `bind` gives the key and two functions with AITER's arguments.
"""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from jitcache.errors import UsageError
from jitcache.runtime.stages import Stages

_bound: dict[str, Stages] = {}
_numbers = itertools.count()
_guard = threading.Lock()


@dataclass(frozen=True, slots=True)
class Bound:
    """A module behind the ops.

    Attributes:
        key: first argument of the ops.
    """

    key: str

    def ck_moe_stage1(self, *arguments: Any) -> None:
        """Stage 1 with AITER's 19 arguments, through the op."""
        torch.ops.jitcache.moe_stage1(self.key, *arguments)

    def ck_moe_stage2(self, *arguments: Any) -> None:
        """Stage 2 with AITER's 19 arguments, through the op."""
        torch.ops.jitcache.moe_stage2(self.key, *arguments)

    def release(self) -> None:
        """Forget the module; the ops refuse its key from now on."""
        with _guard:
            _bound.pop(self.key, None)


def bind(stages: Stages) -> Bound:
    """Make a module callable through the ops."""
    with _guard:
        key = f"{stages.module.name}#{next(_numbers)}"
        _bound[key] = stages
    return Bound(key)


_ARGUMENTS = (
    "(str key, Tensor states, Tensor w1, Tensor w2, Tensor sorted_token_ids,"
    " Tensor sorted_expert_ids, Tensor num_valid_ids, Tensor(a!) out, int topk,"
    ' str kernelName="", Tensor? w_scale=None, Tensor? a_scale=None, int? block_m=32,'
    " Tensor? sorted_weights=None, int quant_type=0, int activation=0, int? splitk=1,"
    " bool? non_temporal_load=False, str? dst_type=None, bool is_shuffled=True) -> ()"
)


def _run(stage: int, key: str, *arguments: Any) -> None:
    stages = _bound.get(key)
    if stages is None:
        raise UsageError(
            f"no module is bound to {key!r}", hint="jitcache.runtime.ops.bind gives keys"
        )
    stages.launch(stages.check(stage, *arguments))


def _fake(key: str, *arguments: Any) -> None:
    """Fake tensors have no content to write. Meta tensors among real ones end here as well."""
    devices = {str(t.device) for t in arguments if isinstance(t, Tensor)}
    if len(devices) > 1:
        raise UsageError(f"the tensors are on {' and '.join(sorted(devices))}", where=key)


def _define(stage: int) -> None:
    name = f"jitcache::moe_stage{stage}"
    torch.library.define(name, _ARGUMENTS)

    def implementation(key: str, states: Tensor, *rest: Any) -> None:
        _run(stage, key, states, *rest)

    torch.library.impl(name, ("CPU", "CUDA"), implementation)
    torch.library.register_fake(name, _fake)


for _stage in (1, 2):
    _define(_stage)
