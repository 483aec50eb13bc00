"""Host time of one launch, by every way to it; started by tools/bench_load.

    launching.py WHAT AITER STANDIN TOKENS ROUNDS

WHAT is loaded with the recording HIP library, AITER is a directory that holds its package or
"", STANDIN the directory of the compiled tools/standin_pybind.cpp or "". Writes JSON:
microseconds of the thread's CPU time for a call, by way, a median of ROUNDS rounds that take turns.
"""

from __future__ import annotations

import inspect
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkout  # noqa: F401
import torch

import jitcache
from jitcache.codegen.catalog import ModuleSpec
from jitcache.manifest.load import load_manifest
from jitcache.manifest.model import Layer
from jitcache.runtime import hip, ops
from jitcache.runtime.module import Module
from jitcache.runtime.stages import StageCall, Stages

CALLS = 500
EXPERTS = 8
"""Weights of more aren't read, only allocated."""
_TYPES = {"f8": torch.float8_e4m3fn, "b16": torch.bfloat16, "f16": torch.float16, "i8": torch.int8}


def main(what: str, package: str, standin: str, tokens: str, rounds: str) -> None:
    """Print the times."""
    module = jitcache.load(what)
    module.prewarm()
    layer = load_manifest(module.lock.manifest).layers[0]
    block_m = max(i.block_m for i in module.instances if i.stage == 1)
    given = arguments(module.spec, layer, block_m, int(tokens))
    ways = ours(module, given)
    stand_in = None
    if standin:
        stand_in = opened(Path(standin), module, given)
        ways["pybind11, stand-in"] = lambda: stand_in(*given)
    if package:
        ways |= through_aiter(Path(package), module, given, stand_in)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(int(rounds)):
        for name, way in ways.items():
            times[name].append(once(way))
    print(json.dumps({name: statistics.median(found) for name, found in times.items()}))


def once(way: Callable[[], Any]) -> float:
    """Microseconds of this thread's CPU time for a call."""
    begin = time.thread_time()
    for _ in range(CALLS):
        way()
    return (time.thread_time() - begin) / CALLS * 1e6


def arguments(spec: ModuleSpec, layer: Layer, block_m: int, tokens: int) -> tuple[Any, ...]:
    """AITER's 19 arguments of stage 1 for a layer, in host memory."""
    model, inter, topk = layer.model_dim, layer.inter_dim, layer.top_k
    size = tokens * topk * block_m
    rows, blocks = EXPERTS * 2 * inter, -(-model // 128)
    scales = {
        "per_1x32": (size * model // 32, rows * model // 32),
        "per_1x128": (tokens * blocks, -(-rows // 128) * blocks),
        "per_token": (tokens, rows),
        "per_tensor": (1, EXPERTS),
    }.get(spec.quant.word)
    of_scale = torch.uint8 if spec.quant.word == "per_1x32" else torch.float32
    a_scale, w_scale = (torch.ones(n, dtype=of_scale) for n in scales) if scales else (None, None)
    weights = torch.zeros(size) if spec.routed_weight_stage == 1 else None
    made = (
        values((tokens, model), spec.a),
        values((EXPERTS, 2 * inter, model), spec.b),
        values((EXPERTS, model, inter), spec.b),
        *(torch.zeros(n, dtype=torch.int32) for n in (size, size // block_m, 2)),
        *(values((tokens, topk, inter), spec.c), topk, "", w_scale, a_scale, block_m, weights),
        *(spec.quant.number, {"silu": 0, "gelu": 1}[spec.act], 1, False, None, spec.preshuffle),
    )
    for weight in made[1:3]:
        weight.is_shuffled = spec.preshuffle
    return made


def values(shape: tuple[int, ...], kind: str) -> torch.Tensor:
    """A tensor of one of the catalog's types."""
    if kind in _TYPES:
        return torch.empty(shape, dtype=_TYPES[kind])
    packed = torch.empty((*shape[:-1], shape[-1] // 2), dtype=torch.uint8)
    return packed.view(torch.float4_e2m1fn_x2) if kind == "fp4x2" else packed


def ours(module: Module, given: tuple[Any, ...]) -> dict[str, Callable[[], Any]]:
    """Ways that end in our launch."""
    stages = Stages(module, host_memory=True)
    call: StageCall = stages.check(1, *given)
    bound = ops.bind(stages)

    def anew() -> None:
        Stages(module, host_memory=True).ck_moe_stage1(*given)

    return {
        "Module.prepare": lambda: module.prepare(call.name, call.problem),
        "Module.launch": lambda: module.launch(call.name, call.problem, device=call.device),
        "Stages.ck_moe_stage1": lambda: stages.ck_moe_stage1(*given),
        "Stages.ck_moe_stage1, first of its shapes": anew,
        "torch.ops.jitcache.moe_stage1": lambda: bound.ck_moe_stage1(*given),
    }


def opened(place: Path, module: Module, given: tuple[Any, ...]) -> Callable[..., Any]:
    """The stand-in's function, launching the kernel that the module would."""
    sys.path.insert(0, str(place))
    import standin_pybind

    driver = hip.require_hip()
    call = Stages(module, host_memory=True).check(1, *given)
    prepared = module.prepare(call.name, call.problem)
    symbol, code = module.kernel(call.name, prepared)
    standin_pybind.use(driver.function(driver.load_module(code), symbol))
    return standin_pybind.ck_moe_stage1


def through_aiter(
    root: Path, module: Module, given: tuple[Any, ...], stand_in: Callable[..., Any] | None
) -> dict[str, Callable[[], Any]]:
    """AITER's own wrapper around our function and around the stand-in's.

    AITER asks its module for the function at each call, so that what is there can be exchanged.
    """
    from tests.aiter_driver import aiter_ops

    ops_of_aiter = aiter_ops(root)
    count = len(inspect.signature(ops_of_aiter.cmdGenFunc_ck_moe_stage).parameters)
    imported = sys.modules["aiter.jit.core"].get_module(module.name)
    mine = imported.ck_moe_stage1

    def way(function: Callable[..., Any]) -> Callable[[], Any]:
        def called() -> None:
            imported.ck_moe_stage1 = function
            ops_of_aiter.ck_moe_stage1(*given[:count])

        called()
        return called

    ways = {"installed module": lambda: mine(*given), "AITER, installed module": way(mine)}
    if stand_in is not None:
        ways["AITER, pybind11 stand-in"] = way(stand_in)
    return ways


if __name__ == "__main__":
    main(*sys.argv[1:])
