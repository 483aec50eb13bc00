"""Wheels of kernels: valid, the same bytes always, and found as soon as pip has installed them."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
import re
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from jitcache import digest
from jitcache.errors import UsageError
from jitcache.lockfile import load_lock, write_lock
from jitcache.pack.wheel import write_wheel
from jitcache.sign import beside
from jitcache.store.installed import PACKAGE, wheel_roots
from jitcache.store.layout import Layout, seed_roots
from jitcache.store.model import Hit
from jitcache.store.store import Store
from tests import runtime_help
from tests.pack_help import filled
from tests.remote_help import CI, TRUST

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent


@pytest.fixture
def made(tmp_path):
    return filled(tmp_path)


def names_of(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def test_its_record_names_every_file_with_its_digest(made, tmp_path):
    wheel = write_wheel(*made, tmp_path / "dist", signers=[CI])
    assert digest.of_file(wheel.path) == wheel.digest
    info = f"jitcache_kernels_small_gfx950-{wheel.version}.dist-info"
    assert wheel.path.name == f"{info.removesuffix('.dist-info')}-py3-none-linux_x86_64.whl"
    with zipfile.ZipFile(wheel.path) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        rows = list(csv.reader(io.StringIO(archive.read(f"{info}/RECORD").decode())))
        assert [r[0] for r in rows] == names
        assert rows[-1] == [f"{info}/RECORD", "", ""]
        for name, said, size in rows[:-1]:
            data = archive.read(name)
            found = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
            assert (said, size) == (f"sha256={found}", str(len(data)))
        about = archive.read(f"{info}/METADATA").decode()
        modes = {oct(i.external_attr >> 16) for i in archive.infolist()}
        times = {i.date_time for i in archive.infolist()}
    assert {n.split("/")[0] for n in names} == {PACKAGE, info}
    assert not [n for n in names if n.endswith(".py")]
    assert f"Name: jitcache-kernels-small-gfx950\nVersion: {wheel.version}\n" in about
    assert modes == {"0o100444", "0o100555", "0o100644"}
    assert times == {(1980, 1, 1, 0, 0, 0)}


def test_the_same_bytes_from_another_store_at_another_time(made, tmp_path):
    store, lock = made
    first = write_wheel(store, lock, tmp_path / "a")
    for file in store.layout.root.rglob("*"):
        os.utime(file, (1, 1))
    other = Store(tmp_path / "none", seeds=[store.layout.root])
    second = write_wheel(other, lock, tmp_path / "b")
    assert first.path.read_bytes() == second.path.read_bytes()
    assert first.signed is False


def test_the_version_is_the_day_of_the_newest_kernel_or_what_was_asked_for(made, tmp_path):
    wheel = write_wheel(*made, tmp_path)
    assert re.fullmatch(r"2026\.9\.21\+g[0-9a-f]{12}", wheel.version)
    assert write_wheel(*made, tmp_path, version="1.2.post3").version == "1.2.post3"
    for bad in ("latest", "1-2", "../1"):
        with pytest.raises(UsageError):
            write_wheel(*made, tmp_path, version=bad)
    assert len(list(tmp_path.glob("*.whl"))) == 2
    assert not list(tmp_path.glob(".wheel-*"))


class Venv:
    """An environment whose jitcache is this one, and into which pip installs wheels."""

    def __init__(self, place: Path) -> None:
        self.python = place / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
        (self.site,) = place.glob("lib/python*/site-packages")
        ours = [p for p in sys.path if p.endswith("-packages")]
        (self.site / "ours.pth").write_text("\n".join([str(ROOT), *ours]))

    def pip(self, *words: object) -> None:
        flags = ["--disable-pip-version-check", "--no-cache-dir", "-q"]
        subprocess.run(
            [sys.executable, "-m", "pip", "--python", self.python, *map(str, words), *flags],
            check=True,
        )

    def run(self, *words: object, cwd: Path, **env: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [self.python, *map(str, words)],
            env={"PATH": "/nonexistent", "JITCACHE_DIR": "/nonexistent/store", **env},
            cwd=cwd,
            capture_output=True,
            text=True,
        )


def test_installed_by_pip_it_is_found_without_any_configuration(made, tmp_path):
    store, lock = made
    write_lock(tmp_path / "lock.json", lock)
    signer = {"JITCACHE_SIGNING_KEY": f"ci:{base64.b64encode(CI.seed).decode()}"}
    words = ["jitcache", "wheel", str(tmp_path / "lock.json"), "-o", str(tmp_path), "--json"]
    built = subprocess.run(
        [sys.executable, "-m", *words],
        env={**os.environ, "JITCACHE_DIR": str(store.layout.root), **signer},
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    venv = Venv(tmp_path / "venv")
    warm = ("-m", "jitcache", "warm", "--manifest", "small")
    assert venv.run(*warm, cwd=tmp_path).returncode == 3
    venv.pip("install", "--no-index", json.loads(built.stdout)["path"])
    ready = venv.run(*warm, cwd=tmp_path)
    assert ready.returncode == 0, ready.stderr
    assert "2/2 kernels and 1/1 host shims present, 0 to build" in ready.stdout
    strict = venv.run(
        *("-m", "jitcache", "doctor", "--strict", "--lock", tmp_path / "lock.json"), cwd=tmp_path
    )
    assert strict.returncode == 0, strict.stderr
    seed = Layout(venv.site / PACKAGE / "small_gfx950")
    for action in lock.actions():
        found = Store(tmp_path / "none", seeds=[seed.root]).lookup(action.key)
        assert isinstance(found, Hit)
        assert TRUST.refusal(beside.envelope(seed, found.record)) is None
    venv.pip("uninstall", "--yes", "jitcache-kernels-small-gfx950")
    assert venv.run(*warm, cwd=tmp_path).returncode == 3
    assert not [p for p in (venv.site / PACKAGE).rglob("*") if p.is_file()]


def test_a_module_is_loaded_from_it_and_launched(tmp_path):
    store = Store(tmp_path / "store")
    lock = load_lock(runtime_help.make_lock(store))
    wheel = write_wheel(store, lock, tmp_path)
    venv = Venv(tmp_path / "venv")
    venv.pip("install", "--no-index", wheel.path)
    code = (
        "import jitcache\n"
        "from jitcache.runtime.shim import Problem\n"
        "module = jitcache.load('test-manifest')\n"
        f"pointers = dict.fromkeys({[*runtime_help.POINTERS]!r}, 4096)\n"
        "problem = Problem(**pointers, tokens=64, topk=8, sorted_size=4096, n=1024, k=7168,"
        " splitk=1, non_temporal=0)\n"
        "module.launch(module.choose(1, 128, 1024), problem, stream=0)\n"
    )
    log = tmp_path / "hip.log"
    ran = venv.run(
        *("-c", code),
        cwd=tmp_path,
        JITCACHE_JIT="forbid",
        JITCACHE_HIP_LIBRARY=str(runtime_help.recorder()),
        RECORDING_HIP_LOG=str(log),
    )
    assert ran.returncode == 0, ran.stderr
    (launch,) = runtime_help.calls(log, "launch")
    assert launch["symbol"] == "_Zkernel1_128_hot_even_"


def test_a_project_can_not_bring_kernels_of_its_own(made, tmp_path, monkeypatch):
    """Neither the current directory nor PYTHONPATH is looked at."""
    evil = tmp_path / PACKAGE / "small_gfx950"
    evil.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert evil not in wheel_roots()
    monkeypatch.setattr(site, "getsitepackages", lambda: ["."])
    assert Path("small_gfx950") not in [Path(p.name) for p in wheel_roots()]
    monkeypatch.setattr(site, "getsitepackages", lambda: [str(tmp_path)])
    assert evil in wheel_roots()
    monkeypatch.setenv("JITCACHE_SEEDS", "/first")
    assert seed_roots()[0] == Path("/first")
    assert evil in seed_roots()
