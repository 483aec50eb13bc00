"""What a capsule's launch must write, computed from the file's bytes as CK's kernels read them.

Nothing of jitcache is used: the file is read by docs/capsule.md, and where a value lies in a
buffer is worked out from the side that reads it, lane by lane, not from how it was laid out.
Sums are float64. Names of files are those of CK's include/ck/; line numbers those of the CK in
amd-aiter 0.1.7.post2.dev18.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

WAVE, TILE = 64, 16
"""Lanes of a wave; rows and columns of one matrix instruction (16x16)."""

NAME = re.compile(
    r"gemm(?P<stage>[12])_(?P<block>\d+)x(?P<m>\d+)x(?P<n>\d+)x(?P<k>\d+)_\d+x\d+_(?P<op>\w+?)"
    r"_v[13]_Nswizzle0_Quant(?P<quant>\d)_MulRoutedWeight(?P<routed>[01])"
    r"(?:_(?P<act>silu|gelu))?_(?P<a>[A-Z0-9]+)_(?P<b>[A-Z0-9]+)_(?P<c>[A-Z0-9]+)$"
)


@dataclass(frozen=True)
class Read:
    """A capsule as its file says.

    Attributes:
        header: the JSON.
        code: the code object.
        kernarg: argument bytes.
        before: bytes of each buffer before the launch, by field.
        expected: bytes that are to be there afterwards, by field.
    """

    header: dict[str, Any]
    code: bytes
    kernarg: bytes
    before: dict[str, bytes]
    expected: dict[str, bytes]

    @property
    def words(self) -> dict[str, str]:
        """What the instance's name says."""
        found = NAME.search(self.header["instance"])
        assert found, self.header["instance"]
        return found.groupdict()


def read(file: Path) -> Read:
    """Read a capsule by docs/capsule.md, and check digests and alignment."""
    data = file.read_bytes()
    assert data[:8] == b"JCCAPS1\n"
    length = int.from_bytes(data[8:16], "little")
    header = json.loads(data[16 : 16 + length])
    assert header["schema"] == 1
    assert (16 + length) % 16 == 0
    blobs = data[16 + length :]

    def blob(place: dict[str, Any]) -> bytes:
        found = blobs[place["offset"] :][: place["size"]]
        assert place["offset"] % 16 == 0
        assert place["digest"] == "sha256:" + hashlib.sha256(found).hexdigest()
        return found

    buffers = header["buffers"]
    return Read(
        header,
        blob(header["code"]),
        blob(header["kernarg"]),
        {b["field"]: blob(b["before"]) for b in buffers},
        {b["field"]: blob(b["expected"]) for b in buffers if "expected" in b},
    )


# Number formats, by their definitions.


def small_float(code: int, exponent_bits: int, mantissa_bits: int, bias: int) -> float:
    mantissa = code & ((1 << mantissa_bits) - 1)
    exponent = code >> mantissa_bits & ((1 << exponent_bits) - 1)
    scale = 2.0 ** (max(exponent, 1) - bias - mantissa_bits)
    value = (mantissa + (bool(exponent) << mantissa_bits)) * scale
    return -value if code >> (exponent_bits + mantissa_bits) else value


E2M1 = np.array([small_float(c, 2, 1, 1) for c in range(16)])
E4M3FN = np.array([math.nan if c & 127 == 127 else small_float(c, 4, 3, 7) for c in range(256)])
E4M3FNUZ = np.array([math.nan if c == 128 else small_float(c, 4, 3, 8) for c in range(256)])
E8M0 = np.array([2.0 ** (c - 127) for c in range(255)] + [math.nan])
INT4 = np.array([*range(8), *range(-8, 0)]) / 16.0
"""v_cvt_off_f32_i4, by which CK turns int4 into floats, gives a sixteenth of the value."""


