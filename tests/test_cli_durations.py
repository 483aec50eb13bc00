"""`jitcache durations`: show, export, merge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from jitcache.build.durations import Features, Sample, add, load
from jitcache.cli.durations import command
from jitcache.errors import ExitCode, InputError, StoreError

BIG = Features("device", "a4w4", 1, 256, 128, 128, 128, "x", 1, "v", "gfx950", "clang 22")
SHIM = Features("host-shim", "a8w8", 0, 0, 0, 0, 0, "3", 1, "", "gfx950", "clang 22")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JITCACHE_DIR", str(tmp_path / "store"))
    directory = tmp_path / "store" / "durations-v1"
    samples = [Sample(BIG, at, cpu, cpu, 1 << 30) for at, cpu in ((1, 20_000), (2, 30_000))]
    add(directory, [*samples, Sample(SHIM, 3, 2500, 2500, 1 << 20)])
    return directory


def run(*args: str | Path) -> str:
    result = CliRunner().invoke(command, [str(a) for a in args], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def refused(*args: str | Path) -> Any:
    result = CliRunner().invoke(command, [str(a) for a in args])
    return result.exception


@pytest.mark.usefixtures("store")
def test_show_lists_the_dearest_first() -> None:
    rows = run("show").splitlines()
    assert rows[1].startswith("gemm1 256x128x128x128")
    assert rows[2].startswith("host shim")
    value = json.loads(run("show", "--json"))
    assert [(v["samples"], v["cost_s"], v["newest"]) for v in value] == [(2, 25.0, 2), (1, 2.5, 3)]
    assert [v["family"] for v in json.loads(run("show", "--family", "a8w8", "--json"))] == ["a8w8"]


def test_an_export_merges_elsewhere_and_twice_changes_nothing(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "export.json"
    run("export", file)
    assert run("export") == file.read_text()
    monkeypatch.setenv("JITCACHE_DIR", str(tmp_path / "other"))
    assert run("show").strip() == "nothing measured yet"
    assert json.loads(run("merge", file, "--json")) == {"added": 3, "samples": 3}
    assert run("merge", file) == "0 samples taken in; 3 in all\n"
    assert list(load(tmp_path / "other" / "durations-v1")) == list(load(store))
    assert run("export") == file.read_text()


@pytest.mark.parametrize(
    "bad", ["", "{}", "[1]", '[{"features": {}}]', "[" * 100_000, "\udcff", '[{"features": 3}]']
)
def test_what_is_no_export_is_refused_and_nothing_is_taken_in(
    store: Path, tmp_path: Path, bad: str
) -> None:
    good, file = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(json.dumps([{**json.loads(run("export"))[0], "at": 99}]))
    file.write_bytes(bad.encode(errors="surrogateescape"))
    before = list(load(store))
    error = refused("merge", good, file)
    assert isinstance(error, InputError)
    assert str(file) in str(error)
    assert list(load(store)) == before
    assert isinstance(refused("merge", tmp_path / "none.json"), InputError)


def test_places_that_cant_be_written_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Path
) -> None:
    error = refused("export", tmp_path / "no" / "where.json")
    assert isinstance(error, StoreError)
    assert error.exit_code is ExitCode.STORE
    run("export", tmp_path / "export.json")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("JITCACHE_DIR", str(tmp_path / "file"))
    assert isinstance(refused("merge", tmp_path / "export.json"), StoreError)
    assert store.is_dir()
