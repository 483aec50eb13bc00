"""Run directories: private while their process lives, cleaned afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jitcache.build.rundir import clean_runs, new_run_directory, release_run_directory
from jitcache.errors import ExitCode, StoreError


def finished(root: Path) -> Path:
    directory = new_run_directory(root)
    (directory / "events.jsonl").write_text('{"event":"run-end","at":1.0}\n')
    release_run_directory(directory)
    return directory


def test_directories_are_new_and_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = [new_run_directory(Path("a/runs-v1")) for _ in range(3)]
    assert len(set(made)) == 3
    assert all(d.is_dir() and d.is_absolute() and d.parent == tmp_path / "a/runs-v1" for d in made)
    assert sorted((tmp_path / "a/runs-v1").iterdir()) == sorted(made)
    for d in made:
        release_run_directory(d)


def test_the_newest_finished_stay(tmp_path: Path) -> None:
    made = [finished(tmp_path) for _ in range(5)]
    assert set(clean_runs(tmp_path, keep=2)) == set(made[:3])
    assert sorted(tmp_path.iterdir()) == made[3:]
    assert clean_runs(tmp_path, keep=2) == []
    assert len(clean_runs(tmp_path, keep=0)) == 2


def test_a_held_directory_is_never_touched(tmp_path: Path) -> None:
    held = new_run_directory(tmp_path)
    (held / "events.jsonl").write_text('{"event":"run-end","at":1.0}\n')
    assert clean_runs(tmp_path, keep=0) == []
    assert held.is_dir()
    release_run_directory(held)
    assert clean_runs(tmp_path, keep=0) == [held]
    assert not held.exists()


def test_what_a_killed_process_left_goes_whatever_is_to_be_kept(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from jitcache.build.rundir import new_run_directory\n"
        "print(new_run_directory(Path(sys.argv[1])), flush=True)\n"
        "sys.stdin.read() or os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        made = Path(child.stdout.readline().strip())
        (made / "events.jsonl").write_text('{"event":"start","id":"aa","at":1.0}\n')
        assert clean_runs(tmp_path, keep=8) == []
        child.kill()
        child.wait()
    assert clean_runs(tmp_path, keep=8) == [made]


def test_strangers_are_left_alone_and_old_leftovers_are_not(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "note.txt").write_text("")
    young, old = tmp_path / ".new-1", tmp_path / ".old-2"
    young.mkdir()
    old.mkdir()
    os.utime(old, (1, 1))
    assert clean_runs(tmp_path, keep=0) == [old]
    assert sorted(p.name for p in tmp_path.iterdir()) == [".new-1", "mine", "note.txt"]
    assert clean_runs(tmp_path / "absent") == []


def test_a_root_that_cannot_be_written_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError) as caught:
        new_run_directory(tmp_path / "file" / "runs-v1")
    assert caught.value.exit_code is ExitCode.STORE
    assert "JITCACHE_DIR" in str(caught.value)
    assert str(tmp_path / "file") in str(caught.value)
