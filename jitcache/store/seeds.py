"""Read-only stores that came from elsewhere: baked into an image, mounted, shared.

A seed is never written and never locked, whoever owns it. It was made by somebody else, so
every byte of a hit is compared, and what is damaged in it is told and passed over.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from jitcache.store.actions import Actions
from jitcache.store.blobs import Blobs
from jitcache.store.layout import Layout
from jitcache.store.model import DamagedRecord, Lookup, Miss, Notice


class Seed:
    """One read-only store.

    Args:
        root: its directory, which need not exist.
        notices: what is damaged in it is told here.
    """

    def __init__(self, root: Path, notices: list[Notice]) -> None:
        self.layout = Layout(root)
        self._notices = notices
        self._actions = Actions(self.layout, notices)
        self._blobs = Blobs(self.layout, notices)
        self._distrust: str | None = None
        self._trust_known = False

    def lookup(self, key: str) -> Lookup:
        """Find the result of an action in this seed."""
        if (why := self._untrusted()) is not None:
            return Miss(key, "untrusted", why)
        record = self._actions.get(key)
        if record is None:
            return Miss(key, "absent")
        if isinstance(record, DamagedRecord):
            reason = "record-damaged" if record.readable else "unreadable"
            return self._miss(key, reason, f"{record.path}: {record.detail}")
        if (bad := self._blobs.first_bad(record, read_all=True)) is not None:
            return self._miss(key, bad.reason, bad.detail)
        return self._blobs.hit(record, f"seed {self.layout.root}")

    def read(self, blob_digest: str) -> bytes | None:
        """The verified bytes of a blob; None where this seed can't give them."""
        if self._untrusted() is None and self._blobs.problem(blob_digest) is None:
            with contextlib.suppress(OSError):
                return self._blobs.path(blob_digest).read_bytes()
        return None

    def _miss(self, key: str, reason: str, detail: str) -> Miss:
        self._notices.append(Notice("seed-damaged", str(self.layout.root), detail))
        return Miss(key, reason, f"seed {self.layout.root}: {detail}")

    def _untrusted(self) -> str | None:
        if not self._trust_known:
            from jitcache.store.health import untrusted

            if (problem := untrusted(self.layout)) is not None:
                self._distrust = f"{problem.where}: {problem.detail}"
            self._trust_known = True
        return self._distrust
