"""Samples with real kernels: written by the command, computed by the emulator (minutes).

`jitcache capture` compiles one kernel of each stage for every family and architecture. What they
write, run from their machine code, is compared with what the capsules expect.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

pytest.importorskip("torch")

from jitcache.capture.choice import choose
from jitcache.emulator.replay import replay, require_emulator
from jitcache.errors import JitcacheError
from jitcache.runtime import capsule
from jitcache.runtime.compare import worst
from tests import capsule_decoder as decoder
from tests import runtime_help as help_

pytestmark = pytest.mark.compile

SAMPLES = [(c.family, c.arch, stage) for c in choose() for stage in (1, 2)]
NAMES = [f"{family}.{arch}.stage{stage}.capsule" for family, arch, stage in SAMPLES]


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    from jitcache.toolchain.find import find_toolchain

    root = tmp_path_factory.mktemp("store")
    try:
        find_toolchain("gfx950", cache_dir=root)
    except JitcacheError as e:
        pytest.skip(f"no toolchain: {e.what}")
    directory = root / "samples"
    done = subprocess.run(
        [sys.executable, "-m", "jitcache", "capture", "-o", str(directory), "--json", "-q"],
        env={**os.environ, "JITCACHE_DIR": str(root)},
        capture_output=True,
        text=True,
        cwd=help_.ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(c["file"] for c in json.loads(done.stdout)["capsules"]) == sorted(NAMES)
    return directory


def error_of(held: capsule.Capsule) -> float:
    """How far what the emulator computes is from what the capsule expects."""
    after = replay(held, require_emulator())
    assert held.out.expected is not None
    for buffer in held.buffers:
        assert after[buffer.field] == buffer.before or buffer.field == "out"
    return worst(after["out"], held.out.expected, held.out.dtype)


@pytest.mark.parametrize("name", NAMES)
def test_a_kernel_computes_what_its_capsule_expects(samples, name):
    held = capsule.read(samples / name)
    assert held.out.tolerance is not None
    assert error_of(held) <= held.out.tolerance
    # What is expected is what the bytes mean to an independent reader of CK's layouts.
    assert decoder.worst(decoder.read(samples / name)) <= held.out.tolerance


@pytest.mark.parametrize("name", NAMES)
def test_what_is_misplaced_shows(samples, name):
    """The control: every buffer that a kernel reads moved by a few bytes makes a wrong result."""
    held = capsule.read(samples / name)
    read = {b.field: b.before for b in held.buffers if b.field not in ("out", "num_valid_ids")}
    assert {"a", "b", "sorted_token_ids", "sorted_expert_ids"} <= set(read)
    for field, before in read.items():
        by = 16 if field in ("a", "b") else 4
        moved = before[by:] + before[:by]
        buffers = tuple(replace(b, before=moved) if b.field == field else b for b in held.buffers)
        if moved != before:
            assert error_of(replace(held, buffers=buffers)) > held.out.tolerance, field
