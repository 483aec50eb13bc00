"""Hints that save time: which action a translation unit had last time, and file digests.

Everything here can be deleted at any moment and is rebuilt; everything that is read here is
checked before it is believed, and garbage is the same as nothing. Writing never fails: a
hint that can't be kept is not worth an error.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

from jitcache import digest
from jitcache.store import durable
from jitcache.store.layout import Bucket, Layout
from jitcache.store.sealed import SealError, seal, unseal

RACY_NS = 2_000_000_000
"""A file changed more recently than this before it was hashed isn't remembered: it could
change again within the same timestamp (2 s is the coarsest that file systems have)."""

STAT_LIMIT = 20_000
"""Files that the stat memo remembers at most."""


class MemoHeader(NamedTuple):
    """One header that a compile read.

    Attributes:
        name: its stable name in keys, e.g. `ck/ck/ck.hpp`.
        path: where it was, absolute.
        digest: of its bytes.
    """

    name: str
    path: str
    digest: str


class MemoEntry(NamedTuple):
    """What a direct key stood for last time: valid if all headers still have their digests.

    Attributes:
        key: the action key.
        headers: every header, in the order in which they enter the key.
    """

    key: str
    headers: tuple[MemoHeader, ...]


class Memo:
    """Direct-mode memo: direct key → action key and headers.

    The direct key covers what is known without preprocessing (source text, flags, compiler).
    Kernels of one family read the same hundreds of headers, so header sets are stored once,
    by digest, and parsed once per process.
    """

    def __init__(self, layout: Layout) -> None:
        self._bucket = layout.bucket(Bucket.MEMO)
        self._sets: dict[str, tuple[MemoHeader, ...]] = {}

    def get(self, direct_key: str) -> MemoEntry | None:
        """What is remembered, or None; whether it still holds is for the caller to check."""
        entry = _load(self._file("direct", direct_key))
        try:
            key, set_digest = entry["key"], entry["headers"]
            if not digest.is_digest(key):
                return None
            headers = self._sets.get(set_digest)
            if headers is None:
                rows = _load(self._file("headers", set_digest))["rows"]
                headers = self._sets[set_digest] = tuple(map(_header, rows))
        except (TypeError, KeyError, ValueError):
            return None
        return MemoEntry(key, headers)

    def put(self, direct_key: str, entry: MemoEntry) -> None:
        """Remember what a direct key stands for; the latest wins."""
        rows = [list(h) for h in entry.headers]
        set_digest = digest.of_json(rows)
        file = self._file("headers", set_digest)
        if not file.exists():
            _save(file, {"rows": rows})
        self._sets[set_digest] = tuple(entry.headers)
        _save(self._file("direct", direct_key), {"key": entry.key, "headers": set_digest})

    def _file(self, kind: str, name: str) -> Path:
        if not digest.is_digest(name):
            raise ValueError(f"not a digest: {name!r}")
        return self._bucket / kind / name[7:9] / f"{name[9:]}.json"


class StatMemo:
    """Digests of files that haven't changed since they were last read.

    An entry holds only while size, mtime, inode and ctime are what they were; ctime can't be
    set back, so neither `touch -r` nor an edit of the same length goes unnoticed.

    Args:
        layout: of the store.
    """

    def __init__(self, layout: Layout) -> None:
        self._file = layout.bucket(Bucket.MEMO) / "stat.json"
        self._loaded: dict[str, Any] | None = None
        self._fresh: dict[str, Any] = {}

    def digest(self, path: str) -> str:
        """Digest of a file's bytes.

        Raises:
            OSError: it can't be read.
        """
        if self._loaded is None:
            self._loaded = _stat_entries(self._file)
        entry = self._loaded.get(path)
        if type(entry) is list and len(entry) == 5 and entry[:4] == _stamp(os.stat(path)):  # noqa: PTH116
            found: str = entry[4]
            return found
        found, self._loaded[path] = self._read(path)
        return found

    def save(self) -> None:
        """Keep what was learnt, together with what others have kept meanwhile."""
        if not self._fresh:
            return
        others = _stat_entries(self._file)
        room = max(0, STAT_LIMIT - len(self._fresh))
        _save(self._file, dict(list(others.items())[:room]) | self._fresh)
        self._fresh = {}

    def _read(self, path: str) -> tuple[str, Any]:
        begun = time.time_ns()
        hasher = hashlib.sha256()
        with open(path, "rb", buffering=0) as f:  # noqa: PTH123
            before = os.fstat(f.fileno())
            while chunk := f.read(1 << 20):
                hasher.update(chunk)
            after = os.fstat(f.fileno())
        found = "sha256:" + hasher.hexdigest()
        stamp = _stamp(before)
        settled = max(before.st_mtime_ns, before.st_ctime_ns) + RACY_NS < begun
        if not settled or stamp != _stamp(after):
            return found, None
        entry = self._fresh[path] = [*stamp, found]
        return found, entry


def _stamp(st: os.stat_result) -> list[int]:
    return [st.st_size, st.st_mtime_ns, st.st_ino, st.st_ctime_ns]


def _stat_entries(file: Path) -> dict[str, Any]:
    entries = _load(file)
    return entries if isinstance(entries, dict) else {}


def _header(row: list[str]) -> MemoHeader:
    name, path, header_digest = row
    return MemoHeader(name, path, header_digest)


def _load(file: Path) -> Any:
    try:
        return json.loads(unseal(file.read_bytes()))
    except (OSError, SealError, ValueError, RecursionError):
        return None


def _save(file: Path, value: Any) -> None:
    # Not durable: after a power cut it may be empty, which is the same as absent.
    with contextlib.suppress(OSError):
        durable.make_dir(file.parent)
        temp = durable.write_temp(
            file.parent, seal(digest.canonical_json(value)), 0o644, durable=False
        )
        durable.publish_over(temp, file, durable=False)
