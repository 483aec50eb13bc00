"""The plan command: options, text, JSON, exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jitcache.cli.main import main
from jitcache.errors import ExitCode
from tests.test_plan import STAGE1, STAGE2
from tests.test_tuned import COLUMNS, line

KIMI = "kimi-k2.5-mxfp4-tp2"


class Ran:
    def __init__(self, code: object, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*argv: str | Path) -> Ran:
        with pytest.raises(SystemExit) as ended:
            main(["plan", *map(str, argv)])
        captured = capsys.readouterr()
        return Ran(ended.value.code, captured.out, captured.err)

    return call


def test_json_has_the_agreed_form(run: Any) -> None:
    found = run(KIMI, "--json")
    assert found.code == ExitCode.OK
    (module,) = found.json["modules"]
    assert set(module) >= {"name", "instances", "pruned"}
    assert module["name"].startswith("module_moe_ck2stages_fp4x2_fp4x2_preshuffle_on_b16_silu")
    assert len(module["instances"]) == 6
    first = module["instances"][0]
    assert set(first) >= {"name", "stage", "block_m", "why", "variants"}
    assert (first["stage"], first["block_m"]) == (1, 64)
    assert first["variants"][0].items() >= {"hot_loop": True, "tail": "even"}.items()
    assert [set(p) >= {"name", "why"} for p in module["pruned"]] == [True] * 4
    assert found.json["device_kernels"] == 6


def test_text_gives_a_reason_for_everything(run: Any) -> None:
    found = run(KIMI)
    assert found.code == ExitCode.OK
    lines = found.out.splitlines()
    assert lines[0] == (
        "kimi-k2.5-mxfp4-tp2 on gfx950 with 256 CUs, scope inter-dim: 6 device kernels; "
        "AITER's modules hold 40"
    )
    assert (
        "  leave  gemm2 64x64x128x128 v3: stage 2, inter_dim 1024 > 256: never dispatched" in lines
    )
    assert any(
        x.strip().startswith("build  hot-even: K (inter_dim) 1024 is 4 steps") for x in lines
    )
    assert any(x.split()[:4] == ["256", "to", "131072", "128"] for x in lines)
    assert found.err == ""


def test_tokens_and_units(run: Any) -> None:
    argv = (KIMI, "--scope", "reachable", "--tokens", "40x4,40x5", "--tokens", "3-5", "--json")
    wide = run(*argv).json
    assert [r["tokens"] for r in wide["rows"]] == [3, 4, 5, 160, 200]
    assert [r["block_m"] for r in wide["rows"]] == [32, 32, 32, 128, 128]
    few = run(*argv, "--cu-num", "80").json
    assert few["cu_num"] == 80
    assert {i["block_m"] for m in few["modules"] for i in m["instances"]} == {32, 128}


@pytest.mark.parametrize("counts", ["x", "0", "5-3", "1-", "4x", "-1", "1-999999999", "1,,2"])
def test_bad_token_counts(run: Any, counts: str) -> None:
    found = run(KIMI, f"--tokens={counts}")
    assert found.code == ExitCode.USAGE
    assert "--tokens" in found.err


def test_tuned_tables(run: Any, tmp_path: Path) -> None:
    table = tmp_path / "mine_tuned_fmoe.csv"
    table.write_text(f"{COLUMNS}\n{line(64, STAGE1, STAGE2)}\n")
    argv = ("kimi-k2.5-mxfp4-tp4", "--tuned", table, "--json")
    names = {i["name"] for i in run(*argv).json["modules"][0]["instances"]}
    assert names >= {STAGE1, STAGE2}
    twice = run(*argv, "--tuned", table)
    assert twice.code == ExitCode.USAGE
    configs = tmp_path / "aiter" / "configs"
    configs.mkdir(parents=True)
    (configs / "tuned_fmoe.csv").write_text(table.read_text())
    found = run("kimi-k2.5-mxfp4-tp4", "--aiter", tmp_path, "--json")
    assert {i["name"] for i in found.json["modules"][0]["instances"]} == names


def test_several_plans(run: Any) -> None:
    found = run("deepseek-v3-fp8-tp8", KIMI, "--json").json
    assert [p["arch"] for p in found["plans"]] == ["gfx942", "gfx950", "gfx950"]
    assert len(found["modules"]) == sum(len(p["modules"]) for p in found["plans"]) == 5
    only = run("deepseek-v3-fp8-tp8", "--arch", "gfx942", "--json").json
    assert (only["arch"], only["cu_num"]) == ("gfx942", 304)
    text = run("deepseek-v3-fp8-tp8", "gpt-oss-120b-mxfp4").out
    assert text.count(", scope inter-dim: ") == 3
    assert "note: layer moe needs no CK2stages kernel" in text


def test_an_architecture_that_the_manifest_does_not_list(run: Any) -> None:
    found = run("minimax-m2.5-fp8-tp4", "--arch", "gfx942", "--json")
    assert (found.json["arch"], found.json["cu_num"]) == ("gfx942", 304)


def test_several_layers_are_told_apart(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "two.toml"
    path.write_text(
        'model_dim = 4096\nexperts = 8\ntop_k = 2\nquant = "no"\n'
        'targets = [{ arch = "gfx942" }]\n[[layers]]\nname = "first"\ninter_dim = 512\n'
        '[[layers]]\nname = "second"\ninter_dim = 192\n'
    )
    lines = run(path).out.splitlines()
    header = next(i for i, text in enumerate(lines) if text.startswith("layer "))
    names = [text.split()[0] for text in lines[header + 1 :]]
    assert names == sorted(names)
    assert set(names) == {"first", "second"}


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["nothing-of-that-name"], ExitCode.INPUT, "no such manifest"),
        ([KIMI, "--tuned", "/no/such.csv"], ExitCode.INPUT, "/no/such.csv: can't be read"),
        ([KIMI, "--aiter", "/no/such"], ExitCode.INPUT, "not an AITER checkout"),
        ([KIMI, "--arch", "gfx942"], ExitCode.UNSUPPORTED, "__Float4_e2m1fn_x2"),
        ([KIMI, "--arch", "gfx90a"], ExitCode.USAGE, "gfx90a"),
        ([KIMI, "--block-m", "48"], ExitCode.USAGE, "48"),
        ([KIMI, "--block-m", "16"], ExitCode.INPUT, "reached are block_m 32, 64, 128"),
        ([KIMI, "--scope", "reachable"], ExitCode.INPUT, "--tokens"),
        ([], ExitCode.USAGE, "MANIFEST"),
    ],
)
def test_what_fails_says_why(run: Any, argv: list[str], code: ExitCode, said: str) -> None:
    found = run(*argv)
    assert found.code == code
    assert said in found.err
    assert found.out == ""
    assert "Traceback" not in found.err
