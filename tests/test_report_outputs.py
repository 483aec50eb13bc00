"""Comparison, limits, trace, Markdown and the page of the report."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from jitcache.cli.report import command
from jitcache.errors import ExitCode, InputError, JitcacheError, UsageError
from jitcache.report.assemble import report_run
from jitcache.report.compare import Base, BaseEdge, compare, read_base
from jitcache.report.gate import budget_gate, parse_budget, parse_percent, slower_gate
from jitcache.report.markdown import escape
from jitcache.report.markdown import render as render_markdown
from jitcache.report.model import Report
from jitcache.report.page import page_data
from jitcache.report.page import render as render_page
from jitcache.report.source import read_build
from jitcache.report.svg import render as render_svg
from jitcache.report.trace import lanes, trace

AITER = Path(__file__).parent / "data" / "ninja" / "aiter_a4w4"
SMALL = Path(__file__).parent / "data" / "ninja" / "small"
DOCS = Path(__file__).parent.parent / "docs"
SVG = "{http://www.w3.org/2000/svg}"
GEMM1 = "gemm1 256x128x128x128 v3"


def run_cli(*args: str | Path) -> Result:
    return CliRunner().invoke(command, [str(a) for a in args])


def aiter_report() -> Report:
    return report_run(read_build(AITER), -1)


def small(tmp_path: Path) -> Path:
    shutil.copy(SMALL / "build.ninja", tmp_path / "build.ninja")
    shutil.copy(SMALL / "v7-two-runs.log", tmp_path / ".ninja_log")
    return tmp_path


def base_json(tmp_path: Path, **changes: Any) -> Path:
    value = json.loads(run_cli(AITER, "--json").stdout)
    value.update(changes)
    path = tmp_path / "base.json"
    path.write_text(json.dumps(value))
    return path


# ---- comparison ------------------------------------------------------------------------


def test_a_build_compared_with_itself_shows_no_change(tmp_path: Path) -> None:
    found = compare(read_base(base_json(tmp_path)), aiter_report())
    assert found.changes == ()
    assert found.wall_before_s == found.wall_after_s == 54.877


def test_new_gone_slower_and_faster_commands(tmp_path: Path) -> None:
    report = aiter_report()
    edges = [BaseEdge(e.output, e.duration_s, e.label) for e in report.edges]
    edges[0] = BaseEdge(edges[0].output, 80.0)
    edges[1] = BaseEdge("gemm2_64x.cuda.o", 33.0, "gemm2 64x")
    edges[-1] = BaseEdge(edges[-1].output, edges[-1].duration_s - 0.04)
    found = compare(Base(81.0, 80.6, edges), report)
    assert [(c.label, c.before_s, c.after_s) for c in found.changes] == [
        ("gemm2 256x128x128x128 v3", None, 48.473),
        ("gemm2 64x", 33.0, None),
        (GEMM1, 80.0, 54.274),
    ]
    assert [c.on_critical_path for c in found.changes] == [False, False, True]
    assert found.to_json()["changes"][2]["delta_s"] == -25.726


def test_the_comparison_is_printed(tmp_path: Path) -> None:
    base = base_json(tmp_path, wall_s=100.0, critical_path_s=60.0)
    text = run_cli(AITER, "--compare", base).stdout
    assert "wall 100.0 s -> 54.9 s (-45.1 %); critical path 60.0 s -> 54.9 s (-8.5 %)" in text
    assert "no command changed" in text
    value = json.loads(run_cli(AITER, "--compare", base, "--json").stdout)
    assert value["comparison"]["wall_before_s"] == 100.0


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"wall_s": -1, "critical_path_s": 0, "edges": []}',
        "\x00",
        "[" * 100_000,
        '{"wall_s": 1, "critical_path_s": 1, "edges": [{"output": 3}]}',
    ],
)
def test_a_base_that_is_no_report_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "base.json"
    path.write_text(content)
    with pytest.raises(InputError, match="not a report") as e:
        read_base(path)
    assert e.value.where == str(path)
    with pytest.raises(InputError, match="can't be read"):
        read_base(tmp_path / "absent.json")


# ---- limits ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("300s", 300),
        ("300", 300),
        ("5m", 300),
        ("1h30m", 5400),
        ("2m30s", 150),
        ("0.5s", 0.5),
        ("1h", 3600),
        ("10min", 600),
        ("1h1m1.5s", 3661.5),
    ],
)
def test_budgets(text: str, expected: float) -> None:
    assert parse_budget(text) == expected


@pytest.mark.parametrize(
    "text", ["", "0", "0s", "-5s", "5x", "s", "m", "1m1h", "nan", "inf", "9" * 400]
)
def test_what_is_no_budget(text: str) -> None:
    with pytest.raises(UsageError, match="is no budget"):
        parse_budget(text)


def test_percentages() -> None:
    assert parse_percent("10%") == parse_percent("10") == pytest.approx(0.1)
    assert parse_percent("2.5 %") == pytest.approx(0.025)
    for text in ("", "%", "-1%", "ten", "1e9"):
        with pytest.raises(UsageError):
            parse_percent(text)


def test_gates_judge_at_the_limit() -> None:
    report = aiter_report()
    assert budget_gate(report, 54.877).ok
    over = budget_gate(report, 54.876)
    assert not over.ok
    assert "no number of jobs helps" in over.text
    base = Base(50.0, 50.0, [])
    assert slower_gate(report, base, 0.1).ok
    assert not slower_gate(report, base, 0.09).ok
    assert slower_gate(report, base, 0.09).limit_s == pytest.approx(54.5)


def test_only_the_asked_for_limit_fails_the_command(tmp_path: Path) -> None:
    told = run_cli(AITER, "--budget", "30s")
    assert told.exception is None
    assert "budget 30.0 s: measured build takes 54.9 s, 24.9 s over" in told.stdout
    failed = run_cli(AITER, "--budget", "30s", "--fail-over")
    assert isinstance(failed.exception, JitcacheError)
    assert failed.exception.exit_code is ExitCode.FAILED
    assert "24.9 s over" in failed.stdout
    assert run_cli(AITER, "--budget", "1m", "--fail-over").exception is None
    faster = base_json(tmp_path, wall_s=40.0)
    error = run_cli(AITER, "--fail-if-slower-than", faster).exception
    assert isinstance(error, JitcacheError)
    assert "(+37.2 %): more than 10 % over the base" in error.details[0]
    assert run_cli(AITER, "--fail-if-slower-than", faster, "--by", "40%").exception is None


def test_a_budget_with_jobs_judges_a_predicted_cold_build() -> None:
    result = run_cli(AITER, "--budget", "2m", "--jobs", "1", "--fail-over", "--json")
    value = json.loads(result.stdout)
    assert value["predicted"]
    assert value["gates"][0]["actual_s"] == pytest.approx(317.524)
    assert isinstance(result.exception, JitcacheError)
    measured = run_cli(AITER, "--budget", "2m", "--jobs", "1", "--fail-over", "--run", "last")
    assert measured.exception is None


@pytest.mark.parametrize(
    "args",
    [
        ("--fail-over",),
        ("--by", "5%"),
        ("--json", "--markdown"),
        ("--run", "all", "--budget", "5s"),
        ("--run", "all", "--markdown"),
    ],
)
def test_options_that_make_no_sense_alone_or_together(args: tuple[str, ...]) -> None:
    assert isinstance(run_cli(AITER, *args).exception, UsageError)


# ---- trace -----------------------------------------------------------------------------


def test_a_worker_takes_the_next_command_in_the_same_millisecond(tmp_path: Path) -> None:
    # 0.001 + 88.971 is more than 88.972 as floats.
    log = "# ninja log v5\n1\t88972\t1\ta\t1\n88972\t150009\t1\tb\t2\n150009\t150100\t1\tc\t3\n"
    (tmp_path / ".ninja_log").write_text(log)
    report = report_run(read_build(tmp_path), -1)
    assert {lane for lane, _ in lanes(report.edges)} == {0}


def test_no_two_commands_of_a_worker_overlap() -> None:
    for report in (aiter_report(), report_run(read_build(SMALL / "v7-two-runs.log"), 1)):
        by_lane: dict[int, list[tuple[float, float]]] = {}
        for lane, e in lanes(report.edges):
            by_lane.setdefault(lane, []).append((e.start_s, e.end_s))
        assert len(by_lane) == report.efficiency.peak_jobs
        for spans in by_lane.values():
            assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))


def test_the_trace_holds_every_command_once_and_the_path_again(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    assert run_cli(AITER, "--trace", path).exception is None
    events = json.loads(path.read_text())["traceEvents"]
    assert events == trace(aiter_report())["traceEvents"]
    spans = [e for e in events if e["ph"] == "X"]
    names = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    path_lane = next(t for t, n in names.items() if n == "critical path")
    assert [(e["name"], e["ts"], e["dur"]) for e in spans if e["tid"] == path_lane] == [
        (GEMM1, 0, 54_274_000),
        ("link", 54_274_000, 603_000),
    ]
    assert len([e for e in spans if e["tid"] != path_lane]) == 10
    missing = run_cli(AITER, "--trace", tmp_path / "no" / "trace.json").exception
    assert isinstance(missing, InputError)


# ---- SVG -------------------------------------------------------------------------------


def test_the_picture_is_well_formed_and_within_its_frame(tmp_path: Path) -> None:
    path = tmp_path / "report.svg"
    assert run_cli(AITER, "--svg", path).exception is None
    root = ElementTree.fromstring(path.read_text())
    width = float(root.attrib["width"])
    bars = [r for r in root.iter(f"{SVG}rect") if r.attrib["class"] in "bh"]
    assert [r.attrib["class"] for r in bars].count("h") == 2
    assert len(bars) == 10
    for bar in bars:
        assert float(bar.attrib["x"]) >= 0
        assert float(bar.attrib["x"]) + float(bar.attrib["width"]) <= width
    lengths = {
        t.text: float(b.attrib["width"]) for g in root.iter(f"{SVG}g") for t, b in [(g[0], g[1])]
    }
    first = lengths[f"{GEMM1}: 54.3 s, slack 0.00 s"]
    second = lengths["gemm2 256x128x128x128 v3: 48.5 s, slack 5.80 s"]
    assert second / first == pytest.approx(48.473 / 54.274, rel=0.01)
    assert path.read_text() == (DOCS / "report.svg").read_text()


def test_names_in_the_picture_stay_text(tmp_path: Path) -> None:
    (tmp_path / ".ninja_log").write_text('# ninja log v7\n0\t70\t1\t<a href="x">&amp;\tab\n')
    root = ElementTree.fromstring(render_svg(report_run(read_build(tmp_path), -1)))
    assert '<a href="x">&amp;' in "".join(root.itertext())


# ---- Markdown --------------------------------------------------------------------------


def test_markdown_for_a_comment(tmp_path: Path) -> None:
    base = base_json(tmp_path, wall_s=100.0)
    result = run_cli(AITER, "--markdown", "--top", "2", "--budget", "30s", "--compare", base)
    text = result.stdout
    assert text.startswith("**Build:** wall 54.9 s; the critical path is 54.9 s: gemm1 ")
    assert "- **FAILED**: budget 30.0 s" in text
    assert "Against the base: wall 100.0 s -> 54.9 s (-45.1 %)" in text
    assert f"| {GEMM1} | 54.274 s | 98.9 % | 0.000 s | yes |" in text
    assert "8 more commands, " in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in tables}) == 1


def test_markdown_shows_names_as_they_are() -> None:
    assert escape("a|b_c`<i>*\n") == "a\\|b\\_c\\`\\<i\\>\\*\N{REPLACEMENT CHARACTER}"
    report = aiter_report()
    report.notes.append("[x](y) @all")
    assert "\\[x\\]\\(y\\) \\@all" in render_markdown(report)


# ---- page ------------------------------------------------------------------------------


def data_of(page: str) -> dict[str, Any]:
    found = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert len(found) == 1
    value: dict[str, Any] = json.loads(found[0])
    return value


def test_the_page_holds_the_report_and_asks_nobody(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    base = base_json(tmp_path, wall_s=100.0)
    assert run_cli(AITER, "--html", path, "--compare", base).exception is None
    page = path.read_text()
    data = data_of(page)
    assert data["wall_s"] == 54.877
    assert data["edges"][0][0] == GEMM1
    assert data["comparison"]["wall_before_s"] == 100.0
    assert "default-src 'none'" in page
    assert not re.search(r"https?://|\bsrc=|@import|url\(|fetch\(|XMLHttp", page)
    assert "{{" not in page


@settings(max_examples=40)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_no_name_can_become_markup(name: str) -> None:
    report = aiter_report()
    report.notes = [f"</script><!--{name}"]
    page = render_page(report)
    assert data_of(page)["notes"] == report.notes
    assert page.count("</script>") == 2
    assert page.count("<!--") == 0


def test_page_rows_carry_what_the_script_reads() -> None:
    row = page_data(aiter_report())["edges"][0]
    assert row[0] == GEMM1
    assert row[2:7] == [0.0, 54.274, 0.0, 1, row[6]]
    assert row[7:] == ["cuda_compile", None, None, [], 0]
