"""Servers that hang, reset, fail and lie; redirects; configuration; what commands say."""

from __future__ import annotations

import base64
import errno
import json
import os
import socket
import struct
import threading
import time

import pytest

from jitcache import digest
from jitcache.action.headers import HEADERS_OUTPUT
from jitcache.cli.main import main
from jitcache.errors import InputError, StoreError
from jitcache.lockfile import Lock, LockedModule, write_lock
from jitcache.remote import config as config_module
from jitcache.remote.chain import Guarded
from jitcache.remote.config import load_remotes
from jitcache.remote.credentials import Credentials, find
from jitcache.remote.fetch import Fetched, NotFetched
from jitcache.remote.http import HttpObjects
from jitcache.remote.interface import Absent, Failed, Found
from jitcache.remote.keyed import KeyedRemote
from jitcache.remote.oci import OciClient
from jitcache.remote.transport import Origin, Transport, split
from jitcache.store import durable
from jitcache.store.layout import Bucket
from jitcache.store.store import Store
from jitcache.userconfig import remotes_configured
from tests.pack_help import locked
from tests.remote_help import CI, directory, guarded, puller, pushed
from tests.remote_servers import free_port, reply, serving
from tests.store_help import make

KEY = "sha256:" + "ab" * 32
SECRET = "hunter2-password"


def http(url: str, deadline_s: float = 2.0) -> Guarded:
    return guarded(KeyedRemote(HttpObjects(url, deadline_s), "it"), deadline_s=deadline_s)


def reset(handler) -> None:
    import socket

    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def garbage(handler) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")
    handler.close_connection = True


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (reset, ""),
        (garbage, "not an HTTP answer"),
        (lambda h: reply(h, 500), "HTTP 500"),
        (lambda h: reply(h, 200, b"half", length=400), "4 of 400"),
    ],
)
def test_a_failing_server_is_left_out_after_its_attempts(answer, reason):
    asked = []

    def count(handler):
        asked.append(handler.path)
        answer(handler)

    with serving(count) as url:
        remote = http(url)
        first = remote.get_record(KEY)
        assert isinstance(first, Failed)
        assert (first.kind, reason in first.detail) == ("unavailable", True)
        before = len(asked)
        assert 2 <= before <= 6
        again = remote.get_record("sha256:" + "cd" * 32)
        assert isinstance(again, Failed)
        assert again.detail.startswith("left out")
        assert len(asked) == before


@pytest.mark.parametrize("trickle", [False, True])
def test_a_server_that_hangs_costs_its_deadline_once(trickle):
    free = threading.Event()
    asked = []

    def hang(handler):
        asked.append(1)
        while trickle and not free.is_set():
            handler.wfile.write(b"H")
            free.wait(0.05)
        free.wait(20)

    with serving(hang) as url:
        remote = http(url, 0.4)
        begin = time.monotonic()
        for _ in range(20):
            assert isinstance(remote.get_record(KEY), Failed)
        # Not a measurement: 20 waits instead of one would be 8 seconds.
        assert time.monotonic() - begin < 4
        assert remote.down == "no answer in time" or "in time" in str(remote.down)
        free.set()
    assert len(asked) == 1


def test_nobody_listening_is_unavailable():
    remote = http(f"http://127.0.0.1:{free_port()}")
    got = remote.get_record(KEY)
    assert isinstance(got, Failed)
    assert "refused" in got.detail


def test_a_remote_that_hangs_without_a_socket_is_bounded(tmp_path):
    class Hung:
        def get_record(self, key):
            time.sleep(30)

    begin = time.monotonic()
    assert isinstance(Guarded("nfs", Hung(), deadline_s=0.2).get_record(KEY), Failed)
    assert time.monotonic() - begin < 5


def test_one_failure_that_passes_is_retried():
    answers = [500, 404]
    with serving(lambda h: reply(h, answers.pop(0))) as url:
        assert http(url).get_record(KEY) == Absent()
    assert answers == []


def test_only_absence_is_remembered():
    asked = []

    def answer(handler):
        asked.append(handler.path)
        reply(handler, 404 if "abab" in handler.path else 403)

    with serving(answer) as url:
        remote = http(url)
        other = "sha256:" + "cd" * 32
        for _ in range(3):
            assert remote.get_record(KEY) == Absent()
            got = remote.get_record(other)
            assert isinstance(got, Failed)
            assert got.kind == "denied"
    assert len([p for p in asked if "abab" in p]) == 1
    assert len(asked) == 4


def test_more_than_was_stated_is_not_read():
    with serving(lambda h: reply(h, 200, bytes(100_000))) as url:
        got = http(url).get_blob(digest.of_bytes(b"abc"), 3)
    assert isinstance(got, Failed)
    assert got.kind == "damaged"


