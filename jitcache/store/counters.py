"""What became of lookups: counted in memory, kept as one line per process.

A line is appended in one write, so processes don't mix theirs; a line that was torn by a full
disk or a kill is skipped when the counters are summed.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jitcache.store import durable
from jitcache.store.layout import Bucket, Layout
from jitcache.store.model import Hit, Lookup

COST_FACT = "cpu_ms"
"""Fact of a record that says what a hit on it saves: CPU milliseconds of its compile."""


class Counts:
    """Sums.

    Attributes:
        hits: hits by layer (`local`, `seed <root>`).
        misses: misses by reason.
        hit_bytes: size of the outputs of the hits.
        saved_ms: CPU milliseconds of compiling that the hits saved.
    """

    def __init__(self) -> None:
        self.hits: dict[str, int] = {}
        self.misses: dict[str, int] = {}
        self.hit_bytes = 0
        self.saved_ms = 0

    def add(self, found: Lookup) -> None:
        """Add the outcome of a lookup."""
        if isinstance(found, Hit):
            cost = found.record.facts.get(COST_FACT)
            _add(self.hits, found.layer, 1)
            self.hit_bytes += sum(o.size for o in found.record.outputs)
            self.saved_ms += cost if type(cost) is int else 0
        else:
            _add(self.misses, found.reason, 1)

    def add_json(self, line: Any) -> None:
        """Add what `to_json` gave.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: it isn't that; nothing was added.
        """
        hits = {str(k): int(v) for k, v in line["hits"].items()}
        misses = {str(k): int(v) for k, v in line["misses"].items()}
        size, saved = int(line["hit_bytes"]), int(line["saved_ms"])
        for into, counts in ((self.hits, hits), (self.misses, misses)):
            for name, number in counts.items():
                _add(into, name, number)
        self.hit_bytes += size
        self.saved_ms += saved

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "hits": dict(sorted(self.hits.items())),
            "misses": dict(sorted(self.misses.items())),
            "hit_bytes": self.hit_bytes,
            "saved_ms": self.saved_ms,
        }


class Counters:
    """The lookups of one process.

    Of several lookups of one key the last counts: a builder looks again once it has the
    lock, and what another process has built meanwhile is a hit, while what is still missing
    has missed once, not twice.
    """

    def __init__(self) -> None:
        self._outcomes: dict[str, Lookup] = {}

    def count(self, key: str, found: Lookup) -> None:
        """Note the outcome of a lookup."""
        self._outcomes[key] = found

    def counts(self) -> Counts:
        """The sums of what was noted since the last `save`."""
        total = Counts()
        for found in self._outcomes.values():
            total.add(found)
        return total

    def save(self, layout: Layout) -> None:
        """Append this process's line and start anew; a line that can't be kept is lost."""
        if not self._outcomes:
            return
        line = {"time": int(time.time()), **self.counts().to_json()}
        self._outcomes = {}
        with contextlib.suppress(OSError):
            path = layout.bucket(Bucket.STATS) / time.strftime("%Y-%m.jsonl", time.gmtime())
            durable.make_dir(path.parent)
            fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                # A newline in front too: it ends what a killed process left unfinished.
                os.write(fd, b"\n" + json.dumps(line).encode() + b"\n")
            finally:
                os.close(fd)


def load(layout: Layout, *, since: float = 0.0) -> Counts:
    """The sums of what all processes counted.

    Args:
        layout: of the store.
        since: leave out what was counted earlier, in seconds since the epoch.
    """
    total = Counts()
    for line in _lines(layout.bucket(Bucket.STATS)):
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
            value = json.loads(line)
            if value["time"] >= since:
                total.add_json(value)
    return total


def _lines(bucket: Path) -> Iterator[bytes]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for path in sorted(bucket.glob("*.jsonl")):
            with contextlib.suppress(OSError), path.open("rb") as f:
                yield from f


def _add(counts: dict[str, int], name: str, number: int) -> None:
    counts[name] = counts.get(name, 0) + number
