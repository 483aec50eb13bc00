"""Both MoE stages one multiplication at a time in Python's floats, from stored bytes.

Nothing of jitcache computes here: bytes are decoded by `number_formats`, scales are found by
index, and sums are exact (`math.fsum` of float64 products).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests import number_formats as spec

Matrix = list[list[float]]


@dataclass(frozen=True)
class Stored:
    """What a kernel would find in memory.

    Attributes:
        scheme: jitcache's word for the quantisation.
        kind: torch's name of the stored type.
        data: the stored bytes.
        scales: of E8M0 the codes, else the numbers.
        rows: how many rows of k values there are, those of all experts one below the other.
        k: values in a row.
        experts: how many experts have weights here; 0 for activations.
    """

    scheme: str
    kind: str
    data: bytes
    scales: Sequence[float]
    rows: int
    k: int
    experts: int = 0


_EIGHT: dict[str, Callable[[int], float]] = {
    "float8_e4m3fn": spec.e4m3fn,
    "float8_e4m3fnuz": spec.e4m3fnuz,
    "int8": lambda code: float(code - 256 if code > 127 else code),
}


def read(stored: Stored) -> Matrix:
    """The values that the bytes stand for."""
    values = _elements(stored)
    factor = _factor(stored)
    k = stored.k
    return [[values[r * k + c] * factor(r, c) for c in range(k)] for r in range(stored.rows)]


def _elements(stored: Stored) -> list[float]:
    data = stored.data
    if stored.scheme == "none":
        if stored.kind == "bfloat16":
            pairs = struct.iter_unpack("<H", data)
            return [struct.unpack("<f", struct.pack("<I", half << 16))[0] for (half,) in pairs]
        return [v for (v,) in struct.iter_unpack("<e", data)]
    if stored.scheme in ("per_1x32", "int4"):
        value = spec.E2M1.__getitem__ if stored.scheme == "per_1x32" else spec.int4
        return [float(value(nibble)) for byte in data for nibble in (byte & 15, byte >> 4)]
    table = [_EIGHT[stored.kind](code) for code in range(256)]
    return [table[byte] for byte in data]


def _factor(stored: Stored) -> Callable[[int, int], float]:
    scales, k, experts = stored.scales, stored.k, stored.experts
    match stored.scheme:
        case "none":
            return lambda _r, _c: 1.0
        case "per_tensor":
            return lambda r, _c: scales[r * experts // stored.rows]
        case "per_token" | "int4":
            return lambda r, _c: scales[r]
        case "per_1x32":
            return lambda r, c: spec.e8m0(int(scales[r * (k // 32) + c // 32]))
        case "per_1x128" if experts:
            return lambda r, c: scales[r // 128 * (k // 128) + c // 128]
        case "per_1x128":
            return lambda r, c: scales[r * (k // 128) + c // 128]
    raise AssertionError(stored.scheme)


def dot(a: Sequence[float], b: Sequence[float]) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def activate(x: float, activation: str) -> float:
    if activation == "gelu":
        return x / 2 * (1 + math.erf(x / math.sqrt(2)))
    return x / (1 + math.exp(-x)) if x > -700 else 0.0


def stage1(
    states: Stored,
    w1: Stored,
    topk_ids: list[list[int]],
    activation: str,
    weights: Matrix | None,
) -> list[float]:
    """[tokens, topk, inter_dim], flat."""
    x, w = read(states), read(w1)
    wide = w1.rows // w1.experts
    result = []
    for token, experts in enumerate(topk_ids):
        for slot, expert in enumerate(experts):
            factor = weights[token][slot] if weights else 1.0
            for column in range(wide // 2):
                gate = factor * dot(x[token], w[expert * wide + column])
                up = factor * dot(x[token], w[expert * wide + wide // 2 + column])
                result.append(activate(gate, activation) * up)
    return result


def stage2(
    states: Stored, w2: Stored, topk_ids: list[list[int]], weights: Matrix | None
) -> list[float]:
    """[tokens, model_dim], flat."""
    x, w = read(states), read(w2)
    wide = w2.rows // w2.experts
    topk = len(topk_ids[0])
    return [
        math.fsum(
            (weights[token][slot] if weights else 1.0)
            * dot(x[token * topk + slot], w[expert * wide + column])
            for slot, expert in enumerate(experts)
        )
        for token, experts in enumerate(topk_ids)
        for column in range(wide)
    ]
