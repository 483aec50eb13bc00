"""How far a result is from what was expected, from the bytes of both."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator

_FORMATS = {"float32": "<f", "float16": "<e"}


def worst(found: bytes, expected: bytes, dtype: str) -> float:
    """The largest difference, relative to the largest expected magnitude.

    Args:
        found: what there is.
        expected: what there should be; as long.
        dtype: of both: `bfloat16`, `float16` or `float32`.

    Returns:
        The error; infinity if one of them holds a NaN or an infinity.
    """
    pairs = zip(_values(found, dtype), _values(expected, dtype), strict=True)
    difference = largest = 0.0
    for one, other in pairs:
        if not (math.isfinite(one) and math.isfinite(other)):
            return math.inf
        difference = max(difference, abs(one - other))
        largest = max(largest, abs(other))
    return difference / largest if largest else difference


def _values(data: bytes, dtype: str) -> Iterator[float]:
    if dtype == "bfloat16":
        # A bfloat16 is the upper half of a float32.
        wide = b"".join(b"\0\0" + data[i : i + 2] for i in range(0, len(data), 2))
        return (v for (v,) in struct.iter_unpack("<f", wide))
    return (v for (v,) in struct.iter_unpack(_FORMATS[dtype], data))
