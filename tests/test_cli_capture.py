"""`jitcache capture` with stand-ins for the compiler and its products."""

from __future__ import annotations

import importlib.util
import json

import pytest

from jitcache.cli.main import main


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("JITCACHE_DIR", str(tmp_path / "store"))
    return tmp_path


def run(capsys, *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(["capture", *words])
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


def test_without_torch_it_says_how_to_get_it(place, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == "torch" else find(n))
    code, _, err = run(capsys, "-o", str(place / "out"))
    assert code == 5
    assert "pip install 'jitcache[torch]'" in err
    assert not (place / "out").exists()


def test_what_does_not_exist_is_refused_before_anything_is_built(place, capsys):
    assert run(capsys, "-o", str(place), "--family", "a5w5")[0] == 2
    assert run(capsys, "-o", str(place), "--arch", "gfx90a")[0] == 2
    code, _, err = run(capsys, "-o", str(place), "--family", "a4w4", "--arch", "gfx942")
    assert (code, "none of the families a4w4 runs on gfx942" in err) == (5, True)


def test_a_directory_that_cannot_be_made_is_an_error_of_the_store(place, capsys):
    pytest.importorskip("torch")
    (place / "file").write_text("")
    code, _, err = run(capsys, "-o", str(place / "file" / "deeper"))
    assert (code, "can't be made" in err) == (6, True)


def test_it_writes_capsules_and_an_index(place, capsys, monkeypatch):
    pytest.importorskip("torch")
    from tests.test_capture import CHOICES, lock_of

    def build(store, arch, works, **_):
        return {name: lock_of(store, CHOICES[f"{name}-{arch}"]) for name in works}

    monkeypatch.setattr("jitcache.capture.build.build", build)
    words = ("-o", str(place / "out"), "--family", "a16w16", "--family", "a8w8", "--seed", "3")
    code, out, _ = run(capsys, *words)
    assert code == 0
    names = [f"{f}.gfx942.stage{s}.capsule" for f in ("a16w16", "a8w8") for s in (1, 2)]
    assert [line.split()[0] for line in out.splitlines()[1:]] == names
    index = json.loads((place / "out" / "index.json").read_text())
    assert [c["file"] for c in index["capsules"]] == names
    for listed in index["capsules"]:
        assert listed["bytes"] == (place / "out" / listed["file"]).stat().st_size
        assert listed["tolerance"] == listed["stage"] * 2.0**-7
    first = {n: (place / "out" / n).read_bytes() for n in names}
    code, out, _ = run(capsys, *words, "--json")
    assert json.loads(out) == index
    assert first == {n: (place / "out" / n).read_bytes() for n in names}
