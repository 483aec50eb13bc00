"""Reading AITER's tables, and tools/sync-aiter.

The sources read here are written from our catalog in the form of AITER's two files.
"""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from jitcache.aiter.tables import COMMON, GENERATOR, parse_tables
from jitcache.codegen import catalog
from jitcache.codegen.catalog.family import Op, Row, When
from jitcache.errors import InputError

ROOT = Path(__file__).parent.parent


@functools.cache
def common() -> str:
    """Tiles and operations, as `gemm_moe_ck2stages_common.py` has them."""
    parts = ["class kernelInstanceGEMM1:\n    CDEElementOp: str = 'TypeCast'\n"]
    for stage in (1, 2):
        for family in catalog.all_families():
            entries = "".join(
                f"    {i}: kernelInstanceGEMM{stage}({t.block_size}, {t.m}, {t.n}, {t.k}, "
                f"{t.m_waves}, {t.n_waves}, {t.pipeline},),\n"
                for i, t in enumerate(r.tile for r in family.rows(1 if stage == 1 else 2))
            )
            parts.append(f"{family.tag}_list{stage} = {{\n{entries}}}\n")
        names = ", ".join(f"'{f.tag}': {f.tag}_list{stage}" for f in catalog.all_families())
        parts.append(f"gemm{stage}_kernels_dict = {{{names}}}\n")
        branches = "".join(
            f"        elif tag == '{f.tag}':\n{choice(f.ops[stage - 1])}"
            for f in catalog.all_families()
        ).replace("elif", "if", 1)
        parts.append(
            f"def get_gemm{stage}_kernels_list(a):\n    if a == 1:\n        tag = 'x'\n"
            f"    for id, kernel in x:\n        kernel.y = 1\n{branches}    return tag\n"
        )
    return "".join(parts)


def choice(op: Op) -> str:
    def assign(name: str, depth: int) -> str:
        return f"{' ' * depth}kernel.CDEElementOp = '{name}'\n"

    for condition, special in (("splitk", op.splitk), ("MulRoutedWeight", op.routed)):
        if special is not None:
            return (
                f"            if {condition}:\n{assign(special, 16)}"
                f"            else:\n{assign(op.plain, 16)}"
            )
    return assign(op.plain, 12)


@functools.cache
def generator() -> str:
    """Dispatch texts, as `gen_instances.py` has them."""
    parts = []
    for family in catalog.all_families():
        for stage in (1, 2):
            rows = family.rows(1 if stage == 1 else 2)
            size = 2 if family.tag.startswith("a16") else 1
            text = "".join(branch(rows, m, size) for m in sorted({r.tile.m for r in rows}))
            parts.append(
                f'{family.tag}_text{stage} = """\n#if defined(x)\n'
                f"    if (dtype_checker<{{A0DataType}}>{{{{}}}}(x_dtype)\n        && 1 == act_op)\n"
                f'    {{{{\n{text}        TORCH_CHECK(false, "no", f(block_m));\n'
                f'    }}}}\n#endif\n"""\n'
            )
    table = ", ".join(f"'{f.tag}': [{f.tag}_text1, {f.tag}_text2]" for f in catalog.all_families())
    return "".join([*parts, f"heuristic_dispatch_dict = {{{table}}}\n"])


CONDITIONS = {
    "<=": "inter_dim <= {}",
    ">": "inter_dim <= {}",
    "%": "inter_dim % {} == 0",
    "!%": "inter_dim % {} == 0",
}


def branch(rows: tuple[Row, ...], m: int, size: int) -> str:
    mine = [r for r in rows if r.tile.m == m and r.when.rule != "never"]
    if not mine:
        return ""
    yes = next(r for r in mine if r.when.rule in ("<=", "%", "always"))
    text = f"if (block_m == {m}) {{{{\n"
    if yes.when.rule == "always":
        return text + returned(yes, size) + "}}\n"
    no = next(r for r in mine if r.when.rule in (">", "!%"))
    condition = CONDITIONS[yes.when.rule].format(yes.when.value)
    return (
        f"{text}if ({condition}) {{{{ {returned(yes, size)} }}}}\nelse\n{returned(no, size)}}}}}\n"
    )


def returned(row: Row, size: int) -> str:
    t = row.tile
    depth = f"{t.k * size}/sizeof({{A0DataType}})" if t.k > 64 else str(t.k)
    return (
        "return ck_moe_stage1_gemm<{A0DataType}, {B0DataType}, A, E, {CDEElementOp}, "
        f"V{t.pipeline}, {t.block_size}, {t.m}, {t.n}, {depth}, {t.m_waves}, {t.n_waves}, "
        "{Nswizzle}, {Quant} == static_cast<int>(Q), true, 1>;\n"
    )


def test_what_is_written_in_aiters_form_is_read_back() -> None:
    tables = parse_tables(common(), generator())
    assert [f.tag for f in tables.families] == sorted(f.tag for f in catalog.all_families())
    for family in tables.families:
        ours = catalog.family_by_tag(family.tag)
        assert (family.ops, family.stage1, family.stage2) == (ours.ops, ours.stage1, ours.stage2)


