"""Real ninja, real processes, a stub compiler."""

from __future__ import annotations

import dataclasses
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from jitcache.build.model import (
    Compiled,
    CompileFailed,
    CompileJob,
    Event,
    Failed,
    Finished,
    NotRun,
    RunResult,
    Started,
)
from jitcache.build.rundir import new_run_directory, release_run_directory
from jitcache.build.runner import run
from jitcache.errors import BuildError, StoreError
from tests.build_help import Log, job


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    made = new_run_directory(tmp_path / "runs")
    yield made
    release_run_directory(made)


def build(
    jobs: list[CompileJob], directory: Path, *, parallel: int | None = 2, keep_going: bool = True
) -> tuple[RunResult, Log]:
    log = Log()
    result = run(
        jobs, directory=directory, parallel=parallel, keep_going=keep_going, on_event=log.append
    )
    return result, log


def test_outputs_headers_and_costs(directory: Path, tmp_path: Path) -> None:
    header = tmp_path / "a b.hpp"
    header.write_text("")
    one = job("one", f"header={header}", "say=warning: careful", "sleep=0.05", "grab=64")
    result, log = build([one, job("two", "nodep=1")], directory, parallel=1)
    # `two` promised a dependency file.
    assert [type(o) for o in result.outcomes] == [Compiled, CompileFailed]
    done = result.outcomes[0]
    assert isinstance(done, Compiled)
    assert done.job is one
    assert done.output.read_text() == "source of one\n"
    assert done.output.parent.name == one.key[7:23]
    assert done.headers == (header,)
    assert (done.output.parent / "diagnostics.txt").read_text() == "warning: careful\n"
    assert done.usage.wall_s >= 0.05
    assert done.usage.peak_rss >= 64 << 20
    assert 0 < done.usage.cpu_s < 60
    assert 0 <= done.usage.start_s <= result.wall_s
    assert result.cpu_s >= done.usage.cpu_s
    assert result.wall_s >= done.usage.start_s + done.usage.wall_s
    assert [type(e) for e in log] == [Started, Finished, Started, Failed]
    assert log.names(Finished) == ["one"]


def test_no_jobs_is_no_run(tmp_path: Path) -> None:
    result, log = build([], tmp_path / "never-made")
    assert (result.outcomes, log) == ([], [])


def test_longest_expected_first(directory: Path) -> None:
    """Also what `longest_first` rests on: the ninja at hand starts edges in the file's order."""
    jobs = [job(f"{(i * 7) % 12:02d}", cost_s=float((i * 7) % 12)) for i in range(12)]
    jobs.append(job("unknown"))
    result, log = build(jobs, directory, parallel=1)
    assert log.names(Started) == ["unknown", *(f"{i:02d}" for i in range(11, -1, -1))]
    assert [o.job for o in result.outcomes] == jobs


def test_a_finished_output_is_handed_over_while_others_run(directory: Path) -> None:
    gate = directory / "gate"
    slow = dataclasses.replace(
        job("slow", cost_s=9),
        argv=("sh", "-c", f"while ! [ -e {gate} ]; do sleep 0.02; done; echo x > {{output}}"),
    )
    seen: list[str] = []

    def on_event(event: Event) -> None:
        if isinstance(event, Finished):
            seen.append(event.compiled.job.label)
            assert event.compiled.output.stat().st_size > 0
            gate.touch()

    # `slow` can only end once the caller was told of `quick`.
    run([slow, job("quick")], directory=directory, parallel=2, keep_going=True, on_event=on_event)
    assert seen == ["quick", "slow"]


def concurrency(directory: Path, **limits: int | None) -> int:
    """Most stubs that ran at once, by the events."""
    jobs = [job(f"m{i}", "sleep=0.1", memory=limits["memory"]) for i in range(3)]
    result, _ = build(jobs, directory, parallel=limits["parallel"])
    spans = [o.usage for o in result.outcomes if isinstance(o, Compiled)]
    assert len(spans) == 3
    return max(sum(b.start_s <= a.start_s < b.start_s + b.wall_s for b in spans) for a in spans)