def test_a_dead_remote_before_a_living_one_fails_nothing(tmp_path):
    living = directory(tmp_path / "r")
    record, _ = pushed(tmp_path, living)
    fetcher = puller(tmp_path, living)[1]
    fetcher._remotes = [http(f"http://127.0.0.1:{free_port()}"), living]
    assert isinstance(fetcher.fetch(record.key), Fetched)


def test_a_full_disk_while_fetching_is_a_store_error_and_leaves_nothing(tmp_path, monkeypatch):
    record, _ = pushed(tmp_path, directory(tmp_path / "remote"), "one")
    store, fetcher = puller(tmp_path, directory(tmp_path / "remote"))
    kept = durable.write_temp

    def full(place, data, mode, *, durable=True):
        if durable:
            return kept(place, data, mode)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(durable, "write_temp", full)
    with pytest.raises(StoreError, match="can't keep what was fetched") as refused:
        fetcher.fetch(record.key)
    assert "the disk is full" in refused.value.hint
    monkeypatch.undo()
    assert list(store.layout.bucket(Bucket.TMP).iterdir()) == []
    assert isinstance(fetcher.fetch(record.key), Fetched)


def test_a_directory_that_is_not_mounted_is_unavailable_and_never_made(tmp_path):
    remote = directory(tmp_path / "r")
    record, _ = pushed(tmp_path, remote)
    (tmp_path / "r").rename(tmp_path / "away")
    assert isinstance(remote.get_record(KEY), Failed)
    assert not (tmp_path / "r").exists()
    assert isinstance(puller(tmp_path, remote)[1].fetch(record.key), NotFetched)


def test_a_password_follows_no_redirect_to_another_origin(monkeypatch):
    seen: list[tuple[str, str | None]] = []

    def elsewhere(handler):
        seen.append(("elsewhere", handler.headers.get("Authorization")))
        reply(handler, 200, b"x")

    with serving(elsewhere) as other:

        def home(handler):
            seen.append(("home", handler.headers.get("Authorization")))
            if handler.path.endswith("/same"):
                reply(handler, 200, b"x")
            elif handler.path.startswith("/ac"):
                reply(handler, 307, headers={"Location": "/same"})
            else:
                reply(handler, 307, headers={"Location": f"{other}/?token={SECRET}"})

        with serving(home) as url:
            host = url.removeprefix("http://")
            monkeypatch.setenv("JITCACHE_CREDENTIALS", f"{host}=ci:{SECRET}")
            objects = HttpObjects(url, 2.0)
            assert objects.get("ac/1", 9) == Found(b"x")
            assert [bool(a) for _, a in seen] == [True, True]
            seen.clear()
            assert objects.get("cas/1", 9) == Found(b"x")
    assert [(where, bool(a)) for where, a in seen] == [("home", True), ("elsewhere", False)]


@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://x/", "http://a@b/", ""])
def test_a_redirect_goes_nowhere_but_http(place):
    with serving(lambda h: reply(h, 302, headers={"Location": place})) as url:
        got = Transport(2.0).request("GET", url + "/x")
    assert isinstance(got, Failed)


def test_a_put_is_not_redirected():
    with serving(lambda h: reply(h, 307, headers={"Location": "/y"})) as url:
        got = Transport(2.0).request("PUT", url + "/x", body=b"1")
    assert isinstance(got, Failed)
    assert "isn't followed" in got.detail


def test_a_registry_gets_a_token_and_verifies_what_is_served():
    good = b"blob"
    asked: list[tuple[str, str]] = []

    def answer(handler):
        said = handler.headers.get("Authorization", "")
        asked.append((handler.path.partition("?")[0], said.partition(" ")[0]))
        if handler.path.startswith("/token"):
            reply(handler, 200, b'{"token":"t0k"}')
        elif said != "Bearer t0k":
            realm = f'Bearer realm="http://{handler.headers["Host"]}/token",service="s"'
            reply(handler, 401, headers={"WWW-Authenticate": realm})
        else:
            reply(handler, 200, good if handler.path.endswith(digest.of_bytes(good)) else b"evil")

    with serving(answer) as url:
        parts = split(url)
        assert parts is not None
        client = OciClient(parts[0], "k", credentials=Credentials("ci", SECRET), timeout=2.0)
        assert client.get_blob(digest.of_bytes(good), 4) == Found(good)
        got = client.get_blob(digest.of_bytes(b"else"), 4)
        assert isinstance(got, Failed)
        assert got.kind == "damaged"
        evil = client.get_manifest(digest.of_bytes(b"else"))
        assert isinstance(evil, Failed)
    assert [scheme for _, scheme in asked[:3]] == ["", "Basic", "Bearer"]


