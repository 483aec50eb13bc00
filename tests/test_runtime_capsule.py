"""`jitcache replay`, with a capsule made without torch."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys

import pytest

from jitcache.runtime.capsule import Buffer, Capsule, read, write
from jitcache.runtime.compare import worst
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


def test_errors_are_relative_to_the_largest_value_and_nan_is_wrong():
    assert worst(floats(1.0, -8.0), floats(2.0, -8.0), "float32") == 0.125
    assert worst(floats(float("nan")), floats(float("nan")), "float32") == float("inf")
    assert worst(floats(1.0), floats(float("nan")), "float32") == float("inf")
    assert worst(floats(float("inf")), floats(1.0), "float32") == float("inf")
    # 0x4000 is 2.0 and 0x4080 is 4.0 in bfloat16.
    assert worst(b"\x00\x40", b"\x80\x40", "bfloat16") == 0.5
    assert worst(struct.pack("<e", 3.0), struct.pack("<e", 4.0), "float16") == pytest.approx(0.25)
