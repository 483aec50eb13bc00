"""Number formats of quantised MoE weights and activations, encoded and decoded in torch.

Source of the formats: OCP Microscaling Formats (MX) v1.0: E2M1 (section 5.3.3), E8M0 (5.4.1) and
conversion to MX (6.3: the shared exponent is that of the largest magnitude minus the element
type's largest exponent; what doesn't fit is saturated). Elements are rounded to nearest, ties to
even. fp8 is torch's own float8_e4m3fn or float8_e4m3fnuz.

The specification leaves open what becomes of NaN and infinity. Here every quantiser gives a NaN
scale to a block that holds one, so that all of the block reads as NaN: a number that isn't there
can't be mistaken for a small one.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from jitcache.errors import UsageError

BLOCK = 32
"""Elements that share one E8M0 scale."""

E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""Magnitudes of the codes 0 to 7; 8 to 15 are their negatives."""

_E2M1_MAX_EXPONENT = 2
_LAST_BELOW = tuple(
    math.nextafter((low + high) / 2, 0) if upper % 2 == 0 else (low + high) / 2
    for upper, (low, high) in enumerate(itertools.pairwise(E2M1), 1)
)
"""The largest magnitude that is rounded to each code: half-way to the next, which an even next
code takes for itself."""
_E8M0_BIAS = 127
_E8M0_NAN = 255
_INT4_MAX = 7


def e2m1_decode(codes: Tensor) -> Tensor:
    """Values of E2M1 codes, one code per element; float32."""
    table = torch.tensor([*E2M1, *(-v for v in E2M1)], dtype=torch.float32)
    return table[codes.long() & 15]


def e2m1_encode(values: Tensor) -> Tensor:
    """Nearest E2M1 codes, ties to the even code; beyond 6 saturates. uint8, one per element.

    Raises:
        UsageError: there is a NaN among the values, which has no code.
    """
    if values.isnan().any():
        raise UsageError("NaN has no E2M1 code")
    # In float64: rounding to a narrower type first may lead to the wrong neighbour.
    code = torch.bucketize(values.abs().double(), torch.tensor(_LAST_BELOW, dtype=torch.float64))
    return code.to(torch.uint8) | (torch.signbit(values).to(torch.uint8) << 3)


def pack4(codes: Tensor) -> Tensor:
    """Two 4-bit codes per byte along the last dimension, the first in the low half."""
    return (codes[..., 0::2] & 15) | ((codes[..., 1::2] & 15) << 4)


def unpack4(packed: Tensor) -> Tensor:
    """The 4-bit codes of `pack4`, as uint8."""
    packed = packed.view(torch.uint8)
    return torch.stack((packed & 15, packed >> 4), dim=-1).flatten(-2)


def e8m0_decode(codes: Tensor) -> Tensor:
    """Values of E8M0 codes: 2 to the power of code - 127, NaN for 255; float64."""
    codes = codes.view(torch.uint8)
    value = torch.exp2(codes.double() - _E8M0_BIAS)
    return torch.where(codes == _E8M0_NAN, torch.full_like(value, torch.nan), value)


def mxfp4_quantise(values: Tensor) -> tuple[Tensor, Tensor]:
    """Quantise along the last dimension, which is a multiple of 32.

    Returns:
        Codes packed two per byte, and E8M0 codes, one per 32 elements; both uint8. The codes
        of a block whose scale is NaN are zero.

    Raises:
        UsageError: the last dimension doesn't consist of whole blocks.
    """
    blocks = _blocks(values.double(), -1, BLOCK)
    largest = blocks.abs().amax(-1)
    finite = largest.isfinite()
    # frexp gives a mantissa in [0.5, 1): floor(log2 x) is its exponent minus 1, exactly.
    exponent = torch.frexp(largest)[1] - 1 - _E2M1_MAX_EXPONENT
    exponent = torch.where(finite & (largest > 0), exponent, -_E8M0_BIAS)
    exponent = exponent.clamp(-_E8M0_BIAS, _E8M0_BIAS)
    scaled = blocks / torch.exp2(exponent.double())[..., None]
    codes = e2m1_encode(torch.where(finite[..., None], scaled, 0.0)).flatten(-2)
    return pack4(codes), torch.where(finite, exponent + _E8M0_BIAS, _E8M0_NAN).to(torch.uint8)


