"""AITER's real loader and ops on our modules: the installed wheel's, or those of other trees.

JITCACHE_TEST_AITER names the trees, with colons between them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("pandas")

from jitcache.runtime import dropin
from jitcache.runtime.jitdir import Place
from jitcache.store.store import Store
from tests import runtime_help as help_
from tests.test_runtime_stages import BLOCK_M, BOTH, INTER, KINDS, spec_of

INSTALLED = sysconfig.get_paths()["purelib"]
ROOTS = os.environ.get("JITCACHE_TEST_AITER", INSTALLED).split(":")

pytestmark = [
    pytest.mark.aiter,
    pytest.mark.skipif(
        not all(Path(root, "aiter").is_dir() for root in ROOTS), reason="there is no AITER"
    ),
]


@pytest.fixture
def rocm(tmp_path):
    """What AITER asks of ROCm while it is imported; a compiler that writes down its calls."""
    tools = tmp_path / "rocm" / "bin"
    tools.mkdir(parents=True)
    for name, text in (
        ("hipconfig", "echo 7.1.25424"),
        ("hipcc", f"echo x >> {tmp_path}/hipcc; exit 1"),
    ):
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    return tools.parent


def call(root, kind, stage, tmp_path, rocm):
    env = {
        **os.environ,
        "PATH": f"{rocm / 'bin'}:{os.environ['PATH']}",
        "ROCM_HOME": str(rocm),
        "ROCM_PATH": str(rocm),
        "GPU_ARCHS": "gfx950",
        "AITER_JIT_DIR": str(tmp_path / "jit"),
        "JITCACHE_DIR": str(tmp_path / "store"),
        "JITCACHE_HOST_MEMORY": "1",
        "JITCACHE_HIP_LIBRARY": str(help_.recorder()),
        "RECORDING_HIP_LOG": str(tmp_path / "log"),
        "PYTHONPATH": str(help_.ROOT),
    }
    driver = Path(__file__).with_name("aiter_driver.py")
    words = [sys.executable, str(driver), root, kind, str(stage)]
    return subprocess.run(words, env=env, capture_output=True, text=True)


@pytest.mark.parametrize("root", ROOTS)
@pytest.mark.parametrize("kind", KINDS)
def test_aiters_stages_reach_our_launches_and_no_compiler_runs(root, kind, tmp_path, rocm):
    store = Store(tmp_path / "store")
    lock = help_.make_lock(
        store, spec=spec_of(kind), block_ms=(BLOCK_M,), inter_dim=INTER, variants=BOTH
    )
    dropin.install(lock, Place.of(tmp_path / "jit"), store)
    for stage in (1, 2):
        done = call(root, kind, stage, tmp_path, rocm)
        assert "called" in done.stdout, done.stderr[-3000:]
        symbol = help_.calls(tmp_path / "log", "launch")[stage - 1]["symbol"]
        assert symbol.startswith(f"_Zkernel{stage}_{BLOCK_M}_")
    assert not (tmp_path / "hipcc").exists()
    # The control: without our module AITER builds.
    dropin.uninstall(Place.of(tmp_path / "jit"))
    done = call(root, kind, 1, tmp_path, rocm)
    assert "called" not in done.stdout
    assert len(help_.calls(tmp_path / "log", "launch")) == 2
    assert "ModuleNotFoundError" in done.stderr
    assert spec_of(kind).name in done.stderr
