"""`jitcache generate` and the entry point in place of AITER's generator."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitcache.aiter import request as genrequest
from jitcache.aiter import tree as aitertree
from jitcache.cli.main import main
from jitcache.codegen import catalog, stock
from jitcache.codegen.catalog import Quant
from jitcache.errors import UnsupportedError, UsageError

KIMI_FLAGS = [*("-a", "fp4x2", "-b", "fp4x2", "-c", "b16", "-q", "per_1x32", "-act", "silu")]
KIMI_FLAGS += ["-m", "2", "--preshuffle"]
HEADERS = {
    "gemm_moe_ck2stages_lookup.h",
    "ck2stages_moe_stage1_heuristic_dispatch.hpp",
    "ck2stages_moe_stage2_heuristic_dispatch.hpp",
}
MANIFEST = """
model_dim = 7168
inter_dim = 1024
experts = 384
top_k = 8
quant = "per_1x32"
targets = [{ arch = "gfx950" }]
"""


@pytest.fixture(autouse=True)
def _one_arch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPU_ARCHS", "gfx950")


def generate(*args: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["generate", *map(str, args)])
    assert isinstance(caught.value.code, int)
    return caught.value.code


def report(capsys: pytest.CaptureFixture[str], *args: str | Path) -> dict[str, Any]:
    assert generate(*args, "--json") == 0
    value: dict[str, Any] = json.loads(capsys.readouterr().out)
    return value


def instances(directory: Path) -> list[str]:
    """Stage and tile of each instance file."""
    found = (p.stem.split("_") for p in (directory / "instances").iterdir())
    return sorted(f"{words[2]}_{words[3]}" for words in found)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(MANIFEST)
    return path


# -- AITER's command line ----------------------------------------------------------------


def test_the_stock_command_line_gives_the_whole_module(tmp_path: Path) -> None:
    assert generate(*KIMI_FLAGS, "-w", tmp_path / "blob") == 0
    assert {p.name for p in (tmp_path / "blob").iterdir()} == HEADERS | {"instances"}
    assert len(instances(tmp_path / "blob")) == 10


def test_inter_dim_narrows_it(tmp_path: Path) -> None:
    assert generate(*KIMI_FLAGS, "--inter-dim", "1024", "-w", tmp_path / "blob") == 0
    assert instances(tmp_path / "blob") == [
        "gemm1_256x128x128x128",
        "gemm1_256x64x128x128",
        "gemm1_64x32x32x128",
        "gemm2_256x128x128x128",
        "gemm2_256x32x128x128",
        "gemm2_256x64x128x128",
    ]


def test_a_second_run_leaves_nothing_of_the_first(tmp_path: Path) -> None:
    assert generate(*KIMI_FLAGS, "-w", tmp_path) == 0
    assert generate(*KIMI_FLAGS, "--inter-dim=1024", "--block-m=128", "-w", tmp_path) == 0
    assert instances(tmp_path) == ["gemm1_256x128x128x128", "gemm2_256x128x128x128"]


def test_the_advice_is_a_command_that_adds_the_shape(tmp_path: Path) -> None:
    assert generate(*KIMI_FLAGS, "--inter-dim", "1024", "-w", tmp_path / "one") == 0
    text = (tmp_path / "one" / "gemm_moe_ck2stages_lookup.h").read_text()
    (line,) = [x for x in text.splitlines() if x.startswith("#define JITCACHE_ADD_SHAPE")]
    said = line.replace('", inter_dim, "', "256").replace('", block_m', '64"')
    said = said.partition("jitcache generate ")[2].partition('"')[0]
    args = said.replace("-w DIR", "").split()
    assert generate(*args, "-w", tmp_path / "two") == 0
    assert "gemm2_64x64x128x128" in instances(tmp_path / "two")
    assert set(instances(tmp_path / "one")) < set(instances(tmp_path / "two"))


def test_the_module_entry_takes_aiters_command_line(tmp_path: Path) -> None:
    """As aiter/jit/core.py calls its generator: a trailing slash, a directory that exists."""
    blob = tmp_path / "blob"
    blob.mkdir()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "jitcache.codegen.gen_instances", "-a", "f8", "-b", "i4"),
            *("-c", "b16", "-q", "per_token", "-act", "gelu", "-m", "1", "-w", f"{blob}/"),
        ],
        env=os.environ | {"GPU_ARCHS": "gfx942"},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    names = [p.stem for p in (blob / "instances").iterdir()]
    assert len(names) == 8
    assert all("Quant2" in n and n.endswith("_F8_I4_B16") for n in names)
    assert sum("MulRoutedWeight1_gelu" in n for n in names) == 4


def test_a_is_accepted_and_derived_from_b(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    value = report(capsys, "-a", "f8", "-b", "fp4x2", "-q", "per_1x32", "-p", "-w", tmp_path)
    assert all(n.endswith("_FP4X2_FP4X2_B16") for n in value["modules"][0]["instances"])
    assert any("-a f8 is not used" in note for note in value["notes"])


@pytest.mark.parametrize("form", [["-b", "f8", "i8"], ["-b", "f8", "-b", "i8"]])
def test_several_weight_types_share_a_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], form: list[str]
) -> None:
    value = report(capsys, *form, "-q", "per_128x128", "-w", tmp_path)
    assert [m["name"].split("_")[3] for m in value["modules"]] == ["f8", "i8"]
    assert len(list((tmp_path / "instances").iterdir())) == 20
    assert value["modules"][0]["name"].endswith("preshuffle_off_b16_silu_per_1x128_mulWeightStage2")


def test_splitk_writes_float32_in_stage_1_only(tmp_path: Path) -> None:
    assert generate("-b", "f8", "-q", "per_1x128", "--issplitk", "-w", tmp_path) == 0
    for path in (tmp_path / "instances").iterdir():
        first = "gemm1" in path.name
        assert ("EDataType            = F32;" in path.read_text()) is first
        assert ("Splitk" in path.name) is first
        assert path.name.endswith("_B16.cu")


def test_no_weight_type_means_everything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate("--working_path", tmp_path) == 0
    err = capsys.readouterr().err
    assert "88 modules, 764 of 764 instances" in err
    assert len(list((tmp_path / "instances").iterdir())) == 764


def test_everything_names_each_module_once() -> None:
    specs = stock.everything()
    assert len(set(specs)) == len(specs) == 88
    assert all(catalog.emitted(s) == s for s in specs)


@given(
    st.lists(st.sampled_from(["f8", "i8", "f16", "b16", "i4", "fp4x2"]), min_size=1, unique=True),
    st.sampled_from(list(Quant)),
    st.booleans(),
    st.booleans(),
)
def test_flags_name_the_modules_they_came_from(
    weights: list[str], quant: Quant, preshuffle: bool, splitk: bool
) -> None:
    specs = stock.asked(weights, "f16", quant, "gelu", 1, preshuffle=preshuffle, splitk=splitk)
    flags = stock.flags(specs)
    assert flags[1 : 1 + len(weights)] == weights
    assert ("--preshuffle" in flags, "--issplitk" in flags) == (preshuffle, splitk)
    assert flags[flags.index("-q") + 1] == quant.word


# -- wrong command lines ------------------------------------------------------------------


@pytest.mark.parametrize(
    "args",
    [
        ["-b", "fp4"],
        ["-q", "per_1x64", "-b", "f8"],
        ["-act", "swiglu", "-b", "f8"],
        ["-m", "3", "-b", "f8"],
        ["-c", "f32", "-b", "f8"],
        ["-b"],
        ["--inter-dim", "1024"],
        ["-b", "f8", "--inter-dim", "x"],
        ["-b", "f8", "--block-m", "0"],
        ["-b", "f8", "--block-m", "-64"],
        ["-b", "f8", "--inter-dim", "9" * 30],
        ["-b", "f8", "--tuned", "t.csv"],
        ["-b", "f8", "--scope", "module"],
        ["-b", "f8", "--dialect", "native"],
        ["kimi-k2.5-mxfp4-tp2", "--manifest", "kimi-k2.5-mxfp4-tp2"],
        ["kimi-k2.5-mxfp4-tp2", "--inter-dim", "512"],
        ["kimi-k2.5-mxfp4-tp2", "-q", "per_1x32"],
        ["kimi-k2.5-mxfp4-tp2", "-b", "f8"],
        ["kimi-k2.5-mxfp4-tp2", "--arch", "gfx942"],
        ["--frobnicate"],
    ],
)
def test_a_wrong_command_line_exits_2_and_writes_nothing(
    tmp_path: Path, args: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate("-w", tmp_path / "blob", *args) == 2
    captured = capsys.readouterr()
    assert "Error" in captured.err or "error" in captured.err
    assert not (tmp_path / "blob").exists()


@pytest.mark.parametrize(
    ("args", "code"),
    [
        ([*KIMI_FLAGS, "--inter-dim", "384"], 5),
        ([*KIMI_FLAGS, "--inter-dim", "1024", "--arch", "gfx942"], 5),
        ([*KIMI_FLAGS, "--arch", "gfx90a"], 5),
        ([*KIMI_FLAGS, "--kernel", "nope"], 5),
        (["no-such-manifest"], 3),
        ([*KIMI_FLAGS, "--inter-dim", "512", "--tuned", "no-such.csv"], 3),
        ([*KIMI_FLAGS, "--aiter", "/nonexistent"], 3),
    ],
)
def test_other_failures_have_their_exit_codes(tmp_path: Path, args: list[str], code: int) -> None:
    assert generate("-w", tmp_path / "blob", *args) == code
    assert not (tmp_path / "blob").exists()


def test_somebody_elses_directory_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    assert generate(*KIMI_FLAGS, "-w", tmp_path) == 3
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


# -- architecture -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "environ", "manifest", "arch"),
    [
        (None, "gfx942", [], "gfx942"),
        ("gfx950", "gfx942", [], "gfx950"),
        ("gfx950", "gfx942;gfx950", [], "gfx950"),
        (None, "native", ["gfx950", "gfx950"], "gfx950"),
        (None, "", ["gfx942"], "gfx942"),
        (None, "gfx942", ["gfx942", "gfx950"], "gfx942"),
    ],
)
def test_one_architecture_is_chosen(
    option: str | None, environ: str, manifest: list[str], arch: str
) -> None:
    assert genrequest.choose_arch(option, {"GPU_ARCHS": environ}, manifest) == arch


@pytest.mark.parametrize(
    ("environ", "manifest", "says"),
    [
        ("gfx942;gfx950", [], "GPU_ARCHS names 2 architectures: gfx942, gfx950"),
        ("", [], "no architecture is given"),
        ("native", [], "no architecture is given"),
        ("", ["gfx942", "gfx950"], "the manifest has targets of 2 architectures"),
        ("gfx942", ["gfx950"], "the manifest has no target of gfx942"),
    ],
)
def test_no_or_several_architectures_are_refused(
    environ: str, manifest: list[str], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        genrequest.choose_arch(None, {"GPU_ARCHS": environ}, manifest)


def test_the_only_architecture_that_can_run_it_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GPU_ARCHS")
    assert report(capsys, *KIMI_FLAGS, "-w", tmp_path / "a")["arch"] == "gfx950"
    assert generate("-b", "f8", "-w", tmp_path / "b") == 2
    monkeypatch.setenv("GPU_ARCHS", "gfx942")
    assert report(capsys, *KIMI_FLAGS, "-w", tmp_path / "a")["arch"] == "gfx942"


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="gfx1201"):
        genrequest.choose_arch("gfx1201", {}, [])


# -- manifests --------------------------------------------------------------------------


@pytest.mark.parametrize("option", [[], ["--manifest"]])
def test_a_manifest_says_module_and_shape(
    tmp_path: Path, manifest: Path, capsys: pytest.CaptureFixture[str], option: list[str]
) -> None:
    value = report(capsys, *option, manifest, "-w", tmp_path / "blob")
    (module,) = value["modules"]
    assert module["name"].endswith("fp4x2_fp4x2_preshuffle_on_b16_silu_per_1x32_mulWeightStage2")
    assert (len(module["instances"]), len(module["left_out"]), module["files"]) == (6, 4, 9)
    assert len(instances(tmp_path / "blob")) == 6
    text = (tmp_path / "blob" / "gemm_moe_ck2stages_lookup.h").read_text()
    assert "widen the manifest mine, generate and build again" in text


def test_a_manifest_can_be_narrowed_and_its_module_named(tmp_path: Path, manifest: Path) -> None:
    blob = tmp_path / "blob"
    assert generate(*KIMI_FLAGS, "--manifest", manifest, "--block-m", "128", "-w", blob) == 0
    assert instances(blob) == ["gemm1_256x128x128x128", "gemm2_256x128x128x128"]
    assert generate(manifest, "--scope", "module", "-w", blob) == 0
    assert len(instances(blob)) == 10


def test_a_manifests_file_name_may_hold_anything(tmp_path: Path, manifest: Path) -> None:
    odd = tmp_path / 'k\u00fchn "1" \\ {block_m}.toml'
    manifest.rename(odd)
    assert generate(odd, "-w", tmp_path / "blob") == 0
    text = (tmp_path / "blob" / "gemm_moe_ck2stages_lookup.h").read_text()
    assert 'widen the manifest k?hn \\"1\\" \\\\ ?block_m?, generate' in text


def test_modules_of_one_manifest_get_a_directory_each(
    tmp_path: Path, manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layers = 'layers = [{ name = "a" }, { name = "b", out = "f16" }]\n'
    manifest.write_text(layers + MANIFEST)
    value = report(capsys, manifest, "-w", tmp_path / "out")
    assert len(value["modules"]) == 2
    for module in value["modules"]:
        assert Path(module["directory"]) == tmp_path / "out" / module["name"]
        assert len(instances(Path(module["directory"]))) == 6


def test_native_sources_are_one_per_kernel_and_a_shim(
    tmp_path: Path, manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = (manifest, "--dialect", "native", "--block-m", "128", "-w", tmp_path / "out")
    value = report(capsys, *args)
    assert value["dialect"] == "native"
    assert value["modules"][0]["files"] == 3
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == [
        "gemm1_256x128x128x128_1x4_v3_hot-even_gfx950.hip",
        "gemm2_256x128x128x128_1x4_v3_hot-even_gfx950.hip",
        f"{value['modules'][0]['name']}.hip",
    ]


# -- tuned tables and AITER trees ----------------------------------------------------------


@pytest.fixture
def extra() -> tuple[str, str]:
    """Two kernels that the heuristic doesn't pick for inter_dim 512."""
    specs = stock.asked(["fp4x2"], "b16", Quant.PER_1X32, "silu", 2, preshuffle=True, splitk=False)
    names = [i.name for i in catalog.instances(specs[0], "gfx950")]
    first, second = (
        next(n for n in names if start in n) for start in ("gemm1_256x32x", "gemm2_64x32x")
    )
    return first, second


