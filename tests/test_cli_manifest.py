"""The manifest command: writing one from a configuration, listing the shipped ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest

from jitcache.cli.manifest import command
from jitcache.codegen.catalog import Quant
from jitcache.errors import InputError, StoreError, UsageError
from jitcache.manifest.load import Target, load_manifest, shipped_names
from tests.test_manifest import CONFIGS

DEEPSEEK = CONFIGS[0][0]


def run(*argv: str | Path) -> None:
    command.main(list(map(str, argv)), standalone_mode=False)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "DeepSeek-V3"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(DEEPSEEK))
    return folder / "config.json"


def test_a_new_manifest_reads_back(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "new.toml"
    run("new", "--from", model, "--tp", "8", "--arch", "gfx950", "--product", "MI308X", "-o", path)
    found = load_manifest(path)
    (layer,) = found.layers
    assert found.name == "DeepSeek-V3"
    assert found.targets == (Target("gfx950", 256), Target("gfx942", 80))
    assert (layer.model_dim, layer.inter_dim, layer.experts, layer.top_k) == (7168, 256, 256, 8)
    assert (layer.quant, layer.w, layer.out) == (Quant.PER_1X128, "f8", "b16")


def test_options_go_before_the_configuration(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(
        "new", "--from", model, "--arch", "gfx950", "--ep", "8", "--quant", "per_1x32",
        "--fused-shared-experts", "1", "--name", "mine", "--json",
    )  # fmt: skip
    text = json.loads(capsys.readouterr().out)["manifest"]
    assert 'name = "mine"' in text
    assert 'quant = "per_1x32"' in text
    assert "\nw = " not in text
    assert "ep = 8\nfused_shared_experts = 1\n" in text


def test_an_existing_file_is_kept(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("mine")
    argv: list[Any] = ["new", "--from", model, "--arch", "gfx950", "-o"]
    with pytest.raises(InputError, match="is there already"):
        run(*argv, path)
    assert path.read_text() == "mine"
    with pytest.raises(StoreError, match="can't be written"):
        run(*argv, tmp_path / "no" / "such.toml")


def test_what_is_missing_or_impossible(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="for which GPU"):
        run("new", "--from", model)
    with pytest.raises(InputError, match="can't be divided by `tp` 3"):
        run("new", "--from", model, "--arch", "gfx950", "--tp", "3")
    with pytest.raises(InputError, match="No such file"):
        run("new", "--from", tmp_path / "none.json", "--arch", "gfx950")
    with pytest.raises(click.UsageError):
        run("new", "--from", model, "--arch", "gfx90a")
    awq = DEEPSEEK | {"quantization_config": {"quant_method": "awq"}}
    model.write_text(json.dumps(awq))
    with pytest.raises(UsageError, match="isn't one that maps") as caught:
        run("new", "--from", model, "--arch", "gfx950")
    assert caught.value.hint == "say it with --quant and --w"


def test_the_shipped_ones_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    run("ls", "--json")
    listed = json.loads(capsys.readouterr().out)["manifests"]
    assert [m["name"] for m in listed] == shipped_names()
    run("ls")
    assert capsys.readouterr().out.splitlines()[0].split() == ["name", "description"]