def floats(raw: bytes, dtype: str) -> np.ndarray:
    if dtype in ("B16", "bfloat16"):
        return (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4").astype(float)
    kind = {"F16": "<f2", "float16": "<f2", "float32": "<f4", "I8": "<i1"}[dtype]
    return np.frombuffer(raw, kind).astype(float)


def nibbles(raw: bytes) -> np.ndarray:
    """4-bit codes, the low half of a byte first."""
    codes = np.frombuffer(raw, np.uint8)
    return np.stack((codes & 15, codes >> 4), -1).reshape(-1)


def values(raw: bytes, kind: str, arch: str) -> np.ndarray:
    """Stored elements, in the order of memory."""
    if kind == "F8":
        table = {"gfx942": E4M3FNUZ, "gfx950": E4M3FN}[arch]
        return table[np.frombuffer(raw, np.uint8)]
    if kind == "FP4X2":
        return E2M1[nibbles(raw)]
    if kind == "I4":
        # amd_assembly_i4_to_fp8x8 (utility/amd_inline_asm.hpp:59-88) makes eight fp8 of a word.
        # Its first result takes the bytes 0 and 2, then both again shifted by 4 bits; its
        # second the bytes 1 and 3 likewise: so this is the nibble that each element comes from.
        order = [0, 4, 1, 5, 2, 6, 3, 7]
        return INT4[nibbles(raw)].reshape(-1, 8)[:, order].reshape(-1)
    return floats(raw, kind)


# Where the kernels find an element.


def lanes_of_b(rows: int, k: int, pack: int) -> np.ndarray:
    """Index in memory of each element [row, k] of one expert's shuffled weights.

    gridwise_moe_gemm.hpp:412-420 (MakeBGridDescriptor_Preshuffled; in the blockscale file 417,
    in the MX file 471): memory is [row tile][step][64 lanes * pack], and lane l reads `pack`
    elements at pack * l (1317; MX 1476). Of a 16x16 instruction, lane l holds row l % 16 and part
    l / 16 of the depth (warp/xdlops_gemm.hpp:2134). Which depth that is
    follows from the activations it is multiplied with: their depth is split as
    [step][4 parts][pack] (blockwise_gemm_pipeline_xdlops_b_preshuffle_v1.hpp:158-160; in the
    int4 pipelines ..._dequant_v1.hpp:156-158; in the MX ones by KThreadChunk,
    blockwise_gemm_mx_pipeline_xdlops_base.hpp:74 and 138).
    """
    found = np.full((rows, k), -1)
    steps = k // (WAVE // TILE * pack)
    lane, j = np.meshgrid(np.arange(WAVE), np.arange(pack), indexing="ij")
    for tile in range(rows // TILE):
        for step in range(steps):
            row = tile * TILE + lane % TILE
            depth = (step * (WAVE // TILE) + lane // TILE) * pack + j
            found[row, depth] = ((tile * steps + step) * WAVE + lane) * pack + j
    assert sorted(found.reshape(-1)) == list(range(rows * k))
    return found


def lanes_of_scales(rows: int, columns: int) -> np.ndarray:
    """Index in memory of each E8M0 scale [row, k / 32] of the MX kernels.

    gridwise_moe_mx_gemm_bpreshuffle.hpp:1319-1340 (in the _bns file 1365-1375): memory is
    [32 rows][8 columns][64 lanes * 4 bytes], and lane l reads the four bytes at 4 * l (1508).
    Its instruction takes byte ik * 2 + im for the ik-th half of the depth and the im-th 16 rows
    (blockwise_gemm_pipeline_xdlops_b_preshuffle_mx_moe_v1.hpp:523; ..._mx_moe_nbs_gufusion_v3
    .hpp:776), and uses it for row l % 16 and the 32 elements l / 16 of its 128.
    """
    found = np.full((rows, columns), -1)
    lane, byte = np.meshgrid(np.arange(WAVE), np.arange(4), indexing="ij")
    for tile in range(rows // 32):
        for step in range(columns // 8):
            row = tile * 32 + byte % 2 * TILE + lane % TILE
            column = step * 8 + byte // 2 * 4 + lane // TILE
            found[row, column] = ((tile * (columns // 8) + step) * WAVE + lane) * 4 + byte
    return found


def pack_of(words: dict[str, str]) -> int:
    """Elements that a lane reads of a row: 16 bytes (KPack / KGroup, gridwise_moe_gemm.hpp:193).

    AITER's loads are of 16 bytes but in some 8-bit tiles, which are not among the samples.
    """
    return {"I4": 32, "B16": 8, "F16": 8, "FP4X2": 32}.get(words["b"], 16)


def weights_of(c: Read, wide: int) -> np.ndarray:
    """Dequantised weights [expert, row, k]; int4 a sixteenth of their value."""
    words, k = c.words, c.header["problem"]["k"]
    stored = values(c.before["b"], words["b"], c.header["arch"]).reshape(-1, wide * k)
    # Plain weights: gridwise_moe_mx_gemm_bns.hpp, MakeBGridDescriptor_BK0_N_BK1 (row-major).
    plain = words["b"] == "FP4X2" and "Shuffled" not in words["op"]
    # The up half is N rows after the gate half (expert_stride / 2, gridwise_moe_gemm.hpp:1345):
    # one expert's rows are 2 * N in one order, as N is a multiple of the tile.
    index = np.arange(wide * k).reshape(wide, k) if plain else lanes_of_b(wide, k, pack_of(words))
    found = stored[:, index]
    scale = c.before.get("b_scale", b"")
    match int(words["quant"]):
        case 1:  # gridwise_moe_gemm.hpp:1445: one per expert
            found = found * floats(scale, "float32")[:, None, None]
        case 2:  # 1440, 1496: one per row, those of up N further
            found = found * floats(scale, "float32").reshape(-1, wide, 1)
        case 3:  # gridwise_moe_mx_gemm_bpreshuffle.hpp:1400-1402
            raw = E8M0[np.frombuffer(scale, np.uint8)]
            of_expert = raw[: len(found) * wide * k // 32].reshape(len(found), -1)
            scales = of_expert[:, lanes_of_scales(wide, k // 32)]
            found = found * scales.repeat(32, -1)
        case 4:  # gridwise_moe_gemm_blockscale.hpp:1217-1220, 1279-1281, 1471
            blocks = floats(scale, "float32").reshape(len(found), wide // 128, k // 128)
            found = found * blocks.repeat(128, 1).repeat(128, 2)
    return found


def compute(c: Read) -> np.ndarray:
    """The bytes of `out` as float64, in the order of memory."""
    words, problem = c.words, c.header["problem"]
    topk, n, k = (problem[name] for name in ("topk", "n", "k"))
    first, tile = words["stage"] == "1", int(words["m"])
    weights = weights_of(c, 2 * n if first else n)
    states = values(c.before["a"], words["a"], c.header["arch"]).reshape(-1, k)
    ids = np.frombuffer(c.before["sorted_token_ids"], "<u4")
    experts = np.frombuffer(c.before["sorted_expert_ids"], "<i4")
    valid = int(np.frombuffer(c.before["num_valid_ids"], "<i4")[0])
    routed = (
        floats(c.before["sorted_weights"], "float32")
        if words["routed"] == "1"
        else np.ones(len(ids))
    )
    sorted_rows = scales_by_sorted_row(c)
    out = floats(c.before["out"], c.header["buffers"][-1]["dtype"]).copy()
    for row in range(c.header["grid"][1] * tile):
        # gridwise_moe_gemm.hpp:1196-1247: blocks from max_token_id on do nothing; a row's
        # token stands in the low 24 bits, its slot above.
        if row // tile * tile >= valid:
            break
        token, slot = int(ids[row] & 0xFFFFFF), int(ids[row] >> 24)
        of_token = token if first else token * topk + slot
        target = (token * topk + slot if first else token) * n
        if target >= len(out):
            # Padding: is_dst_valid, thread/..._slice_transfer_v7r3_scatter.hpp:412.
            continue
        x = states[of_token] * token_scale(c, of_token, k)
        if sorted_rows is not None:
            x = x * sorted_rows[row].repeat(32)
        sums = weights[experts[row // tile]] @ x
        # gridwise_moe_gemm.hpp:1492-1545: routed weight, then int4's 16, then the activation.
        # In stage 2 the 16 is in AITER's MulABScaleExpertWeightWin4.
        sums = sums * routed[row] * (16 if words["b"] == "I4" else 1)
        if first:
            out[target : target + n] = activate(sums[:n], words["act"]) * sums[n:]
        else:
            out[target : target + n] += sums
    return out


def token_scale(c: Read, row: int, k: int) -> np.ndarray | float:
    scale = c.before.get("a_scale", b"")
    match int(c.words["quant"]):
        case 1:  # gridwise_moe_gemm.hpp:1485
            return floats(scale, "float32")[0]
        case 2:  # 1467-1481
            return floats(scale, "float32")[row]
        case 4:  # gridwise_moe_gemm_blockscale.hpp:1211-1216 and 1405-1415
            of_row = floats(scale, "float32").reshape(-1, k // 128)[row]
            return of_row.repeat(128)
    return 1.0


def scales_by_sorted_row(c: Read) -> np.ndarray | None:
    """E8M0 scales of activations: by sorted row, not by token (mx_gemm_bpreshuffle.hpp:1529)."""
    if c.words["quant"] != "3":
        return None
    columns = c.header["problem"]["k"] // 32
    raw = E8M0[np.frombuffer(c.before["a_scale"], np.uint8)]
    return raw[lanes_of_scales(len(raw) // columns, columns)]


def activate(x: np.ndarray, which: str) -> np.ndarray:
    if which == "silu":
        return x / (1 + np.exp(-x))
    return x / 2 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def worst(c: Read) -> float:
    """Largest difference from what is expected, relative to the largest expected value."""
    dtype = next(b["dtype"] for b in c.header["buffers"] if b["field"] == "out")
    expected = floats(c.expected["out"], dtype)
    return float(np.abs(compute(c) - expected).max() / np.abs(expected).max())
