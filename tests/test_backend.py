"""The host's choice over a grid of layers, against AITER's own function.

The digests are those of the answers of AITER 9bab8388's `get_2stage_cfgs`, executed with
stand-ins for PyTorch, an empty tuned table, and the types that `fused_moe` hands it.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator

import pytest

from jitcache.codegen.catalog import Quant
from jitcache.manifest.load import Layer, Target
from jitcache.plan.backend import decide
from jitcache.plan.tuned import TunedTable

TARGETS = (Target("gfx942", 80), Target("gfx950", 256))
TOKENS = (1, 2, 3, 5, 9, 16, 17, 32, 33, 100, 128, 255, 256, 257, 1000, 2047, 2048, 2049, 4095,
          4096, 4097, 16383, 16384, 16385, 32768, 131072)  # fmt: skip
SHAPES = ((7168, 256, 257, 9), (4096, 192, 128, 8))
KINDS = (
    (Quant.NO, "b16"),
    (Quant.PER_TENSOR, "f8"),
    (Quant.PER_TOKEN, "f8"),
    (Quant.PER_TOKEN, "i8"),
    (Quant.PER_TOKEN, "i4"),
    (Quant.PER_1X32, "fp4x2"),
    (Quant.PER_1X32, "f8"),
    (Quant.PER_1X32, "i4"),
    (Quant.PER_1X128, "f8"),
    (Quant.PER_1X128, "i8"),
)
STOCK = {
    "no b16": "00cd6634f88ad9894765566c933bbbb60613e777c57721a4155fa10401f2b154",
    "per_tensor f8": "00cd6634f88ad9894765566c933bbbb60613e777c57721a4155fa10401f2b154",
    "per_token f8": "1a1fc9c06aa0f55b6335d44e494133e47d4acbc8d36c7683104c820383fc68f8",
    "per_token i8": "8e7fc2b86196c09c275b6ab77180c4c89f209d1171b5698baf4ddb4fb03f5f3e",
    "per_token i4": "00cd6634f88ad9894765566c933bbbb60613e777c57721a4155fa10401f2b154",
    "per_1x32 fp4x2": "1b1f48a62cd60abefa3a998265d34211629ad40fafc2e4d5dab27f71c04a7d9b",
    "per_1x32 f8": "5de3956b59cb2560dd448d753cf59afb12182fcc243a4e9d23eda1c7f4833b2a",
    "per_1x32 i4": "e7e8c158fd5816653b2c07e1dd08171283c89810291d05262e87b9f771258876",
    "per_1x128 f8": "2b8f250ae32aa4a903fc6b5dc23f2b3a0db2f5499742e020b440e049692ce688",
    "per_1x128 i8": "fe62215c779f9d08ae0fe35a111266c90af3a42195bb14301c5efc2e715346ec",
}


def layers(quant: Quant, w: str) -> Iterator[Layer]:
    """Every layer of the grid that has this quantisation and weight type."""
    for (
        model_dim,
        inter_dim,
        experts,
        top_k,
    ), act, gate, preshuffle, doweight in itertools.product(
        SHAPES,
        ("silu", "gelu", "swiglu"),
        ("separated", "interleaved"),
        (True, False),
        (False, True),
    ):
        yield Layer("x", model_dim, inter_dim, experts, top_k, quant, None, w, "b16", act, gate,
                    preshuffle, doweight)  # fmt: skip


def line(block_m: int, ksplit: int, one_stage: bool, first: str, second: str, nt: bool) -> bytes:
    """One answer; splits and loads only where CK's stage 1 uses them."""
    if first != "ck":
        ksplit, nt = 0, False
    return f"{block_m} {ksplit} {int(one_stage)} {first} {second} {int(nt)}\n".encode()


@pytest.mark.parametrize("key", STOCK)
def test_choices_are_aiters(key: str) -> None:
    quant, w = next((q, w) for q, w in KINDS if f"{q.word} {w}" == key)
    digest = hashlib.sha256()
    table = TunedTable()
    for layer in layers(quant, w):
        for target, flydsl in itertools.product(TARGETS, (False, True)):
            for tokens in TOKENS:
                found = decide(layer, target, tokens, table, flydsl=flydsl)
                digest.update(
                    line(
                        found.block_m,
                        found.ksplit,
                        found.one_stage,
                        found.stages[0].backend,
                        found.stages[1].backend,
                        found.non_temporal,
                    )
                )
    assert digest.hexdigest() == STOCK[key]
