"""Traces of clang's -ftime-trace: parsing, nesting, attribution, and real compiles."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from jitcache.buildlog.compilecommand import (
    CompileCommand,
    NoCompile,
    parse_command,
    parse_pack,
    parse_passes,
    pass_target,
    retargeted,
)
from jitcache.buildlog.timetrace import Span, parse_trace
from jitcache.buildlog.tutime import (
    SMALLER,
    Frame,
    TuTime,
    attribute,
    pruned,
    template_name,
)
from jitcache.cli.report import command
from jitcache.errors import InputError, JitcacheError

CLANG = next((c for c in ("clang++-22", "clang++") if shutil.which(c)), None)


def event(name: str, ts: float, dur: float, detail: str = "", **more: Any) -> dict[str, Any]:
    found = {"ph": "X", "pid": 1, "tid": 1, "name": name, "ts": ts, "dur": dur, **more}
    return {**found, "args": {"detail": detail}} if detail else found


def source(path: str, begin: int, end: int) -> list[dict[str, Any]]:
    return [
        {**event("Source", begin, 0, path), "ph": "b", "id": 0},
        {**event("Source", end, 0), "ph": "e", "id": 0},
    ]


def trace(*events: dict[str, Any]) -> bytes:
    # Without blanks, as clang writes it.
    value = {"traceEvents": list(events), "beginningOfTime": 1}
    return json.dumps(value, separators=(",", ":")).encode()


WHOLE = (
    *source("/inc/b.h", 20, 60),
    *source("/inc/x/../a.h", 10, 200),
    event("InstantiateFunction", 320, 30, "ck::f<ck::g<int>>"),
    event("InstantiateFunction", 300, 100, "ck::f<int>"),
    event("CodeGen Function", 410, 50, "main"),
    event("Frontend", 5, 595),
    event("CodeGen Function", 610, 80, "late"),
    event("Frontend", 600, 100),
    event("SROAPass", 720, 60),
    event("Optimizer", 710, 90),
    event("RunPass", 810, 20, "AMDGPU DAG->DAG Pattern Instruction Selection"),
    event("CodeGenPasses", 800, 40),
    event("Backend", 700, 150),
    event("ExecuteCompiler", 0, 900),
    event("Total Frontend", 0, 695, tid=2),
    {"ph": "M", "name": "process_name", "pid": 1, "tid": 1, "ts": 0, "args": {"name": "clang"}},
)


def every_frame(frame: Frame) -> list[Frame]:
    return [frame, *(f for c in frame.children.values() for f in every_frame(c))]


def check_sums(time: TuTime) -> None:
    """The invariant: each microsecond is counted exactly once, in every view."""
    assert sum(time.phases.values()) == time.total_us
    assert sum(c.self_us for c in time.activities.values()) == time.total_us
    frames = every_frame(time.flame)
    assert sum(f.self_us for f in frames) == time.total_us
    for f in frames:
        assert f.total_us == f.self_us + sum(c.total_us for c in f.children.values())
        assert f.self_us >= 0


def test_each_phase_gets_the_self_time_of_its_spans() -> None:
    time = attribute([parse_trace(trace(*WHOLE))])
    assert time.total_us == 900
    assert time.phases == {
        "front end": 595 - 100 - 50,
        "instantiation": 100,
        "IR generation": 50 + 100,
        "optimiser": 90,
        "back end": 40 + 20,
        "other": 900 - 595 - 100 - 150,
    }
    check_sums(time)


def test_templates_are_counted_without_arguments_and_recursion_once() -> None:
    time = attribute([parse_trace(trace(*WHOLE))])
    f = time.templates["ck::f"]
    assert (f.count, f.total_us, f.self_us) == (2, 100, 100)
    sroa = time.activities[("optimiser", "SROAPass")]
    assert (sroa.count, sroa.self_us) == (1, 60)
    selection = time.activities[("back end", "AMDGPU DAG->DAG Pattern Instruction Selection")]
    assert selection.self_us == 20
    instantiated = time.activities[("instantiation", "InstantiateFunction")]
    assert (instantiated.count, instantiated.total_us) == (2, 100)


def test_headers_come_from_asynchronous_events_and_from_older_clangs_spans() -> None:
    time = attribute([parse_trace(trace(*WHOLE))])
    assert {k: (c.total_us, c.self_us) for k, c in time.headers.items()} == {
        "/inc/a.h": (190, 150),
        "/inc/b.h": (40, 40),
    }
    old = trace(
        event("Source", 20, 40, "b.h"), event("Source", 10, 190, "a.h"), event("Frontend", 0, 300)
    )
    time = attribute([parse_trace(old)])
    assert {k: (c.total_us, c.self_us) for k, c in time.headers.items()} == {
        "a.h": (190, 150),
        "b.h": (40, 40),
    }
    assert time.phases["front end"] == time.total_us == 300


def test_of_spans_that_begin_together_the_longer_one_is_around_the_other() -> None:
    found = parse_trace(trace(event("ParseClass", 0, 10), event("Frontend", 0, 100)))
    assert [(s.name, s.total_us, s.self_us) for s in found.spans] == [("Frontend", 100, 90)]


def test_passes_and_units_add_up() -> None:
    one = attribute([parse_trace(trace(*WHOLE)), parse_trace(trace(event("Backend", 0, 70)))])
    assert one.total_us == 970
    both = TuTime()
    both.add(one)
    both.add(one)
    assert both.total_us == 1940
    assert both.templates["ck::f"].count == 4
    assert both.flame.total_us == 1940
    check_sums(one)
    check_sums(both)


def test_small_frames_are_brought_together_and_the_total_stays() -> None:
    time = attribute([parse_trace(trace(*WHOLE))])
    root = pruned(time.flame, 100)
    frames = every_frame(root)
    assert {f.name for f in frames} == {
        "all",
        "ExecuteCompiler",
        "Frontend",
        "Backend",
        "InstantiateFunction: ck::f",
        SMALLER,
    }
    assert sum(f.self_us for f in frames) == 900
    assert len(every_frame(time.flame)) > len(frames)


@pytest.mark.parametrize(
    ("detail", "name"),
    [
        ("std::vector<int, std::allocator<int>>::push_back", "std::vector::push_back"),
        ("ck::applier<0, 1>::operator()<(lambda at /a/b/c.hpp:3:9)>", "ck::applier::operator()"),
        ("(lambda at /a/b c/d.hpp:3:9)::operator()", "(lambda at d.hpp:3:9)::operator()"),
        ("a<1>::operator<", "a::operator<"),
        ("a<1>::operator<<<int>", "a::operator<<"),
        ("a<1>::operator-><b>", "a::operator->"),
        ("f<decltype(p->q)>::g", "f::g"),
        (
            "f(A<1> &)::(lambda at /x/d.hpp:3:9)::operator()(S)",
            "f::(lambda at d.hpp:3:9)::operator()",
        ),
        ("(anonymous namespace)::f(int (*)(int))", "(anonymous namespace)::f"),
        ("f(const A &, B<int, C", "f"),
        ("operator()", "operator()"),
        ("main", "main"),
        ("f<int", "f"),
        ("<", "<"),
        ("a > b", "a > b"),
    ],
)
def test_names_without_template_arguments(detail: str, name: str) -> None:
    assert template_name(detail) == name


# ---- garbage -----------------------------------------------------------------------------


def test_a_cut_off_trace_is_read_as_far_as_it_goes() -> None:
    data = trace(event("ParseClass", 0, 10, "},{"), *WHOLE)
    whole = parse_trace(data)
    assert not whole.cut
    cut = parse_trace(data[: data.index(b'"SROAPass"') + 20])
    assert cut.cut
    assert 0 < cut.total_us < whole.total_us
    check_sums(attribute([cut]))


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{}", b'{"traceEvents": 3}', b"\x00" * 99, b"[" * 100_000, b'{"traceEvents": [{'],
)
def test_what_is_no_trace_is_refused(data: bytes) -> None:
    with pytest.raises(InputError, match="not a time trace") as e:
        parse_trace(data, where="x.json")
    assert e.value.where == "x.json"


def test_a_trace_of_something_else_is_refused() -> None:
    with pytest.raises(InputError, match="without any event of a compiler"):
        parse_trace(trace({"ph": "M", "name": "process_name"}))


def test_senseless_events_are_counted_and_too_many_left_out() -> None:
    found = parse_trace(
        trace(
            event("Frontend", 0, 100),
            event("ParseClass", -5, 10),
            event("ParseClass", 1e300, 10),
            event("ParseClass", 10, -3),
            {"ph": "X", "name": 7, "ts": 1},
            {"ph": "e", "name": "Source", "pid": 1, "tid": 1, "ts": 5, "id": 3},
            {"ph": "b", "name": "Source", "pid": 1, "tid": 1, "ts": 5, "id": 4},
        )
    )
    assert found.skipped == {
        "a begin without an end": 1,
        "an end without a begin": 1,
        "impossible time": 3,
        "not an event": 1,
    }
    assert found.total_us == 100
    few = parse_trace(trace(*(event("ParseClass", n * 10, 5) for n in range(9))), max_events=4)
    assert few.skipped == {"too many events": 5}
    assert few.total_us == 20


_events = st.lists(
    st.builds(
        event,
        st.sampled_from(["Frontend", "InstantiateFunction", "Source", "Backend", "OptFunction"]),
        st.integers(0, 200),
        st.integers(0, 200),
        st.sampled_from(["", "f<int>", "g", "/a/b.h"]),
        tid=st.integers(1, 2),
        ph=st.sampled_from("XXXXbe"),
        id=st.integers(0, 1),
    ),
    min_size=1,
    max_size=30,
)


@given(_events)
@settings(max_examples=150)
def test_every_microsecond_is_counted_once_whatever_overlaps(events: list[dict[str, Any]]) -> None:
    try:
        found = parse_trace(trace(*events))
    except InputError:
        assert all(e["ph"] != "X" for e in events)
        return
    time = attribute([found])
    check_sums(time)
    check_sums_after_pruning = every_frame(pruned(time.flame, 50))
    assert sum(f.self_us for f in check_sums_after_pruning) == time.total_us
    covered = set()
    for e in events:
        if e["ph"] == "X":
            covered |= {(e["tid"], n) for n in range(e["ts"], e["ts"] + e["dur"])}
    # Ends are cut where spans overlap without nesting, so at most what was covered.
    assert time.total_us <= len(covered)
    if all_nest(found.spans, events):
        assert time.total_us == len(covered)
    assert sum(c.self_us for c in time.headers.values()) == sum(s.total_us for s in found.files)


def all_nest(spans: list[Span], events: list[dict[str, Any]]) -> bool:
    """Whether no end was cut."""
    kept = []
    stack = list(spans)
    while stack:
        span = stack.pop()
        kept.append((span.start_us, span.end_us))
        stack += span.children
    wanted = [(e["ts"], e["ts"] + e["dur"]) for e in events if e["ph"] == "X"]
    return sorted(kept) == sorted(wanted)


_json = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["ph", "name", "ts", "dur", "pid", "tid", "id", "args", "detail"]),
            inner,
            max_size=6,
        )
    ),
    max_leaves=12,
)


@given(st.lists(_json, max_size=6), st.integers(0, 400))
@settings(max_examples=150)
def test_garbage_is_a_trace_or_a_clear_error(events: list[Any], cut: int) -> None:
    whole = trace(*events, event("Frontend", 0, 9))
    for data in (whole, whole[:cut]):
        try:
            found = parse_trace(data)
        except JitcacheError:
            continue
        check_sums(attribute([found]))


@given(st.binary(max_size=60))
@settings(max_examples=50)
def test_bytes_never_give_a_traceback(data: bytes) -> None:
    with pytest.raises(InputError):
        parse_trace(data)


# ---- commands ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("clang++ -c a.cpp -o a.o", CompileCommand(("clang++", "-c", "a.cpp", "-o", "a.o"))),
        (
            "cd /b/sub && /usr/bin/ccache g++ -DX='a b' -c a.c",
            CompileCommand(("g++", "-DX=a b", "-c", "a.c"), (), "/b/sub"),
        ),
        ("A=1 B='x y' cc -c a.c", CompileCommand(("cc", "-c", "a.c"), (("A", "1"), ("B", "x y")))),
        (": && cc -c '-DS=a&&b' a.c && :", CompileCommand(("cc", "-c", "-DS=a&&b", "a.c"))),
        (
            "exec /p/python -I -S /p/edge.py 12ab d.txt --expect o.co --env L=C -- /c -- a.hip",
            CompileCommand(("/c", "--", "a.hip"), (("L", "C"),), own=True),
        ),
    ],
)
def test_commands_of_builds(text: str, wanted: CompileCommand) -> None:
    assert parse_command(text) == wanted


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "runs nothing"),
        (": && :", "runs nothing"),
        ("cc -c 'a.c", "can't be read"),
        ("cc -c a.c && touch b", "several programs"),
        ("cc -c a.c > log", "shell"),
        ("cc -c a.c | tee log", "shell"),
        ("cc -c `find .`", "shell"),
    ],
)
def test_commands_that_are_not_understood(text: str, why: str) -> None:
    found = parse_command(text)
    assert isinstance(found, NoCompile)
    assert why in found.reason


@given(st.text(alphabet="ab c&|;<>'\"\\$`=:-/", max_size=40))
def test_any_command_is_parsed_or_refused(text: str) -> None:
    found = parse_command(text)
    assert found.reason if isinstance(found, NoCompile) else found.argv


SAID = r"""clang version 22
 "/clang" "-cc1" "-triple" "amdgcn-amd-amdhsa" "-target-cpu" "gfx950" "-o" "/tmp/k.o" "k.hip"
 "/lld" "-flavor" "gnu" "-o" "k.out"
 "/clang" "-cc1" "-triple" "x86_64-linux" "-target-cpu" "x86-64" "-D" "A=\"\$x\\" @READ @WRITE