def test_parallel_is_obeyed(directory: Path) -> None:
    assert concurrency(directory, parallel=2, memory=1 << 60) == 2


def test_memory_limits_the_jobs(directory: Path) -> None:
    assert concurrency(directory, parallel=None, memory=1 << 60) == 1


@pytest.mark.parametrize("keep_going", [True, False])
def test_keep_going(directory: Path, keep_going: bool) -> None:
    jobs = [job("bad", "say=a.hpp:1: error: no", "fail=1", cost_s=9), job("ok"), job("ok2")]
    jobs = [dataclasses.replace(j, cost_s=j.cost_s or 1.0) for j in jobs]
    result, log = build(jobs, directory, parallel=1, keep_going=keep_going)
    rest = Compiled if keep_going else NotRun
    assert [type(o) for o in result.outcomes] == [CompileFailed, rest, rest]
    assert log.names(Failed) == ["bad"]


def test_what_runs_beside_a_failure_still_counts(directory: Path) -> None:
    jobs = [job("bad", "sleep=0.1", "fail=3", cost_s=9), job("ok", "sleep=0.3", cost_s=8), job("x")]
    jobs[2] = dataclasses.replace(jobs[2], cost_s=1)
    result, _ = build(jobs, directory, keep_going=False)
    assert [type(o) for o in result.outcomes] == [CompileFailed, Compiled, NotRun]


def failed(directory: Path, what: CompileJob, parallel: int = 4) -> CompileFailed:
    result, log = build([what, job("other")], directory, parallel=parallel)
    outcome = result.outcomes[0]
    assert isinstance(outcome, CompileFailed)
    assert log.names(Failed) == [what.label]
    assert isinstance(result.outcomes[1], Compiled)
    return outcome


def test_a_failure_can_be_read_and_reproduced(directory: Path) -> None:
    outcome = failed(directory, job("b", "say=x.hpp:7: error: it's $bad", "fail=3"))
    assert outcome.first_error == "x.hpp:7: error: it's $bad"
    assert outcome.exit_status == 3
    assert outcome.log.read_text() == "x.hpp:7: error: it's $bad\n"
    again = subprocess.run(["sh", "-c", outcome.command], capture_output=True, text=True)
    assert (again.returncode, again.stdout) == (3, "x.hpp:7: error: it's $bad\n")


def test_killed_for_memory(directory: Path) -> None:
    outcome = failed(directory, job("b", "grab=40", "kill=9"))
    assert outcome.exit_status == -9
    assert outcome.first_error.startswith("killed, probably out of memory: peak RSS 0.0")
    assert outcome.first_error.endswith("GiB, try --jobs 1")


def test_crashed(directory: Path) -> None:
    outcome = failed(directory, job("b", "say=Stack dump:", "kill=11"))
    assert outcome.exit_status == -11
    assert outcome.first_error == "killed by SIGSEGV: Stack dump:"


def test_success_without_output_is_none(directory: Path) -> None:
    outcome = failed(directory, job("b", "empty=1"))
    assert outcome.first_error.endswith("kernel.co is missing or empty")
    assert "ended well" in outcome.first_error


def test_success_without_dependency_file_is_none(directory: Path) -> None:
    assert failed(directory, job("b", "nodep=1")).first_error.endswith(
        "depfile.d is missing or empty"
    )


def test_an_unreadable_dependency_file_is_a_failure(directory: Path) -> None:
    outcome = failed(directory, job("b", "baddep=1"))
    assert outcome.first_error == "unreadable dependency file: no target in 'nonsense'"


def test_no_such_compiler(directory: Path) -> None:
    bad = dataclasses.replace(job("b"), argv=("/nowhere/clang", "{source}"))
    outcome = failed(directory, bad)
    assert outcome.exit_status == 127
    assert outcome.first_error == "error: cannot run /nowhere/clang: No such file or directory"


