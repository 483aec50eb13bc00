"""The audit: findings of MoE tables and of the neighbours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitcache.cli.audit import command
from jitcache.errors import ExitCode, InputError, UnsupportedError, UsageError
from jitcache.manifest.load import shipped_names
from jitcache.manifest.model import Attention
from jitcache.plan.audit import Finding, audit_moe, audit_tables
from jitcache.plan.neighbours import (
    audit_a8w4,
    audit_fmha,
    audit_gemms,
    audit_neighbours,
    gemm_lookups,
)
from jitcache.plan.planner import plan
from tests.test_plan import MI300X, MI308X, MI355X, STAGE1, STAGE2, layer, manifest
from tests.test_tuned import COLUMNS, line, table


def kinds(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(f.severity, f.kind) for f in findings]


def test_each_count_is_tuned_heuristic_elsewhere_or_raises() -> None:
    kimi = manifest("[tokens]\nlist = [1, 64, 200]", inter_dim=512)
    statuses, findings = audit_moe(kimi, MI355X, table(line(64, STAGE1, STAGE2)))
    assert [(s.tokens, s.padded, s.served, s.row) for s in statuses] == [
        (1, 1, "other backend", ""),
        (64, 64, "tuned", "t.csv:2"),
        (200, 256, "heuristic", ""),
    ]
    assert findings == []
    statuses, findings = audit_moe(manifest(inter_dim=384), MI355X, table())
    assert {s.served for s in statuses} == {"other backend", "raises"}
    assert {(f.severity, f.kind, f.where) for f in findings} == {("error", "raises", "moe")}
    assert all("K (inter_dim) 384 is not a multiple of 256" in f.what for f in findings)


def test_collisions_of_activations() -> None:
    rows = table(
        line(64, STAGE1.replace("silu", "gelu"), STAGE2, act="Gelu"),
        line(64, STAGE1, STAGE2, act="Silu"),
    )
    _, findings = audit_moe(manifest(inter_dim=512), MI355X, rows)
    assert kinds(findings) == [
        ("warning", "unknown-kernel"),
        ("warning", "act-collision"),
        ("warning", "unreachable-row"),
    ]
    assert [f.where for f in findings] == ["t.csv:2", "t.csv:2", "t.csv:3"]
    # Nobody asks for the other activation's row: nothing to say about it.
    _, other = audit_moe(manifest(inter_dim=512, act="gelu"), MI355X, rows)
    assert [f.kind for f in other] == []


def test_names_that_no_module_has() -> None:
    gone = STAGE2.replace("64x32x32x128", "64x32x64x128")
    _, findings = audit_moe(manifest(inter_dim=512), MI355X, table(line(64, STAGE1, gone)))
    assert {f.kind for f in findings} == {"unknown-kernel"}
    assert any(f.what == f"no module on gfx950 has {gone}" for f in findings)


@pytest.mark.parametrize(
    ("inter_dim", "target", "quant", "hit"),
    [(192, MI300X, "per_tensor", True), (192, MI300X, "per_1x128", False),
     (256, MI300X, "per_tensor", False), (192, MI355X, "per_tensor", False),
     # Assembly runs these.
     (192, MI300X, "per_token", False)],
)  # fmt: skip
def test_weights_that_are_read_otherwise_than_they_are_shuffled(inter_dim, target, quant, hit):
    asked = manifest(inter_dim=inter_dim, quant=quant, w="f8")
    _, findings = audit_moe(asked, target, table())
    found = [f for f in findings if f.kind == "weight-layout"]
    assert bool(found) == hit
    assert all(f.severity == "error" and "AITER shuffles 16" in f.what for f in found)
    try:
        notes = plan(asked, target=target).notes
    except UnsupportedError:
        notes = ()
    assert any("AITER shuffles 16" in note for note in notes) == hit


def test_a_height_that_is_not_the_kernels() -> None:
    rows = table(line(64, STAGE1, STAGE2, block_m=64))
    _, findings = audit_moe(manifest(inter_dim=512), MI355X, rows)
    assert kinds(findings) == [("error", "block-m")] * 2


def test_tables_that_aiter_would_not_merge() -> None:
    rows = table(
        line(64, "a"), line(64, "b"), line(64, "c", act="Gelu"), line(32, "flydsl_x"),
        line(32, "flydsl_y", tag="flydsl_fallback"),
    )  # fmt: skip
    findings = audit_tables(rows)
    assert kinds(findings) == [("error", "duplicate-row"), ("warning", "fallback")]
    assert (findings[0].where, "t.csv:2" in findings[0].what) == ("t.csv:3", True)


# -- neighbours ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("m", "n", "want"),
    [
        (1, 512, (1, 16, 1)),
        (160, 512, (160, 160, 256)),
        (257, 512, (257, 288, 512)),
        (1025, 512, (1025, 1088, 2048)),
        (9000, 512, (9000, 9088, 16384)),
        (9000, 8192, (9000, 9088, 8192)),
    ],
)
def test_gemm_padding(m: int, n: int, want: tuple[int, int, int]) -> None:
    assert gemm_lookups(m, n) == want


def gemm_row(m: int, **changes: str) -> dict[str, str]:
    bf16 = "torch.bfloat16"
    return {
        "gfx": "gfx950", "cu_num": "256", "M": str(m), "N": "384", "K": "7168",
        "bias": "False", "dtype": bf16, "outdtype": bf16, "libtype": "asm",
    } | changes  # fmt: skip


def test_gemms_tuned_for_another_gpu() -> None:
    (found,) = audit_gemms(manifest(), MI308X, [gemm_row(16)])
    assert (found.severity, found.kind) == ("warning", "untuned-gpu")
    assert "the 1 rows are for gfx950/256" in found.what
    assert audit_gemms(manifest(), MI355X, [gemm_row(16)]) == []


def test_gemms_of_the_manifest() -> None:
    kimi = manifest("[tokens]\nlist = [9, 160]\n[audit]\ngemms = [[384, 7168]]")
    rows = [gemm_row(16), gemm_row(256)]
    assert kinds(audit_gemms(kimi, MI355X, rows)) == [("note", "tuned-gemm")]
    (found,) = audit_gemms(kimi, MI355X, rows[:1])
    assert (found.kind, found.where) == ("untuned-gemm", "N 384, K 7168")
    assert "1 of 2 token counts miss (the first is 160)" in found.what
    for change in ({"libtype": "flydsl"}, {"bias": "True"}, {"outdtype": "torch.float32"}):
        (found,) = audit_gemms(kimi, MI355X, [gemm_row(16, **change), gemm_row(256)])
        assert "1 of 2" in found.what


def test_a8w4_entries() -> None:
    entries = {
        "bm32_n2048_k7168": {"BLOCK_SIZE_K": 512},
        "bm64_n2048_k7168": {"BLOCK_SIZE_K": 128},
    }
    findings = audit_a8w4([layer()], entries, "t.json")
    assert [(f.kind, f.where.split(": ")[1]) for f in findings] == [
        ("proxy", "bm16_n2048_k7168"),
        ("exact", "bm32_n2048_k7168"),
        ("swizzle", "bm64_n2048_k7168"),
        ("proxy", "bm128_n2048_k7168"),
        ("default", "N 7168, K 1024"),
    ]
    assert findings[2].severity == "error"
    with pytest.raises(InputError, match="BLOCK_SIZE_K"):
        audit_a8w4([layer()], {"bm32_n2048_k7168": 3}, "t.json")
    with pytest.raises(InputError, match="not a table"):
        audit_a8w4([layer()], [], "t.json")


numbers = st.sampled_from(["bm16_n2048_k7168", "bm64_n7168_k1024", "x"])
entries = st.dictionaries(
    numbers, st.dictionaries(st.just("BLOCK_SIZE_K"), st.integers() | st.text())
)


@given(entries | st.integers() | st.lists(st.integers()))
def test_any_json_is_read_or_refused(table: object) -> None:
    try:
        found = audit_a8w4([layer()], table, "t.json")
    except InputError as e:
        assert (e.where or "").startswith("t.json")  # noqa: PT017 - both ends are right
    else:
        assert {f.part for f in found} == {"a8w4"}


def elf(flags: int) -> bytes:
    return b"\x7fELF".ljust(48, b"\0") + bytes([flags]).ljust(16, b"\0")


def fmha_row(rounding: int, name: str = "fwd.co") -> dict[str, str]:
    return {
        "dtype": "bf16", "hdim_q": "192", "hdim_v": "128", "mask": "2", "mode": "1",
        "bf16_cvt": str(rounding), "co_name": name,
    }  # fmt: skip


def test_attention_kernels(tmp_path: Path) -> None:
    call = Attention(192, 128, "bf16", causal=True, group=True, rounding=1)
    rows = [fmha_row(0), fmha_row(1)]
    for chip in ("MI300", "MI308"):
        (tmp_path / chip).mkdir()
    (tmp_path / "MI300" / "fwd.co").write_bytes(elf(0x4C))
    assert audit_fmha([call], MI300X, rows, tmp_path) == []
    (found,) = audit_fmha([call], MI308X, rows, tmp_path)
    assert (found.severity, found.kind) == ("error", "code-object")
    assert "can't be read" in found.what
    (tmp_path / "MI308" / "fwd.co").write_bytes(elf(0x4F))
    (found,) = audit_fmha([call], MI308X, rows, tmp_path)
    assert found.what == "fwd.co is for gfx950"
    (tmp_path / "fwd.co").write_bytes(b"text")
    (found,) = audit_fmha([call], MI355X, rows, tmp_path)
    assert found.what == "fwd.co is no code object"
    # gfx942 wants the very rounding, gfx950 doesn't care.
    assert audit_fmha([call], MI300X, rows[:1], tmp_path)[0].kind == "no-kernel"
    (tmp_path / "fwd.co").write_bytes(elf(0x4F))
    assert audit_fmha([call], MI355X, rows[:1], tmp_path) == []
    other = Attention(192, 128, "bf16", causal=False, group=True, rounding=1)
    assert audit_fmha([other], MI355X, rows, tmp_path)[0].kind == "no-kernel"


def test_a_tree_without_tables_is_skipped_with_reasons(tmp_path: Path) -> None:
    findings, skipped = audit_neighbours(manifest(), MI355X, tmp_path)
    assert findings == []
    assert [s.split(":")[0] for s in skipped] == ["bf16 GEMMs", "A8W4 Triton", "FMHA v3"]
    configs = tmp_path / "aiter" / "configs"
    configs.mkdir(parents=True)
    header = ",".join(gemm_row(1))
    superscript = ",".join((gemm_row(1) | {"M": "\u00b2"}).values())
    for text in ("cu_num\n1\n", "\0", f"{header}\n1,2\n", f"{header}\n{superscript}\n"):
        (configs / "bf16_tuned_gemm.csv").write_text(text)
        with pytest.raises(InputError, match="bf16_tuned_gemm"):
            audit_neighbours(manifest(), MI355X, tmp_path)


# -- the command -----------------------------------------------------------------------


def run(*argv: str | Path) -> int:
    code: int | None = command.main(list(map(str, argv)), standalone_mode=False)
    return code or 0


@pytest.mark.parametrize("name", shipped_names())
def test_every_shipped_manifest_is_audited_without_a_tree(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(name, "--json")
    (first, *_) = json.loads(capsys.readouterr().out)["audits"]
    assert len(first["skipped"]) == 2
    assert code == (ExitCode.FAILED if first["failed"] else ExitCode.OK)
    # gfx950 has no small-batch kernel for its inter_dim, and only tuned rows help.
    assert first["failed"] == (name == "glm-4.7-fp8-tp4")


def test_text_markdown_and_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = tmp_path / "t.csv"
    rows.write_text(f"{COLUMNS}\n{line(64, STAGE1, STAGE2, act='Gelu')}\n")
    argv: tuple[Any, ...] = ("kimi-k2.5-mxfp4-tp4", "--tuned", rows)
    assert run(*argv) == ExitCode.OK
    text = capsys.readouterr().out
    assert "0 errors, 1 warnings, 0 notes" in text.splitlines()[0]
    assert any(x.split()[:3] == ["warning", "moe", "act-collision"] for x in text.splitlines())
    assert "skipped: bf16 GEMMs" in text
    assert run(*argv, "--markdown", "--strict") == ExitCode.FAILED
    markdown = capsys.readouterr().out
    assert "| warning | moe | act-collision | t.csv:2 |" in markdown
    with pytest.raises(UsageError):
        run(*argv, "--markdown", "--json")
    with pytest.raises(click.UsageError):
        run()