""".replace(
    "@READ", '"-fcuda-include-gpubinary" "/tmp/k.hipfb" "-fembed-offload-object=/tmp/k.out"'
)
SAID = SAID.replace("@WRITE", '"-dependency-file" "d/k.d" "-ftime-trace=k.json" "-o" "k.o"')


def test_the_passes_of_a_driver_write_elsewhere() -> None:
    device, host = parse_passes(SAID)
    assert [pass_target(device), pass_target(host)] == ["gfx950", "x86_64-linux"]
    assert 'A="$x\\' in host
    assert retargeted(host, "/s", "/s/1.json") == (
        "/clang",
        *("-cc1", "-triple", "x86_64-linux", "-target-cpu", "x86-64", "-D", 'A="$x\\'),
        *("-dependency-file", "/s/dependency-file-k.d", "-o", "/s/o-k.o", "-ftime-trace=/s/1.json"),
    )
    assert parse_passes('cc: error\n "cc1plus" "-quiet"\n') == []


def test_a_job_of_several_kernels_goes_on_behind_a_front_end_that_has_run() -> None:
    spec = {
        "front": ["clang", "-c", "k.hip"],
        "bitcode": "d/a.co.whole",
        "opt": "/opt",
        "back": ["clang", "-o", "@output", "@bitcode"],
        "outputs": ["d/a.co", "1-b.co"],
    }
    pack = parse_pack(["python", "-I", "/x/packjob.py", json.dumps(spec)])
    assert pack is not None
    assert pack.front == ("clang", "-c", "k.hip")
    *runner, text = pack.behind("/s/whole", "/s", "/s/t")
    assert runner == ["python", "-I", "/x/packjob.py"]
    assert json.loads(text) == {
        "front": ["true"],
        "bitcode": "/s/whole",
        "opt": "/opt",
        "back": ["clang", "-o", "@output", "@bitcode", "-ftime-trace=/s/t/"],
        "outputs": ["/s/a.co", "1-b.co"],
    }
    assert parse_pack(["clang", "-c", "k.hip"]) is None
    for broken in ("", "[", "3", "{}", json.dumps({**spec, "back": "x"}), "[" * 99_999):
        assert parse_pack(["python", "packjob.py", broken]) is None


# ---- real compiles -----------------------------------------------------------------------

CODE = """
#include <map>
#include <string>
int main() { std::map<std::string, int> m; m["a"] = 1; return m.size(); }
"""


def build(tmp_path: Path, flags: str = "") -> Path:
    """A build of two objects and a link, which ninja has run."""
    (tmp_path / "slow.cpp").write_text(CODE)
    (tmp_path / "quick.cpp").write_text("int quick() { return 1; }\n")
    (tmp_path / "build.ninja").write_text(
        f"rule cxx\n  command = {CLANG} -O1 {flags} -MMD -MF $out.d -c $in -o $out\n"
        "rule link\n  command = echo $in > $out\n"
        "build slow.o: cxx slow.cpp\nbuild quick.o: cxx quick.cpp\n"
        "build program: link slow.o quick.o\n"
    )
    from jitcache.build.ninjabin import find_ninja

    subprocess.run([find_ninja(), "-C", tmp_path], check=True, capture_output=True)
    return tmp_path


def report(*args: object) -> dict[str, Any]:
    said = CliRunner().invoke(command, [str(a) for a in args])
    assert said.exit_code == 0, said.output
    found: dict[str, Any] = json.loads(said.stdout)
    return found


@pytest.mark.compile
@pytest.mark.skipif(CLANG is None, reason="no clang is installed")
@pytest.mark.parametrize(
    "flags",
    ["", "-g -gsplit-dwarf -fsave-optimization-record --coverage -save-stats=obj -fstack-usage"],
    ids=["plain", "many files"],
)
def test_the_slowest_unit_is_compiled_again_and_the_build_stays_as_it_is(
    tmp_path: Path, flags: str
) -> None:
    build(tmp_path, flags)
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in tmp_path.iterdir()}
    found = report("--time-trace", tmp_path, "--json")["time_trace"]
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in tmp_path.iterdir()} == before
    (unit,) = found["units"]
    assert (unit["output"], unit["source"]) == ("slow.o", "compiled again")
    assert unit["total_s"] == pytest.approx(sum(unit["phases"].values()), abs=1e-5)
    assert min(unit["phases"].values()) > 0
    assert any(t["name"].startswith("std::") for t in unit["templates"])
    assert any(h["name"].endswith("/map") for h in unit["headers"])
    text = CliRunner().invoke(command, [str(tmp_path), "--time-trace=2"]).stdout
    assert "inside the 2 slowest translation units" in text
    assert "together" in text


@pytest.mark.compile
@pytest.mark.skipif(CLANG is None, reason="no clang is installed")
def test_traces_that_the_build_wrote_are_read_where_they_are(tmp_path: Path) -> None:
    build(tmp_path, "-ftime-trace")
    (tmp_path / "slow.cpp").unlink()
    found = report("--time-trace=2", tmp_path, "--json")["time_trace"]
    assert [(u["output"], u["source"]) for u in found["units"]] == [
        ("slow.o", "written by the build"),
        ("quick.o", "written by the build"),
    ]
    assert found["together"]["total_s"] == pytest.approx(
        sum(u["total_s"] for u in found["units"]), abs=1e-5
    )
    os.utime(tmp_path / "slow.json", (1, 1))
    said = CliRunner().invoke(command, [str(tmp_path), "--time-trace", "--json"])
    left = json.loads(said.stdout)["time_trace"]
    assert [u["output"] for u in left["units"]] == ["quick.o"]  # the other's trace is too old
    assert "no such file" in left["left_out"][0]["reason"]
    markdown = CliRunner().invoke(command, [str(tmp_path), "--time-trace", "--markdown"]).stdout
    assert "| translation unit | total | front end |" in markdown


@pytest.mark.compile
@pytest.mark.skipif(CLANG != "clang++-22", reason="no clang with both targets is installed")
def test_a_hip_unit_has_a_pass_for_the_host_and_for_each_target(tmp_path: Path) -> None:
    (tmp_path / "k.hip").write_text("__attribute__((device)) int twice(int x) { return 2 * x; }\n")
    targets = "--offload-arch=gfx942 --offload-arch=gfx950 -nogpuinc -nogpulib"
    (tmp_path / "build.ninja").write_text(
        f"rule hip\n  command = {CLANG} -x hip {targets} -c $in -o $out\nbuild k.o: hip k.hip\n"
    )
    from jitcache.build.ninjabin import find_ninja

    ran = subprocess.run([find_ninja(), "-C", tmp_path], check=False, capture_output=True)
    assert ran.returncode == 0, ran.stdout
    (unit,) = report("--time-trace", tmp_path, "--json")["time_trace"]["units"]
    assert sorted(unit["targets"])[:2] == ["gfx942", "gfx950"]
    assert len(unit["targets"]) == 3
    assert next(a for a in unit["activities"] if a["name"] == "ExecuteCompiler")["count"] == 3


def test_names_that_no_file_can_have_are_left_out(tmp_path: Path) -> None:
    names = ["a\0b", ".", "..", "/", "-t", "x/" * 3000]
    graph = ["rule cc", "  command = true"]
    log = ["# ninja log v5"]
    for n, name in enumerate(names):
        graph.append(f"build {name}: cc in{n}")
        log.append(f"0\t{n + 5}\t1\t{name}\t{n}")
    (tmp_path / "build.ninja").write_text("\n".join(graph) + "\n")
    (tmp_path / ".ninja_log").write_text("\n".join(log) + "\n")
    said = CliRunner().invoke(command, [str(tmp_path), "--time-trace"])
    assert isinstance(said.exception, InputError)
    assert said.exception.what == "no time trace could be got of any command"


@pytest.mark.compile
@pytest.mark.skipif(CLANG is None, reason="no clang is installed")
def test_no_trace_is_a_clear_error_that_names_the_reasons(tmp_path: Path) -> None:
    build(tmp_path)
    (tmp_path / "slow.cpp").write_text("#error gone\n")
    (tmp_path / "quick.cpp").unlink()
    said = CliRunner().invoke(command, [str(tmp_path), "--time-trace"])
    assert isinstance(said.exception, InputError)
    details = "\n".join(said.exception.details)
    assert "slow.o: compiling it again failed: slow.cpp:1:2: error: gone" in details
    assert "no such file or directory: 'quick.cpp'" in details
    assert "link: it uses the shell" in details