def test_no_password_goes_to_a_token_server_without_tls():
    challenge = {"WWW-Authenticate": 'Bearer realm="http://tokens.invalid/x",service="s"'}
    with serving(lambda h: reply(h, 401, headers=challenge)) as url:
        parts = split(url)
        assert parts is not None
        got = OciClient(parts[0], "k", credentials=Credentials("ci", SECRET)).get_manifest("t")
    assert isinstance(got, Failed)
    assert "without TLS" in got.detail


@pytest.mark.parametrize("challenge", ['Basic realm="x"', 'Bearer realm="https://t.invalid/x"'])
def test_no_password_is_used_for_a_registry_without_tls(challenge):
    client = OciClient(Origin("http", "k.invalid", 80), "k", credentials=Credentials("ci", SECRET))
    got = client._answer(challenge, push=False)
    assert isinstance(got, Failed)
    assert got.detail == "no password is used for k.invalid:80 without TLS"


def test_no_password_is_sent_without_tls(monkeypatch):
    monkeypatch.setenv("JITCACHE_CREDENTIALS", f"kernels.invalid=ci:{SECRET}")
    with pytest.raises(InputError, match="without TLS"):
        HttpObjects("http://kernels.invalid/x", 1.0)


def test_credentials_of_docker_are_those_of_exactly_that_host(tmp_path, monkeypatch):
    monkeypatch.delenv("JITCACHE_CREDENTIALS", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    auth = base64.b64encode(f"ci:{SECRET}".encode()).decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"a.invalid:5000": {"auth": auth}}}))
    assert find("a.invalid:5000") == Credentials("ci", SECRET)
    assert find("a.invalid") is None
    assert SECRET not in repr(find("a.invalid:5000"))


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in (config_module.VARIABLE, "JITCACHE_TRUSTED_KEYS", "JITCACHE_SIGNING_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JITCACHE_DIR", str(tmp_path / "store"))
    monkeypatch.delenv("JITCACHE_SEEDS", raising=False)
    place = tmp_path / "config" / "jitcache"
    place.mkdir(parents=True)
    return place


TABLE = '[[remote]]\nname = "ci"\nurl = "file:///mnt/k"\nmode = "rw"\n'


def test_the_users_file_and_the_environment_name_remotes(home, monkeypatch):
    assert load_remotes() == ()
    (home / "config.toml").write_text(TABLE)
    (only,) = load_remotes()
    assert (only.name, only.url, only.writable, only.signed) == ("ci", "file:///mnt/k", True, True)
    monkeypatch.setenv(config_module.VARIABLE, "file:///a rw:https://b.invalid/x")
    assert [(r.name, r.writable) for r in load_remotes()] == [("env1", False), ("env2", True)]
    monkeypatch.setenv(config_module.VARIABLE, "")
    assert load_remotes() == ()


@pytest.mark.parametrize("relative", [False, True])
def test_a_project_adds_neither_remotes_nor_keys(home, tmp_path, monkeypatch, relative):
    project = tmp_path / "project"
    for name in ("jitcache", ".config/jitcache", "."):
        (project / name).mkdir(parents=True, exist_ok=True)
        for file in ("config.toml", "jitcache.toml", ".jitcache.toml"):
            (project / name / file).write_text(TABLE)
        (project / name / "trust.json").write_text("{}")
    monkeypatch.chdir(project)
    if relative:  # an environment that a project's tool might set
        monkeypatch.setenv("XDG_CONFIG_HOME", ".")
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert remotes_configured() is False
    assert load_remotes() == ()


def test_a_configuration_that_others_can_write_is_refused(home):
    path = home / "config.toml"
    path.write_text(TABLE)
    path.chmod(0o666)
    with pytest.raises(InputError, match="another user"):
        load_remotes()


@pytest.mark.parametrize(
    "text",
    [
        f'[[remote]]\nname="a"\nurl="https://ci:{SECRET}@h.invalid/"\n',
        f'[[remote]]\nname="a"\nurl="https://h.invalid/?token={SECRET}"\n',
        f'[[remote]]\nname="a"\nurl="{SECRET}"\n',
        '[[remote]]\nname="a"\nurl="file://relative"\n',
        TABLE + TABLE,
        TABLE + "trust = 1\n",
        "remote = 3\n",
        "[[remote]]\n",
        TABLE.replace('"rw"', '"wo"'),
        TABLE + "deadline_s = true\n",
    ],
)
def test_a_bad_configuration_is_explained_without_its_secrets(home, text):
    (home / "config.toml").write_text(text)
    with pytest.raises(InputError) as caught:
        load_remotes()
    assert SECRET not in str(caught.value)


