"""A blob directory on disk: written whole, so that nothing of an earlier run stays in it.

AITER compiles every source file that it finds in its blob directory and never empties one.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from jitcache.errors import InputError, JitcacheError


def publish(files: Mapping[str, str], directory: Path, *, headers: tuple[str, ...]) -> None:
    """Make a directory hold these files and no others.

    The files are first written to a directory beside it. An existing directory is emptied
    only if it looks like one of these; it stays the same directory (it may be somebody's
    working directory, or have permissions of its own). While it is being changed its headers
    are gone, so that a build that reads it half-changed, or after a kill, fails instead of
    using parts of both.

    Args:
        files: text by path relative to the directory; sources one level down, headers at
            the top.
        directory: where; made if missing, as are its parents.
        headers: names of files at the top that such a directory may hold.

    Raises:
        InputError: the directory holds something else.
        JitcacheError: it can't be written.
    """
    directory = directory.resolve()
    folders = {Path(path).parts[0] for path in files if len(Path(path).parts) > 1}
    try:
        _check(directory, headers, folders)
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=f".{directory.name}.", dir=directory.parent
        ) as staging:
            fresh = Path(staging) / "fresh"
            for path, text in files.items():
                target = fresh / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text, encoding="utf-8", newline="\n")
            _swap(fresh, directory, Path(staging) / "stale", headers)
    except OSError as e:
        raise JitcacheError(
            f"can't write the blob directory: {e.strerror}",
            where=str(e.filename or directory),
            hint="it and its parent must be writable and on one file system",
        ) from e


def _check(directory: Path, headers: tuple[str, ...], folders: set[str]) -> None:
    """Refuse to empty a directory that holds anything but a blob's files."""
    if not directory.exists():
        return
    if not directory.is_dir():
        raise InputError("not a directory", where=str(directory))
    for entry in sorted(directory.iterdir()):
        if entry.is_symlink():
            foreign = True
        elif entry.is_dir():
            foreign = entry.name not in folders or any(
                e.suffix != ".cu" or not e.is_file() for e in entry.iterdir()
            )
        else:
            foreign = entry.name not in headers
        if foreign:
            raise InputError(
                f"this doesn't look like a blob directory: it holds {entry.name}",
                where=str(directory),
                hint="everything in a blob directory is replaced; name an empty or new one",
            )


def _swap(fresh: Path, directory: Path, stale: Path, headers: tuple[str, ...]) -> None:
    """Move new content in place of the old: headers out first and in last."""
    if not directory.exists():
        fresh.rename(directory)
        return
    stale.mkdir()
    for name in headers:
        (directory / name).unlink(missing_ok=True)
    folders = [e for e in directory.iterdir() if e.is_dir()]
    for folder in folders:
        folder.rename(stale / folder.name)
    new = sorted(fresh.iterdir(), key=lambda e: e.is_file())
    for entry in new:
        entry.replace(directory / entry.name)
    shutil.rmtree(stale)
