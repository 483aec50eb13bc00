"""What is the matter with the store's directory, for `doctor` and for those about to use it.

Whoever can write the store can make us run their code: a record and a blob that fit together
are all it takes. A world-writable store is therefore not believed, unless the user says that
nobody else is on this machine (`JITCACHE_TRUST_STORE=1`: a volume of a single container).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from jitcache.store.layout import Bucket, Layout
from jitcache.store.reports import NotWritable, Problem, Writable

TRUST_VARIABLE = "JITCACHE_TRUST_STORE"


def untrusted(layout: Layout) -> Problem | None:
    """Why nothing in the store may be believed; None where it may."""
    if os.environ.get(TRUST_VARIABLE) == "1":
        return None
    for path in (layout.root, *map(layout.bucket, (Bucket.AC, Bucket.CAS, Bucket.MEMO))):
        try:
            mode = path.stat().st_mode
        except OSError:
            continue  # what can't be seen can't be read either
        if mode & stat.S_IWOTH and not os.statvfs(path).f_flag & os.ST_RDONLY:
            return Problem(
                "world-writable",
                True,
                str(path),
                f"every user can write here (mode {stat.S_IMODE(mode):04o}),"
                " and so make jitcache run their code",
                f"chmod o-w {path}, use a subdirectory of it as JITCACHE_DIR, or set"
                f" {TRUST_VARIABLE}=1 where no other user exists (a container's own volume)",
            )
    return None


def writable(layout: Layout) -> Writable | NotWritable:
    """Whether permissions and mount let us write; nothing is written to find out."""
    if (problem := untrusted(layout)) is not None:
        return NotWritable(f"{problem.where}: {problem.detail}")
    path = layout.root
    while not os.path.lexists(path):
        path = path.parent
    if not path.is_dir():
        return NotWritable(f"{path} is not a directory")
    places = [path]
    if path == layout.root:
        buckets = map(layout.bucket, (Bucket.AC, Bucket.CAS, Bucket.TMP))
        places = [b for b in buckets if b.exists()] or [path]
    for place in places:
        if os.statvfs(place).f_flag & os.ST_RDONLY:
            return NotWritable(f"{place} is on a read-only file system")
        if not os.access(place, os.W_OK | os.X_OK, effective_ids=True):
            return NotWritable(f"no permission to write in {place}")
    return Writable()


def problems(layout: Layout) -> Iterator[Problem]:
    """Everything worth saying about the store's directory, the fatal things first."""
    root = layout.root
    if os.path.lexists(root):
        yield from _directory_problems(layout)
    state = writable(layout)
    if isinstance(state, NotWritable) and untrusted(layout) is None:
        yield Problem(
            "read-only",
            False,
            str(root),
            f"{state.detail}: what is there can be used, but nothing can be added",
            "point JITCACHE_DIR at a writable directory to keep what is built",
        )
    for parent in root.absolute().parents:
        try:
            mode = parent.stat().st_mode
        except OSError:
            continue
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            yield Problem(
                "exposed-parent",
                False,
                str(parent),
                "every user can rename what is below it, the store included",
                f"chmod o-w {parent}, or set its sticky bit (chmod +t)",
            )


def seed_problems(layout: Layout) -> Iterator[Problem]:
    """Why nothing can be looked up in a seed; its owner and access rights don't matter."""
    root = layout.root
    if not os.access(layout.bucket(Bucket.AC), os.R_OK | os.X_OK, effective_ids=True):
        yield Problem(
            "seed-unusable",
            False,
            str(root),
            "is not a store that can be read, so it gives no hits",
            "mount it, or take it out of JITCACHE_SEEDS",
        )
    elif (problem := untrusted(layout)) is not None:
        yield problem


def _directory_problems(layout: Layout) -> Iterator[Problem]:
    root = layout.root
    elsewhere = "point JITCACHE_DIR at a directory of yours"
    try:
        st = root.stat()
    except OSError as e:
        yield Problem("unreadable", True, str(root), f"can't be examined ({e.strerror})", elsewhere)
        return
    if not stat.S_ISDIR(st.st_mode):
        yield Problem("not-a-directory", True, str(root), "is not a directory", elsewhere)
        return
    if not os.access(root, os.R_OK | os.X_OK, effective_ids=True):
        yield Problem("unreadable", True, str(root), "no permission to read it", elsewhere)
        return
    if (problem := untrusted(layout)) is not None:
        yield problem
    if st.st_uid not in (os.geteuid(), 0):
        yield Problem(
            "foreign-owner",
            False,
            str(root),
            f"belongs to user {st.st_uid}, who can make jitcache run their code;"
            f" you are user {os.geteuid()}",
            f"{elsewhere}, unless you trust that user",
        )
    if os.statvfs(root).f_flag & os.ST_NOEXEC:
        yield Problem(
            "noexec",
            False,
            str(root),
            "is mounted noexec: host shims can't be loaded from here",
            "kernels still load; shims are copied elsewhere when they are needed, which"
            " a store on another mount avoids",
        )
    if (why := _no_flock(root)) is not None:
        yield Problem(
            "no-flock",
            False,
            str(root),
            f"the file system has no flock ({why}): simultaneous builds may do the same work",
            "nothing is lost or wrong; mount with flock (Lustre: -o flock), or use a local disk",
        )


def _no_flock(root: Path) -> str | None:
    import fcntl

    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as e:
        if e.errno in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK):
            return e.strerror or str(e)
    finally:
        os.close(fd)
    return None
