"""The report's page in a headless Chromium, where chromedriver is installed."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from jitcache.cli.report import command
from jitcache.report.assemble import report_run
from jitcache.report.model import Report
from jitcache.report.page import render
from jitcache.report.source import read_build

AITER = Path(__file__).parent / "data" / "ninja" / "aiter_a4w4"
DRIVER = shutil.which("chromedriver")

pytestmark = pytest.mark.skipif(DRIVER is None, reason="chromedriver is not installed")


class Browser:
    """As much of the WebDriver protocol as the tests need."""

    def __init__(self, port: int) -> None:
        self.root = f"http://127.0.0.1:{port}"
        options = {
            "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1200,900"]
        }
        wanted = {
            "alwaysMatch": {
                "goog:chromeOptions": options,
                "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
            }
        }
        for _ in range(100):
            try:
                session = self.call("POST", "/session", {"capabilities": wanted})
                break
            except ConnectionError:
                time.sleep(0.1)
            except urllib.error.URLError:
                time.sleep(0.1)
        self.root += f"/session/{session['sessionId']}"

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        request = urllib.request.Request(
            self.root + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, page: Path) -> None:
        self.log("browser")
        self.log("performance")
        self.call("POST", "/url", {"url": page.as_uri()})

    def run(self, script: str) -> Any:
        return self.call("POST", "/execute/sync", {"script": script, "args": []})

    def log(self, kind: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.call("POST", "/se/log", {"type": kind})
        return found

    def requests(self) -> list[str]:
        messages = [json.loads(e["message"])["message"] for e in self.log("performance")]
        return [
            m["params"]["request"]["url"]
            for m in messages
            if m["method"] == "Network.requestWillBeSent"
        ]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert DRIVER is not None
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    process = subprocess.Popen([DRIVER, f"--port={port}"], stdout=subprocess.DEVNULL)
    try:
        found = Browser(port)
        yield found
        found.call("DELETE", "")
    finally:
        process.terminate()
        process.wait(10)


def quiet(browser: Browser, page: Path) -> bool:
    """Whether the console is empty and nothing but the page itself was asked for."""
    assert browser.log("browser") == []
    outside = [u for u in browser.requests() if not u.startswith("data:")]
    return outside == [page.as_uri()]


def test_the_page_renders_filters_sorts_zooms_and_compares(
    browser: Browser, tmp_path: Path
) -> None:
    base = tmp_path / "base.json"
    value = json.loads(CliRunner().invoke(command, [str(AITER), "--json"]).stdout)
    value["edges"][0]["duration_s"] = 80.0
    base.write_text(json.dumps({**value, "wall_s": 80.6}))
    page = tmp_path / "page.html"
    CliRunner().invoke(command, [str(AITER), "--html", str(page), "--compare", str(base)])
    browser.open(page)
    assert browser.run("return document.getElementById('verdict').textContent").startswith(
        "wall 54.9 s; the critical path is 54.9 s: gemm1 256x128x128x128 v3 54.3 s (98.9 %)"
    )
    names = "return [...document.querySelectorAll('#rows tr')].map(r => r.children[1].textContent)"
    assert len(browser.run(names)) == 10
    assert browser.run(names)[0] == "gemm1 256x128x128x128 v3"
    assert "80.000" in browser.run("return document.getElementById('c-rows').textContent")
    assert browser.run("return document.getElementById('s-compare').hidden") is False

    browser.run(
        "const s = document.getElementById('search'); s.value = 'GEMM2';"
        "s.dispatchEvent(new Event('input'))"
    )
    assert [n.split()[0] for n in browser.run(names)] == ["gemm2"] * 3
    assert browser.run("return document.getElementById('count').textContent").startswith("3 of 10")
    browser.run(
        "const s = document.getElementById('search'); s.value = '';"
        "document.getElementById('only').click()"
    )
    assert browser.run(names) == ["gemm1 256x128x128x128 v3", "link"]
    browser.run("document.getElementById('only').click()")
    browser.run("document.querySelector('#head th:nth-child(4) button').click()")
    assert browser.run(names)[0] == "link"

    before = browser.run("return [from, to]")
    browser.run("document.getElementById('in').click()")
    after = browser.run("return [from, to]")
    assert after[1] - after[0] == pytest.approx((before[1] - before[0]) / 2)
    key = (
        "document.getElementById('chart').dispatchEvent(new KeyboardEvent('keydown', {key: '%s'}))"
    )
    browser.run(key % "ArrowRight")
    assert browser.run("return from") > after[0]
    browser.run(key % "0")
    assert browser.run("return [from, to]") == before

    browser.run("document.querySelector('#rows tr').click()")
    assert browser.run("return document.getElementById('tip').textContent").startswith(
        "link: 0.603 s from 54.3 s, slack 0.000 s, on the critical path, rule link"
    )
    # Something is drawn, and the critical path in its own colour.
    colours = browser.run(
        "const d = cx.getImageData(0, 0, cv.width, cv.height).data, s = new Set();"
        "for (let i = 0; i < d.length; i += 4) s.add(d[i] + ',' + d[i+1] + ',' + d[i+2]);"
        "return [...s]"
    )
    assert {"194,65,12", "124,156,196"} <= set(colours) or {"251,146,60", "79,111,153"} <= set(
        colours
    )
    assert quiet(browser, page)


def test_hostile_names_stay_text(browser: Browser, tmp_path: Path) -> None:
    shutil.copy(AITER / ".ninja_log", tmp_path)
    with (tmp_path / ".ninja_log").open("a") as f:
        f.write("0\t60000\t1770000000000000000\t<img src=x onerror=alert(1)></script>\tab\n")
    page = tmp_path / "page.html"
    page.write_text(render(report_run(read_build(tmp_path), -1)))
    browser.open(page)
    assert browser.run("return document.images.length") == 0
    assert "<img src=x" in browser.run("return document.getElementById('rows').textContent")
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


def test_20000_commands_open(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(render(big(tmp_path)))
    browser.open(page)
    assert browser.run("return document.getElementById('count').textContent").startswith("20000 of")
    assert browser.run("return document.querySelectorAll('#rows tr').length") == 200
    browser.run("document.getElementById('more').click()")
    assert browser.run("return document.querySelectorAll('#rows tr').length") == 1200
    assert quiet(browser, page)
