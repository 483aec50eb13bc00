"""A worker as a process of this machine, and what it told."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jitcache.fleet.engine.job import AGAIN


@dataclass(frozen=True, slots=True)
class Ended:
    """A worker that came to its end.

    Attributes:
        code: exit code, negative for a signal.
        told: its JSON; None where it was killed before it told anything.
    """

    code: int
    told: dict[str, Any] | None

    @property
    def again(self) -> bool:
        """Whether starting it again helps."""
        return self.code < 0 or self.code in AGAIN


def start(words: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a worker; what it says to people goes where ours goes."""
    return subprocess.Popen(words, stdout=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> Ended:
    """Wait for a worker."""
    said, _ = process.communicate()
    try:
        told = json.loads(said)
    except ValueError:
        told = None
    return Ended(process.returncode, told if isinstance(told, dict) else None)
