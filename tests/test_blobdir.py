"""Directories of generated sources: replaced whole, never somebody else's."""

from __future__ import annotations

from pathlib import Path

import pytest

from jitcache.aiter import blobdir
from jitcache.aiter.blobdir import publish
from jitcache.errors import InputError, JitcacheError

OURS = ("instances/*.cu", "table.h")


def files_in(directory: Path) -> dict[str, str]:
    return {
        p.relative_to(directory).as_posix(): p.read_text()
        for p in directory.rglob("*")
        if p.is_file()
    }


def test_nothing_of_an_earlier_run_stays(tmp_path: Path) -> None:
    blob = tmp_path / "deep" / "blob"
    publish({"instances/a.cu": "a", "instances/b.cu": "b", "table.h": "1"}, blob, ours=OURS)
    inode = blob.stat().st_ino
    publish({"instances/b.cu": "new", "table.h": "2"}, blob, ours=OURS)
    assert files_in(blob) == {"instances/b.cu": "new", "table.h": "2"}
    assert blob.stat().st_ino == inode
    assert [p.name for p in blob.parent.iterdir()] == ["blob"]


def test_an_empty_directory_and_the_working_directory_are_fine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    publish({"table.h": "1"}, Path("./"), ours=OURS)
    publish({"table.h": "2"}, Path(), ours=OURS)
    assert files_in(Path.cwd()) == {"table.h": "2"}


@pytest.mark.parametrize(
    "foreign", ["notes.txt", "instances/a.txt", "instances/deep/a.cu", "other/a.cu", ".git/config"]
)
def test_a_directory_with_anything_else_is_left_alone(tmp_path: Path, foreign: str) -> None:
    target = tmp_path / foreign
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("precious")
    (tmp_path / "table.h").write_text("old")
    with pytest.raises(InputError, match="generated sources only") as caught:
        publish({"table.h": "1"}, tmp_path, ours=OURS)
    assert foreign.split("/")[0] in str(caught.value)
    assert files_in(tmp_path) == {foreign: "precious", "table.h": "old"}


def test_a_linked_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.cu").write_text("precious")
    blob = tmp_path / "blob"
    blob.mkdir()
    (blob / "instances").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="holds instances"):
        publish({"instances/b.cu": "b"}, blob, ours=OURS)
    assert (tmp_path / "elsewhere" / "a.cu").read_text() == "precious"


def test_a_file_is_not_a_directory(tmp_path: Path) -> None:
    (tmp_path / "blob").write_text("x")
    with pytest.raises(InputError, match="not a directory"):
        publish({"table.h": "1"}, tmp_path / "blob", ours=OURS)


def test_a_path_that_cannot_be_made_is_an_error_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(JitcacheError, match="can't write the directory") as caught:
        publish({"table.h": "1"}, tmp_path / "file" / "blob", ours=OURS)
    assert caught.value.hint is not None


def test_headers_go_first_and_come_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed at any step, a blob either is whole or has no header to compile with."""
    old = {"instances/a.cu": "old", "table.h": "old"}
    new = {"instances/a.cu": "new", "table.h": "new"}
    real = Path.rename
    for step in range(6):
        blob = tmp_path / str(step) / "blob"
        publish(old, blob, ours=OURS)
        left = step

        def rename(self: Path, target: Path) -> Path:
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            return real(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", rename)
            try:
                publish(new, blob, ours=OURS)
            except KeyboardInterrupt:
                pass
        found = files_in(blob)
        assert found in (old, new) or "table.h" not in found, (step, found)
        assert [p.name for p in blob.parent.iterdir()] == ["blob"]
    assert found == new
    assert blobdir.publish is publish
