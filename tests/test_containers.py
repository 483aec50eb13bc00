"""The recipes of docs/containers.md: each door, and then the same gate and the same launch."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jitcache.lockfile import Lock, load_lock
from jitcache.pack.image import write_image
from jitcache.pack.read import unpack
from jitcache.pack.registry import publish
from jitcache.pack.wheel import write_wheel
from jitcache.pack.write import gather, write_pack
from jitcache.prebuilt.imports import import_tree
from jitcache.remote.config import RemoteConfig
from jitcache.remote.opening import open_remote
from jitcache.remote.push import push
from jitcache.remote.reference import read_reference
from jitcache.store.layout import Bucket
from jitcache.store.store import Store
from tests import runtime_help
from tests.container_help import SEED, UID, Container, needs_namespaces
from tests.elf_help import code_object, kernel
from tests.pack_help import BELIEF
from tests.remote_help import CI
from tests.remote_servers import docker_registry, needs, s3, webdav

pytestmark = pytest.mark.slow

NAME = "test-manifest"
LAUNCH = f"""
import jitcache
from jitcache.runtime.shim import Problem
module = jitcache.load({NAME!r})
pointers = dict.fromkeys({[*runtime_help.POINTERS]!r}, 4096)
problem = Problem(**pointers, tokens=64, topk=8, sorted_size=4096, n=1024, k=7168, splitk=1,
                  non_temporal=0)
