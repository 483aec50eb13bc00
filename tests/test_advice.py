"""The head of the page: what blocks a build, and what would help."""

from __future__ import annotations

from pathlib import Path

from jitcache.report.advice import Help, advise
from jitcache.report.assemble import report_run
from jitcache.report.model import Report
from jitcache.report.source import read_build

AITER = Path(__file__).parent / "data" / "ninja" / "aiter_a4w4"
GEMM1 = "gemm1 256x128x128x128 v3"


def of(tmp_path: Path, edges: dict[str, tuple[int, int, str]], jobs: int | None = None) -> Report:
    """A build of commands with start, end and what they wait for."""
    graph = ["rule cc", "  command = cc"]
    log = ["# ninja log v7"]
    for name, (start, end, needs) in edges.items():
        graph.append(f"build {name}: cc {needs or 'x'}")
        log.append(f"{start}\t{end}\t{1770000000000000000 + start * 1_000_000}\t{name}\tab")
    (tmp_path / "build.ninja").write_text("\n".join(graph) + "\n")
    (tmp_path / ".ninja_log").write_text("\n".join(log) + "\n")
    return report_run(read_build(tmp_path), -1, jobs=jobs)


def test_one_command_that_is_most_of_the_path_is_named() -> None:
    found = advise(report_run(read_build(AITER), -1))
    assert found.blocker == GEMM1
    assert found.because.startswith(f"The critical path: {GEMM1} 54.3 s (98.9 %) then link")
    (only,) = found.helps  # without it the build would be no shorter than with half of it
    assert (only.what, only.wall_s) == (f"{GEMM1} twice as fast", 49.076)
    assert round(only.saves_s, 3) == 5.801


def test_a_path_of_one_command_is_not_told_twice(tmp_path: Path) -> None:
    found = advise(of(tmp_path, {"a": (0, 8000, ""), "b": (0, 100, ""), "c": (0, 3000, "")}))
    assert found.blocker == "a"
    assert found.because == "It alone is the critical path: no number of jobs beats 8.00 s."
    assert [(h.what, h.wall_s) for h in found.helps] == [
        ("Without a", 3.0),
        ("a twice as fast", 4.0),
    ]


def test_a_chain_of_many_is_called_so(tmp_path: Path) -> None:
    names = ["a", "b", "c", "d"]
    edges = {n: (i * 100, i * 100 + 100, names[i - 1] if i else "") for i, n in enumerate(names)}
    assert advise(of(tmp_path, edges)).blocker == "A chain of commands"


def test_too_few_jobs(tmp_path: Path) -> None:
    edges = {f"o{i}": (i // 2 * 1000, i // 2 * 1000 + 1000, "") for i in range(8)}
    found = advise(of(tmp_path, edges))
    assert found.blocker == "The number of jobs"
    assert found.because == (
        "2 jobs were busy 100 % of the time with 8.00 s of work; the longest chain takes 1.00 s."
    )
    assert found.helps[:2] == (
        Help("8 jobs instead of 2", 1.0, 3.0),
        Help("4 jobs instead of 2", 2.0, 2.0),
    )
    one = {f"o{i}": (i * 1000, i * 1000 + 1000, "") for i in range(3)}
    assert advise(of(tmp_path, one)).blocker == "A single job"


def test_idle_jobs(tmp_path: Path) -> None:
    edges = {"a": (0, 100, ""), "b": (0, 100, ""), "c": (900, 1000, "")}
    found = advise(of(tmp_path, edges))
    assert found.blocker == "Idle jobs"
    assert found.because.startswith("2 jobs were busy 15 % of the time, 1.70 s idle; the longest")


def test_an_estimate_says_so_and_promises_nothing(tmp_path: Path) -> None:
    (tmp_path / ".ninja_log").write_text(
        "# ninja log v5\n0\t100\t1\ta\tab\n0\t100\t1\tb\tab\n900\t1000\t1\tc\tab\n"
    )
    found = advise(report_run(read_build(tmp_path), -1))
    assert "probably the longest chain" in found.because.lower()
    assert found.helps == ()