def test_a_killed_wrapper_is_a_failed_job(directory: Path) -> None:
    # The stub kills its parent, edge.py, which therefore reports no end.
    bad = dataclasses.replace(job("b"), argv=("sh", "-c", "kill -9 $PPID"))
    outcome = failed(directory, bad)
    assert outcome.first_error.startswith("killed, probably out of memory")
    assert outcome.usage is None


def test_odd_characters_everywhere(tmp_path: Path) -> None:
    header = tmp_path / "head $er.hpp"
    header.write_text("")
    directory = new_run_directory(tmp_path / 'it\'s a $HOME: "ru#ns" é')
    odd = job(
        "gemm1 $x: 'a' \"b\" | #c\nnext",
        f"header={header}".replace("$", "$$"),
        "say=$HOME `id` $(id) ; & 'x'",
        source_name="a 'b' $c: d#.cu",
        output_name='o $$:u"t.co',
    )
    result, _ = build([odd], directory)
    done = result.outcomes[0]
    assert isinstance(done, Compiled), done
    assert done.output.name == 'o $$:u"t.co'
    assert done.headers == (header,)
    said = (done.output.parent / "diagnostics.txt").read_text()
    assert said == "$HOME `id` $(id) ; & 'x'\n"
    release_run_directory(directory)


