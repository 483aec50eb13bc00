"""Loading what isn't on this machine: from remotes that serve, hang, lie or are switched off."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import pytest

import jitcache
from jitcache.cli.main import main
from jitcache.errors import ExitCode, InputError
from jitcache.lockfile import load_lock
from jitcache.remote import push as push_module
from jitcache.remote.config import RemoteConfig
from jitcache.remote.opening import open_remote
from jitcache.runtime import hip as hip_module
from jitcache.runtime import objects
from jitcache.runtime.load import open_module
from jitcache.runtime.policy import RefusedError
from jitcache.runtime.shim import Problem, Shim
from jitcache.store.store import Store
from tests import runtime_help as help_
from tests.remote_help import CI, OTHER, directory, object_of
from tests.remote_servers import docker_registry, reply, serving
from tests.runtime_help import calls, make_lock, python
from tests.store_help import overwrite
from tests.test_runtime_module import PROBLEM

OBJECTS = 5
"""Of the lock that `make_lock` writes: four kernels and a host shim."""


@pytest.fixture(autouse=True)
def user(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("JITCACHE_TRUSTED_KEYS", str(CI.public()))
    monkeypatch.setenv("JITCACHE_HIP_LIBRARY", str(help_.recorder()))
    monkeypatch.setenv("RECORDING_HIP_LOG", str(tmp_path / "hip.log"))
    monkeypatch.setenv("JITCACHE_JIT", "forbid")
    monkeypatch.delenv("JITCACHE_REMOTES", raising=False)
    monkeypatch.setattr(hip_module, "_opened", None)
    objects._remote.cache_clear()


@pytest.fixture
def lock(tmp_path):
    """The lock of a module that another machine built; nothing of it is here."""
    return make_lock(Store(tmp_path / "builder"))


@pytest.fixture
def server(tmp_path):
    return Store(tmp_path / "server")


def configure(tmp_path, **urls: str) -> None:
    """Remotes in the user's file, with a deadline that a test can wait for."""
    path = tmp_path / "config" / "jitcache" / "config.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "".join(
            f'[[remote]]\nname = "{name}"\nurl = "{url}"\ndeadline_s = 0.3\n'
            for name, url in urls.items()
        )
    )


def publish(lock: Path, remote, signers=(CI,)) -> None:
    """Push what a lock names from the store that it lies in."""
    store = Store(lock.parent.parent)
    for action in load_lock(lock).actions():
        done = push_module.push(store, remote, store.lookup(action.key).record, signers)
        assert done.state == "pushed"


def remote_of(tmp_path, lock, name: str = "ci", *, signers=(CI,)) -> str:
    """The URL of a directory that has everything."""
    publish(lock, directory(tmp_path / name), signers)
    return f"file://{tmp_path / name}"


def layers(module) -> list[str]:
    said = module.explain()
    return [said["host"]["layer"], *(i["variants"][0]["layer"] for i in said["instances"])]


def launches(module, log: Path) -> int:
    module.launch(module.choose(1, 128, 1024), Problem(**PROBLEM))
    return len(calls(log, "launch"))


def test_what_is_not_here_comes_from_a_remote_and_stays(tmp_path, lock, server):
    configure(tmp_path, ci=remote_of(tmp_path, lock))
    module = jitcache.load(lock, store=server)
    assert layers(module) == ["remote ci"] * OBJECTS
    assert module.explain()["remotes"] == []
    assert Path(module.explain()["host"]["path"]).is_relative_to(server.layout.root)
    assert launches(module, tmp_path / "hip.log") == 1
    configure(tmp_path)
    assert layers(jitcache.load(lock, store=Store(server.layout.root))) == ["local"] * OBJECTS


def test_a_registry_serves_a_load(tmp_path, lock, server, monkeypatch):
    with docker_registry(tmp_path) as host:
        url = f"oci://{host}/kernels"
        publish(lock, open_remote(RemoteConfig("ci", url, writable=True)))
        monkeypatch.setenv("JITCACHE_REMOTES", url)
        assert layers(jitcache.load(lock, store=server)) == ["remote env1"] * OBJECTS


def test_a_seed_comes_before_a_remote(tmp_path, lock):
    configure(tmp_path, ci=remote_of(tmp_path, lock))
    seed = lock.parent.parent
    local = Store(tmp_path / "server", seeds=[seed])
    assert layers(jitcache.load(lock, store=local)) == [f"seed {seed}"] * OBJECTS


