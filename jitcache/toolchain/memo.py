"""Facts about big files and slow processes, remembered so that a warm search starts none.

File digests are remembered by stat (jitcache.store.memo.StatMemo); what a compiler said is
remembered under a name that contains what it was asked and of which binary. The memo only
saves time: unreadable, damaged or unwritable is the same as empty.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from jitcache import digest
from jitcache.store import durable
from jitcache.store.layout import Bucket, Layout
from jitcache.store.memo import StatMemo
from jitcache.store.sealed import SealError, seal, unseal


class Memo:
    """Remembered digests and facts of one store.

    Args:
        cache_dir: root of the store.
        stat_memo: file digests that the caller has already loaded, to share.
    """

    def __init__(self, cache_dir: Path, stat_memo: StatMemo | None = None) -> None:
        layout = Layout(cache_dir)
        self._bucket = layout.bucket(Bucket.MEMO)
        self._stat = stat_memo or StatMemo(layout)

    def file_digest(self, path: str | Path) -> str:
        """Digest of a file's content, read only if its stat changed.

        Raises:
            OSError: the file can't be read.
        """
        return self._stat.digest(os.path.realpath(path))

    def recall(self, kind: str, about: Any) -> Any:
        """What is remembered of a kind (`clang`, `flags`...) about a subject, or None."""
        try:
            value = json.loads(unseal(self._file(kind, about).read_bytes()))
            return value["fact"] if value["about"] == about else None
        except (OSError, SealError, ValueError, TypeError, KeyError):
            return None

    def remember(self, kind: str, about: Any, fact: Any) -> None:
        """Remember a fact: JSON without floats."""
        file = self._file(kind, about)
        with contextlib.suppress(OSError):
            durable.make_dir(file.parent)
            data = seal(digest.canonical_json({"about": about, "fact": fact}))
            temp = durable.write_temp(file.parent, data, 0o644, durable=False)
            durable.publish_over(temp, file, durable=False)

    def save(self) -> None:
        """Keep the file digests that were learnt."""
        self._stat.save()

    def _file(self, kind: str, about: Any) -> Path:
        return self._bucket / f"{kind}-{digest.of_json(about)[7:39]}.json"