module.launch(module.choose(1, 128, 1024), problem, stream=0)
"""


_MAP = f"""
f = os.open({SEED!r} + "/CACHEDIR.TAG", os.O_RDONLY)
mmap.mmap(f, 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC)
"""


@pytest.fixture(autouse=True)
def _namespaces():
    needs_namespaces()


@pytest.fixture
def made(tmp_path) -> tuple[Store, Lock]:
    """What CI built: a module whose host shim is a real shared library."""
    store = Store(tmp_path / "ci")
    return store, load_lock(runtime_help.make_lock(store))


def serving(place: Path, **how) -> Container:
    """A container that serves: everything that the recipes set, and a HIP library that records."""
    log = place / "log"
    log.mkdir()
    log.chmod(0o777)
    hip = runtime_help.recorder()
    volumes = {f"/opt/hip/{hip.name}": hip, **how.pop("volumes", {})}
    env = {
        "JITCACHE_JIT": "forbid",
        "JITCACHE_HIP_LIBRARY": f"/opt/hip/{hip.name}",
        "RECORDING_HIP_LOG": "/log/hip.log",
        **how.pop("env", {}),
    }
    return Container(place / "root", volumes, {"/log": log}, env, **how)


def serves(container: Container) -> None:
    """The gate passes, and a kernel is launched; nothing is built and nothing written."""
    ready = container.jitcache("warm", "--manifest", NAME, "--prefetch")
    assert ready.returncode == 0, ready.stderr
    assert "4/4 kernels and 1/1 host shims present, 0 to build" in ready.stdout
    launched = container.python("-c", LAUNCH)
    assert launched.returncode == 0, launched.stderr
    (launch,) = runtime_help.calls(container.writable["/log"] / "hip.log", "launch")
    assert launch["symbol"] == "_Zkernel1_128_hot_even_"


def seeded(place: Path, seed: Path) -> Container:
    return serving(place, volumes={SEED: seed}, env={"JITCACHE_SEEDS": SEED})


def unpacked_image(made, place: Path) -> Path:
    """Our image as other tools unpack it: recompressed by skopeo, its layer read by umoci."""
    needs("skopeo", "umoci")
    write_image(*made, place / "image", signers=[CI])
    skopeo = ["skopeo", "copy", "-q", "--dest-compress-format", "gzip"]
    skopeo += [f"oci:{place}/image:latest", f"oci:{place}/gzip:latest"]
    umoci = ["umoci", "unpack", "--image", f"{place}/gzip:latest", f"{place}/bundle"]
    for words in (skopeo, umoci):
        subprocess.run(words, check=True, capture_output=True)
    return place / "bundle" / "rootfs"


def test_the_container_has_no_compiler_no_rights_and_nothing_to_write(tmp_path):
    container = Container(tmp_path / "root")
    said = container.python(
        "-c",
        "import os, socket, json\n"
        "print(json.dumps([os.getuid(), os.getgroups(), os.listdir('/opt'),"
        " [p for p in ('/', '/opt', '/tmp') if os.access(p, os.W_OK)], socket.if_nameindex(),"
        " os.environ['PATH'], os.path.exists('/usr/bin')]))",
    )
    uid, groups, opt, writable, interfaces, path, programs = json.loads(said.stdout)
    assert (uid, groups, writable, path, programs) == (UID, [], [], "/nonexistent", False)
    assert sorted(opt) == ["jitcache-source", "packages", "python"]
    assert [name for _, name in interfaces] == ["lo"]
    assert container.jitcache("doctor").returncode == 4  # nothing can be built here
    assert container.jitcache("warm", "--manifest", NAME).returncode == 3


@pytest.mark.servers
def test_copied_from_the_image_as_by_a_dockerfile(made, tmp_path):
    copied = tmp_path / "copied"
    shutil.copytree(unpacked_image(made, tmp_path), copied)
    serves(seeded(tmp_path, copied))


@pytest.mark.servers
def test_mounted_as_an_image_volume(made, tmp_path):
    rootfs = unpacked_image(made, tmp_path)
    before = sorted((str(p), p.lstat().st_mtime_ns) for p in rootfs.rglob("*"))
    serves(seeded(tmp_path, rootfs))
    own = Container(tmp_path / "own", {SEED: rootfs}, env={"JITCACHE_DIR": SEED})
    assert own.jitcache("verify", "--signed").returncode == 10
    own.env["JITCACHE_TRUSTED_KEYS"] = str(CI.public())
    assert "6 records and lock files are signed" in own.jitcache("verify", "--signed").stderr
    assert sorted((str(p), p.lstat().st_mtime_ns) for p in rootfs.rglob("*")) == before


@pytest.mark.servers
def test_mounted_where_nothing_may_be_run(made, tmp_path):
    """Some engines mount image volumes `noexec`: host shims are loaded from memory then."""
    container = seeded(tmp_path, unpacked_image(made, tmp_path))
    container.noexec = frozenset([SEED])
    mapped = container.python("-c", f"import mmap, os\n{_MAP}")
    assert "Operation not permitted" in mapped.stderr
    serves(container)


@pytest.mark.servers
def test_an_image_volume_holds_what_unpack_makes(made, tmp_path):
    rootfs = unpacked_image(made, tmp_path)
    write_pack(*made, tmp_path / "p", signers=[CI])
    unpack(tmp_path / "p", Store(tmp_path / "seed"), BELIEF)

    def files(root: Path) -> dict[str, bytes]:
        found = (p for p in root.rglob("*") if p.is_file())
        return {str(p.relative_to(root)): p.read_bytes() for p in found}

    assert files(tmp_path / "seed") == files(rootfs)


def init(place: Path, volume: Path, *words: object, **how) -> subprocess.CompletedProcess[str]:
    """An init container that unpacks into an `emptyDir`, which every user can write."""
    volume.mkdir(exist_ok=True)
    volume.chmod(0o777)
    container = Container(place / "root", writable={"/seed": volume}, **how)
    return container.jitcache("unpack", *words, "--to", "/seed/jitcache")


@pytest.mark.servers
def test_pulled_by_an_init_container(made, tmp_path, monkeypatch):
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "none"))
    volume = tmp_path / "volume"
    with docker_registry(tmp_path) as host:
        reference = read_reference(f"oci://{host}/kernels/kimi:gfx950")
        image = publish(*made, reference, signers=[CI], level=3).image
        stranger = init(tmp_path, volume, image, network=True)
        assert stranger.returncode == 10
        assert "the key 'ci' is not trusted here" in stranger.stderr
        trusting = {"JITCACHE_TRUSTED_KEYS": str(CI.public())}
        done = init(tmp_path, volume, image, network=True, env=trusting)
        assert done.returncode == 0, done.stderr
    serves(seeded(tmp_path, volume / "jitcache"))


@pytest.mark.servers
@pytest.mark.parametrize("kind", ["registry", "webdav", "s3"])
def test_fetched_from_a_remote_on_another_machine(kind, made, tmp_path, monkeypatch):
    """CI pushes; a machine with nothing but Python and the lock file fetches and serves."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "none"))
    (tmp_path / "server").mkdir()
    with contextlib.ExitStack() as stack:
        url, env = stack.enter_context(_remote(kind, tmp_path / "server"))
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        remote = open_remote(RemoteConfig("it", url, writable=True, deadline_s=20.0))
        for record, _ in gather(*made):
            assert push(made[0], remote, record, [CI]).state == "pushed"
        lock_path = made[0].layout.bucket(Bucket.LOCKS) / f"{NAME}.gfx950.lock.json"
        container = serving(
            tmp_path,
            volumes={"/lock.json": lock_path},
            env={
                "JITCACHE_DIR": "/store/jitcache",
                "JITCACHE_REMOTES": url,
                "JITCACHE_TRUSTED_KEYS": "",
                **env,
            },
            network=True,
        )
        (tmp_path / "store").mkdir()
        (tmp_path / "store").chmod(0o777)
        container.writable["/store"] = tmp_path / "store"
        stranger = container.jitcache("warm", "--lock", "/lock.json")
        assert (stranger.returncode, "0/4 kernels" in stranger.stdout) == (9, True)
        assert "the key 'ci' is not trusted here" in stranger.stderr
        container.env["JITCACHE_TRUSTED_KEYS"] = str(CI.public())
        pulled = container.jitcache("pull", "/lock.json", "--json")
        assert pulled.returncode == 0, pulled.stderr
        assert json.loads(pulled.stdout)["fetched"] == 5
    # The server is gone; the store has everything.
    container.network = False
    launched = container.python("-c", LAUNCH.replace(repr(NAME), "'/lock.json'"))
    assert launched.returncode == 0, launched.stderr
    assert len(runtime_help.calls(tmp_path / "log" / "hip.log", "launch")) == 1


