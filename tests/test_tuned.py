"""Tuned tables: reading, and AITER's lookup with its surprises."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitcache.codegen import catalog
from jitcache.errors import InputError
from jitcache.plan.tuned import (
    ALL_PADDED,
    Shape,
    TunedTable,
    merge,
    padded_tokens,
    parse_tuned,
    read_tuned,
    tuned_files_of,
)
from tests.test_catalog import FACTS

COLUMNS = (
    "cu_num,token,model_dim,inter_dim,expert,topk,act_type,dtype,q_dtype_a,q_dtype_w,q_type,"
    "use_g1u1,doweight_stage1,block_m,ksplit,us1,kernelName1,err1,us2,kernelName2,err2,us,"
    "run_1stage,tflops,bw,_tag"
)
FP4 = "torch.float4_e2m1fn_x2"
KIMI = Shape(
    arch="gfx950",
    cu_num=256,
    model_dim=7168,
    inter_dim=512,
    expert=384,
    topk=8,
    dtype="torch.bfloat16",
    q_dtype_a=FP4,
    q_dtype_w=FP4,
    q_type="QuantType.per_1x32",
    use_g1u1=True,
    doweight_stage1=False,
)


def line(
    token: int,
    kernel1: str = "k1",
    kernel2: str = "k2",
    *,
    act: str = "Silu",
    cu: int = 256,
    block_m: object = 32,
    ksplit: object = 0,
    one_stage: object = 0,
    tag: str = "",
) -> str:
    return (
        f"{cu},{token},7168,512,384,8,ActivationType.{act},torch.bfloat16,{FP4},{FP4},"
        f"QuantType.per_1x32,1,0,{block_m},{ksplit},1.5,{kernel1},0.1%,2.5,{kernel2},0.2%,4.0,"
        f"{one_stage},1.0,2.0,{tag}"
    )


def table(*lines: str) -> TunedTable:
    return merge([parse_tuned("\n".join([COLUMNS, *lines]), "t.csv")])


def kernel(found: TunedTable, token: int, *, flydsl: bool = False) -> str | None:
    row = found.lookup(KIMI, token, flydsl=flydsl).row
    return None if row is None else row.kernel1


@pytest.mark.parametrize(
    ("tokens", "padded"),
    [
        (1, 1),
        (2, 2),
        (3, 4),
        (160, 256),
        (16384, 16384),
        (16385, 32768),
        (32767, 32768),
        (32768, 32768),
        (131071, 32768),
        (131072, 131072),
        (10**6, 131072),
    ],
)
def test_padding(tokens: int, padded: int) -> None:
    assert padded_tokens(tokens) == padded
    assert padded in ALL_PADDED


def test_a_row_is_found_by_its_whole_key() -> None:
    found = table(line(16, "a"), line(32, "b", block_m="64.0", ksplit=2, one_stage=1))
    assert kernel(found, 16) == "a"
    assert kernel(found, 64) is None
    row = found.lookup(KIMI, 32, flydsl=False).row
    assert row is not None
    assert (row.block_m, row.ksplit, row.run_1stage, row.place) == (64, 2, True, "t.csv:3")
    for other in (
        Shape(**{**as_dict(KIMI), "cu_num": 80}),
        Shape(**{**as_dict(KIMI), "arch": "gfx942"}),
        Shape(**{**as_dict(KIMI), "doweight_stage1": True}),
        Shape(**{**as_dict(KIMI), "q_dtype_a": "torch.bfloat16"}),
    ):
        assert found.lookup(other, 16, flydsl=False).row is None


def as_dict(shape: Shape) -> dict[str, object]:
    return {f: getattr(shape, f) for f in Shape.__struct_fields__}


def test_the_first_row_wins_whatever_its_activation() -> None:
    found = table(line(16, "gelu", act="Gelu"), line(16, "silu", act="Silu"))
    assert kernel(found, 16) == "gelu"
    (lost,) = found.shadowed
    assert (lost.row.kernel1, lost.winner and lost.winner.kernel1) == ("silu", "gelu")
    assert "ignores act_type" in lost.why


def test_files_merge_in_order() -> None:
    one = parse_tuned(f"{COLUMNS}\n{line(16, 'one')}", "one.csv")
    two = parse_tuned(f"{COLUMNS}\n{line(16, 'two')}", "two.csv")
    assert kernel(merge([one, two]), 16) == "one"
    assert kernel(merge([two, one]), 16) == "two"
    assert "same key" in merge([one, two]).shadowed[0].why


def test_tagged_rows_are_used_only_as_fallback() -> None:
    lines = (
        line(16, "flydsl_moe1"),
        line(16, "ck", tag="flydsl_fallback"),
        line(32, "plain"),
        line(32, "never", tag="flydsl_fallback"),
        line(64, "mine", tag="experiment"),
        line(128, "flydsl_alone"),
        line(256, "ck", "flydsl_moe2"),
    )
    found = table(*lines)
    assert [kernel(found, t) for t in (16, 32, 64, 128, 256)] == ["ck", "plain", None, None, None]
    assert [kernel(found, t, flydsl=True) for t in (16, 128, 256)] == [
        "flydsl_moe1",
        "flydsl_alone",
        "ck",
    ]
    assert "as row t.csv:2 needs FlyDSL" in found.lookup(KIMI, 16, flydsl=False).why
    assert "no fallback" in found.lookup(KIMI, 128, flydsl=False).why
    assert [s.row.kernel1 for s in found.shadowed] == ["mine"]


def test_large_counts_fall_back_to_the_lower_tier_only() -> None:
    found = table(line(16384, "small"), line(32768, "tier"))
    assert kernel(found, 131072) == "tier"
    assert "of 32768 tokens" in found.lookup(KIMI, 131072, flydsl=False).why
    assert kernel(table(line(16384, "small")), 32768) is None
    # The fallback for FlyDSL is looked up at the count itself, not at the lower tier.
    lines = line(32768, "flydsl_x"), line(32768, "ck", tag="flydsl_fallback")
    assert kernel(table(*lines), 131072) is None


def test_the_gfx_column_of_newer_tables() -> None:
    text = f"gfx,{COLUMNS}\ngfx942,{line(16, 'old')}\ngfx950,{line(16, 'new')}"
    found = merge([parse_tuned(text, "t.csv")])
    assert kernel(found, 16) == "new"
    assert not found.shadowed


def test_rows_of_unusual_cu_numbers_fit_either_architecture() -> None:
    found = table(line(16, "x", cu=64))
    for arch in ("gfx942", "gfx950"):
        shape = Shape(**{**as_dict(KIMI), "cu_num": 64, "arch": arch})
        assert found.lookup(shape, 16, flydsl=False).row is not None


def test_a_file_without_tags_is_lost_among_files_with_tags() -> None:
    bare = f"{COLUMNS.removesuffix(',_tag')}\n{line(16, 'bare').removesuffix(',')}"
    alone = parse_tuned(bare, "bare.csv")
    assert kernel(merge([alone]), 16) == "bare"
    both = merge([alone, parse_tuned(COLUMNS, "empty.csv")])
    assert kernel(both, 16) is None
    assert "no _tag column" in both.shadowed[0].why


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no column cu_num"),
        ("a,b\n1,2", "no column cu_num"),
        (f"{COLUMNS}\n{line(16)},1", r"t.csv:2: 27 cells under 26 columns"),
        (f"{COLUMNS}\n1,2", r"t.csv:2: model_dim is ''"),
        (f"{COLUMNS}\n{line(16, block_m='x')}", r"t.csv:2: block_m is 'x'"),
        (f"{COLUMNS}\n{line(16, block_m='')}", r"t.csv:2: block_m is ''"),
        (f"{COLUMNS}\n{line(16, block_m='nan')}", "block_m is 'nan'"),
        (f"{COLUMNS}\n{line(16, block_m='1e999')}", "block_m is '1e999'"),
        (f"{COLUMNS}\n{line(16, block_m='1.5')}", "block_m is '1.5'"),
    ],
)
def test_broken_tables(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse_tuned(text, "t.csv")


def test_rows_may_lack_their_last_cells() -> None:
    assert kernel(table(line(16, "short").removesuffix(",1.0,2.0,")), 16) == "short"


def test_empty_ksplit_and_blank_lines_are_fine() -> None:
    found = table("", line(16, ksplit="", one_stage=""), "")
    row = found.lookup(KIMI, 16, flydsl=False).row
    assert row is not None
    assert (row.ksplit, row.run_1stage) == (0, False)


def test_reading_files(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("\ufeff" + COLUMNS + "\n" + line(16, "a") + "\n")
    assert kernel(read_tuned([path]), 16) == "a"
    path.write_bytes(b"\xff")
    with pytest.raises(InputError, match="UTF-8"):
        read_tuned([path])
    with pytest.raises(InputError, match="No such file"):
        read_tuned([tmp_path / "none.csv"])


def test_the_tables_of_a_checkout(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not an AITER checkout"):
        tuned_files_of(tmp_path)
    configs = tmp_path / "aiter" / "configs"
    (configs / "model_configs").mkdir(parents=True)
    for name in ("tuned_fmoe.csv", "untuned_fmoe.csv"):
        (configs / name).touch()
    for name in ("z_tuned_fmoe.csv", "a_tuned_fmoe_x.csv", "a_untuned_fmoe.csv", "b_gemm.csv"):
        (configs / "model_configs" / name).touch()
    assert [p.name for p in tuned_files_of(tmp_path)] == [
        "tuned_fmoe.csv",
        "a_tuned_fmoe_x.csv",
        "z_tuned_fmoe.csv",
    ]


@pytest.mark.skipif(not FACTS.is_dir(), reason="JITCACHE_FACTS names no directory of facts")
def test_given_facts_of_tuned_rows() -> None:
    for fact in json.loads((FACTS / "tuned_fmoe.json").read_text()):
        for name in (fact["kernelName1"], fact["kernelName2"]):
            if "ck2stages" in name:
                parsed = catalog.parse_name(name)
                assert parsed.tile.m == fact["block_m"]
                assert catalog.find(name, parsed.module(), fact["arch_inferred"]) is not None


cells = st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=6)


@given(st.lists(st.lists(cells, min_size=26, max_size=26), max_size=3) | st.text(max_size=50))
def test_any_text_is_read_or_refused(rows: list[list[str]] | str) -> None:
    text = rows if isinstance(rows, str) else "\n".join(",".join(r) for r in rows)
    for candidate in (text, f"{COLUMNS}\n{text}", f"{COLUMNS}\n{line(16)}\n{text}"):
        try:
            parsed = parse_tuned(candidate, "t.csv").rows
        except InputError as e:
            parsed = ()
            assert (e.where or "").startswith("t.csv")  # noqa: PT017 - both ends are right
        assert all(r.file == "t.csv" for r in parsed)
