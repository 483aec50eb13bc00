"""Samples with real kernels: written by the command, computed by the emulator (minutes).

`jitcache capture` compiles one kernel of each stage for every family and architecture. What they
write, run from their machine code, is compared with what the capsules expect.
"""

# ruff: noqa: E402 - torch decides whether the rest is imported
from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from jitcache import codeobject
from jitcache.capture.build import build, work_of
from jitcache.capture.case import make_case
from jitcache.capture.choice import choose, launch_for
from jitcache.codegen import catalog
from jitcache.codegen.catalog import weight_pack
from jitcache.emulator.replay import replay, require_emulator
from jitcache.runtime import capsule, layouts
from jitcache.runtime.compare import worst
from jitcache.runtime.load import open_module
from jitcache.runtime.stages import Stages
from jitcache.store.store import Store
from tests import capsule_decoder as decoder
from tests import runtime_help as help_
from tests.compile_help import installed

pytestmark = pytest.mark.compile

SAMPLES = [(c.family, c.arch, stage) for c in choose() for stage in (1, 2)]
NAMES = [f"{family}.{arch}.stage{stage}.capsule" for family, arch, stage in SAMPLES]


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    installed("gfx950", root)
    directory = root / "samples"
    done = subprocess.run(
        [sys.executable, "-m", "jitcache", "capture", "-o", str(directory), "--json", "-q"],
        env={**os.environ, "JITCACHE_DIR": str(root)},
        capture_output=True,
        text=True,
        cwd=help_.ROOT,
    )
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout)["capsules"]
    assert sorted(c["file"] for c in listed) == sorted(NAMES)
    assert all(c["file"].endswith(f"{c['arch']}.stage{c['stage']}.capsule") for c in listed)
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


@pytest.mark.parametrize("name", NAMES)
def test_a_capsule_is_what_an_independent_reader_of_cks_layouts_makes_of_it(samples, name):
    c = decoder.read(samples / name)
    listed = json.loads((samples / "index.json").read_text())["capsules"]
    said = next(entry for entry in listed if entry["file"] == name)
    assert c.header["symbol"] in [k.symbol for k in codeobject.read(c.code).kernels]
    assert said["grid"] == [2, 4, 1]
    assert decoder.worst(c) <= said["tolerance"] / 2
    # Sizes stand in the argument, pointers are left to the replayer.
    numbers = np.frombuffer(c.kernarg, "<i4").tolist()
    assert {c.header["problem"]["n"], c.header["problem"]["tokens"]} <= set(numbers)
    for buffer in c.header["buffers"]:
        for offset in buffer["offsets"]:
            assert c.kernarg[offset : offset + 8] == bytes(8)


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


@pytest.fixture(scope="module")
def half(samples):
    """A kernel that reads 8 bytes of a weight's row at a time, and its launch."""
    choice = next(c for c in choose(["a8w8"], ["gfx942"]))
    instance = next(
        i for i in catalog.instances(choice.spec, choice.arch) if weight_pack(i, "gfx942") == 8
    )
    launch = launch_for(instance, catalog.variants(instance)[1])
    assert launch is not None
    store = Store(samples.parent)
    one = replace(choice, launches=(launch,))
    lock = build(store, "gfx942", {"half": work_of(one)})["half"]
    module = open_module(lock, lock.modules[0], store, remotes=False)
    return launch, Stages(module, host_memory=True)


@pytest.mark.parametrize(("pack", "right"), [(16, False), (8, True)])
def test_weights_that_are_shuffled_otherwise_make_a_wrong_result(half, monkeypatch, pack, right):
    launch, stages = half
    real = layouts.shuffle_weights
    monkeypatch.setattr(layouts, "shuffle_weights", lambda weights: real(weights, pack))
    case = make_case(launch, "gfx942")
    made = stages.capture(stages.check(2, **case.arguments))
    expected = bytes(case.expected.view(torch.uint8).numpy())
    error = error_of(made.with_expected(expected, case.roundings))
    assert (error <= case.tolerance) == right
    assert right or error > 0.5
