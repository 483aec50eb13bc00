"""A call that misses a kernel, under each policy of JITCACHE_JIT.

`jitcache widen`, which compiles what is missing, is a program of the tests here.
"""

from __future__ import annotations

import sys
import threading

import pytest

import jitcache
from jitcache.errors import BuildError, ForbiddenError, UnsupportedError
from jitcache.runtime import hip as hip_module
from jitcache.runtime.policy import MissError
from jitcache.runtime.shim import Problem
from jitcache.store.store import Store
from tests import runtime_help as help_
from tests.runtime_help import calls, make_lock
from tests.test_runtime_module import PROBLEM


@pytest.fixture
def log(tmp_path, monkeypatch):
    monkeypatch.setenv("JITCACHE_HIP_LIBRARY", str(help_.recorder()))
    monkeypatch.setenv("RECORDING_HIP_LOG", str(tmp_path / "hip.log"))
    monkeypatch.setenv("JITCACHE_DIR", str(tmp_path / "store"))
    monkeypatch.delenv("JITCACHE_JIT", raising=False)
    monkeypatch.setattr(hip_module, "_opened", None)
    monkeypatch.setattr(sys, "executable", str(help_.builder(tmp_path)))
    return tmp_path / "hip.log"


@pytest.fixture
def module(tmp_path, log):
    """Kernels of block_m 128, for an even number of loop steps."""
    store = Store(tmp_path / "store")
    return jitcache.load(make_lock(store, block_ms=(128,)), store=store)


@pytest.fixture
def asked(tmp_path):
    """The builds that were asked for: a list of command lines."""

    def lines():
        path = tmp_path / "asked"
        return path.read_text().splitlines() if path.exists() else []

    return lines


def launch(module, block_m=64, kernel_name="", **changed):
    name = module.choose(1, block_m, 1024, kernel_name)
    module.launch(name, Problem(**PROBLEM | changed))
    return name


def symbols(log):
    return [c["symbol"] for c in calls(log, "launch")]


def test_forbid_raises_and_builds_nothing(module, log, asked, monkeypatch):
    with pytest.raises(MissError, match="block_m 128 of this stage were built"):
        launch(module)
    with pytest.raises(MissError, match="hot-odd kernel"):
        launch(module, 128, k=6912)
    # A policy that changes between the choice and the launch is heeded.
    monkeypatch.setenv("JITCACHE_JIT", "allow")
    name = module.choose(1, 64, 1024)
    monkeypatch.setenv("JITCACHE_JIT", "forbid")
    with pytest.raises(MissError, match="block_m 128 of this stage were built"):
        module.launch(name, Problem(**PROBLEM))
    with pytest.raises(MissError, match="isn't in the lock"):
        module.launch("another", Problem(**PROBLEM))
    assert (asked(), calls(log)) == ([], [])


@pytest.mark.parametrize("policy", ["allow", "warn"])
def test_a_missing_instance_is_built_once_and_launched(module, log, asked, monkeypatch, policy):
    monkeypatch.setenv("JITCACHE_JIT", policy)
    launch(module, 128)
    if policy == "warn":
        with pytest.warns(RuntimeWarning, match="jitcache compiles hot-even of .*gemm1_256x64x"):
            name = launch(module)
    else:
        name = launch(module)
    launch(module)
    launch(module, 128)
    assert symbols(log) == [
        "_Zkernel1_128_hot_even_", "_Zkernel1_64_hot_even_",
        "_Zkernel1_64_hot_even_", "_Zkernel1_128_hot_even_",
    ]  # fmt: skip
    (line,) = asked()
    words = line.split()
    assert words[:3] == ["-m", "jitcache", "widen"]
    wanted = ["--module", module.name, "--kernel", f"{name}:hot-even", "--quiet", "--json"]
    assert words[4:] == wanted
    (built,) = module.explain()["built"]
    assert built.startswith(f"built hot-even of {name}: AITER dispatches it for stage 1")
    assert [i["block_m"] for i in module.explain()["instances"]] == [128, 128, 64]
    # What was loaded on a device before stays there.
    assert len(calls(log, "load")) == 2


def test_a_missing_variant_is_built_and_launched(module, log, asked, monkeypatch):
    monkeypatch.setenv("JITCACHE_JIT", "allow")
    name = launch(module, 128, k=6912)
    launch(module, 128)
    assert symbols(log) == ["_Zkernel1_128_hot_odd_", "_Zkernel1_128_hot_even_"]
    assert [line.split()[7] for line in asked()] == [f"{name}:hot-odd"]
    # The next process doesn't know it: the lock file stays as it was written.
    assert len(module.lock.modules[0].instances[0].variants) == 2


def test_a_tuned_name_is_built_and_never_replaced(module, log, asked, monkeypatch):
    monkeypatch.setenv("JITCACHE_JIT", "allow")
    tuned = module.choose(1, 128, 1024).replace("gemm1_256x128x", "gemm1_256x64x")
    assert launch(module, 128, tuned) == tuned
    assert symbols(log) == ["_Zkernel1_64_hot_even_"]
    held = module.choose(1, 128, 1024)
    for name in (held, held.replace("gemm1_256x128x", "gemm1_256x32x")):
        with pytest.raises(UnsupportedError, match="not a kernel of stage 2"):
            module.choose(2, 128, 1024, name)


def test_nothing_is_built_while_a_graph_is_captured(module, log, asked, monkeypatch):
    monkeypatch.setenv("JITCACHE_JIT", "allow")
    monkeypatch.setenv("RECORDING_HIP_CAPTURING", "1")
    with pytest.raises(ForbiddenError, match="can't be built while a graph is captured") as caught:
        launch(module)
    assert "launch it once before capturing, or put `" in caught.value.hint
    with pytest.raises(ForbiddenError, match="can't be built while a graph is captured"):
        module.prepare(module.choose(1, 64, 1024), Problem(**PROBLEM))
    assert (asked(), calls(log)) == ([], [])
    monkeypatch.setenv("RECORDING_HIP_CAPTURING", "0")
    launch(module)
    assert len(asked()) == 1


def test_a_build_that_fails_is_told_and_not_tried_again(module, log, asked, monkeypatch, tmp_path):
    monkeypatch.setenv("JITCACHE_JIT", "allow")
    (tmp_path / "fail").touch()
    for _ in range(2):
        with pytest.raises(BuildError, match=r"gemm1_256x64x.*building it failed") as caught:
            launch(module)
        assert caught.value.details == ("error: no compiler",)
    assert len(asked()) == 1
    launch(module, 128)
    assert symbols(log) == ["_Zkernel1_128_hot_even_"]


def test_threads_that_miss_the_same_kernel_wait_for_one_build(
    module, log, asked, monkeypatch, tmp_path
):
    monkeypatch.setenv("JITCACHE_JIT", "allow")
    (tmp_path / "wait").write_text("0.3")
    failed = []

    def work():
        try:
            launch(module)
        except Exception as e:  # noqa: BLE001
            failed.append(e)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    # Meanwhile what is there runs.
    launch(module, 128)
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(asked()) == 1
    assert sorted(symbols(log)) == ["_Zkernel1_128_hot_even_", *["_Zkernel1_64_hot_even_"] * 6]


def test_what_is_prepared_is_built_too(module, asked, monkeypatch):
    monkeypatch.setenv("JITCACHE_JIT", "allow")
    prepared = module.prepare(module.choose(1, 64, 1024), Problem(**PROBLEM))
    assert module.kernel(module.choose(1, 64, 1024), prepared)[0] == "_Zkernel1_64_hot_even_"
    assert len(asked()) == 1
