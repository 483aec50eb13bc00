"""What `jitcache aiter doctor` finds, thing by thing."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from jitcache.runtime import aiterdoctor, dropin
from jitcache.runtime import hip as hip_module
from jitcache.runtime.hip import Unavailable
from jitcache.runtime.jitdir import Place
from jitcache.store.store import Store
from tests import runtime_help as help_
from tests.runtime_help import make_lock

NAME = help_.FP4.name


@pytest.fixture
def jit(tmp_path, monkeypatch):
    """AITER's directory on a machine without GPU, with nothing wrong."""
    monkeypatch.setattr(aiterdoctor, "MERGED_TABLES", tmp_path / "tables")
    monkeypatch.setattr(aiterdoctor, "aiter_package", lambda: None)
    monkeypatch.setattr(hip_module, "_opened", Unavailable("no-runtime", "", ""))
    monkeypatch.delenv("CU_NUM", raising=False)
    (tmp_path / "jit" / "build").mkdir(parents=True)
    return tmp_path / "jit"


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("JITCACHE_DIR", str(tmp_path / "store"))
    return Store(tmp_path / "store")


@pytest.fixture
def gpu(monkeypatch):
    """A GPU as the recording library has it."""
    monkeypatch.setenv("JITCACHE_HIP_LIBRARY", str(help_.recorder()))

    def become(**settings: str) -> None:
        monkeypatch.setattr(hip_module, "_opened", None)
        for name, value in settings.items():
            monkeypatch.setenv(f"RECORDING_HIP_{name.upper()}", value)

    return become


def found(jit, store, arch=None):
    return {f.path.name: f.kind for f in aiterdoctor.doctor(Place.of(jit), store, arch)}


def elf(*arches: str, cut: bool = False) -> bytes:
    head = bytearray(64)
    head[:4] = b"\x7fELF"
    if cut:
        head[40:48] = (5000).to_bytes(8, "little")
    return bytes(head) + b"".join(f"amdgcn-amd-amdhsa--{a}\0".encode() for a in arches)


def age(path, minutes):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (time.time() - minutes * 60,) * 2)


def test_nothing_wrong_finds_nothing(jit, store):
    (jit / "module_good.so").write_bytes(elf("gfx950"))
    assert found(jit, store, "gfx950") == {}


def test_compiled_modules_that_kill_or_cannot_run(jit, store, gpu):
    (jit / "module_both.so").write_bytes(elf("gfx942", "gfx950"))
    (jit / "module_other.so").write_bytes(elf("gfx942"))
    (jit / "module_host.so").write_bytes(elf())
    (jit / "module_cut.so").write_bytes(elf("gfx950", cut=True))
    (jit / "module_empty.so").touch()
    dead = {"module_cut.so": "truncated", "module_empty.so": "truncated"}
    assert found(jit, store) == dead
    assert found(jit, store, "gfx950") == dead | {"module_other.so": "other-arch"}
    gpu(arch="gfx950:sramecc+:xnack-")
    assert found(jit, store) == dead | {"module_other.so": "other-arch"}


def test_old_locks_wherever_aiter_makes_them(jit, store, tmp_path):
    build = jit / "build"
    old = [
        build / "lock_module_aiter_core",
        build / "lock_3rdparty_clone_x",
        build / NAME / "build" / "lock",
        tmp_path / "tables" / "tuned_fmoe.csv.lock",
    ]
    for path in old:
        age(path, 60)
    age(build / "lock_new", 1)
    age(tmp_path / "tables" / "tuned_fmoe.csv", 60)
    assert found(jit, store) == {path.name: "stale-lock" for path in old}


def test_sources_of_a_build_that_gave_no_module(jit, store):
    blob = jit / "build" / NAME / "blob"
    blob.mkdir(parents=True)
    assert found(jit, store) == {}
    (blob / "instances").mkdir()
    assert found(jit, store) == {"blob": "orphan-blob"}
    # Not while it is built, nor once it was.
    age(jit / "build" / f"lock_{NAME}", 1)
    assert found(jit, store) == {}
    (jit / "build" / f"lock_{NAME}").unlink()
    (jit / f"{NAME}.so").write_bytes(elf("gfx950"))
    assert found(jit, store) == {}


def test_what_aiter_has_to_write(jit, store, tmp_path, monkeypatch):
    (tmp_path / "tables").mkdir()
    (tmp_path / "a8w8_tuned_gemm.csv").touch()
    (tmp_path / "other.csv").touch()
    assert found(jit, store) == {}
    monkeypatch.setattr(aiterdoctor.os, "access", lambda path, mode: False)
    tables = {"tables": "unwritable", "a8w8_tuned_gemm.csv": "unwritable"}
    assert found(jit, store) == {"jit": "unwritable"} | tables
    # What AITER has to make first is judged by what is there.
    assert found(jit / "not" / "yet", store) == {"yet": "unwritable"} | tables


@pytest.mark.parametrize(
    ("settings", "kind", "said"),
    [
        ({}, None, ""),
        ({"arch": "gfx942"}, "other-arch", "is gfx942, but the module was built for gfx950"),
        ({"version": "60300000"}, "other-rocm", "HIP runtime 6.3 the module was built with ROCm 7"),
        ({"cus": "80"}, "other-cu-num", "80 compute units, but the kernels were planned for 256"),
    ],
)
def test_modules_that_do_not_fit_this_machine(jit, store, gpu, settings, kind, said):
    gpu(devices="2", **settings)
    dropin.install(make_lock(store), Place.of(jit), store)
    others = [
        f for f in aiterdoctor.doctor(Place.of(jit), store) if f.kind not in ("installed", "skew")
    ]
    assert {f.kind for f in others} == ({kind} if kind else set())
    assert all(said in f.detail for f in others)


@pytest.mark.parametrize(("count", "kinds"), [(15, {}), (19, {}), (20, {"moe_op.py": "skew"})])
def test_an_aiter_that_calls_otherwise(jit, store, tmp_path, monkeypatch, count, kinds):
    arguments = ", ".join(f"a{i}" for i in range(count))
    ops = tmp_path / "aiter" / "ops"
    ops.mkdir(parents=True)
    (ops / "moe_op.py").write_text(f"def ck_moe_stage1({arguments}): ...\n")
    monkeypatch.setattr(aiterdoctor, "aiter_package", lambda: tmp_path / "aiter")
    assert found(jit, store) == kinds


def test_the_command_fails_where_it_finds_something(jit, store):
    def doctor():
        return subprocess.run(
            [sys.executable, "-m", "jitcache", "aiter", "doctor", "--jit-dir", str(jit)],
            env={**os.environ, "JITCACHE_HIP_LIBRARY": "none"},
            capture_output=True,
            text=True,
            cwd=help_.ROOT,
        )

    (jit / "module_cut.so").touch()
    done = doctor()
    assert done.returncode == 1
    assert f"truncated: {jit / 'module_cut.so'}: only 0 bytes; remove it" in done.stdout
