"""Servers in this process that misbehave on purpose, and real ones on loopback."""

from __future__ import annotations

import contextlib
import http.server
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def serving(answer: Callable[[http.server.BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """An HTTP server that answers every request with `answer`; its URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            with contextlib.suppress(OSError):
                super().handle_one_request()

        def log_message(self, *args: object) -> None:
            pass

    for method in ("GET", "HEAD", "PUT", "POST"):
        setattr(Handler, f"do_{method}", answer)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=lambda: server.serve_forever(0.02), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def reply(
    handler: http.server.BaseHTTPRequestHandler,
    status: int,
    body: bytes = b"",
    *,
    length: int | None = None,
    headers: dict[str, str] | None = None,
) -> None:
    """Answer, with a Content-Length that need not be true."""
    size = int(handler.headers.get("Content-Length") or 0)
    handler.rfile.read(size)
    handler.send_response(status)
    for name, value in (headers or {}).items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)
    if length is not None and length != len(body):
        handler.close_connection = True


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextlib.contextmanager
def running(words: list[str], port: int, log: Path) -> Iterator[int]:
    """A real server, until it answers at its port; stopped at the end."""
    with log.open("wb") as f:
        process = subprocess.Popen(words, stdout=f, stderr=f, stdin=subprocess.DEVNULL)
    try:
        for _ in range(400):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if process.poll() is not None:
                break
            time.sleep(0.05)
        else:
            raise AssertionError(log.read_text())
        assert process.poll() is None, log.read_text()
        yield port
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def needs(*programs: str) -> None:
    """Skip the test where a program isn't installed."""
    for program in programs:
        if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin") is None:
            pytest.skip(f"{program} is not installed (tools/setup --dev installs it)")


def registry(place: Path, port: int, extra: str = "") -> list[str]:
    """The command line of a registry that keeps its files below `place`."""
    needs("docker-registry")
    config = place / "registry.yml"
    config.write_text(
        "version: 0.1\nlog: {level: warn}\n"
        f"storage: {{filesystem: {{rootdirectory: {place}/data}}}}\n"
        f"http: {{addr: 127.0.0.1:{port}}}\n{extra}"
    )
    return ["docker-registry", "serve", str(config)]
