"""The AITER drop-in: what is installed, and how AITER's loader would call it."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys

import pytest

from jitcache.errors import InputError
from jitcache.runtime import dropin, jitdir
from jitcache.runtime.jitdir import Place, find_place
from jitcache.runtime.policy import RefusedError
from jitcache.store.store import Store
from tests import runtime_help as help_
from tests.runtime_help import calls, make_lock, python

NAME = help_.FP4.name


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("JITCACHE_DIR", str(tmp_path / "store"))
    return Store(tmp_path / "store")


@pytest.fixture
def jit(tmp_path):
    (tmp_path / "jit").mkdir()
    return tmp_path / "jit"


def cli(jit, *words):
    return subprocess.run(
        [sys.executable, "-m", "jitcache", "aiter", *words, "--jit-dir", str(jit), "--json"],
        capture_output=True,
        text=True,
        cwd=help_.ROOT,
    )


def kinds(findings):
    return [f.kind for f in findings]


def test_install_status_uninstall(store, jit):
    make_lock(store)
    done = cli(jit, "install", "test-manifest.gfx950")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"installed": [str(jit / NAME)]}
    (found,) = json.loads(cli(jit, "status").stdout)
    assert found["kind"] == "installed"
    assert found["detail"] == "test-manifest for gfx950, 4 kernels"
    (jit / "other.so").write_bytes(b"not ours")
    assert json.loads(cli(jit, "uninstall").stdout) == {"removed": [str(jit / NAME)]}
    assert [p.name for p in jit.iterdir()] == ["other.so"]


def test_a_lock_that_does_not_load_installs_nothing(store, jit):
    path = make_lock(store)
    digest = json.loads(path.read_text())["modules"][0]["host"]["outputs"][0]["digest"]
    store.blob_path(digest).unlink()
    with pytest.raises(RefusedError):
        dropin.install(path, Place.of(jit), store)
    assert list(jit.iterdir()) == []


def test_what_somebody_else_put_there_stays(store, jit):
    (jit / NAME).mkdir()
    (jit / NAME / "__init__.py").write_text("mine = 1\n")
    with pytest.raises(InputError, match="not a module that jitcache installed"):
        dropin.install(make_lock(store), Place.of(jit), store)
    assert dropin.uninstall(Place.of(jit)) == ()
    assert (jit / NAME / "__init__.py").read_text() == "mine = 1\n"


def test_an_installed_module_is_found_before_a_compiled_one(store, jit):
    dropin.install(make_lock(store), Place.of(jit), store)
    (jit / f"{NAME}.so").write_bytes(b"\x7fELF")
    done = python(
        f"import sys; sys.path.insert(0, {str(jit)!r}); import {NAME} as m; print(m.__file__)"
    )
    assert done.stdout.strip() == str(jit / NAME / "__init__.py"), done.stderr
    assert kinds(dropin.status(Place.of(jit), store)) == ["installed", "shadowed"]


def test_a_module_that_cannot_load_does_not_look_absent(store, jit):
    path = make_lock(store)
    dropin.install(path, Place.of(jit), store)
    digest = json.loads(path.read_text())["modules"][0]["host"]["outputs"][0]["digest"]
    store.blob_path(digest).unlink()
    code = (
        f"import sys; sys.path.insert(0, {str(jit)!r})\n"
        f"try:\n    import {NAME}\n"
        "except ModuleNotFoundError:\n    print('AITER would compile')\n"
        "except Exception as e:\n    print(type(e).__name__)\n"
    )
    assert python(code).stdout.strip() == "RefusedError"
    assert kinds(dropin.status(Place.of(jit), Store(store.layout.root))) == ["broken"]
    # Nor does it where jitcache itself is missing.
    hidden = code.replace(
        "import sys;", "import sys; sys.modules['jitcache.runtime.dropin'] = None;"
    )
    assert python(hidden).stdout.strip() == "ImportError"


@pytest.mark.parametrize("missing", ["jitcache.runtime.dropin", "jitcache.runtime.shim"])
def test_nor_does_it_where_a_part_of_jitcache_is_missing(store, jit, missing):
    dropin.install(make_lock(store), Place.of(jit), store)
    done = python(
        f"import sys; sys.path.insert(0, {str(jit)!r}); sys.modules[{missing!r}] = None\n"
        f"try:\n    import {NAME}\n"
        "except ModuleNotFoundError:\n    print('AITER would compile')\n"
        "except ImportError as e:\n    print('not importable' in str(e))\n"
    )
    assert done.stdout.strip() == "True", done.stderr


@pytest.mark.parametrize("count", [15, 19])
@pytest.mark.parametrize("stage", [1, 2])
def test_the_docs_are_signatures_that_aiter_can_evaluate(store, stage, count):
    first = dropin.signature(stage, count)
    space: dict = {}
    exec("from typing import Optional\nclass torch:\n    class Tensor: pass\n", space)
    exec(f"def {first}: pass", space)
    signature = inspect.signature(space[f"ck_moe_stage{stage}"])
    assert len(signature.parameters) == count
    states = "hidden_states" if stage == 1 else "inter_states"
    assert next(iter(signature.parameters)) == states
    assert ("is_shuffled" in signature.parameters) == (count == 19)


def test_without_torch_the_docs_are_the_newer_ones(store):
    stages = dropin.attach(NAME, make_lock(store))
    assert [s.__doc__ for s in stages] == [dropin.signature(n, 19) for n in (1, 2)]


def test_another_version_of_jitcache_or_a_newer_lock_is_skew(store, jit):
    path = make_lock(store)
    dropin.install(path, Place.of(jit), store)
    assert kinds(dropin.status(Place.of(jit), store)) == ["installed"]
    with (jit / NAME / "__init__.py").open("a") as f:
        f.write("# of another version\n")
    assert kinds(dropin.status(Place.of(jit), store)) == ["installed", "skew"]
    make_lock(store)  # other kernels, the same name
    assert kinds(dropin.status(Place.of(jit), store)) == ["installed", "skew", "skew"]
    dropin.install(path, Place.of(jit), store)
    assert kinds(dropin.status(Place.of(jit), store)) == ["installed"]


def test_without_aiter_the_directory_has_to_be_named(monkeypatch):
    monkeypatch.delenv("AITER_JIT_DIR", raising=False)
    monkeypatch.setattr(jitdir.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputError, match="AITER is not installed"):
        find_place()


def test_a_call_as_aiter_makes_it_reaches_the_launch(store, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    from jitcache.runtime import hip as hip_module
    from tests.test_runtime_stages import BLOCK_M, BOTH, INTER, arguments

    monkeypatch.setenv("JITCACHE_HIP_LIBRARY", str(help_.recorder()))
    monkeypatch.setenv("RECORDING_HIP_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("JITCACHE_HOST_MEMORY", "1")
    monkeypatch.setattr(hip_module, "_opened", None)
    lock = make_lock(store, block_ms=(BLOCK_M,), inter_dim=INTER, variants=BOTH)
    stage1, stage2 = dropin.attach(NAME, lock)
    stage1(*list(arguments("fp4", 1).values())[:15])  # the wheel's AITER: 15 arguments
    stage2(*arguments("fp4", 2).values())
    stages = [c["symbol"][8] for c in calls(tmp_path / "log", "launch")]
    assert stages == ["1", "2"]
