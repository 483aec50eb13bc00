"""How many compilers may run at once."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jitcache.build.capacity import UNKNOWN_MEMORY, Machine, choose_jobs, read_machine

GIB = 1 << 30


def test_cores_set_the_number_where_memory_is_plenty() -> None:
    limit = choose_jobs(Machine(16, 512 * GIB), [GIB] * 100)
    assert (limit.jobs, limit.why) == (16, "16 CPUs")


def test_a_part_of_a_cpu_is_used() -> None:
    assert choose_jobs(Machine(0.5, 64 * GIB), [GIB] * 9).jobs == 1
    assert choose_jobs(Machine(2.5, 64 * GIB), [GIB] * 9).jobs == 3


def test_the_largest_jobs_must_fit_together() -> None:
    memories = [GIB // 2] * 20 + [2 * GIB, 3 * GIB]
    limit = choose_jobs(Machine(16, 6 * GIB), memories)
    # 90 % of 6 GiB is 5.4: 3 + 2 fit, 3 + 2 + 0.5 do not.
    assert limit.jobs == 2
    assert limit.why == "memory: 3 x 1.8 GiB, 5.4 GiB free"


def test_unknown_memory_is_assumed_not_ignored() -> None:
    assert choose_jobs(Machine(64, 10 * UNKNOWN_MEMORY), [None] * 64).jobs == 9


def test_one_job_runs_even_where_it_does_not_fit() -> None:
    assert choose_jobs(Machine(8, GIB), [4 * GIB] * 8).jobs == 1
    assert choose_jobs(Machine(8, 0), []).jobs == 1


def test_the_user_is_obeyed() -> None:
    limit = choose_jobs(Machine(2, GIB), [4 * GIB] * 8, requested=7)
    assert (limit.jobs, limit.why) == (7, "asked for")


@given(st.floats(0.1, 64), st.integers(0, 64 * GIB), st.lists(st.integers(1, 8 * GIB), max_size=30))
def test_never_more_than_fits(cpus: float, memory: int, memories: list[int]) -> None:
    jobs = choose_jobs(Machine(cpus, memory), memories).jobs
    assert 1 <= jobs <= max(1, len(memories))
    assert jobs <= cpus + 1
    if jobs > 1:
        assert sum(sorted(memories)[-jobs:]) <= memory


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)))


MEMINFO = "MemTotal: 65536000 kB\nMemAvailable: 33554432 kB\n"
V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n"


def test_no_cgroup_means_the_whole_machine(tmp_path: Path) -> None:
    root = write(tmp_path, {"proc/meminfo": MEMINFO})
    assert read_machine(root) == Machine(8.0, 32 * GIB)


def test_nothing_readable_limits_nothing(tmp_path: Path) -> None:
    machine = read_machine(tmp_path)
    assert machine.cpus == 8.0
    assert choose_jobs(machine, [GIB] * 8).jobs == 8


def test_version_2_takes_the_tightest_level(tmp_path: Path) -> None:
    base = "sys/fs/cgroup/"
    root = write(
        tmp_path,
        {
            "proc/meminfo": MEMINFO,
            "proc/self/mountinfo": V2,
            "proc/self/cgroup": "0::/pod/box\n",
            f"{base}pod/cpu.max": "150000 100000\n",
            f"{base}pod/memory.max": f"{4 * GIB}\n",
            f"{base}pod/memory.current": f"{3 * GIB}\n",
            f"{base}pod/memory.stat": f"anon {GIB}\ninactive_file {GIB}\n",
            f"{base}pod/box/cpu.max": "max 100000\n",
            f"{base}pod/box/memory.max": "max\n",
        },
    )
    # 4 GiB allowed, 3 in use, of which 1 can be dropped.
    assert read_machine(root) == Machine(1.5, 2 * GIB)


def test_version_2_inside_a_namespace(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "proc/meminfo": MEMINFO,
            "proc/self/mountinfo": V2,
            "proc/self/cgroup": "0::/../../elsewhere\n",
            "sys/fs/cgroup/cpu.max": "400000 100000\n",
            "sys/fs/cgroup/memory.max": f"{GIB}\n",
        },
    )
    assert read_machine(root) == Machine(4.0, GIB)


def test_version_1_as_docker_mounts_it(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "proc/meminfo": MEMINFO,
            "proc/self/mountinfo": (
                "41 32 0:33 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
                "42 32 0:34 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro - cgroup x rw,cpu,cpuacct\n"
            ),
            "proc/self/cgroup": (
                "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n1:name=systemd:/\n"
            ),
            "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{8 * GIB}\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{2 * GIB}\n",
            "sys/fs/cgroup/memory/memory.stat": "total_inactive_file 0\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "300000\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        },
    )
    assert read_machine(root) == Machine(3.0, 6 * GIB)


def test_version_1_without_limits(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "proc/meminfo": MEMINFO,
            "proc/self/mountinfo": "41 32 0:33 / /sys/fs/cgroup/memory rw - cgroup c rw,memory\n",
            "proc/self/cgroup": "4:memory:/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "1000\n",
        },
    )
    assert read_machine(root) == Machine(8.0, 32 * GIB)


@settings(max_examples=40)
@given(st.text(max_size=80), st.text(max_size=80), st.text(max_size=30))
def test_odd_files_never_stop_a_build(mountinfo: str, cgroup: str, limit: str) -> None:
    # Not tmp_path: every example needs a directory of its own.
    with tempfile.TemporaryDirectory() as name:
        root = write(
            Path(name),
            {
                "proc/meminfo": limit,
                "proc/self/mountinfo": V2 + mountinfo,
                "proc/self/cgroup": "0::/\n" + cgroup,
                "sys/fs/cgroup/cpu.max": limit,
                "sys/fs/cgroup/memory.max": limit,
            },
        )
        machine = read_machine(root)
    assert machine.cpus > 0
    assert machine.memory >= 0
