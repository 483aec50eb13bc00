"""The prebuild command as people and machines use it, with a fake compiler."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from jitcache.cli.main import main
from jitcache.errors import ExitCode
from jitcache.lockfile import load_lock
from jitcache.store.store import Store
from tests.fake_toolchain import compiles, make_toolchain

NAME = "kimi-k2.5-mxfp4-tp2"


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("JITCACHE_DIR", str(tmp_path / "store"))
    monkeypatch.delenv("JITCACHE_SALT", raising=False)
    use(monkeypatch, tmp_path)
    return tmp_path


def use(monkeypatch, place: Path, **how) -> None:
    def find(arch, **_):
        return make_toolchain(place, arch=arch, **how)

    monkeypatch.setattr("jitcache.cli.prebuild.find_toolchain", find)
    # The fake CK's headers hold nothing to read features from.
    monkeypatch.setattr("jitcache.cli.prebuild.require", lambda *_: None)


def run(capsys, *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(["prebuild", *words])
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


def test_json_has_what_others_rely_on(place, capsys):
    code, out, err = run(capsys, NAME, "--block-m", "128", "--json", "--quiet")
    result = json.loads(out)
    assert code == 0
    assert (result["actions"], result["built"], result["hits"], result["failed"]) == (3, 3, 0, [])
    assert result["wall_s"] > 0
    assert result["cpu_s"] > 0
    lock = load_lock(Path(result["lock"]))
    assert (lock.manifest, lock.arch, lock.cu_num) == (NAME, "gfx950", 256)
    assert err == ""


def test_people_see_each_unit_on_stderr_and_the_result_on_stdout(place, capsys):
    code, out, err = run(capsys, NAME, "--block-m", "128")
    assert code == 0
    assert "[3/3]" in err
    assert "gemm1 256x128x128x128 v3 hot-even gfx950" in err
    assert "\x1b" not in err + out
    assert "3 actions, 3 built, 0 found" in out
    assert "lock: " in out


def test_it_says_why_kernels_are_compiled_without_the_shortcuts(place, capsys, monkeypatch):
    words = (NAME, "--block-m", "128")
    reason = "not proved with AMD clang version 20.0.0git"
    _, out, _ = run(capsys, *words, "--json", "--quiet")
    assert json.loads(out)["no_shortcuts"] == ""
    use(monkeypatch, place, no_shortcuts=reason)
    _, out, _ = run(capsys, *words)
    assert "shortcuts" not in out  # nothing was compiled
    monkeypatch.setenv("JITCACHE_SALT", "again")
    _, out, _ = run(capsys, *words)
    assert f"compiled without the shortcuts through CK: {reason}\n" in out
    _, out, _ = run(capsys, *words, "--json", "--quiet")
    assert json.loads(out)["no_shortcuts"] == reason


def test_a_second_run_starts_nothing(place, capsys):
    run(capsys, NAME, "--quiet")
    before = len(compiles(place))
    code, out, _ = run(capsys, NAME, "--json")
    assert code == 0
    assert json.loads(out)["hits"] == before == len(compiles(place))


def test_manifests_share_what_they_have_in_common(place, capsys):
    code, out, _ = run(capsys, NAME, f"{NAME}-bm128", "--json", "--quiet")
    assert code == 0
    result = json.loads(out)
    assert len(result["locks"]) == 2
    kernels = [n for n in compiles(place) if n.startswith("gemm")]
    assert len(kernels) == len(set(kernels))


def test_the_lock_goes_where_it_is_asked_to(place, capsys):
    path = place / "out" / "kimi.lock.json"
    path.parent.mkdir()
    code, out, _ = run(capsys, NAME, "--block-m", "128", "--lock", str(path), "--json", "--quiet")
    assert (code, json.loads(out)["lock"]) == (0, str(path))
    assert load_lock(path).manifest == NAME


def test_a_salt_disowns_earlier_results(place, capsys, monkeypatch):
    run(capsys, NAME, "--block-m", "128", "--quiet")
    monkeypatch.setenv("JITCACHE_SALT", "2026-11")
    code, out, _ = run(capsys, NAME, "--block-m", "128", "--json", "--quiet")
    assert (code, json.loads(out)["built"]) == (0, 3)


def test_a_failed_unit_is_exit_1_and_json_stays_whole(place, capsys, monkeypatch):
    use(monkeypatch, place, fail="gemm1_256x64x128x128")
    code, out, err = run(capsys, NAME, "-k", "--json", "--quiet")
    assert code == ExitCode.FAILED
    failed = json.loads(out)["failed"]
    assert json.loads(out)["lock"] is None
    assert any("no matching function" in f["error"] for f in failed)
    assert "gemm1 256x64x128x128" in err
    assert "reproduce: cd " in err
    assert "Traceback" not in err
    assert not (place / "store" / "locks-v1").exists()


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["no-such-manifest"], ExitCode.INPUT, "no such manifest"),
        ([NAME, "--arch", "gfx942"], ExitCode.USAGE, "gfx942"),
        ([NAME, "--jobs", "0"], ExitCode.USAGE, "--jobs"),
        ([NAME, f"{NAME}-bm128", "--lock", "x"], ExitCode.USAGE, "--lock names one file"),
        ([], ExitCode.USAGE, "MANIFEST"),
    ],
)
def test_bad_command_lines(place, capsys, words, code, says):
    got, out, err = run(capsys, *words)
    assert got == code
    assert says in err
    assert out == ""
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("not = [toml", ExitCode.INPUT, "not TOML"),
        ("name = 'x'\nmodel_dims = 7168\n", ExitCode.INPUT, "model_dims"),
        ("\x00\xff", ExitCode.INPUT, "can't be read"),
        (
            (
                "model_dim = 7168\ninter_dim = 384\nexperts = 8\ntop_k = 2\nquant = 'per_1x32'\n"
                "targets = [{ arch = 'gfx950' }]\n"
            ),
            ExitCode.UNSUPPORTED,
            "384",
        ),
        (
            (
                "model_dim = 7168\ninter_dim = 1024\nexperts = 8\ntop_k = 2\nquant = 'per_1x32'\n"
                "targets = [{ arch = 'gfx942' }]\n"
            ),
            ExitCode.UNSUPPORTED,
            "gfx942",
        ),
    ],
)
def test_bad_manifests(place, capsys, text, code, says):
    path = place / "m.toml"
    path.write_bytes(text.encode("latin-1"))
    got, _, err = run(capsys, str(path))
    assert got == code
    assert says in err
    assert "Traceback" not in err
    assert compiles(place) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a read-only file system")
def test_a_read_only_store_serves_what_it_has_and_says_what_it_lacks(place, capsys, monkeypatch):
    root = place / "store"
    root.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(root)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this machine does not let root mount a tmpfs")
    try:
        lock = place / "kimi.lock.json"
        run(capsys, NAME, "--block-m", "128", "--quiet")
        subprocess.run(["mount", "-o", "remount,ro", str(root)], check=True)
        words = (NAME, "--block-m", "128", "--json", "--quiet", "--lock", str(lock))
        code, out, err = run(capsys, *words)
        assert code == 0, err
        assert json.loads(out)["hits"] == 3
        monkeypatch.setenv("JITCACHE_SALT", "other")
        code, _, err = run(capsys, *words)
        assert code == ExitCode.STORE
        assert "JITCACHE_DIR" in err
    finally:
        subprocess.run(["umount", "-l", str(root)], check=True)


def test_counters_tell_hits_from_misses(place, capsys):
    run(capsys, NAME, "--block-m", "128", "--quiet")
    run(capsys, NAME, "--block-m", "128", "--quiet")
    with pytest.raises(SystemExit):
        main(["stats", "--json"])
    stats = json.loads(capsys.readouterr().out)
    assert "3" in json.dumps(stats)
    assert Store(place / "store").verify().damage == ()