def test_where_all_is_local_nothing_of_remotes_is_imported_or_read(tmp_path, lock):
    code = (
        f"import sys, jitcache\njitcache.load({str(lock)!r})\n"
        "print([m for m in sys.modules if m.startswith(('jitcache.remote', 'jitcache.sign'))])"
    )
    env = {"JITCACHE_DIR": str(lock.parent.parent), "JITCACHE_REMOTES": "not a URL"}
    done = python(code, env=env)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("memory_files", [True, False])
def test_a_store_that_cannot_be_written_is_passed_by(tmp_path, lock, monkeypatch, memory_files):
    configure(tmp_path, ci=remote_of(tmp_path, lock))
    if not memory_files:
        monkeypatch.setattr(os, "memfd_create", lambda _: os.open("/none/such", os.O_RDONLY))
        monkeypatch.setattr("jitcache.runtime.shim._mapped", {})
    (tmp_path / "file").touch()
    module = jitcache.load(lock, store=Store(tmp_path / "file" / "store"))
    assert layers(module) == ["remote ci"] * OBJECTS
    assert module.explain()["host"]["path"] == ""
    assert len(module.told) == OBJECTS
    assert all("could not be kept" in why for _, _, why in module.told)
    assert launches(module, tmp_path / "hip.log") == 1


def test_shims_in_memory_are_not_taken_for_one_another():
    made = [Shim(help_.shim_bytes((name,), (128,), (256,))) for name in ("one", "two", "one")]
    assert [shim.names for shim in made] == [("one",), ("two",), ("one",)]


@pytest.mark.parametrize("answering", [False, True])
def test_a_remote_that_hangs_costs_its_deadline_once(tmp_path, lock, server, answering):
    free = threading.Event()
    asked = []

    def hang(handler):
        asked.append(handler.path)
        free.wait(20)

    with serving(hang) as url:
        others = {"ci": remote_of(tmp_path, lock)} if answering else {}
        configure(tmp_path, slow=url, **others)
        begin = time.monotonic()
        if answering:
            module = jitcache.load(lock, store=server)
            assert layers(module) == ["remote ci"] * OBJECTS
            ((remote, _, why),) = module.told
            assert (remote, "in time" in why) == ("slow", True)
        else:
            for said in ("in time", "left out: no answer in time"):
                with pytest.raises(RefusedError, match=f"absent; remote slow: .*{said}") as caught:
                    jitcache.load(lock, store=server)
                assert {r.reason for r in caught.value.refusals} == {"missing"}
                assert len(caught.value.refusals) == OBJECTS
        # Not a measurement: each object waiting for itself would be ten times 0.3 s.
        assert time.monotonic() - begin < 2
        free.set()
    assert len(asked) == 1


def test_one_load_asks_for_nothing_more_when_its_time_is_over(tmp_path, lock, server, monkeypatch):
    asked = []

    def absent(handler):
        asked.append(handler.path)
        time.sleep(0.05)
        reply(handler, 404)

    monkeypatch.setattr(objects, "REMOTES_S", 0.02)
    with serving(absent) as url:
        configure(tmp_path, slow=url)
        with pytest.raises(RefusedError, match="remotes had their") as caught:
            jitcache.load(lock, store=server)
    assert len(asked) == 1
    assert {r.reason for r in caught.value.refusals} == {"missing"}


def unsigned(tmp_path, lock):
    return remote_of(tmp_path, lock, signers=())


def signed_by_another(tmp_path, lock):
    return remote_of(tmp_path, lock, signers=(OTHER,))


def other_bytes(tmp_path, lock):
    """Every blob holds something else of the same size."""
    url = remote_of(tmp_path, lock)
    for action in load_lock(lock).actions():
        path = object_of(tmp_path / "ci", "cas", action.outputs[0].digest)
        path = path.rename(path.with_suffix(""))
        overwrite(path, bytes(action.outputs[0].size))
    return url


def other_result(tmp_path, lock):
    """Signed by whom we trust, but not what the lock names."""
    url = remote_of(tmp_path, lock)
    document = json.loads(lock.read_text())
    for part in (document["modules"][0]["host"], *_variants(document)):
        part["outputs"][0]["digest"] = "sha256:" + "0" * 64
    lock.write_text(json.dumps(document))
    return url


def _variants(document):
    return [v for i in document["modules"][0]["instances"] for v in i["variants"]]


POISON = [
    (unsigned, "it is not signed"),
    (signed_by_another, "the key 'other' is not trusted here"),
    (other_bytes, "sha256"),
    (other_result, "not those that the lock file names"),
]


