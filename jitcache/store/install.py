"""Getting a file out of the store: sharing its blocks where that is safe, copying where not.

A reflink shares blocks until somebody writes; a hard link shares the file itself, which is
fine for read-only files of the same mode; a copy always works.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from pathlib import Path
from typing import Literal

from jitcache.store import durable

How = Literal["reflink", "hard link", "copy"]

# From linux/fs.h; the fcntl module has it only since Python 3.12.
_FICLONE = 0x40049409


def install(source: Path, target: Path, *, mode: int = 0o444) -> How:
    """Give a file of the store a name outside of it, replacing what has that name.

    Args:
        source: a blob, looked up before (nothing is verified here).
        target: the name; its directory is made where needed.
        mode: permission bits of the target.

    Returns:
        How it was done.

    Raises:
        StoreError: it can't be done; what had the name stays.
    """
    with durable.explained("install from the store", target):
        durable.make_dir(target.parent)
        temp = target.parent / f".{os.getpid()}-{os.urandom(8).hex()}.tmp"
        try:
            how = _place(source, temp, mode)
            # rename() of one link over another of the same file does nothing.
            temp.rename(target)
        finally:
            durable.discard(temp)
    return how


def _place(source: Path, temp: Path, mode: int) -> How:
    if _reflink(source, temp):
        temp.chmod(mode)
        return "reflink"
    if os.stat(source).st_mode & 0o777 == mode and _hard_link(source, temp):  # noqa: PTH116
        return "hard link"
    shutil.copyfile(source, temp)
    temp.chmod(mode)
    return "copy"


def _reflink(source: Path, temp: Path) -> bool:
    with source.open("rb") as of, temp.open("xb") as to:
        try:
            fcntl.ioctl(to.fileno(), _FICLONE, of.fileno())
        except OSError as e:
            if e.errno in (errno.ENOSPC, errno.EIO, errno.EDQUOT):
                raise
            # Another file system, or one that can't share blocks.
            temp.unlink()
            return False
    return True


def _hard_link(source: Path, temp: Path) -> bool:
    try:
        os.link(source, temp)
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EIO, errno.EDQUOT):
            raise
        return False
    return True
