"""`jitcache replay`, with a capsule made without torch."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from random import Random

import pytest

from jitcache.emulator import replay as emulator
from jitcache.errors import JitcacheError
from jitcache.runtime.capsule import Buffer, Capsule, read, write
from jitcache.runtime.compare import worst
from tests import emulator_help
from tests import runtime_help as help_
from tests.fake_clang import code_object

PROBLEM = dict.fromkeys(("tokens", "topk", "sorted_size", "n", "k", "splitk", "non_temporal"), 1)


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def make(path, expected, roundings=None):
    out = Buffer("out", (8,), floats(1.0, 2.0), expected, "float32", roundings)
    code = code_object("_Zone", "gfx950", b"x" * 32)
    sizes = ((1, 2, 3), (256, 1, 1))
    made = Capsule("gfx950", "m", "i", "_Zone", code, *sizes, 0, bytes(16), 0, PROBLEM, (out,))
    write(path, made)


def replay(path, *words, **env):
    env = {**os.environ, "JITCACHE_HIP_LIBRARY": str(help_.recorder()), **env}
    words = [sys.executable, "-m", "jitcache", "replay", str(path), "--json", *words]
    return subprocess.run(words, env=env, capture_output=True, text=True, cwd=help_.ROOT)


def test_a_right_result_a_wrong_one_and_one_that_nobody_knows(tmp_path):
    path = tmp_path / "one.capsule"
    # The recording library runs nothing: `out` stays as it was.
    for expected, code, error in (
        (floats(1.0, 2.0), 0, 0.0),
        (floats(1.0, 4.0), 1, 0.5),
        (None, 0, None),
    ):
        make(path, expected)
        done = replay(path, "-o", str(tmp_path / "result"))
        assert (done.returncode, json.loads(done.stdout)["error"]) == (code, error), done.stderr
        assert (tmp_path / "result").read_bytes() == floats(1.0, 2.0)


def test_a_capsule_says_how_much_may_differ(tmp_path):
    path = tmp_path / "one.capsule"
    # One unit in the last place beside 2.0 is 2^-23 of it, twice its epsilon's half.
    near = floats(1.0, 2.0 + 2.0**-22)
    for roundings, words, code in (
        (None, (), 0),
        (0, (), 1),
        (1, (), 0),
        (0, ("--tolerance", "1e-6"), 0),
        (1, ("--tolerance", "1e-9"), 1),
    ):
        make(path, near, roundings)
        assert read(path).out.roundings == roundings
        assert replay(path, *words).returncode == code, (roundings, words)


def test_without_gpu_or_with_another_it_says_so(tmp_path):
    path = tmp_path / "one.capsule"
    make(path, None)
    assert replay(path, "--describe", RECORDING_HIP_DEVICES="0").returncode == 0
    done = replay(path, RECORDING_HIP_DEVICES="0")
    assert (done.returncode, "finds no GPU" in done.stderr) == (5, True)
    done = replay(path, RECORDING_HIP_ARCH="gfx942")
    assert (done.returncode, "is gfx942, the capsule is for gfx950" in done.stderr) == (5, True)


SOURCE = """
typedef float F;
__attribute__((amdgpu_kernel, amdgpu_flat_work_group_size(64, 64))) void twice(F *out, F *in) {
  unsigned t = __builtin_amdgcn_workitem_id_x();
  if (t < 2) out[t] = in[t] * 2 + out[t];
}
__attribute__((amdgpu_kernel)) void past(F *out, F *in) { out[2] = 1; }
"""


def test_a_launch_runs_on_the_emulator(tmp_path):
    options = (*emulator_help.DEVICE, "-mcpu=gfx942")
    code = emulator_help.compile_c(SOURCE, tmp_path / "x.co", *options)
    path = tmp_path / "one.capsule"

    def go(symbol, expected, *words, clear=0):
        buffers = (
            Buffer("out", (0,), floats(10.0, 20.0), expected, "float32", 1),
            Buffer("a", (8,), floats(1.5, -3.0), None, "float32"),
        )
        sizes = ((1, 1, 1), (64, 1, 1), 0, bytes(16), clear)
        made = Capsule("gfx942", "m", "i", symbol, code, *sizes, PROBLEM, buffers)
        write(path, made)
        # There is no GPU: nothing else could have run it.
        return replay(path, "--emulate", *words, RECORDING_HIP_DEVICES="0")

    done = go("twice", floats(13.0, 14.0), "-o", str(tmp_path / "result"))
    assert (done.returncode, json.loads(done.stdout)["right"]) == (0, True), done.stderr
    assert (tmp_path / "result").read_bytes() == floats(13.0, 14.0)
    assert go("twice", floats(3.0, -6.0), clear=8).returncode == 0
    assert go("twice", floats(13.0, 14.5)).returncode == 1
    done = go("past", floats(13.0, 14.0))
    assert (done.returncode, "isn't allocated" in done.stderr) == (1, True)
    done = go("nothing", floats(13.0, 14.0))
    assert (done.returncode, "Traceback" in done.stderr) == (5, False)


@pytest.mark.slow
def test_damaged_code_is_refused_or_runs_but_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(emulator, "_PATIENCE_S", 2)
    options = (*emulator_help.DEVICE, "-mcpu=gfx950")
    code = emulator_help.compile_c(SOURCE, tmp_path / "x.co", *options)
    random = Random(11)
    objdump = emulator.require_emulator()
    outcomes = {"ran": 0, "refused": 0}
    for _ in range(120):
        broken = bytearray(code)
        for _ in range(random.choice((1, 4, 64))):
            broken[random.randrange(len(broken))] = random.randrange(256)
        if random.random() < 0.2:
            del broken[random.randrange(len(broken)) :]
        buffers = tuple(Buffer(f, (o,), floats(1.0, 2.0)) for f, o in (("out", 0), ("a", 8)))
        sizes = ((1, 1, 1), (64, 1, 1), 0, bytes(16), 0)
        made = Capsule("gfx950", "m", "i", "twice", bytes(broken), *sizes, PROBLEM, buffers)
        try:
            emulator.replay(made, objdump)
            outcomes["ran"] += 1
        except JitcacheError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 5, outcomes


def test_what_is_no_code_object_is_said(tmp_path):
    path = tmp_path / "one.capsule"
    make(path, None)
    done = replay(path, "--emulate")
    assert (done.returncode, "Traceback" in done.stderr) == (5, False), done.stderr


def test_errors_are_relative_to_the_largest_value_and_nan_is_wrong():
    assert worst(floats(1.0, -8.0), floats(2.0, -8.0), "float32") == 0.125
    assert worst(floats(float("nan")), floats(float("nan")), "float32") == float("inf")
    assert worst(floats(1.0), floats(float("nan")), "float32") == float("inf")
    assert worst(floats(float("inf")), floats(1.0), "float32") == float("inf")
    # 0x4000 is 2.0 and 0x4080 is 4.0 in bfloat16.
    assert worst(b"\x00\x40", b"\x80\x40", "bfloat16") == 0.5
    assert worst(struct.pack("<e", 3.0), struct.pack("<e", 4.0), "float16") == pytest.approx(0.25)