@pytest.mark.parametrize(("make", "said"), POISON, ids=[m.__name__ for m, _ in POISON])
def test_what_is_not_believed_is_refused_and_counted(
    tmp_path, lock, server, make, said, capsys, monkeypatch
):
    configure(tmp_path, ci=make(tmp_path, lock))
    with pytest.raises(RefusedError, match=said) as caught:
        jitcache.load(lock, store=server)
    assert [r.reason for r in caught.value.refusals] == ["untrusted"] * OBJECTS
    assert caught.value.exit_code == ExitCode.UNTRUSTED
    assert list(server.records()) == []
    monkeypatch.setenv("JITCACHE_DIR", str(server.layout.root))
    with pytest.raises(SystemExit):
        main(["stats", "--json"])
    assert json.loads(capsys.readouterr().out)["misses"] == {"untrusted": OBJECTS}


def test_a_remote_that_lies_does_not_keep_another_from_serving(tmp_path, lock, server):
    good = remote_of(tmp_path, lock)
    configure(tmp_path, bad=remote_of(tmp_path, lock, "bad", signers=(OTHER,)), ci=good)
    module = jitcache.load(lock, store=server)
    assert layers(module) == ["remote ci"] * OBJECTS
    told = module.explain()["remotes"]
    assert [t["remote"] for t in told] == ["bad"] * OBJECTS
    assert all("not trusted here" in t["reason"] for t in told)
    assert server.counters.counts().to_json()["misses"] == {}


@pytest.mark.parametrize("which", ["kernel", "shim"])
def test_what_is_damaged_here_is_fetched_again(tmp_path, lock, which):
    url = remote_of(tmp_path, lock)
    store = Store(lock.parent.parent)
    document = json.loads(lock.read_text())
    part = document["modules"][0]["host"] if which == "shim" else _variants(document)[0]
    blob = store.blob_path(part["outputs"][0]["digest"])
    sound = blob.read_bytes()
    blob.chmod(0o644)
    overwrite(blob, sound[:-1] + b"\1")
    configure(tmp_path, ci=url)
    assert sorted(layers(jitcache.load(lock, store=store))) == ["local"] * 4 + ["remote ci"]
    assert blob.read_bytes() == sound


def test_remotes_are_switched_off(tmp_path, lock, server, monkeypatch):
    configure(tmp_path, ci=remote_of(tmp_path, lock))
    with pytest.raises(RefusedError, match="absent"):
        open_module(load_lock(lock), load_lock(lock).modules[0], server, remotes=False)
    monkeypatch.setenv("JITCACHE_REMOTES", "")
    with pytest.raises(RefusedError) as caught:
        jitcache.load(lock, store=server)
    assert {r.detail for r in caught.value.refusals} == {"absent"}


def test_a_malformed_configuration_is_said_when_it_is_needed(tmp_path, lock, server, monkeypatch):
    monkeypatch.setenv("JITCACHE_REMOTES", "nonsense")
    jitcache.load(lock, store=Store(lock.parent.parent))
    with pytest.raises(InputError, match="not the URL of a remote"):
        jitcache.load(lock, store=server)


@pytest.mark.parametrize("policy", ["forbid", "warn", "allow"])
def test_fetching_is_not_compiling(tmp_path, lock, server, monkeypatch, policy):
    configure(tmp_path, ci=remote_of(tmp_path, lock))
    monkeypatch.setenv("JITCACHE_JIT", policy)
    monkeypatch.setattr("jitcache.runtime.load._build", lambda *_: pytest.fail("it was built"))
    assert jitcache.load(lock, store=server).built == ()


def test_a_forked_process_uses_no_connection_of_its_parent(tmp_path):
    config = RemoteConfig("ci", f"file://{tmp_path}")
    mine = objects._remote(config)
    assert objects._remote(config) is mine
    pid = os.fork()
    if pid == 0:
        os._exit(0 if objects._remote(config) is not mine else 1)
    assert os.waitpid(pid, 0)[1] == 0


def test_threads_load_the_same_module_at_the_same_time(tmp_path, lock):
    configure(tmp_path, ci=remote_of(tmp_path, lock))
    store = Store(tmp_path / "server")
    # First from the remote into one store, then all of them from there.
    for allowed in ({"remote ci", "local"}, {"local"}):
        start, loaded = threading.Barrier(8), []

        def work(start=start, loaded=loaded):
            start.wait()
            loaded.append(jitcache.load(lock, store=store))

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(loaded) == 8
        assert {layer for module in loaded for layer in layers(module)} <= allowed
    assert len(list(store.records())) == OBJECTS
    assert store.notices == []
    assert launches(loaded[0], tmp_path / "hip.log") == 1