def test_a_tile_picked_on_both_sides_is_always_picked() -> None:
    text = generator()
    one = "256, 256, 128, 128/sizeof({A0DataType}), 1, 4"
    small = "256, 256, 64, 64, 1, 4"
    changed = text.replace(f"V3, {small}", f"V3, {one}")
    assert changed != text
    found = next(f for f in parse_tables(common(), changed).families if f.tag == "a8w8")
    whens = {str(r.tile): r.when for r in found.stage2}
    assert whens["256x256x128x128_1x4_v3"] == When("always")
    assert whens["256x256x64x64_1x4_v3"] == When("never")


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        (COMMON, "gemm1_kernels_dict", "other_dict", "no table gemm1_kernels_dict"),
        (COMMON, "a8w4_list1 =", "a8w4_other =", "no list a8w4_list1"),
        (COMMON, "(64, 32, 32, 128, 1, 1, 3,)", "(64, 32, 32, 128, 1, 1,)", "without seven"),
        (COMMON, "if splitk", "if swizzle", "in a way that isn't known"),
        (COMMON, "def get_gemm2_kernels_list", "def other", "no function get_gemm2"),
        (COMMON, "class", "clas", "not Python"),
        (GENERATOR, "heuristic_dispatch_dict", "d", "no heuristic_dispatch_dict"),
        (GENERATOR, "inter_dim <= 192", "inter_dim < 192", "'inter_dim < 192' isn't known"),
        (GENERATOR, "V3, 64, 32, 32,", "V3, 64, 32, 48,", "which it lacks"),
        (GENERATOR, "(block_m == 32)", "(block_m == 33)", "for block_m"),
        (GENERATOR, "'a8w4': [a8w4_text1, ", "'a8w4': [", "without two texts"),
        (GENERATOR, "'a8w4': ", "'a8w5': ", "don't list the same tags"),
    ],
)
def test_other_forms_are_refused(file: str, old: str, new: str, said: str) -> None:
    texts = {COMMON: common(), GENERATOR: generator()}
    assert old in texts[file]
    texts[file] = texts[file].replace(old, new)
    with pytest.raises(InputError, match=said):
        parse_tables(texts[COMMON], texts[GENERATOR])


# -- the tool --------------------------------------------------------------------------


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    path = str(ROOT / "tools" / "sync-aiter")
    loader = importlib.machinery.SourceFileLoader("sync_aiter", path)
    spec = importlib.util.spec_from_loader("sync_aiter", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    loader.exec_module(module)
    # The choice of the family isn't written in AITER's form here: take it as it is.
    selection = parse_tables(common(), generator()).selection
    monkeypatch.setattr(catalog, "AITER_SELECTION", selection)
    return module


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "aiter" / "csrc" / "ck_gemm_moe_2stages_codegen"
    folder.mkdir(parents=True)
    (folder / COMMON).write_text(common())
    (folder / GENERATOR).write_text(generator())
    return tmp_path / "aiter"


def edit(checkout: Path, file: str, old: str, new: str) -> None:
    path = checkout / "csrc" / "ck_gemm_moe_2stages_codegen" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_equal_tables(tool: ModuleType, checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main([str(checkout)]) == 0
    assert "the same tables" in capsys.readouterr().out


def test_differences_are_named(
    tool: ModuleType, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(checkout, COMMON, "(64, 64, 128, 128, 1, 1, 3,)", "(64, 64, 64, 128, 1, 1, 3,)")
    edit(checkout, GENERATOR, "V3, 64, 64, 128, 128/", "V3, 64, 64, 64, 128/")
    edit(checkout, GENERATOR, "inter_dim % 256", "inter_dim % 512")
    edit(checkout, COMMON, "'MulABScaleWint4'", "'MulABScaleWin4'")
    edit(checkout, COMMON, "if a == 1", "if a == 2")
    assert tool.main([str(checkout)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "a4w4 stage 2: + 64x64x64x128_1x1_v3 (up_to(256))" in lines
    assert "a4w4 stage 2: - 64x64x128x128_1x1_v3 (up_to(256))" in lines
    assert any(x.endswith("256x16x128x256_1x4_v1 multiple(256) -> multiple(512)") for x in lines)
    assert any(x.startswith("a8w4 stage 1: operation") for x in lines)
    assert any("code that chooses a family has changed" in x for x in lines)


def test_what_is_written_is_what_was_read(tool: ModuleType, checkout: Path, tmp_path: Path) -> None:
    folder = tmp_path / "catalog"
    shutil.copytree(ROOT / "codegen" / "catalog", folder)
    # Nothing differs: only the commit is written.
    assert (
        tool.main([str(checkout), "--write", "--commit", "12345678", "--catalog", str(folder)]) == 0
    )
    for path in (ROOT / "codegen" / "catalog").rglob("*.py"):
        written = (folder / path.relative_to(ROOT / "codegen" / "catalog")).read_text()
        assert written == path.read_text().replace(catalog.AITER_COMMIT, "12345678")
    edit(checkout, COMMON, "'MulABScaleWint4'", "'MulABScaleWin4'")
    edit(checkout, GENERATOR, "inter_dim <= 192", "inter_dim <= 384")
    assert (
        tool.main([str(checkout), "--write", "--commit", "12345678", "--catalog", str(folder)]) == 1
    )
    assert 'Op("MulABScaleWin4"),' in (folder / "families" / "a8w4.py").read_text()
    a8w8 = (folder / "families" / "a8w8.py").read_text()
    assert "row(256, 128,  64,  64,  1, 4,  3,  up_to(384)),\n" in a8w8
    assert "192" not in a8w8.replace("128, 192", "")


def test_a_checkout_without_the_files(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool.main([str(tmp_path)]) == 3
    assert COMMON in capsys.readouterr().err
