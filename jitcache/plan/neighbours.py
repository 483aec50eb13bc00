"""Audit of what decides a deployment's speed beside the MoE kernels: three tables of AITER.

Sources, AITER 9bab8388: bf16 GEMM tables (aiter/tuned_gemm.py:55-170 and
csrc/py_itfs_cu/gemm_common.cu), the A8W4 Triton table
(aiter/ops/triton/moe/moe_op_gemm_a8w4.py:75-175) and the FMHA v3 forward table
(csrc/cpp_itfs/mha_fwd.cu:31-61).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from jitcache.errors import InputError
from jitcache.manifest.model import Attention, Layer, Manifest, Target
from jitcache.plan.audit import Finding
from jitcache.plan.tuned import ALL_PADDED

A8W4_BLOCK_M = (16, 32, 64, 128)
"""Block heights of the A8W4 Triton kernel, in the order in which a proxy is looked for."""

_SWIZZLE_K = 256
"""CDNA4's scale un-swizzle reshapes BLOCK_K / 32 by 8."""

_ELF_ARCH = {0x4C: "gfx942", 0x4F: "gfx950"}
"""Processor numbers of AMDGPU ELF flags (EF_AMDGPU_MACH, lowest byte)."""


def audit_neighbours(
    manifest: Manifest, target: Target, checkout: Path
) -> tuple[list[Finding], list[str]]:
    """Audit the neighbours of a deployment with the tables of an AITER tree.

    Returns:
        The findings, and which parts were skipped and why.

    Raises:
        InputError: a table is there but can't be read.
    """
    findings: list[Finding] = []
    skipped: list[str] = []
    gemms = sorted(checkout.glob("aiter/configs/bf16_tuned_gemm.csv")) + sorted(
        checkout.glob("aiter/configs/model_configs/*bf16_tuned_gemm*.csv")
    )
    if gemms:
        findings += audit_gemms(manifest, target, [r for p in gemms for r in _rows(p, _GEMM)])
    else:
        skipped.append("bf16 GEMMs: the tree has no bf16_tuned_gemm.csv")
    table = checkout / f"aiter/ops/triton/configs/moe/{target.arch}-A8W4.json"
    a8w4 = [la for la in manifest.layers if la.w == "fp4x2"]
    if not a8w4:
        skipped.append("A8W4 Triton: no layer has fp4 weights")
    elif not table.is_file():
        skipped.append(f"A8W4 Triton: the tree has no {table.name}")
    else:
        findings += audit_a8w4(a8w4, _json(table), table.name)
    fmha = checkout / f"hsa/{target.arch}/fmha_v3_fwd/fmha_fwd.csv"
    if not manifest.attention:
        skipped.append("FMHA v3: the manifest has no [[audit.attention]]")
    elif not fmha.is_file():
        skipped.append(f"FMHA v3: the tree has no hsa/{target.arch}/fmha_v3_fwd/fmha_fwd.csv")
    else:
        findings += audit_fmha(manifest.attention, target, _rows(fmha, _FMHA), fmha.parent)
    return findings, skipped


_GEMM = ("cu_num", "M", "N", "K", "bias", "dtype", "outdtype", "libtype")
_FMHA = ("dtype", "hdim_q", "hdim_v", "mask", "mode", "bf16_cvt", "co_name")


