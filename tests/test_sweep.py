"""`jitcache sweep`: one front end per kernel, one key and one row per set of flags."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitcache import codeobject
from jitcache.action.resolve import Resolver
from jitcache.cli import sweep as cli
from jitcache.cli.main import main
from jitcache.codegen import native
from jitcache.errors import ExitCode, InputError, ToolchainError
from jitcache.store.model import Hit
from jitcache.store.store import Store
from jitcache.sweep.figures import figures_of
from jitcache.sweep.flagset import FlagSet, parse_flag_set, with_flags
from jitcache.sweep.sweeper import BITCODE_OUTPUT, Sweeper
from tests.compile_help import Alone, installed
from tests.fake_toolchain import add_bitcode_tools, compiles, make_toolchain
from tests.prebuild_driver import work

MISCHED = FlagSet(("-enable-misched=0",))
NAME = (
    "moe_ck2stages_gemm1_64x32x32x128_1x1_MulABScaleShuffled_v3_Nswizzle0_Quant3"
    "_MulRoutedWeight0_silu_FP4X2_FP4X2_B16"
)


def kernels(count: int = 2):
    (module,) = work("kimi-k2.5-mxfp4-tp2")
    return module.kernels[:count]


def sweeper(place: Path, **how) -> Sweeper:
    add_bitcode_tools(place)
    toolchain = make_toolchain(place, **how)
    return Sweeper(Store(place / "store"), toolchain, "gfx950", jobs=1)


def test_the_front_end_runs_once_per_kernel_whatever_the_sets(tmp_path) -> None:
    rows = sweeper(tmp_path).sweep(kernels(), [FlagSet(()), MISCHED])
    assert [r.error for r in rows] == [""] * 4
    assert len({r.key for r in rows}) == 4
    assert [r.kernel.split()[0] for r in rows] == ["gemm1"] * 4
    assert len(compiles(tmp_path)) == 2
    more = sweeper(tmp_path).sweep(kernels(), [MISCHED, FlagSet(("--slp-threshold=0",))])
    assert len(compiles(tmp_path)) == 2
    assert [r.cpu_ms for r in more][::2] == [0, 0]
    assert all(r.figures is not None for r in more)
    assert more[0].figures == rows[1].figures


def test_a_row_stands_under_the_key_of_a_whole_compile_with_its_flags(tmp_path) -> None:
    (kernel,) = kernels(1)
    rows = sweeper(tmp_path).sweep([kernel], [FlagSet(()), MISCHED])
    store = Store(tmp_path / "store")
    toolchain = make_toolchain(tmp_path)
    labels = []
    for row in rows:
        hit = store.lookup(row.key)
        assert isinstance(hit, Hit)
        labels.append(hit.record.label)
        changed = with_flags(toolchain, row.flags)
        assert Resolver(store, changed, "gfx950").resolve(kernel.recipe).key == row.key
    # So what was swept with the product's own flags is what prebuild finds, and it looks so.
    own = f"{kernel.instance.short} {kernel.variant} gfx950"
    assert labels == [own, f"{own} -enable-misched=0"]


def test_bitcode_has_a_key_of_its_own_in_which_back_end_flags_are_not(tmp_path) -> None:
    (kernel,) = kernels(1)
    sweeper(tmp_path).sweep([kernel], [MISCHED])
    store = Store(tmp_path / "store")
    records = [r for r in store.records() if r.inputs["kind"] == "bitcode"]  # type: ignore[union-attr]
    (record,) = records
    assert [o.name for o in record.outputs] == ["headers.json", BITCODE_OUTPUT]  # type: ignore[union-attr]
    assert "-mllvm" not in record.inputs["flags"]  # type: ignore[union-attr]
    assert "-disable-llvm-passes" in record.inputs["flags"]  # type: ignore[union-attr]
    assert "clang" in record.inputs["parts"]  # type: ignore[union-attr]
    assert "host-runtime" not in record.inputs["parts"]  # type: ignore[union-attr]
    assert record.toolchain == make_toolchain(tmp_path).id  # type: ignore[union-attr]
    # A change of the front end's flags is another bitcode.
    sweeper(tmp_path, flags=("-DCODE",)).sweep([kernel], [MISCHED])
    assert len([r for r in store.records() if r.inputs["kind"] == "bitcode"]) == 2  # type: ignore[union-attr]


def test_a_set_that_the_compiler_refuses_is_a_row_and_stops_nothing(tmp_path) -> None:
    rows = sweeper(tmp_path).sweep(kernels(1), [FlagSet(("-unknown",)), MISCHED])
    assert "Unknown command line argument" in rows[0].error
    assert rows[0].figures is None
    assert rows[1].figures is not None


def test_a_front_end_that_fails_fails_every_row_of_its_kernel(tmp_path) -> None:
    rows = sweeper(tmp_path, fail="gemm1_256x64").sweep(kernels(2), [FlagSet(()), MISCHED])
    assert ["no matching function" in r.error for r in rows] == [True, True, False, False]


def test_without_a_disassembler_it_says_so(tmp_path) -> None:
    with pytest.raises(ToolchainError, match="llvm-objdump"):
        Sweeper(Store(tmp_path / "store"), make_toolchain(tmp_path), "gfx950")


def test_figures_are_counted_from_the_code(tmp_path) -> None:
    kernel = codeobject.Kernel("_Zk", 200, 128, 64, 100, 3, 1, 65536, 16, 256)
    code = codeobject.CodeObject("gfx950", (), (kernel,))
    lines = [
        "s_waitcnt vmcnt(0)",
        "s_waitcnt lgkmcnt(0)",
        "v_mfma_scale_f32_16x16x128_f8f6f4 v[0:3], v[4:7], v[8:11], v[0:3]",
        "v_smfmac_f32_16x16x64_f16 a[0:3], v[4:7], v[8:15], v1",
        "s_endpgm",
        "s_code_end",
    ]
    text = "\n0000000000001000 <_Zk>:\n" + "\n".join(
        f"\t{line}    // {4 * i:012X}: BF800000" for i, line in enumerate(lines)
    )
    found = figures_of(code, text)
    assert (found.instructions, found.waits, found.mfma) == (5, 2, 2)
    assert (found.vgprs, found.agprs, found.sgprs) == (128, 64, 100)
    assert (found.vgpr_spills, found.sgpr_spills, found.scratch, found.lds) == (3, 1, 16, 65536)
    assert figures_of(code, text.replace("vmcnt(0)", "vmcnt(1)")).code != found.code


def test_an_option_takes_the_place_of_the_one_of_its_name(tmp_path) -> None:
    toolchain = make_toolchain(tmp_path)
    assert with_flags(toolchain, FlagSet(())) is toolchain
    changed = with_flags(toolchain, FlagSet(("-x=2", "--y")))
    assert changed.device_flags == ("-mllvm", "-x=2", "-mllvm", "--y")
    assert changed.id != toolchain.id
    assert changed.id != with_flags(toolchain, FlagSet(("-x=3", "--y"))).id


@given(st.text(max_size=30))
def test_any_text_is_a_set_of_options_or_refused(text) -> None:
    try:
        found = parse_flag_set(text)
    except InputError:
        return
    assert found.options
    assert all(o.startswith("-") and o != "-mllvm" for o in found.options)


# --- the command ---------------------------------------------------------------------------


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    add_bitcode_tools(tmp_path)
    monkeypatch.setenv("JITCACHE_DIR", str(tmp_path / "store"))
    monkeypatch.setattr(cli, "find_toolchain", lambda *_, **__: make_toolchain(tmp_path))
    monkeypatch.setattr(cli, "require", lambda *_: None)

    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main(["sweep", *words])
        captured = capsys.readouterr()
        return int(caught.value.code or 0), captured.out, captured.err

    return run


def test_an_instance_is_swept_with_the_products_own_flags_among_the_sets(call) -> None:
    code, out, err = call(NAME, "--k", "7168", "--mllvm", "-a=1 -b", "--mllvm", "-c", "-q")
    assert (code, err) == (ExitCode.OK, "")
    lines = out.splitlines()
    assert lines[0] == "gemm1 64x32x32x128 v3 hot-even"
    assert lines[1].split()[0] == "flags"
    assert [line.split("  ")[0].strip() for line in lines[2:5]] == [
        "(the product's own flags)",
        "-a=1 -b",
        "-c",
    ]


def test_json_has_a_row_for_each_with_its_key(call) -> None:
    code, out, _ = call("kimi-k2.5-mxfp4-tp2-bm128", "--mllvm", "-c", "--json", "-q")
    assert code == ExitCode.OK
    value = json.loads(out)
    assert value["target"] == "gfx950"
    assert [r["flags"] for r in value["rows"]] == [[], ["-c"]] * 2
    assert len({r["key"] for r in value["rows"]}) == 4
    assert value["rows"][0]["figures"]["mfma"] == 1


def test_a_refused_option_fails_the_command_and_keeps_the_other_rows(call) -> None:
    code, out, err = call(NAME, "--k", "7168", "--mllvm", "-unknown", "-q")
    assert code == ExitCode.FAILED
    assert "failed" in out
    assert "(the product's own flags)" in out
    assert "Unknown command line argument" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((NAME,), "--k says which one runs"),
        ((NAME.replace("64x32x32", "64x99x32"), "--k", "7168"), "has no such instance"),
        ((NAME, "--k", "7168", "--mllvm", "x"), "is no set of options"),
        (("gpt-oss-120b-mxfp4",), "needs no CK2stages kernel"),
    ],
)
def test_bad_requests_are_explained(call, words, said) -> None:
    code, _, err = call(*words)
    assert code in (ExitCode.USAGE, ExitCode.INPUT, ExitCode.UNSUPPORTED)
    assert said in err


# --- with a real compiler ------------------------------------------------------------------


@pytest.mark.compile
def test_a_real_kernel_under_two_sets_equals_whole_compiles(tmp_path, alone: Alone) -> None:
    toolchain = installed("gfx950")
    (kernel,) = [k for k in kernels(6) if k.recipe.context["name"] == NAME]
    store = Store(tmp_path / "swept")
    try:
        swept = Sweeper(store, toolchain, "gfx950", jobs=1)
    except ToolchainError as e:
        pytest.skip(str(e.what))
    rows = swept.sweep([kernel], [FlagSet(()), MISCHED])
    assert [r.error for r in rows] == ["", ""]
    own, other = (r.figures for r in rows)
    assert own is not None
    assert other is not None
    assert own.code != other.code
    assert own.mfma == other.mfma > 0
    (record,) = alone.records(with_flags(toolchain, MISCHED), "gfx950", [kernel.recipe])
    hit = store.lookup(rows[1].key)
    assert isinstance(hit, Hit)
    assert record.key == rows[1].key
    assert record.outputs == hit.record.outputs
    assert native.DEVICE_SUFFIX in record.outputs[0].name
