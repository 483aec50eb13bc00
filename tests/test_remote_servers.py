"""Real servers on loopback: a registry, WebDAV and S3, each pushed to and pulled from."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from jitcache.remote.config import RemoteConfig
from jitcache.remote.fetch import Fetched, NotFetched
from jitcache.remote.opening import open_remote
from jitcache.sign.envelope import unpack
from tests.remote_help import BODY, TRUST, puller, pushed
from tests.remote_servers import docker_registry, needs, s3, webdav
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
    with docker_registry(tmp_path) as host:
        url = f"oci://{host}/kernels/test"
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
    with docker_registry(tmp_path) as host:
        record, _ = pushed(tmp_path, remote(f"oci://{host}/kernels/test"))
        image = f"docker://{host}/kernels/test:ac-{record.key[7:]}"
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
    words = ["htpasswd", "-Bbn", "ci", "s3cret-word"]
    passwords = subprocess.run(words, capture_output=True, check=True).stdout
    (tmp_path / "htpasswd").write_bytes(passwords)
    auth = f"auth: {{htpasswd: {{realm: test, path: {tmp_path}/htpasswd}}}}\n"
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "none"))
    with docker_registry(tmp_path, auth) as host:
        url = f"oci://{host}/kernels/test"
        for said in ("", f"{host}=ci:wrong-word"):
            monkeypatch.setenv("JITCACHE_CREDENTIALS", said)
            _, done = pushed(tmp_path, remote(url))
            assert done.state == "failed"
            assert "word" not in done.detail.replace("password", "")
        monkeypatch.setenv("JITCACHE_CREDENTIALS", f"{host}=ci:s3cret-word")
        there_and_back(tmp_path, url)


def test_registry_with_tokens(tmp_path, monkeypatch):
    """The registry verifies the tokens; who may only read gets one that allows no more."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "none"))
    users = {"ci": ("s3cret-word", {"pull", "push"}), "user": ("another-word", {"pull"})}
    with tokens(tmp_path, users) as auth, docker_registry(tmp_path, auth) as host:
        url = f"oci://{host}/kernels/test"
        for said in ("", f"{host}=ci:wrong-word"):
            monkeypatch.setenv("JITCACHE_CREDENTIALS", said)
            done = pushed(tmp_path, remote(url))[1]
            assert (done.state, "gives no token (HTTP 401)" in done.detail) == ("failed", True)
        monkeypatch.setenv("JITCACHE_CREDENTIALS", f"{host}=ci:s3cret-word")
        there_and_back(tmp_path, url)
        monkeypatch.setenv("JITCACHE_CREDENTIALS", f"{host}=user:another-word")
        record, done = pushed(tmp_path / "user", remote(url))
        assert done.state == "present"
        (tmp_path / "reader").mkdir()
        got = puller(tmp_path / "reader", remote(url))[1].fetch(record.key, record.outputs)
        assert isinstance(got, Fetched)
        done = pushed(tmp_path / "user", remote(url), "two")[1]
        assert (done.state, "refuses (HTTP 401)" in done.detail) == ("failed", True)


def test_registry_that_is_given_a_forged_token(tmp_path, monkeypatch):
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "none"))
    users = {"ci": ("s3cret-word", {"pull", "push"})}
    with (
        tokens(tmp_path, users, forged=True) as auth,
        docker_registry(tmp_path, auth) as host,
    ):
        monkeypatch.setenv("JITCACHE_CREDENTIALS", f"{host}=ci:s3cret-word")
        done = pushed(tmp_path, remote(f"oci://{host}/kernels/test"))[1]
        assert (done.state, "refuses (HTTP 401)" in done.detail) == ("failed", True)


def test_webdav(tmp_path):
    with webdav(tmp_path) as base:
        there_and_back(tmp_path, f"{base}/rw")
        assert remote(f"{base}/rw").creates_once() is False  # nginx ignores If-None-Match on PUT
        assert "refuses (HTTP 405)" in pushed(tmp_path, remote(f"{base}/ro"))[1].detail
        assert "503" in pushed(tmp_path, remote(f"{base}/down"))[1].detail


def test_s3(tmp_path, monkeypatch):
    with s3(tmp_path) as (url, variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        there_and_back(tmp_path, url)
        assert remote(url).creates_once() is True
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret-word")
        detail = pushed(tmp_path / "c", remote(url))[1].detail
        assert "refuses" in detail
        assert "secret" not in detail
