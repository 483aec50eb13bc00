"""What became of actions that were to be built."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jitcache.store.model import ActionRecord


@dataclass(frozen=True, slots=True)
class Failure:
    """An action that could not be built.

    Attributes:
        label: the instance and variant.
        error: the compiler's first error, or why it was not published.
        log: all diagnostics, where there are any.
        command: reproduces it, where a compiler ran.
    """

    label: str
    error: str
    log: str | None = None
    command: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "label": self.label,
            "error": self.error,
            "log": self.log,
            "command": self.command,
        }


@dataclass(slots=True)
class Built:
    """What became of the actions of one target.

    Attributes:
        records: the record of every action that is there now, by key.
        hits: actions that were there already, or that another process built.
        fetched: actions that a remote had.
        built: actions compiled and published by us.
        failed: actions that could not be built.
        not_run: labels of actions that were not tried, because an earlier one failed.
        cpu_s: CPU seconds of our compilers.
        wall_s: seconds in all.
        run_directory: of our last ninja run, where there was one.
    """

    records: dict[str, ActionRecord] = field(default_factory=dict)
    hits: int = 0
    fetched: int = 0
    built: int = 0
    failed: list[Failure] = field(default_factory=list)
    not_run: list[str] = field(default_factory=list)
    cpu_s: float = 0.0
    wall_s: float = 0.0
    run_directory: Path | None = None
