"""The report's page in a headless Chromium, where chromedriver is installed."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from jitcache.buildlog.timetrace import Span, Trace
from jitcache.buildlog.tutime import attribute
from jitcache.cli.report import command
from jitcache.report.assemble import report_run
from jitcache.report.insidetu import AGAIN, InsideTus, UnitTime
from jitcache.report.model import Report
from jitcache.report.page import render
from jitcache.report.source import read_build
from tests.browser_help import DRIVER, Browser, chromium

AITER = Path(__file__).parent / "data" / "ninja" / "aiter_a4w4"
GEMM1 = "gemm1 256x128x128x128 v3"
UP, RIGHT, DOWN = "\ue013", "\ue014", "\ue015"
ENTER, ESCAPE = "\ue007", "\ue00c"
NAMES = "return [...document.querySelectorAll('#rows tr')].map(r => r.children[1].textContent)"

pytestmark = pytest.mark.skipif(DRIVER is None, reason="chromedriver is not installed")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(autouse=True)
def light(browser: Browser) -> None:
    browser.dark(wanted=False)


def quiet(browser: Browser, page: Path) -> bool:
    """Whether the console is empty and nothing but the page itself was asked for."""
    assert browser.log("browser") == []
    outside = [u for u in browser.requests() if not u.startswith("data:")]
    return outside == [page.as_uri()]


def text(browser: Browser, ident: str) -> str:
    found: str = browser.run(f"return document.getElementById('{ident}').textContent")
    return found


def compared(tmp_path: Path) -> Path:
    """The page of the AITER build, beside one in which gemm1 took 80 s."""
    base = tmp_path / "base.json"
    value = json.loads(CliRunner().invoke(command, [str(AITER), "--json"]).stdout)
    value["edges"][0]["duration_s"] = 80.0
    base.write_text(json.dumps({**value, "wall_s": 80.6, "critical_path_s": 80.603}))
    page = tmp_path / "page.html"
    CliRunner().invoke(command, [str(AITER), "--html", str(page), "--compare", str(base)])
    return page


def traced(tmp_path: Path, units: int = 1) -> Path:
    """The page of the AITER build with a time trace of its first units."""
    report = report_run(read_build(AITER), -1)

    def trace(scale: int) -> Trace:
        inner = Span("InstantiateFunction", "ck::applier<1>::f", 200_000, 700_000 * scale)
        front = Span("Frontend", "", 100_000, 800_000 * scale, [inner])
        back = Span("Optimizer", "", 800_000 * scale, 990_000 * scale)
        root = Span("ExecuteCompiler", "", 0, 1_000_000 * scale, [front, back])
        return Trace([root], [Span("Source", "/ck/utility/a.hpp", 0, 300_000)], {}, False)

    inside = InsideTus()
    for n, edge in enumerate(report.edges[:units]):
        time = attribute([trace(n + 1)])
        unit = UnitTime(edge.output, edge.label, AGAIN, ("gfx950",), time, ("a note",))
        inside.units.append(unit)
        inside.together.add(unit.time)
    page = tmp_path / "page.html"
    page.write_text(render(report, None, inside))
    return page


def test_the_first_screen_says_how_long_what_blocks_and_what_helps(
    browser: Browser, tmp_path: Path
) -> None:
    page = compared(tmp_path)
    browser.open(page)
    assert text(browser, "verdict").startswith(f"wall 54.9 s; the critical path is 54.9 s: {GEMM1}")
    assert text(browser, "a-long") == "54.9 s"
    assert text(browser, "a-what") == GEMM1
    first = browser.run("return document.querySelector('#a-help li').textContent")
    assert first == f"{GEMM1} twice as fast49.1 ssaves 5.80 s"
    jobs = "return [...document.querySelectorAll('#sims tr')].map(r => r.textContent)"
    assert browser.run(jobs) == [
        *("1317.5", "2163.2", "490.3", "854.9", "9 (this build)54.9"),
    ]
    below = "return document.getElementById('chart').getBoundingClientRect().bottom"
    assert browser.run(below) < 900
    assert quiet(browser, page)


def test_search_filter_and_sort(browser: Browser, tmp_path: Path) -> None:
    page = compared(tmp_path)
    browser.open(page)
    assert len(browser.run(NAMES)) == 10
    assert browser.run(NAMES)[0] == GEMM1
    browser.press("#search", "GEMM2")
    assert [n.split()[0] for n in browser.run(NAMES)] == ["gemm2"] * 3
    assert text(browser, "count") == "3 of 10 commands"
    browser.run(
        "const s = document.getElementById('search'); s.value = '';"
        "document.getElementById('only').click()"
    )
    assert browser.run(NAMES) == [GEMM1, "link"]
    browser.run(
        "document.getElementById('only').click();"
        "document.querySelector('#head th:nth-child(4) button').click()"
    )
    assert browser.run(NAMES)[0] == "link"
    sorts = "return [...document.querySelectorAll('#head th')].map(t => t.ariaSort)"
    assert browser.run(sorts)[:5] == ["none", "none", "none", "ascending", "none"]
    browser.run("const l = document.getElementById('lit'); l.value = 'chain'; l.onchange()")
    browser.run("document.getElementById('only').click()")
    assert "link" in browser.run(NAMES)
    assert quiet(browser, page)


def test_the_timeline_zooms_by_button_wheel_drag_and_key(browser: Browser, tmp_path: Path) -> None:
    page = compared(tmp_path)
    browser.open(page)
    before = browser.run("return [from, to]")
    browser.run("document.getElementById('in').click()")
    after = browser.run("return [from, to]")
    assert after[1] - after[0] == pytest.approx((before[1] - before[0]) / 2)
    browser.press("#chart", RIGHT)
    assert browser.run("return from") > after[0]
    browser.press("#chart", "+")
    narrow = browser.run("return to - from")
    assert narrow == pytest.approx((after[1] - after[0]) / 2)
    browser.run(
        "const r = cv.getBoundingClientRect(), at = {clientX: r.left + 600, clientY: r.top + 60,"
        " bubbles: true, cancelable: true};"
        "cv.dispatchEvent(new WheelEvent('wheel', {...at, deltaY: 100, ctrlKey: true}))"
    )
    assert browser.run("return to - from") == pytest.approx(narrow * 1.25)
    start = browser.run("return from")
    x, y = browser.run("const r = cv.getBoundingClientRect(); return [r.left + 500, r.top + 40]")
    moves = [
        {"type": "pointerMove", "x": round(x), "y": round(y)},
        {"type": "pointerDown", "button": 0},
        {"type": "pointerMove", "x": round(x) + 100, "y": round(y), "duration": 20},
        {"type": "pointerUp", "button": 0},
    ]
    pointer = {"type": "pointer", "id": "mouse", "actions": moves}
    browser.call("POST", "/actions", {"actions": [pointer]})
    assert browser.run("return from") < start
    browser.press("#chart", "0")
    assert browser.run("return [from, to]") == before
    assert quiet(browser, page)


def test_commands_are_chosen_by_row_and_by_arrow_key(browser: Browser, tmp_path: Path) -> None:
    page = compared(tmp_path)
    browser.open(page)
    assert text(browser, "tip").startswith(f"{GEMM1}: 54.3 s, from 0.00 s to 54.3 s")
    browser.run("document.querySelector('#rows tr:last-child').click()")
    said = text(browser, "tip")
    assert said.startswith("link: 0.60 s, from 54.3 s to 54.9 s, on the critical path, rule link")
    assert "gemm1 64x32x32x128 v3 and 4 more; " in said
    assert "began when its last input was there" in said
    assert "began when its last input was there" in said
    assert (
        browser.run("return document.querySelectorAll('#rows tr[aria-current=true]').length") == 1
    )
    browser.press("#search", "link")
    browser.press("#chart", DOWN)
    assert text(browser, "tip").startswith("link: ")
    browser.run("const s = document.getElementById('search'); s.value = ''; s.oninput()")
    browser.press("#rows tr", DOWN, ENTER)
    assert text(browser, "tip").startswith("gemm2 256x128x128x128 v3: 48.5 s")


def test_the_critical_path_is_drawn_in_its_own_colour(browser: Browser, tmp_path: Path) -> None:
    page = compared(tmp_path)
    for dark in (False, True):
        browser.dark(wanted=dark)
        browser.open(page)
        found = browser.run(
            "const d = cx.getImageData(0, 0, cv.width, cv.height).data, s = {};"
            "for (let i = 0; i < d.length; i += 4) { const k = [d[i], d[i+1], d[i+2]].join(',');"
            " s[k] = (s[k] || 0) + 1; } return s"
        )
        hot, bar = ("251,146,60", "53,85,127") if dark else ("194,65,12", "170,196,228")
        # gemm1 takes nearly the whole width, one of nine rows; the others together far more.
        assert found[hot] > 10_000
        assert found[bar] > 3 * found[hot]
    assert quiet(browser, page)


def test_the_comparison_shows_what_each_change_did(browser: Browser, tmp_path: Path) -> None:
    page = compared(tmp_path)
    browser.open(page)
    assert browser.run("return document.getElementById('s-compare').hidden") is False
    assert text(browser, "c-head").startswith("Wall 80.6 s \u2192 54.9 s (\u221231.9 %)")
    cells = "return [...document.querySelectorAll('#c-rows td')].map(c => c.textContent)"
    assert browser.run(cells)[:7] == [
        *("*", GEMM1, "80.000", "54.274"),
        *("\u221225.726", "\u221225.726", "\u221225.726"),
    ]
    assert "that the simulation doesn't explain" in text(browser, "c-parts")
    kinds = "return [...document.querySelectorAll('#c-both .strip')].map(s =>"
    kinds += " [s.querySelectorAll('.k0').length, s.querySelectorAll('.k1').length])"
    assert browser.run(kinds) == [[9, 1], [9, 1]]
    widths = "return [...document.querySelectorAll('#c-both .k1')].map(b => b.offsetWidth)"
    before, after = browser.run(widths)
    assert after / before == pytest.approx(54.274 / 80, rel=0.02)
    marked = "return document.querySelectorAll(\"[aria-label='on the critical path']\").length"
    assert browser.run(marked) == 1
    assert browser.run("return document.querySelectorAll('#c-rows tr').length") == 1
    assert quiet(browser, page)


def test_the_flame_is_walked_and_zoomed_by_keyboard(browser: Browser, tmp_path: Path) -> None:
    page = traced(tmp_path, 2)
    browser.open(page)
    options = "return [...document.querySelectorAll('#unit option')].map(o => o.textContent)"
    assert browser.run(options)[:2] == ["all 2 together \u2014 3.00 s", f"{GEMM1} \u2014 1.00 s"]
    browser.run("const u = document.getElementById('unit'); u.value = 1; u.onchange()")
    legend = "return [...document.querySelectorAll('#legend li')].map(o => o.textContent)"
    assert browser.run(legend) == [
        "front end 0.20 s, 20 %",
        "instantiation 0.50 s, 50 %",
        "IR generation 0.00 s, 0.0 %",
        "optimiser 0.19 s, 19 %",
        "back end 0.00 s, 0.0 %",
        "other 0.11 s, 11 %",
    ]
    frames = "return [...document.querySelectorAll('#flame div')].map(d => d.textContent)"
    assert browser.run(frames) == [
        "all",
        "ExecuteCompiler",
        "Frontend",
        "applier::f",
        "Optimizer",
    ]
    focus = "return document.activeElement.getAttribute('aria-label')"
    browser.press("#flame div[tabindex='0']", DOWN, DOWN)
    assert browser.run(focus).startswith(
        "Frontend: 0.70 s, 70 % of the unit, 0.20 s itself, 1 time"
    )
    browser.press("#flame div[tabindex='0']", DOWN)
    assert text(browser, "f-tip").startswith("InstantiateFunction: ck::applier::f: 0.50 s, 50 %")
    browser.press("#flame div[tabindex='0']", UP, RIGHT)
    assert browser.run(focus).startswith("Optimizer: ")
    browser.press("#flame div[tabindex='0']", ENTER)
    assert browser.run(frames) == ["all", "ExecuteCompiler", "Optimizer"]
    widths = "return [...document.querySelectorAll('#flame div')].map(d => d.offsetWidth)"
    assert len(set(browser.run(widths))) == 1
    browser.press("#flame div[tabindex='0']", ESCAPE)
    assert browser.run(frames) == [
        "all",
        "ExecuteCompiler",
        "Frontend",
        "applier::f",
        "Optimizer",
    ]
    assert "/ck/utility/a.hpp" in text(browser, "costs")
    assert quiet(browser, page)


def test_everything_that_takes_the_focus_has_a_role_and_a_name(
    browser: Browser, tmp_path: Path
) -> None:
    browser.open(traced(tmp_path))
    browser.cdp("Accessibility.enable")
    nodes = browser.cdp("Accessibility.getFullAXTree")["nodes"]

    def has(n: dict[str, Any], name: str) -> bool:
        return any(p["name"] == name and p["value"].get("value") for p in n.get("properties", []))

    focusable = [n for n in nodes if not n.get("ignored") and has(n, "focusable")]
    assert len(focusable) > 25
    unnamed = [
        n["role"]["value"]
        for n in focusable
        if n["role"]["value"] != "RootWebArea" and not n.get("name", {}).get("value", "").strip()
    ]
    assert unnamed == []
    (search,) = [n for n in focusable if n["role"]["value"] == "searchbox"]
    assert search["name"]["value"] == "Search"
    scopes = "return [...document.querySelectorAll('th')].map(t => t.scope)"
    assert set(browser.run(scopes)) == {"col"}
    roles = {n["role"]["value"] for n in nodes if not n.get("ignored")}
    assert {
        "banner",
        "main",
        "navigation",
        "heading",
        "table",
        "columnheader",
        "searchbox",
    } <= roles
    assert {"image", "tree", "treeitem", "status", "region", "combobox", "group"} <= roles
    levels = browser.run(
        "return [...document.querySelectorAll('h1, h2, h3')].map(h => +h.tagName[1])"
    )
    assert levels[0] == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))


def test_the_tab_key_goes_through_the_page_in_reading_order(
    browser: Browser, tmp_path: Path
) -> None:
    browser.open(traced(tmp_path))
    seen = []
    for _ in range(40):
        browser.tab()
        at = browser.run(
            "const a = document.activeElement; return [a.id || a.className || a.tagName,"
            " a.getBoundingClientRect().top + scrollY,"
            " getComputedStyle(a).outlineStyle !== 'none']"
        )
        seen.append(at)
        if at[0] == "f-root" or at[0].startswith("p"):
            break
    order = [name for name, _, _ in seen]
    wanted = ["skip", "theme", "search", "only", "lit", "in", "out", "all", "chart", "unit"]
    assert [n for n in order if n in wanted] == wanted
    assert all(visible for _, _, visible in seen)
    after_head = [top for name, top, _ in seen if name not in ("skip", "A", "theme")]
    assert all(b >= a - 40 for a, b in pairwise(after_head))


def test_the_theme_follows_the_system_and_the_button(browser: Browser, tmp_path: Path) -> None:
    page = compared(tmp_path)
    background = "return getComputedStyle(document.body).backgroundColor"
    browser.dark(wanted=True)
    browser.open(page)
    assert browser.run(background) == "rgb(15, 19, 23)"
    browser.run("document.getElementById('theme').click()")
    assert browser.run(background) == "rgb(255, 255, 255)"
    assert browser.run("return document.getElementById('theme').ariaPressed") == "false"


def luminance(colour: str) -> float:
    """Relative luminance as in WCAG 2."""
    if len(colour) == 4:
        colour = "#" + "".join(c * 2 for c in colour[1:])
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("which", [0, 1], ids=["light", "dark"])
def test_text_has_contrast_enough(which: int) -> None:
    style = Path("jitcache/report/page.css")
    css = (Path(__file__).parent.parent / style).read_text()
    block = re.findall(r":root[.a-z]* \{(.*?)\}", css, re.DOTALL)[which]
    colours = dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]+)", block))
    pairs = [("fg", "bg"), ("fg", "panel"), ("soft", "bg"), ("soft", "panel"), ("hot", "bg")]
    pairs += [("hot", "panel"), ("bar-fg", "bar"), ("hot-fg", "hot"), ("better", "bg")]
    pairs += [("worse", "bg"), *(("p-fg", f"p{n}") for n in range(6))]
    for a, b in pairs:
        one, two = sorted((luminance(colours[a]), luminance(colours[b])))
        assert (two + 0.05) / (one + 0.05) >= 4.5, (a, b)


def test_hostile_names_stay_text(browser: Browser, tmp_path: Path) -> None:
    shutil.copy(AITER / ".ninja_log", tmp_path)
    with (tmp_path / ".ninja_log").open("a") as f:
        f.write("0\t60000\t1770000000000000000\t<img src=x onerror=alert(1)></script>\tab\n")
    page = tmp_path / "page.html"
    page.write_text(render(report_run(read_build(tmp_path), -1)))
    browser.open(page)
    assert browser.run("return document.images.length") == 0
    assert "<img src=x" in text(browser, "rows")
    assert quiet(browser, page)


def test_a_build_of_nothing_opens(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / ".ninja_log").write_text("# ninja log v7\n0\t0\t1770000000000000000\ta\tab\n")
    page = tmp_path / "page.html"
    page.write_text(render(report_run(read_build(tmp_path), -1)))
    browser.open(page)
    assert browser.run(NAMES) == ["a"]
    assert quiet(browser, page)


def big(tmp_path: Path) -> Report:
    graph = ["rule cc", "  command = cc"]
    rows = []
    for i in range(20_000):
        graph.append(f"build o{i}.o: cc s{i}.c" + (f" o{i - 64}.o" if i >= 64 else ""))
        start = i // 64 * 100
        rows.append(f"{start}\t{start + 90 + i % 10}\t1\to{i}.o\t{i:x}")
    rows.sort(key=lambda r: int(r.split("\t")[1]))
    (tmp_path / "build.ninja").write_text("\n".join(graph) + "\n")
    (tmp_path / ".ninja_log").write_text("# ninja log v5\n" + "\n".join(rows) + "\n")
    return report_run(read_build(tmp_path), -1, simulate_jobs=False)


@pytest.mark.slow
def test_20000_commands_open(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(render(big(tmp_path)))
    browser.open(page)
    assert text(browser, "count") == "20000 of 20000 commands"
    assert browser.run("return document.querySelectorAll('#rows tr').length") == 200
    browser.run("document.getElementById('more').click()")
    assert browser.run("return document.querySelectorAll('#rows tr').length") == 1200
    browser.press("#search", "o1999")
    assert text(browser, "count") == "11 of 20000 commands"
    assert quiet(browser, page)
