"""How weights and scales lie in memory when AITER hands them to a CK2stages kernel, in torch.

Source: AITER 9bab8388, aiter/ops/shuffle.py (`shuffle_weight`, `shuffle_scale`),
aiter/int4_utils.py and the sorted scales of aiter/utility/fp4_utils.py (`moe_mxfp4_sort`).
tests/capsule_decoder.py derives the same from the side that reads it, CK's kernels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from jitcache.runtime import mx
from jitcache.runtime.reference import Sorted

_LANES = 16
"""Rows of the weights that one matrix instruction takes."""
_LOAD_BYTES = 16
"""What one lane loads at once."""
_INT4_PACK = 2 * _LOAD_BYTES
_INT4_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""Which of eight int4 values stands in each nibble of a 32-bit word, from the low end."""
_SCALE_ROWS, _SCALE_COLUMNS = 32, 8
"""Scales that a wave reads together: two instructions' rows and two instructions' depth."""
_WEIGHT_SCALE_ROWS = 256
"""AITER pads the rows of weight scales to a multiple of this."""


def shuffle_weights(weights: Tensor, pack: int = 0) -> Tensor:
    """Weights as the kernels for shuffled weights read them.

    Rows are taken 16 at a time; of these, `pack` values of the first row come first, then as
    many of the second, and so on, then the next `pack` values of each.

    Args:
        weights: [experts, n, k] stored elements; n is a multiple of 16, k one of `pack`.
        pack: values of a row that stay together; as many as make 16 bytes when 0.
    """
    experts, n, k = weights.shape
    pack = pack or _LOAD_BYTES // weights.element_size()
    tiles = weights.view(experts, n // _LANES, _LANES, k // pack, pack)
    return tiles.permute(0, 1, 3, 2, 4).contiguous().view(weights.shape)


def shuffle_int4(packed: Tensor) -> Tensor:
    """int4 weights as the a8w4 kernels read them.

    Args:
        packed: [experts, n, k / 2] bytes, two values each, the first in the low half.

    Returns:
        uint32 [experts, n, k / 8]: shuffled 32 values at a time, and of each eight values the
        even ones in the low half of their word.
    """
    shuffled = shuffle_weights(mx.unpack4(packed), _INT4_PACK)
    eights = shuffled.unflatten(-1, (-1, len(_INT4_ORDER)))[..., _INT4_ORDER]
    return mx.pack4(eights.flatten(-2)).contiguous().view(torch.uint32)


def shuffle_scales(scales: Tensor, *, rows: int = _WEIGHT_SCALE_ROWS) -> Tensor:
    """E8M0 scales as the MXFP4 kernels read them.

    In each tile of 32 rows and 8 columns, the four scales of rows r and r + 16 and of columns
    c and c + 4 make one 32-bit word; the words of 16 rows follow each other.

    Args:
        scales: [rows, k / 32] bytes.
        rows: what the number of rows is padded to a multiple of; padding is zero.

    Returns:
        The padded scales in the new order, as [padded rows, padded columns].
    """
    high, wide = scales.shape
    padded = scales.new_zeros((_up(high, rows), _up(wide, _SCALE_COLUMNS)))
    padded[:high, :wide] = scales
    tiles = padded.view(-1, 2, _LANES, padded.shape[1] // _SCALE_COLUMNS, 2, 4)
    return tiles.permute(0, 3, 5, 2, 4, 1).contiguous().view(padded.shape)


def sort_scales(scales: Tensor, order: Sorted, tokens: int) -> Tensor:
    """E8M0 scales of activations, one row per sorted row, in the order of `shuffle_scales`.

    Args:
        scales: [tokens, k / 32] in stage 1, [tokens, topk, k / 32] in stage 2; bytes.
        order: the sorted rows.
        tokens: how many tokens there are. Rows of padding get the scale 0, which AITER
            leaves undefined; nothing depends on it.
    """
    token, slot = order.token_ids & 0xFFFFFF, order.token_ids >> 24
    real = token < tokens
    row = token[real].long()
    if scales.dim() == 3:
        row = row * scales.shape[1] + slot[real]
    gathered = scales.new_zeros((len(token), scales.shape[-1]))
    gathered[real] = scales.reshape(-1, scales.shape[-1])[row]
    return shuffle_scales(gathered, rows=_SCALE_ROWS)


def _up(number: int, step: int) -> int:
    return -(-number // step) * step
