"""A directory of generated sources: written whole, so that nothing of an earlier run stays in it.

AITER compiles every source file that it finds in its blob directory and never empties one.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from jitcache.errors import InputError, JitcacheError


def publish(files: Mapping[str, str], directory: Path, *, ours: Sequence[str]) -> None:
    """Make a directory hold these files and no others.

    The files are first written to a directory beside it. An existing directory is emptied
    only if all that it holds is ours; it stays the same directory (it may be somebody's
    working directory, or have permissions of its own). While it is being changed, the files
    at its top are gone, so that a build that reads it half-changed, or after a kill, lacks its
    headers and fails instead of using parts of both.

    Args:
        files: text by path relative to the directory, at most one folder deep.
        directory: where; made if missing, as are its parents.
        ours: patterns of the paths that such a directory may hold.

    Raises:
        InputError: the directory holds something else.
        JitcacheError: it can't be written.
    """
    directory = directory.resolve()
    try:
        _check(directory, ours)
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=f".{directory.name}.", dir=directory.parent
        ) as staging:
            fresh = Path(staging) / "fresh"
            for path, text in files.items():
                target = fresh / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text, encoding="utf-8", newline="\n")
            _swap(fresh, directory, Path(staging) / "stale")
    except OSError as e:
        raise JitcacheError(
            f"can't write the directory: {e.strerror}",
            where=str(e.filename or directory),
            hint="it and its parent must be writable and on one file system",
        ) from e


def _check(directory: Path, ours: Sequence[str]) -> None:
    """Refuse to empty a directory that holds anything but generated files."""
    if not directory.exists():
        return
    if not directory.is_dir():
        raise InputError("not a directory", where=str(directory))
    folders = {pattern.rpartition("/")[0] for pattern in ours}
    for entry in sorted(directory.iterdir()):
        inside = entry.name in folders and entry.is_dir() and not entry.is_symlink()
        for file in sorted(entry.iterdir()) if inside else [entry]:
            path = file.relative_to(directory).as_posix()
            if not (file.is_file() and any(_matches(path, pattern) for pattern in ours)):
                raise InputError(
                    f"this isn't a directory of generated sources only: it holds {path}",
                    where=str(directory),
                    hint="everything in it would be replaced; name an empty or a new one",
                )


def _matches(path: str, pattern: str) -> bool:
    """Whether a pattern fits a path, folder by folder (fnmatch alone lets * cross them)."""
    return path.count("/") == pattern.count("/") and fnmatchcase(path, pattern)


def _swap(fresh: Path, directory: Path, stale: Path) -> None:
    """Move new content in place of the old: files at the top out first and in last."""
    if not directory.exists():
        fresh.rename(directory)
        return
    stale.mkdir()
    old = sorted(directory.iterdir(), key=lambda e: e.is_dir())
    new = sorted(fresh.iterdir(), key=lambda e: e.is_file())
    for entry in old:
        entry.rename(stale / entry.name)
    for entry in new:
        entry.rename(directory / entry.name)
    shutil.rmtree(stale)
