"""Which devices a module fits: architecture and compute units."""

from __future__ import annotations

import pytest

import jitcache
from jitcache.runtime import hip as hip_module
from jitcache.runtime.devices import OtherCuNum
from jitcache.runtime.policy import RefusedError
from jitcache.runtime.shim import Problem
from jitcache.store.store import Store
from tests import runtime_help as help_
from tests.runtime_help import calls, make_lock
from tests.test_runtime_module import PROBLEM


@pytest.fixture
def hip_log(tmp_path, monkeypatch):
    monkeypatch.setenv("JITCACHE_HIP_LIBRARY", str(help_.recorder()))
    monkeypatch.setenv("RECORDING_HIP_LOG", str(tmp_path / "hip.log"))
    monkeypatch.delenv("CU_NUM", raising=False)
    monkeypatch.setattr(hip_module, "_opened", None)
    return tmp_path / "hip.log"


@pytest.fixture
def module(tmp_path, hip_log):
    store = Store(tmp_path / "store")
    return jitcache.load(make_lock(store), store=store)


def launch(module):
    module.launch(module.choose(1, 128, 1024), Problem(**PROBLEM))


def test_a_gpu_as_planned_for_says_nothing(module, hip_log):
    launch(module)
    assert module.other_cu_num(0) is None
    assert module.explain()["cu_num"] == 256
    assert module.explain()["devices"]["0"]["cu_num"] == 256


def test_other_compute_units_warn_once_and_launch(module, hip_log, monkeypatch):
    monkeypatch.setenv("RECORDING_HIP_CUS", "80")
    with pytest.warns(RuntimeWarning, match="device 0 has 80 compute units.*planned for 256"):
        launch(module)
    launch(module)
    assert len(calls(hip_log, "launch")) == 2
    assert module.other_cu_num(0) == OtherCuNum(0, 256, 80)
    assert module.explain()["devices"]["0"]["cu_num"] == 80


def test_aiters_own_variable_counts(module, monkeypatch):
    monkeypatch.setenv("CU_NUM", "304")
    assert module.other_cu_num(0) == OtherCuNum(0, 256, 304)
    monkeypatch.setenv("CU_NUM", "0")
    assert module.other_cu_num(0) is None


def test_another_architecture_is_refused_whatever_its_compute_units(module, hip_log, monkeypatch):
    monkeypatch.setenv("RECORDING_HIP_ARCH", "gfx942:sramecc+:xnack-")
    monkeypatch.setenv("RECORDING_HIP_CUS", "304")
    with pytest.raises(RefusedError, match="can't be used") as caught:
        launch(module)
    assert [r.reason for r in caught.value.refusals] == ["other-arch"]
    assert calls(hip_log, "launch") == []