def run(capsys, *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main([*words])
    said = capsys.readouterr()
    return int(caught.value.code or 0), said.out, said.err


def lock_of(tmp_path, *records):
    host, *_ = records
    lock = Lock(
        manifest="m",
        manifest_digest=KEY,
        arch="gfx950",
        cu_num=256,
        toolchain="t",
        provider="llvm",
        hip_version=(7, 1),
        modules=tuple(LockedModule(f"m{i}", locked(r), ()) for i, r in enumerate(records)),
    )
    assert host in records
    write_lock(tmp_path / "lock.json", lock)
    return str(tmp_path / "lock.json")


def test_from_key_to_pull_by_the_commands(home, tmp_path, capsys, monkeypatch):
    share = tmp_path / "share"
    share.mkdir()
    (home / "config.toml").write_text(TABLE.replace("/mnt/k", str(share)))
    code, out, _ = run(capsys, "key", "new", "ci", "--json")
    assert code == 0
    made = json.loads(out)
    store = Store(tmp_path / "store")
    # As `prebuild` makes them: a lock doesn't name the list of headers.
    made_of = {"kernel.co": b"code", HEADERS_OUTPUT: b"[]"}
    records = [store.put(*make(tmp_path / "w", n, made_of)) for n in ("one", "two")]
    lock = lock_of(tmp_path, *records)
    assert run(capsys, "push", lock)[0] == 2  # no key
    code, out, err = run(capsys, "push", lock, "--key", made["secret_file"], "--json")
    assert (code, json.loads(out)["pushed"]) == (0, 2)
    monkeypatch.setenv("JITCACHE_DIR", str(tmp_path / "another-machine"))
    code, out, err = run(capsys, "pull", lock)
    assert code == 1
    assert "not trusted" in err
    assert run(capsys, "key", "trust", made["public"])[0] == 0
    code, out, _ = run(capsys, "pull", lock, "--json")
    assert (code, json.loads(out)["fetched"]) == (0, 2)
    code, out, _ = run(capsys, "pull", lock, "--json")
    assert (json.loads(out)["found"], json.loads(out)["fetched"]) == (2, 0)
    code, out, _ = run(capsys, "remote", "check", "--json")
    (checked,) = json.loads(out)
    assert (code, [s["step"] for s in checked["steps"]]) == (
        0,
        ["reach", "write", "read back", "first write wins"],
    )
    assert run(capsys, "key", "revoke", "ci")[0] == 0
    monkeypatch.setenv("JITCACHE_DIR", str(tmp_path / "third-machine"))
    assert "'ci' is not trusted" in run(capsys, "pull", lock)[2]
    assert run(capsys, "key", "new", "ci")[0] == 3  # never over an old key


def test_commands_never_say_a_secret(home, tmp_path, capsys, monkeypatch):
    def answer(handler):
        reply(handler, 403, handler.headers.get("Authorization", "").encode())

    with serving(answer) as url:
        host = url.removeprefix("http://")
        monkeypatch.setenv("JITCACHE_CREDENTIALS", f"{host}=ci:{SECRET}")
        monkeypatch.setenv(config_module.VARIABLE, f"rw:{url}/k")
        seed = base64.b64encode(CI.seed).decode()
        monkeypatch.setenv("JITCACHE_SIGNING_KEY", f"ci:{seed}")
        lock = lock_of(tmp_path, Store(tmp_path / "store").put(*make(tmp_path / "w")))
        said = ""
        for words in (("push", lock), ("remote", "check"), ("remote", "ls"), ("key", "ls")):
            _, out, err = run(capsys, *words)
            said += out + err
        monkeypatch.setenv("JITCACHE_DIR", str(tmp_path / "empty"))
        _, out, err = run(capsys, "pull", lock)
        said += out + err
    assert "refuses (HTTP 403)" in said
    for secret in (SECRET, base64.b64encode(f"ci:{SECRET}".encode()).decode(), seed):
        assert secret not in said


def test_what_a_broken_connection_left_in_a_file_is_overwritten(tmp_path):
    asked = []

    def answer(handler):
        asked.append(handler.path)
        if len(asked) == 2:  # on the connection that the first request left open
            handler.send_response(200)
            handler.send_header("Content-Length", str(1 << 20))
            handler.end_headers()
            handler.wfile.write(b"x" * (300 << 10))
            time.sleep(0.2)
            # With a reset rather than an orderly end, which would be an answer cut short.
            linger = struct.pack("ii", 1, 0)
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            for end in (handler.wfile, handler.rfile, handler.connection):
                end.close()
            handler.close_connection = True
        else:
            reply(handler, 200, b"whole")

    transport = Transport(5.0)
    with serving(answer) as url, (tmp_path / "file").open("w+b") as f:
        assert not isinstance(transport.request("GET", url), Failed)
        got = transport.request("GET", url, limit=1 << 20, into=f)
        assert not isinstance(got, Failed)
    assert len(asked) == 3
    assert (tmp_path / "file").read_bytes() == b"whole"
