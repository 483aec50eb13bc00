"""The report: real and composed builds, text and JSON, and builds made here by ninja."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from jitcache.buildlog.kernelnames import parse_kernel, short_name, short_names
from jitcache.cli.report import command
from jitcache.errors import ExitCode, InputError, JitcacheError, UsageError
from jitcache.report.assemble import report_cold, report_run
from jitcache.report.source import default_build_dir, read_build
from jitcache.report.text import bar, render, shortened, verdict

DATA = Path(__file__).parent / "data" / "ninja"
AITER = DATA / "aiter_a4w4"
GEMM1 = (
    "moe_ck2stages_gemm1_256x128x128x128_1x4_MulABScaleShuffled_v3_Nswizzle0_Quant3"
    "_MulRoutedWeight0_silu_FP4X2_FP4X2_B16.cuda.o"
)


def run_cli(*args: str | Path) -> Result:
    return CliRunner().invoke(command, [str(a) for a in args])


def run_json(*args: str | Path) -> dict[str, Any]:
    result = run_cli(*args, "--json")
    assert result.exception is None, result.output
    value: dict[str, Any] = json.loads(result.stdout)
    return value


def small(tmp_path: Path, log: str) -> Path:
    shutil.copy(DATA / "small" / "build.ninja", tmp_path / "build.ninja")
    shutil.copy(DATA / "small" / log, tmp_path / ".ninja_log")
    return tmp_path


# ---- the build of AITER's A4W4 module --------------------------------------------------


def test_the_field_log_names_the_kernel_that_bounds_it() -> None:
    value = run_json(AITER, "--jobs", "16")
    assert value["wall_s"] == 54.877
    assert value["critical_path_s"] == 54.877
    assert value["critical_path"][0] == GEMM1
    edges = {e["output"]: e for e in value["edges"]}
    first = edges[GEMM1]
    assert first["duration_s"] == 54.274
    assert first["on_critical_path"]
    assert first["slack_s"] == 0
    link = edges[value["critical_path"][1]]
    assert (link["start_s"], link["end_s"], link["duration_s"]) == (54.274, 54.877, 0.603)
    assert sum(e["on_critical_path"] for e in edges.values()) == 2
    assert [e["duration_s"] for e in value["edges"]] == sorted(
        (e["duration_s"] for e in value["edges"]), reverse=True
    )
    assert edges[next(o for o in edges if "gemm2_256x128" in o)]["slack_s"] == 5.801
    assert value["bounds"]["infinite_jobs_s"] == 54.877
    assert value["bounds"]["simulated_s"]["16"] == 54.877
    assert value["bounds"]["simulated_s"]["1"] == pytest.approx(317.524)
    assert value["efficiency"]["efficiency"] == pytest.approx(317.524 / (16 * 54.877))
    assert value["savings"][0]["without_path_s"] == 48.473 + 0.603


def test_the_field_log_in_words() -> None:
    text = run_cli(AITER).stdout
    assert text.splitlines()[0] == (
        "wall 54.9 s; the critical path is 54.9 s: gemm1 256x128x128x128 v3 54.3 s (98.9 %) "
        "then link 0.60 s; infinite jobs could not beat 54.9 s"
    )
    rows = text.splitlines()
    assert rows[5].split()[:7] == ["*", "gemm1", "256x128x128x128", "v3", "0.000", "54.274", "98.9"]
    assert "-j8 54.9 s, -j9 54.9 s; more jobs gain nothing" in text
    assert "-j16" not in text


def test_without_its_graph_the_path_is_estimated_and_said_so(tmp_path: Path) -> None:
    shutil.copy(AITER / ".ninja_log", tmp_path)
    value = run_json(tmp_path)
    assert value["guessed"]
    assert value["critical_path"][0] == GEMM1
    assert value["critical_path_s"] == 54.877
    assert value["bounds"]["simulated_s"] == {}
    text = run_cli(tmp_path).stdout
    assert "estimated critical path" in text
    assert "infinite jobs" not in text
    assert "estimated from the log alone" in text


# ---- runs, notes, choices --------------------------------------------------------------


@pytest.mark.parametrize("version", [5, 6, 7])
def test_each_run_is_reported_for_itself(tmp_path: Path, version: int) -> None:
    where = small(tmp_path, f"v{version}-two-runs.log")
    last = run_json(where)
    assert (last["run"], last["runs"]) == (2, 2)
    assert run_json(where, "--run", "2") == last
    both = run_json(where, "--run", "all")["runs"]
    assert both[1]["wall_s"] == last["wall_s"]
    assert both[0]["wall_s"] == run_json(where, "--run", "1")["wall_s"] != last["wall_s"]
    assert last["critical_path"] == ["gen.h", "a.o", "app"]
    assert len(last["edges"]) == 6
    pair = next(e for e in last["edges"] if e["output"] == "pair.c")
    assert pair["outputs"] == ["pair.c", "pair.h", "pair.log"]
    assert len(run_cli(where, "--run", "all").stdout.splitlines()) == 2


def test_a_log_file_or_graph_may_be_named_instead(tmp_path: Path) -> None:
    where = small(tmp_path, "v7-two-runs.log")
    assert run_json(where / ".ninja_log") == run_json(where) == run_json(where / "build.ninja")


def test_a_cold_build_is_predicted_from_the_newest_durations(tmp_path: Path) -> None:
    where = small(tmp_path, "v7-recompacted.log")
    value = run_json(where, "--run", "cold", "--jobs", "2")
    assert value["predicted"]
    assert len(value["edges"]) == 6
    # gen.h 63 then a.o 110 ms then app 23 ms, of two different runs.
    assert value["critical_path"] == ["gen.h", "a.o", "app"]
    assert value["critical_path_s"] == pytest.approx(0.196)
    assert value["wall_s"] == value["bounds"]["simulated_s"]["2"]
    assert value["efficiency"]["peak_jobs"] == 2
    (where / "build.ninja").unlink()
    with pytest.raises(InputError, match=r"without its build\.ninja"):
        report_cold(read_build(where))


def test_builddir_moves_the_log(tmp_path: Path) -> None:
    (tmp_path / "build.ninja").write_text("builddir = out\nrule t\n  command = t\nbuild a: t b\n")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".ninja_log").write_text("# ninja log v7\n0\t7\t1\ta\tab\n")
    value = run_json(tmp_path)
    assert value["wall_s"] == 0.007
    assert not value["guessed"]


def test_a_broken_graph_is_no_obstacle(tmp_path: Path) -> None:
    where = small(tmp_path, "v7-two-runs.log")
    (where / "build.ninja").write_text("build a: nothing b\n")
    value = run_json(where)
    assert value["guessed"]
    assert "unknown rule 'nothing'" in value["notes"][0]


def test_a_graph_of_another_build_is_left_aside(tmp_path: Path) -> None:
    where = small(tmp_path, "v7-two-runs.log")
    (where / "build.ninja").write_text("rule t\n  command = t\nbuild a: t b\n")
    value = run_json(where)
    assert value["guessed"]
    assert "knows only 0 of the run's 8 outputs" in value["notes"][0]


def test_damage_and_unfinished_commands_are_told(tmp_path: Path) -> None:
    where = small(tmp_path, "v7-truncated.log")
    with (where / "build.ninja").open("a") as f:
        f.write("build nobodys: work in1\nbuild never: work in1\ndefault never\n")
    value = run_json(where)
    assert value["skipped_lines"] == {"cut off at the end of the file": 1}
    assert value["unfinished"] == 1
    text = run_cli(where).stdout
    assert "skipped 1 lines of the log: cut off at the end of the file" in text
    assert "1 commands of build.ninja never finished" in text
    with (where / "build.ninja").open("a") as f:
        f.write("build names: phony || b$:c\nbuild b$:c: work in1\n")
        f.write("target = names\ndefault  $target prog\n")
    assert run_json(where)["unfinished"] == 2


def test_fewer_jobs_than_ran_are_questioned(tmp_path: Path) -> None:
    value = run_json(small(tmp_path, "v7-two-runs.log"), "--jobs", "1")
    assert "2 commands ran at one time, more than the 1 jobs given" in value["notes"]
    assert value["efficiency"]["idle_s"] == 0


def test_long_tables_are_cut_and_say_so() -> None:
    report = report_run(read_build(AITER), -1)
    assert "7 more commands" in render(report, top=3)
    assert "more commands" not in render(report, top=0)


def test_wishes_are_simulated(tmp_path: Path) -> None:
    args = ("--jobs", "16", "--what-if", "gemm1_256x128=0.5x", "--what-if", "gemm2_256x128=0")
    value = run_json(AITER, *args)
    found = value["what_if"]
    assert len(found["changed"]) == 2
    # Then gemm1_256x64 with 39.992 s is the longest.
    assert (found["before_s"], found["after_s"], found["path_s"]) == (54.877, 40.595, 40.595)
    assert value["critical_path_s"] == 54.877
    text = run_cli(AITER, *args).stdout
    assert "as wished, with 2 commands changed: 54.9 s -> 40.6 s with 16 jobs" in text
    by_label = run_json(AITER, "--what-if", "link=10s", "--what-if", "gemm1 256x128=60s")
    assert by_label["what_if"]["after_s"] == 70.0
    assert run_json(AITER)["what_if"] is None
    for wish in ("x", "=0", "link=", "link=2", "link=-1s", "link=fast", "nothing=0"):
        assert isinstance(run_cli(AITER, "--what-if", wish).exception, UsageError)
    shutil.copy(AITER / ".ninja_log", tmp_path)
    assert isinstance(run_cli(tmp_path, "--what-if", "link=0").exception, InputError)


def test_errors_are_for_people(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such log"):
        read_build(tmp_path)
    (tmp_path / ".ninja_log").write_text("# ninja log v7\n")
    assert isinstance(run_cli(tmp_path).exception, InputError)
    where = small(tmp_path, "v7-two-runs.log")
    for which in ("3", "0", "-3"):
        with pytest.raises(InputError, match="there is no run"):
            report_run(read_build(where), int(which))
    error = run_cli(where, "--run", "first").exception
    assert isinstance(error, UsageError)
    assert error.exit_code is ExitCode.USAGE


def test_names_can_not_act_on_the_terminal(tmp_path: Path) -> None:
    (tmp_path / ".ninja_log").write_bytes(b"# ninja log v7\n0\t7\t1\t\x1b[31mred\xff\tab\n")
    text = run_cli(tmp_path).stdout
    assert "\x1b" not in text
    assert "[31mred\\xff" in text


# ---- jitcache's own builds -------------------------------------------------------------


def own_run(root: Path, name: str) -> Path:
    directory = root / "runs-v1" / name
    directory.mkdir(parents=True)
    first, second = "0123456789abcdef", "fedcba9876543210"
    (directory / "build.ninja").write_text(
        "rule compile\n  command = $words\n"
        f"build actions/{first}/gemm1_256x128x128x128_1x4_v3_hot-even_gfx950.co: compile a\n"
        "  label = gemm1 256x128x128x128 v3 hot-even gfx950\n"
        f"build actions/{second}/host.so: compile b\n"
    )
    (directory / ".ninja_log").write_text(
        "# ninja log v7\n"
        f"0\t2500\t1\tactions/{second}/host.so\tab\n"
        f"0\t23200\t1\tactions/{first}/gemm1_256x128x128x128_1x4_v3_hot-even_gfx950.co\tcd\n"
    )
    end = {"event": "end", "at": 9.5, "wall": 23.1, "status": 0, "full": 0, "missing": None}
    (directory / "events.jsonl").write_text(
        json.dumps({**end, "id": first, "cpu": 22.9, "rss": 912_680_550}) + "\nnonsense\n"
    )
    return directory


def test_the_newest_run_of_the_store_is_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JITCACHE_DIR", str(tmp_path))
    with pytest.raises(InputError, match="no build to report on yet"):
        default_build_dir()
    own_run(tmp_path, "20260101T000000.000000Z-00000001")
    newest = own_run(tmp_path, "20260102T000000.000000Z-00000000")
    (tmp_path / "runs-v1" / "20260103T000000.000000Z-00000000").mkdir()
    (tmp_path / "runs-v1" / ".new-20260104T000000.000000Z-00000000").mkdir()
    assert default_build_dir() == newest
    assert run_json()["directory"] == str(newest)


def test_own_builds_show_labels_cpu_and_memory(tmp_path: Path) -> None:
    where = own_run(tmp_path, "20260101T000000.000000Z-00000001")
    edges = run_json(where)["edges"]
    assert edges[0]["label"] == "gemm1 256x128x128x128 v3 hot-even gfx950"
    assert (edges[0]["cpu_s"], edges[0]["peak_rss"]) == (22.9, 912_680_550)
    assert (edges[1]["cpu_s"], edges[1]["peak_rss"]) == (None, None)
    text = run_cli(where).stdout
    assert "870.4 MiB" in text
    assert "22.9" in text


# ---- names -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "rule", "expected"),
    [
        (GEMM1, "cuda_compile", "gemm1 256x128x128x128 v3"),
        ("/x/y/" + GEMM1, "", "gemm1 256x128x128x128 v3"),
        (
            "actions/0123456789abcdef/gemm2_64x32x32x128_1x1_v1_hot-even_cold-odd_gfx950.co",
            "compile",
            "gemm2 64x32x32x128 v1 hot-even cold-odd gfx950",
        ),
        ("actions/0123456789abcdef/a4w4_gemm1.so", "compile", "a4w4_gemm1"),
        ("gemm_moe_ck2stages.cuda.o", "cuda_compile", "gemm_moe_ck2stages"),
        ("module_x.so", "link", "link"),
        ("bin/app", "CXX_EXECUTABLE_LINKER__app_Release", "link app"),
        ("CMakeFiles/app.dir/src/main.cc.o", "CXX_COMPILER__app", "app: src/main.cc"),
        ("lib/CMakeFiles/core.dir/a.cpp.o", "", "core: a.cpp"),
        ("some/file.txt", "CUSTOM_COMMAND", "some/file.txt"),
        ("blink.o", "", "blink.o"),
    ],
)
def test_outputs_are_called_by_what_they_are(output: str, rule: str, expected: str) -> None:
    assert short_name(output, rule) == expected


def test_a_stock_name_is_read_in_full() -> None:
    kernel = parse_kernel(GEMM1)
    assert kernel is not None
    assert (kernel.stage, kernel.tile, kernel.waves, kernel.pipeline) == (
        1,
        "256x128x128x128",
        "1x4",
        3,
    )
    assert kernel.op == "MulABScaleShuffled"
    assert kernel.types == "FP4X2 FP4X2 B16"
    assert kernel.extra == "Quant3 MulRoutedWeight0 silu"


def test_names_in_a_table_are_never_alike() -> None:
    gelu = GEMM1.replace("silu", "gelu")
    items = [(GEMM1, "", ""), (gelu, "", ""), ("a/x.so", "link", ""), ("b/x.so", "link", "")]
    names = short_names([*items, (f"dir/{GEMM1}", "", "")])
    assert len(set(names)) == 5
    assert names[1].endswith("gelu")
    assert names[2:4] == ["link a/x.so", "link b/x.so"]


def test_bars_and_long_labels() -> None:
    assert bar(0, 1, 2, width=4) == "##.."
    assert bar(1.999, 2, 2, width=4) == "...#"
    assert bar(2, 2, 2, width=4) == "...#"
    assert bar(0, 0, 0) == ""
    assert shortened("a" * 30 + "b" * 70, 20) == "aaaaaaaa...bbbbbbbbb"
    assert shortened("short") == "short"


def test_a_long_path_is_summed_up(tmp_path: Path) -> None:
    text = "rule t\n  command = t\nbuild o0: t x\n"
    text += "".join(f"build o{i}: t o{i - 1}\n" for i in range(1, 8))
    (tmp_path / "build.ninja").write_text(text)
    ends = [100, 1100, 1200, 5200, 5300, 8300, 8400, 8500]
    rows = [
        f"{s}\t{e}\t1\to{i}\t{i}\n" for i, (s, e) in enumerate(zip([0, *ends], ends, strict=False))
    ]
    (tmp_path / ".ninja_log").write_text("# ninja log v5\n" + "".join(rows))
    line = verdict(report_run(read_build(tmp_path), -1))
    assert "o1 1.00 s then o3 4.00 s (47.1 %) then o5 3.00 s, and 5 more" in line


# ---- builds made here ------------------------------------------------------------------


def ninjas() -> list[str]:
    found = [shutil.which("ninja", path=p) for p in os.get_exec_path()]
    try:
        import ninja

        found.append(shutil.which("ninja", path=ninja.BIN_DIR))
    except ImportError:
        pass
    by_version = {}
    for program in filter(None, found):
        result = subprocess.run([program, "--version"], capture_output=True, text=True)
        by_version.setdefault(result.stdout.strip(), program)
    return list(by_version.values())


NINJAS = ninjas()

GRAPH = """
rule work
  command = sleep $t && touch $out
