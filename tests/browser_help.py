"""A headless Chromium over WebDriver: as much of the protocol as the page's tests need."""

from __future__ import annotations

import base64
import contextlib
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

DRIVER = shutil.which("chromedriver")

_PATIENCE_S = 20.0


class Browser:
    """One session; the pages that it opens are files."""

    def __init__(self, port: int, width: int = 1200, height: int = 900) -> None:
        self.root = f"http://127.0.0.1:{port}"
        options = {
            "args": [
                *("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
                "--disable-dev-shm-usage",
                f"--window-size={width},{height}",
            ]
        }
        wanted = {
            "alwaysMatch": {
                "goog:chromeOptions": options,
                "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
            }
        }
        end = time.monotonic() + _PATIENCE_S
        while True:
            try:
                session = self.call("POST", "/session", {"capabilities": wanted})
                break
            except (ConnectionError, urllib.error.URLError):
                if time.monotonic() > end:
                    raise
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

    def press(self, selector: str, *keys: str) -> None:
        """Real key strokes into an element, one by one."""
        found = self.call("POST", "/element", {"using": "css selector", "value": selector})
        (element,) = found.values()
        self.call("POST", f"/element/{element}/value", {"text": "".join(keys)})

    def tab(self, times: int = 1) -> None:
        """The Tab key, wherever the focus is."""
        stroke = [{"type": kind, "value": "\ue004"} for kind in ("keyDown", "keyUp")]
        actions = [{"type": "key", "id": "keyboard", "actions": stroke * times}]
        self.call("POST", "/actions", {"actions": actions})

    def dark(self, wanted: bool) -> None:
        """What the user's system asks pages for."""
        value = "dark" if wanted else "light"
        features = [{"name": "prefers-color-scheme", "value": value}]
        self.cdp("Emulation.setEmulatedMedia", features=features)

    def cdp(self, name: str, **parameters: Any) -> Any:
        return self.call("POST", "/goog/cdp/execute", {"cmd": name, "params": parameters})

    def screenshot(self) -> bytes:
        """What the window shows, as PNG."""
        return base64.b64decode(self.call("GET", "/screenshot"))

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


@contextlib.contextmanager
def chromium(width: int = 1200, height: int = 900) -> Iterator[Browser]:
    """A browser for as long as the block runs; needs chromedriver."""
    assert DRIVER is not None
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    process = subprocess.Popen([DRIVER, f"--port={port}"], stdout=subprocess.DEVNULL)
    try:
        found = Browser(port, width, height)
        yield found
        found.call("DELETE", "")
    finally:
        process.terminate()
        process.wait(10)
