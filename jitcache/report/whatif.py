"""What-if wishes of the command line: `gemm1_256x128=0`, `link=0.5x`, `pybind=3s`. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from jitcache.buildlog.network import Network
from jitcache.errors import UsageError

_AMOUNT = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(x|s)?")


@dataclass(frozen=True, slots=True)
class Wish:
    """Commands that should take another time.

    Attributes:
        pattern: part of an output or label; every command that holds it is meant.
        factor: what to multiply their durations by, or None.
        seconds: what they should take, or None.
    """

    pattern: str
    factor: float | None
    seconds: float | None

    def apply(self, duration_ms: int) -> int:
        """The wished duration of a command that takes `duration_ms`."""
        if self.factor is not None:
            return round(duration_ms * self.factor)
        return round((self.seconds or 0.0) * 1000)


def parse_wish(text: str) -> Wish:
    """Parse `PATTERN=0`, `PATTERN=0.5x` or `PATTERN=12s`.

    Raises:
        UsageError: it is none of these.
    """
    pattern, equals, amount = text.rpartition("=")
    m = _AMOUNT.fullmatch(amount.strip())
    # A bare number other than 0 could be meant as a factor or as seconds.
    if not equals or not pattern or m is None or (m[2] is None and float(m[1]) != 0):
        raise UsageError(
            f"--what-if {text!r} is not understood",
            hint="write NAME=0 (removed), NAME=0.5x (half the time) or NAME=12s",
        )
    if m[2] == "x":
        return Wish(pattern, float(m[1]), None)
    return Wish(pattern, None, float(m[1]))


def wished_durations(
    network: Network, wishes: tuple[Wish, ...], labels: Mapping[int, str]
) -> dict[int, int]:
    """New durations in milliseconds by index; of several wishes for a command the last counts.

    Raises:
        UsageError: a wish fits no command that ran.
    """
    durations: dict[int, int] = {}
    for wish in wishes:
        found = [
            i
            for i, label in labels.items()
            if wish.pattern in label or any(wish.pattern in o for o in network.commands[i].outputs)
        ]
        if not found:
            raise UsageError(
                f"--what-if {wish.pattern!r} fits no command of this run",
                hint="give a part of an output or of a name in the table",
            )
        for i in found:
            durations[i] = wish.apply(network.commands[i].duration_ms)
    return durations
