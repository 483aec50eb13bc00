"""How many compilers may run at once: cores, quota and memory, with the reason.

What the kernel says is read by `read_machine`; the rule is `choose_jobs`, which is pure.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

UNKNOWN_MEMORY = 1 << 30
"""Assumed for a TU that nobody has measured: a one-variant device TU takes 0.87 GB."""

_USABLE = 0.9
_NO_LIMIT_V1 = 1 << 60


@dataclass(frozen=True, slots=True)
class Machine:
    """What this process may use.

    Attributes:
        cpus: CPUs, from the affinity mask and the cgroup quota; may be a fraction.
        memory: bytes that can still be used without swapping or meeting a cgroup's limit.
    """

    cpus: float
    memory: int


@dataclass(frozen=True, slots=True)
class JobLimit:
    """A number of jobs and what set it.

    Attributes:
        jobs: at least 1.
        why: `asked for`, `3 jobs to do`, `16 CPUs`, `memory: 4 x 0.9 GiB in 3.8 GiB`.
    """

    jobs: int
    why: str


def choose_jobs(
    machine: Machine, memories: Sequence[int | None], requested: int | None = None
) -> JobLimit:
    """How many of these jobs to run at once.

    The N largest must fit into memory together, because longest-first order starts just
    those together. A number the user asks for is taken as it is.

    Args:
        machine: what there is.
        memories: expected peak memory of each job in bytes, None where unknown.
        requested: what the user asked for.
    """
    if requested is not None:
        return JobLimit(max(1, requested), "asked for")
    limit = JobLimit(max(1, math.ceil(machine.cpus)), f"{machine.cpus:g} CPUs")
    if len(memories) < limit.jobs:
        limit = JobLimit(max(1, len(memories)), f"{len(memories)} jobs to do")
    largest = sorted((m or UNKNOWN_MEMORY for m in memories), reverse=True)
    room = machine.memory * _USABLE
    for count in range(limit.jobs, 0, -1):
        if sum(largest[:count]) <= room or count == 1:
            break
    if count == limit.jobs:
        return limit
    average = sum(largest[: count + 1]) / (count + 1)
    return JobLimit(
        count, f"memory: {count + 1} x {average / 2**30:.1f} GiB, {room / 2**30:.1f} GiB free"
    )


def read_machine(root: Path = Path("/")) -> Machine:
    """What this process may use, by /proc and the cgroup files below `root`.

    Files that are missing or make no sense limit nothing.
    """
    cpus = float(len(os.sched_getaffinity(0)))
    memory = _mem_available(_text(root / "proc/meminfo"))
    for controller, directory in _cgroups(root):
        if controller in {"", "cpu"}:
            cpus = min(cpus, _quota(directory))
        if controller in {"", "memory"}:
            memory = min(memory, _cgroup_memory(directory))
    return Machine(cpus=cpus, memory=memory)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _number(text: str, default: int) -> int:
    try:
        return int(text)
    except ValueError:
        return default


def _mem_available(meminfo: str) -> int:
    for line in meminfo.splitlines():
        name, _, rest = line.partition(":")
        if name == "MemAvailable" and rest.split():
            return _number(rest.split()[0], _NO_LIMIT_V1 >> 10) << 10
    return _NO_LIMIT_V1


def _cgroups(root: Path) -> Iterator[tuple[str, Path]]:
    """Controller (`""` for version 2) and directory of every cgroup we are in, up to its mount."""
    mounts = list(_cgroup_mounts(_text(root / "proc/self/mountinfo")))
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for mounted, top, point in mounts:
            if mounted is None:
                names = {""} if controllers == "" else set()
            else:
                names = set(controllers.split(",")) & mounted & {"cpu", "memory"}
            below = _below(path, top)
            for name in names:
                base = root / point.lstrip("/")
                here = base / below
                # Seen through another mount namespace the path may not exist: then the
                # mount point itself is our group.
                if not here.is_dir():
                    here = base
                while True:
                    yield name, here
                    if here == base:
                        break
                    here = here.parent


def _cgroup_mounts(mountinfo: str) -> Iterator[tuple[set[str] | None, str, str]]:
    """Controllers (None for version 2), root inside the hierarchy and mount point."""
    for line in mountinfo.splitlines():
        before, separator, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if not separator or len(fields) < 5 or len(kind) < 3:
            continue
        if kind[0] == "cgroup2":
            yield None, fields[3], fields[4]
        elif kind[0] == "cgroup":
            yield set(kind[2].split(",")), fields[3], fields[4]


def _below(path: str, top: str) -> str:
    if top != "/" and (path == top or path.startswith(top + "/")):
        path = path[len(top) :]
    return path.strip("/")


def _quota(directory: Path) -> float:
    """CPUs that a cgroup grants: version 2's `cpu.max`, else version 1's pair of files."""
    words = _text(directory / "cpu.max").split()
    if not words:
        words = [
            _text(directory / "cpu.cfs_quota_us").strip(),
            _text(directory / "cpu.cfs_period_us").strip(),
        ]
    if len(words) != 2:
        return math.inf
    quota, period = _number(words[0], -1), _number(words[1], -1)
    return quota / period if quota > 0 and period > 0 else math.inf


def _cgroup_memory(directory: Path) -> int:
    """Bytes a cgroup still grants; file pages that can be dropped count as free."""
    for limit_file, usage_file, cache in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        limit = _number(_text(directory / limit_file), _NO_LIMIT_V1)
        if limit >= _NO_LIMIT_V1:
            continue
        used = _number(_text(directory / usage_file), 0)
        for line in _text(directory / "memory.stat").splitlines():
            name, _, value = line.partition(" ")
            if name == cache:
                used -= _number(value, 0)
        return max(0, limit - max(0, used))
    return _NO_LIMIT_V1