def tuned_table(path: Path, inter_dim: int, kernels: tuple[str, str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "cu_num,token,model_dim,inter_dim,expert,topk,act_type,dtype,q_dtype_a,q_dtype_w,q_type,"
        "use_g1u1,doweight_stage1,block_m,ksplit,kernelName1,kernelName2,run_1stage\n"
        f"256,16,7168,{inter_dim},384,8,ActivationType.Silu,torch.bfloat16,"
        "torch.float4_e2m1fn_x2,torch.float4_e2m1fn_x2,QuantType.per_1x32,1,0,32,0,"
        f"{kernels[0]},{kernels[1]},0\n"
    )
    return path


def test_tuned_rows_add_their_kernels(tmp_path: Path, extra: tuple[str, str]) -> None:
    tuned = tuned_table(tmp_path / "tuned.csv", 512, extra)
    blob = tmp_path / "blob"
    for inter_dim, count in (("512", 8), ("1024", 6)):
        args = [*KIMI_FLAGS, "--inter-dim", inter_dim, "--tuned", str(tuned), "-w", str(blob)]
        assert generate(*args) == 0
        assert len(instances(blob)) == count
    assert generate(*KIMI_FLAGS, "--block-m=64", "--tuned", tuned, "-w", blob) == 0
    assert not any("x32x" in i for i in instances(blob))
    assert generate(*KIMI_FLAGS, "--inter-dim=512", "--kernel", extra[1], "-w", blob) == 0
    assert len(instances(blob)) == 7


def test_an_aiter_tree_is_checked_and_its_tuned_tables_are_used(
    tmp_path: Path,
    manifest: Path,
    extra: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tree = tmp_path / "aiter"
    digests = {}
    (tree / aitertree.CODEGEN).mkdir(parents=True)
    for name in aitertree.KNOWN[catalog.AITER_COMMIT]:
        (tree / aitertree.CODEGEN / name).write_text(name)
        digests[name] = hashlib.sha256(name.encode()).hexdigest()
    monkeypatch.setattr(aitertree, "KNOWN", {catalog.AITER_COMMIT: digests})
    tuned_table(tree / "aiter" / "configs" / "tuned_fmoe.csv", 1024, extra)
    blob = tmp_path / "blob"
    value = report(capsys, *KIMI_FLAGS, "--inter-dim", "1024", "--aiter", tree, "-w", blob)
    assert (value["aiter"], value["notes"]) == (catalog.AITER_COMMIT, [])
    assert len(instances(blob)) == 8
    assert generate(manifest, "--aiter", tree, "-w", blob) == 0
    assert len(instances(blob)) == 8
    (tree / aitertree.CODEGEN / "gen_instances.py").write_text("changed")
    assert generate(manifest, "--aiter", tree, "-w", blob) == 5


def test_another_aiter_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = tmp_path / "aiter" / aitertree.CODEGEN
    tree.mkdir(parents=True)
    (tree / "gen_instances.py").write_text("pass\n")
    args = [*KIMI_FLAGS, "--aiter", str(tmp_path / "aiter"), "-w", str(tmp_path / "blob")]
    assert generate(*args) == 5
    err = capsys.readouterr().err
    assert f"the AITER dialect is for {catalog.AITER_COMMIT}" in err
    assert "gen_instances.py is sha256:" in err
    assert not (tmp_path / "blob").exists()