build gen.h gen.c: work in
  t = 0.05
build a.o: work gen.c
  t = 0.10
build b.o: work in || gen.h
  t = 0.04
build c.o: work in
  t = 0.02
build objects: phony a.o b.o c.o
build app: work | objects
  t = 0.03
"""


@pytest.fixture(params=NINJAS, ids=range(len(NINJAS)))
def built(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    (tmp_path / "build.ninja").write_text(GRAPH)
    (tmp_path / "in").touch()
    return request.param, tmp_path


def test_a_real_cold_and_incremental_build(built: tuple[str, Path]) -> None:
    ninja, where = built
    subprocess.run([ninja, "-C", where, "-j2"], check=True, capture_output=True)
    cold = run_json(where, "--jobs", "2")
    assert cold["critical_path"] == ["gen.h", "a.o", "app"]
    assert {e["output"] for e in cold["edges"]} == {"gen.h", "a.o", "b.o", "c.o", "app"}
    assert cold["critical_path_s"] <= cold["wall_s"]
    assert cold["unfinished"] == 0
    assert cold["notes"] == []
    assert cold["efficiency"]["peak_jobs"] == 2
    later = time.time() + 5
    (where / "gen.c").touch()
    os.utime(where / "gen.c", (later, later))
    subprocess.run([ninja, "-C", where, "-j1"], check=True, capture_output=True)
    again = run_json(where)
    assert again["run"] == again["runs"] == 2
    assert again["critical_path"] == ["a.o", "app"]
    assert [e["output"] for e in again["edges"]] == ["a.o", "app"]
    assert run_json(where, "--run", "1")["edges"] == [
        {**e, "share": pytest.approx(e["share"])} for e in cold["edges"]
    ]


def test_a_real_build_with_one_job_waits_for_it(built: tuple[str, Path]) -> None:
    ninja, where = built
    subprocess.run([ninja, "-C", where, "-j1"], check=True, capture_output=True)
    value = run_json(where)
    assert value["efficiency"]["peak_jobs"] == 1
    assert value["critical_path"] == ["gen.h", "a.o", "app"]
    assert {k["reason"] for k in value["chain"]} >= {"start", "slot"}
    assert len(value["chain"]) == 5


def test_an_interrupted_build_reports_what_was_finished(built: tuple[str, Path]) -> None:
    ninja, where = built
    with (where / "build.ninja").open("a") as f:
        f.write("build endless: work in\n  t = 60\n")
    process = subprocess.Popen(
        [ninja, "-C", where, "-j2", "endless", "gen.h"],
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    log = where / ".ninja_log"
    for _ in range(500):
        if log.is_file() and "gen.h" in log.read_text():
            break
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(10) != 0
    value = run_json(where)
    assert [e["output"] for e in value["edges"]] == ["gen.h"]
    assert value["unfinished"] == 5


# ---- size ------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_log_of_20000_edges_is_analysed_in_full(tmp_path: Path) -> None:
    rng = random.Random(20)
    graph = ["rule cc", "  command = cc"]
    rows = []
    n = 20_000
    for i in range(n):
        needs = " ".join(f"o{rng.randrange(i)}" for _ in range(3)) if i > 100 else "x"
        graph.append(f"build o{i}: cc s{i}.c | h{i % 50}.h || {needs}")
        rows.append(f"{i * 10}\t{i * 10 + 9}\t{i + 1}\to{i}\t{i:x}")
    (tmp_path / "build.ninja").write_text("\n".join(graph) + "\n")
    (tmp_path / ".ninja_log").write_text("# ninja log v5\n" + "\n".join(rows) + "\n")
    report = report_run(read_build(tmp_path), -1)
    assert len(report.edges) == n
    assert report.critical_path_s == pytest.approx(len(report.critical_path) * 0.009)
    assert report.bounds.simulated_s[1] == pytest.approx(n * 0.009)


def test_garbage_of_all_kinds_gives_errors_or_reports(tmp_path: Path) -> None:
    rng = random.Random(3)
    whole = (DATA / "small" / "v7-two-runs.log").read_bytes()
    graph = (DATA / "small" / "build.ninja").read_bytes()
    for _ in range(60):
        log, text = bytearray(whole), bytearray(graph)
        for data in (log, text):
            for _ in range(rng.randrange(6)):
                at = rng.randrange(len(data))
                data[at : at + rng.randrange(4)] = rng.randbytes(rng.randrange(4))
        (tmp_path / ".ninja_log").write_bytes(log)
        (tmp_path / "build.ninja").write_bytes(text)
        try:
            build = read_build(tmp_path)
            for i in range(1, len(build.log.runs) + 1):
                assert render(report_run(build, i))
        except JitcacheError:
            continue