@contextlib.contextmanager
def _remote(kind: str, place: Path) -> Iterator[tuple[str, dict[str, str]]]:
    if kind == "registry":
        with docker_registry(place) as host:
            yield f"oci://{host}/kernels/kimi", {}
    elif kind == "webdav":
        with webdav(place) as base:
            yield f"{base}/rw", {}
    else:
        with s3(place) as found:
            yield found


def test_unpacked_from_a_file_by_an_init_container(made, tmp_path):
    write_pack(*made, tmp_path / "kimi.tar.zst", signers=[CI])
    volume = tmp_path / "volume"
    how = {
        "volumes": {"/packs/kimi.tar.zst": tmp_path / "kimi.tar.zst"},
        "env": {"JITCACHE_TRUSTED_KEYS": str(CI.public())},
    }
    done = init(tmp_path, volume, "/packs/kimi.tar.zst", **how)
    assert done.returncode == 0, done.stderr
    serves(seeded(tmp_path, volume / "jitcache"))


def test_installed_as_a_wheel_in_the_image(made, tmp_path):
    wheel = write_wheel(*made, tmp_path)
    words = ["install", "--no-index", "--no-deps", "-q", "--target", tmp_path / "installed"]
    subprocess.run([sys.executable, "-m", "pip", *words, wheel.path], check=True)
    bare = Container(tmp_path / "bare")
    where = bare.python("-c", "import site; print(site.getsitepackages()[0])").stdout.strip()
    serves(serving(tmp_path, volumes={where: tmp_path / "installed"}))


def test_commands_look_at_a_store_that_they_can_only_read(made, tmp_path):
    store, _ = made
    co = tmp_path / "tree" / "gfx950" / "a.co"
    co.parent.mkdir(parents=True)
    target = "amdgcn-amd-amdhsa--gfx950"
    co.write_bytes(code_object([kernel("_Za", **{".vgpr_count": 77})], target=target))
    (co.parent / "t.csv").write_text("knl_name,tile,co_name\n_Za,64,a.co\n")
    import_tree(tmp_path / "tree", store)
    container = Container(
        tmp_path / "root", volumes={SEED: store.layout.root}, env={"JITCACHE_DIR": SEED}
    )
    before = sorted((str(p), p.lstat().st_mtime_ns) for p in store.layout.root.rglob("*"))

    def run(*words: str) -> str:
        done = container.jitcache(*words)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout

    lock_path = f"{SEED}/locks-v1/{NAME}.gfx950.lock.json"
    assert "4/4 kernels" in run("doctor", "--strict", "--lock", lock_path)
    assert "0 to build" in run("warm", "--lock", lock_path)
    assert len(json.loads(run("ls", "--json"))["actions"]) == 6
    assert json.loads(run("find", "tile=64", "--json"))["kernels"][0]["symbol"] == "_Za"
    (shown,) = json.loads(run("show", "gfx950/a.co", "--json"))["actions"]
    assert (shown["state"], shown["facts"]["kernels"][0]["vgprs"]) == ("whole", 77)
    assert json.loads(run("verify", "--json"))["damage"] == []
    run("stats")
    assert sorted((str(p), p.lstat().st_mtime_ns) for p in store.layout.root.rglob("*")) == before
    # What would have to write says so, with the store's exit code.
    refused = container.jitcache("rm", shown["key"][7:19])
    assert (refused.returncode, "Read-only file system" in refused.stderr) == (6, True)


def test_damage_is_told_where_nothing_can_be_mended(made, tmp_path):
    store, lock = made
    blob = store.blob_path(lock.modules[0].instances[0].variants[0].action.outputs[0].digest)
    blob.chmod(0o644)
    data = blob.read_bytes()
    blob.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    container = seeded(tmp_path, store.layout.root)
    ready = container.jitcache("warm", "--manifest", NAME)
    assert ready.returncode == 9
    assert "3/4 kernels" in ready.stdout
    assert "blob-damaged" in ready.stderr
    own = Container(tmp_path / "own", {SEED: store.layout.root}, env={"JITCACHE_DIR": SEED})
    checked = own.jitcache("verify")
    assert checked.returncode == 7, checked.stderr
    assert "Traceback" not in checked.stderr