def test_the_compiler_sees_a_clean_environment(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CPATH", "/evil")
    monkeypatch.setenv("CCC_OVERRIDE_OPTIONS", "#O0")
    monkeypatch.setenv("NINJA_STATUS", "x")
    result, _ = build([job("a", "environ=1", env=(("LD_BIND_NOW", "1 2"),))], directory)
    done = result.outcomes[0]
    assert isinstance(done, Compiled)
    names = dict(line.split("=", 1) for line in done.output.read_text().splitlines()[1:])
    assert names.pop("PWD", str(directory)) == str(directory)
    assert set(names) <= {"PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "LD_BIND_NOW"}
    assert names["LD_BIND_NOW"] == "1 2"
    assert names["TMPDIR"] == str(directory / "tmp")
    assert (directory / "tmp").is_dir()


def test_the_same_bytes_from_two_places(tmp_path: Path) -> None:
    texts = []
    for name in ("one", "a longer place"):
        directory = new_run_directory(tmp_path / name)
        show = dataclasses.replace(
            job("a"), argv=("sh", "-c", 'echo "$0" "$@" > $2', "cc", "{source}", "{output}")
        )
        result, _ = build([show], directory)
        done = result.outcomes[0]
        assert isinstance(done, Compiled)
        texts.append(done.output.read_bytes())
        release_run_directory(directory)
    assert texts[0] == texts[1]
    assert str(tmp_path).encode() not in texts[0]


def test_two_runs_at_once(tmp_path: Path) -> None:
    results: dict[str, RunResult] = {}

    def one(name: str) -> None:
        directory = new_run_directory(tmp_path / "runs")
        results[name], _ = build([job("a", "sleep=0.1"), job("b")], directory)

    threads = [threading.Thread(target=one, args=(n,)) for n in ("x", "y")]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert results["x"].directory != results["y"].directory
    for result in results.values():
        assert [type(o) for o in result.outcomes] == [Compiled, Compiled]


def test_garbage_among_the_events_changes_nothing(directory: Path) -> None:
    place = directory / "events.jsonl"
    junk = '\\n{"event":"end"\\n\\377junk\\n{"event":"start","id":"zz","at":1.0}\\n'
    vandal = dataclasses.replace(
        job("v", cost_s=5),
        argv=("sh", "-c", f"printf '{junk}' >> {place}; echo x > {{output}}"),
    )
    result, log = build([vandal, job("ok", cost_s=1)], directory, parallel=1)
    assert [type(o) for o in result.outcomes] == [Compiled, Compiled]
    assert log.names(Finished) == ["v", "ok"]


def test_lost_events_are_a_failure_never_a_success(directory: Path) -> None:
    place = directory / "events.jsonl"
    bad = dataclasses.replace(job("b"), argv=("sh", "-c", f"echo x > {{output}}; rm {place}"))
    with pytest.raises(StoreError) as caught:
        build([bad], directory)
    assert "events.jsonl" in str(caught.value)


def test_stop_ends_the_run(directory: Path) -> None:
    stop = threading.Event()
    log = Log()

    def on_event(event: Event) -> None:
        log.append(event)
        if isinstance(event, Started) and event.job.label == "long":
            stop.set()

    jobs = [job("quick", cost_s=3), job("long", "deaf=1", "sleep=60", cost_s=2), job("never")]
    jobs[2] = dataclasses.replace(jobs[2], cost_s=1)
    result = run(
        jobs, directory=directory, parallel=1, keep_going=True, on_event=on_event, stop=stop
    )
    assert [type(o) for o in result.outcomes] == [Compiled, NotRun, NotRun]
    assert log.names(Failed) == []
    assert result.wall_s < 30


def test_an_error_of_the_caller_ends_the_run(directory: Path) -> None:
    def on_event(event: Event) -> None:
        raise OSError("publishing failed")

    with pytest.raises(OSError, match="publishing failed"):
        run(
            [job("long", "sleep=60")],
            directory=directory,
            parallel=1,
            keep_going=True,
            on_event=on_event,
        )


def test_ninjas_own_failure_is_told(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = directory / "fake-ninja"
    fake.write_text("#!/bin/sh\necho 'ninja: error: strange'\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("JITCACHE_NINJA", str(fake))
    with pytest.raises(BuildError, match="no compiler failed") as caught:
        build([job("a")], directory)
    assert caught.value.details == ("ninja: error: strange",)
    fake.write_text("#!/bin/sh\nkill -9 $$\n")
    directory2 = new_run_directory(directory.parent)
    with pytest.raises(BuildError, match="killed by signal 9"):
        build([job("a")], directory2)
    release_run_directory(directory2)


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        build([job("a")], tmp_path / "absent" / "run")
    assert "JITCACHE_DIR" in str(caught.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
@pytest.mark.parametrize("words", [("fill=1",), ("say=x", "fill=1"), ()])
def test_a_full_disk_is_a_store_error(tmp_path: Path, words: tuple[str, ...]) -> None:
    place = tmp_path / "small"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", place]).returncode:
        pytest.skip("may not mount")
    try:
        directory = new_run_directory(place)
        if not words:
            # Full before the first edge can note that it starts.
            with pytest.raises(OSError, match="No space"):
                (directory / "ballast").write_bytes(b"x" * 200_000)
        with pytest.raises(StoreError) as caught:
            build([job("a", *words), job("b")], directory, parallel=1)
        assert "JITCACHE_DIR" in str(caught.value)
        assert "o space left" in str(caught.value) or "disk is full" in str(caught.value)
        release_run_directory(directory)
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.skipif(os.geteuid() == 0 and shutil.which("setpriv") is None, reason="needs a user")
def test_a_read_only_directory_is_a_store_error(tmp_path: Path) -> None:
    directory = new_run_directory(tmp_path / "runs")
    code = (
        "import sys; from pathlib import Path; from tests.build_help import job, run\n"
        "from jitcache.errors import StoreError\n"
        "try:\n"
        "    run([job('a')], directory=Path(sys.argv[1]), parallel=1, keep_going=True,\n"
        "        on_event=print)\n"
        "except StoreError as e:\n"
        "    print(e)\n"
    )
    argv = [sys.executable, "-c", code, str(directory)]
    if os.geteuid() == 0:
        argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *argv]
        for parent in directory.parents:
            if parent.stat().st_uid == 0 and parent != Path("/") and tmp_path in parent.parents:
                parent.chmod(parent.stat().st_mode | stat.S_IROTH | stat.S_IXOTH)
    directory.chmod(0o555)
    done = subprocess.run(argv, capture_output=True, text=True)
    assert "Permission denied" in done.stdout, done.stderr
    assert "hint: set JITCACHE_DIR" in done.stdout
    release_run_directory(directory)
