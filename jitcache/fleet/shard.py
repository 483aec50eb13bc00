"""Which share of the work is ours: said by hand, or by the scheduler that started us."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from jitcache.errors import UsageError

COUNT_VARIABLE = "JITCACHE_SHARDS"
"""Number of shards, where the scheduler only says which one we are (Kubernetes)."""

_SHARD = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")


@dataclass(frozen=True, slots=True)
class Shard:
    """One of several shares.

    Attributes:
        index: which, from 0.
        count: of how many.
        source: who said so.
    """

    index: int
    count: int
    source: str

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def parse_shard(text: str) -> Shard:
    """Read `I/N`, where I counts from 0.

    Raises:
        UsageError: it isn't that, or I is not below N.
    """
    found = _SHARD.fullmatch(text)
    if found is None:
        raise UsageError(
            f"{text!r} is no share", hint="--shard I/N, with I from 0 to N-1, for instance 0/4"
        )
    return _checked(int(found[1]), int(found[2]), "--shard")


def shard_of(environ: Mapping[str, str]) -> Shard | None:
    """The share that a scheduler's variables name; None where there are none.

    Slurm numbers the tasks of an array as its user says, so the smallest number is
    subtracted; an array with gaps (`--array=0-9:2`, or the failed ones again) has to be told
    its share by hand.

    Raises:
        UsageError: the variables contradict one another, or the count is missing.
    """
    if "SLURM_ARRAY_TASK_ID" in environ:
        return _of_slurm(environ)
    if "JOB_COMPLETION_INDEX" in environ:
        index = _number(environ, "JOB_COMPLETION_INDEX")
        if COUNT_VARIABLE not in environ:
            raise UsageError(
                f"JOB_COMPLETION_INDEX is set, but {COUNT_VARIABLE} is not",
                hint="an Indexed Job doesn't tell its pods how many they are: `jitcache submit"
                " --engine k8s` sets it",
            )
        return _checked(index, _number(environ, COUNT_VARIABLE), "JOB_COMPLETION_INDEX")
    if "RANK" in environ and "WORLD_SIZE" in environ:
        return _checked(_number(environ, "RANK"), _number(environ, "WORLD_SIZE"), "RANK")
    return None


def _of_slurm(environ: Mapping[str, str]) -> Shard:
    index = _number(environ, "SLURM_ARRAY_TASK_ID")
    if COUNT_VARIABLE in environ:
        # An array of which only some tasks are started again still has its whole width.
        return _checked(index, _number(environ, COUNT_VARIABLE), "SLURM_ARRAY_TASK_ID")
    low = _number(environ, "SLURM_ARRAY_TASK_MIN")
    count = _number(environ, "SLURM_ARRAY_TASK_COUNT")
    high = _number(environ, "SLURM_ARRAY_TASK_MAX")
    if high - low + 1 != count:
        raise UsageError(
            f"the Slurm array has gaps: {count} tasks from {low} to {high}",
            hint=f"set {COUNT_VARIABLE} to the number of shares, or give --shard",
        )
    return _checked(index - low, count, "SLURM_ARRAY_TASK_ID")


def _number(environ: Mapping[str, str], name: str) -> int:
    text = environ.get(name, "")
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise UsageError(f"{name} is {text!r}, which is no number", hint="give --shard I/N")
    return int(text)


def _checked(index: int, count: int, source: str) -> Shard:
    if not 0 <= index < count:
        raise UsageError(
            f"there is no share {index} of {count}",
            where=source,
            hint="shares count from 0: the last of N is N-1",
        )
    return Shard(index, count, source)