def mxfp4_dequantise(packed: Tensor, scales: Tensor) -> Tensor:
    """Values of `mxfp4_quantise`'s result; float64, which holds them exactly."""
    values = e2m1_decode(unpack4(packed)).unflatten(-1, (-1, BLOCK))
    return (values * e8m0_decode(scales)[..., None]).flatten(-2)


def quantise8(
    values: Tensor, *, block: int = 0, dtype: torch.dtype = torch.float8_e4m3fn
) -> tuple[Tensor, Tensor]:
    """Quantise rows to 8 bits.

    Args:
        values: [..., k].
        block: elements of a row that share one scale; the whole row when 0.
        dtype: an fp8, or int8, of which -127 to 127 are used.

    Returns:
        Values of `dtype`, and float32 scales [..., k / block].

    Raises:
        UsageError: k isn't a multiple of the block.
    """
    blocks = _blocks(values.float(), -1, block or values.shape[-1])
    scales = _scales(blocks.abs().amax(-1), _largest(dtype))
    return _elements(blocks, scales[..., None], dtype).flatten(-2), scales


def quantise8_tiles(
    weights: Tensor, *, tile: int = 128, dtype: torch.dtype = torch.float8_e4m3fn
) -> tuple[Tensor, Tensor]:
    """Quantise [..., n, k] weights to 8 bits with a scale per `tile` x `tile` block of them.

    Returns:
        Values of `dtype`, and float32 scales [..., n / tile, k / tile].

    Raises:
        UsageError: n or k isn't a multiple of the tile.
    """
    tiles = _blocks(_blocks(weights.float(), -1, tile), -3, tile)
    scales = _scales(tiles.abs().amax((-3, -1)), _largest(dtype))
    quantised = _elements(tiles, scales[..., :, None, :, None], dtype)
    return quantised.flatten(-2).flatten(-3, -2), scales


def int4_quantise(values: Tensor) -> tuple[Tensor, Tensor]:
    """Quantise rows to symmetric int4 (-7 to 7).

    Returns:
        Codes in two's complement packed two per byte, and float32 scales, one per row.
    """
    scales = _scales(values.float().abs().amax(-1, keepdim=True), _INT4_MAX)
    return pack4(_elements(values.float(), scales, torch.int8, _INT4_MAX).view(torch.uint8)), scales


def int4_decode(packed: Tensor) -> Tensor:
    """Values of packed two's complement int4; float32."""
    codes = unpack4(packed).to(torch.int16)
    return torch.where(codes >= 8, codes - 16, codes).float()


def _blocks(values: Tensor, dim: int, size: int) -> Tensor:
    """Split a dimension, counted from the end, into blocks."""
    if values.shape[dim] % size:
        raise UsageError(
            f"a dimension of {values.shape[dim]} can't be split into blocks of {size}",
            where=f"a tensor of the shape {tuple(values.shape)}",
        )
    return values.unflatten(dim, (-1, size))


def _scales(largest: Tensor, maximum: float) -> Tensor:
    """Scales that bring magnitudes to a maximum; 1 where there is nothing to scale."""
    scales = largest / maximum
    scales = torch.where(scales > 0, scales, 1.0)
    return torch.where(largest.isfinite(), scales, torch.nan)


def _largest(dtype: torch.dtype) -> float:
    limits = torch.finfo(dtype) if dtype.is_floating_point else torch.iinfo(dtype)
    return float(limits.max)


def _elements(
    values: Tensor, scales: Tensor, dtype: torch.dtype, largest: float | None = None
) -> Tensor:
    """Scaled values, rounded to a type; an integer type has zero for NaN."""
    limit = _largest(dtype) if largest is None else largest
    # A scale that is a subnormal number is rounded so much that values may go beyond.
    scaled = (values / scales).clamp(-limit, limit)
    return (scaled if dtype.is_floating_point else scaled.round().nan_to_num(0)).to(dtype)