def gemm_lookups(m: int, n: int) -> tuple[int, int, int]:
    """The values of M that AITER tries: exact, rounded finely, rounded coarsely."""
    grain = 16 if m <= 256 else 32 if m <= 1024 else 64 if m <= 4096 else 128
    power = 1 if m <= 1 else 1 << (m - 1).bit_length()
    return m, -(-m // grain) * grain, 8192 if m > 8192 and n > 4096 else power


def audit_gemms(
    manifest: Manifest, target: Target, rows: Sequence[dict[str, str]]
) -> list[Finding]:
    """bf16 GEMMs: tuned rows for this GPU at all, then each (N, K) of the manifest."""
    mine = [
        r
        for r in rows
        if r["cu_num"] == str(target.cu_num) and r.get("gfx", target.arch) == target.arch
    ]
    where = f"{target.arch}, {target.cu_num} CUs"
    if not mine:
        others = sorted({f"{r.get('gfx') or '?'}/{r['cu_num']}" for r in rows})
        what = (
            f"no bf16 GEMM is tuned for this GPU: the {len(rows)} rows are for "
            f"{', '.join(others) or 'none'}"
        )
        return [Finding("gemm", "warning", "untuned-gpu", what, where)]
    bf16 = "torch.bfloat16"
    by_shape = {
        (int(r["M"]), int(r["N"]), int(r["K"])): r["libtype"]
        for r in mine
        if r["dtype"] == r["outdtype"] == bf16
        and r["bias"] in ("False", "0")
        # A FlyDSL row is passed over where FlyDSL can't be imported.
        and (manifest.flydsl or r["libtype"] != "flydsl")
    }
    found = []
    for n, k in manifest.gemms:
        missed = [
            m
            for m in manifest.tokens or ALL_PADDED
            if not any((padded, n, k) in by_shape for padded in gemm_lookups(m, n))
        ]
        if missed:
            what = f"{len(missed)} of {len(manifest.tokens or ALL_PADDED)} token counts miss"
            what += f" (the first is {missed[0]}): AITER's default GEMM runs"
            found.append(Finding("gemm", "warning", "untuned-gemm", what, f"N {n}, K {k}"))
        else:
            found.append(Finding("gemm", "note", "tuned-gemm", "every count hits", f"N {n}, K {k}"))
    return found


def audit_a8w4(layers: Iterable[Layer], table: object, name: str) -> list[Finding]:
    """The A8W4 Triton kernel's configuration for each layer's two GEMMs."""
    if not isinstance(table, dict):
        raise InputError("not a table of A8W4 configurations", where=name)
    shapes = dict.fromkeys(
        shape
        for layer in layers
        for shape in (
            (2 * layer.inter_dim, layer.model_dim),
            (layer.model_dim, layer.inter_dim),
        )
    )
    found: list[Finding] = []
    for n, k in shapes:
        tuned = [m for m in A8W4_BLOCK_M if f"bm{m}_n{n}_k{k}" in table]
        if tuned:
            found.extend(_a8w4(table, name, m, n, k, tuned) for m in A8W4_BLOCK_M)
        else:
            what = "no entry at any height: the generic configuration runs"
            found.append(Finding("a8w4", "note", "default", what, f"{name}: N {n}, K {k}"))
    return found


def _a8w4(
    table: dict[str, object], name: str, block_m: int, n: int, k: int, tuned: Sequence[int]
) -> Finding:
    used = block_m if block_m in tuned else tuned[0]
    where = f"{name}: bm{block_m}_n{n}_k{k}"
    entry = table[f"bm{used}_n{n}_k{k}"]
    block_k = entry.get("BLOCK_SIZE_K") if isinstance(entry, dict) else None
    if not isinstance(block_k, int):
        raise InputError("the entry has no BLOCK_SIZE_K", where=where)
    origin = "entry" if used == block_m else f"proxy bm{used}"
    if block_k % _SWIZZLE_K:
        what = f"the {origin} has BLOCK_K {block_k}: swizzled scales need a multiple of 256"
        return Finding("a8w4", "error", "swizzle", what, where)
    if used != block_m:
        return Finding("a8w4", "warning", "proxy", f"runs with the {origin}", where)
    return Finding("a8w4", "note", "exact", "has an entry of its own", where)


def audit_fmha(
    calls: Iterable[Attention], target: Target, rows: Sequence[dict[str, str]], folder: Path
) -> list[Finding]:
    """FMHA v3 forward: a row for each call, and its code object where it has to be."""
    found = []
    for call in calls:
        where = (
            f"{call.dtype} {call.hdim_q}x{call.hdim_v} "
            f"{'causal' if call.causal else 'unmasked'} {'group' if call.group else 'batch'}"
        )
        want = (
            call.dtype,
            str(call.hdim_q),
            str(call.hdim_v),
            "2" if call.causal else "0",
            str(int(call.group)),
        )
        fits = [
            r for r in rows if (r["dtype"], r["hdim_q"], r["hdim_v"], r["mask"], r["mode"]) == want
        ]
        if target.arch != "gfx950":
            fits = [r for r in fits if r["bf16_cvt"] == str(call.rounding)]
            where += f" rounding {call.rounding}"
        if not fits:
            what = "no assembly kernel: CK's or an error follows"
            found.append(Finding("fmha", "warning", "no-kernel", what, where))
            continue
        chip = ("MI308" if target.cu_num == 80 else "MI300") if target.arch == "gfx942" else ""
        path = folder / Path(fits[0]["co_name"]).parent / chip / Path(fits[0]["co_name"]).name
        if problem := _wrong_object(path, target.arch):
            found.append(Finding("fmha", "error", "code-object", f"{path.name} {problem}", where))
    return found


def _wrong_object(path: Path, arch: str) -> str | None:
    try:
        with path.open("rb") as f:
            head = f.read(64)
    except OSError as e:
        return f"can't be read: {e.strerror or e}"
    if head[:4] != b"\x7fELF" or len(head) < 64:
        return "is no code object"
    found = _ELF_ARCH.get(head[48], f"another architecture ({head[48]:#x})")
    return None if found == arch else f"is for {found}"


def _rows(path: Path, needed: Sequence[str]) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as f:
            reader = csv.DictReader(f)
            rows = list(reader)
            header = reader.fieldnames or ()
    except (OSError, ValueError, csv.Error) as e:
        raise InputError(f"can't be read: {e}", where=str(path)) from None
    missing = [c for c in needed if c not in header]
    if missing or any(None in r or None in r.values() for r in rows):
        raise InputError(f"not a table with {', '.join(needed)}", where=str(path))
    for row in rows:
        for column in ("cu_num", "M", "N", "K"):
            if not row.get(column, "0").isdecimal():
                raise InputError(f"{column} is {row[column]!r}", where=str(path))
    return rows


def _json(path: Path) -> object:
    try:
        value: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as e:
        raise InputError(f"can't be read: {e}", where=str(path)) from None
    return value
