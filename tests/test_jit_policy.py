"""JITCACHE_JIT, as `prebuild` heeds it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fake_toolchain import compiles
from tests.test_cli_prebuild import NAME, run, use


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JITCACHE_DIR", str(tmp_path / "store"))
    monkeypatch.delenv("JITCACHE_SALT", raising=False)
    use(monkeypatch, tmp_path)
    return tmp_path


def test_forbid_names_what_would_be_compiled_and_compiles_nothing(place, capsys, monkeypatch):
    monkeypatch.setenv("JITCACHE_JIT", "forbid")
    code, _, err = run(capsys, NAME, "--block-m", "128", "--quiet")
    assert code == 9
    assert "3 of 3 actions would have to be compiled" in err
    assert "gemm1 256x128x128x128 v3 hot-even" in err
    assert compiles(place) == []


def test_forbid_is_satisfied_by_what_is_there(place, capsys, monkeypatch):
    assert run(capsys, NAME, "--block-m", "128", "--quiet")[0] == 0
    monkeypatch.setenv("JITCACHE_JIT", "forbid")
    code, out, _ = run(capsys, NAME, "--block-m", "128", "--json", "--quiet")
    assert (code, json.loads(out)["hits"]) == (0, 3)


def test_warn_says_it_and_compiles_allow_says_nothing(place, capsys, monkeypatch):
    monkeypatch.setenv("JITCACHE_JIT", "warn")
    code, _, err = run(capsys, NAME, "--block-m", "128", "--quiet")
    assert code == 0
    assert "JITCACHE_JIT=warn: 3 actions are compiled here" in err
    monkeypatch.setenv("JITCACHE_JIT", "allow")
    assert run(capsys, NAME, "--quiet")[2] == ""


def test_another_word_is_an_input_error(place, capsys, monkeypatch):
    monkeypatch.setenv("JITCACHE_JIT", "never")
    assert run(capsys, NAME, "--block-m", "128", "--quiet")[0] == 3
