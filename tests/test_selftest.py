"""`jitcache selftest` with a HIP library that puts results of the test's choosing into `out`."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import json
import math
import os
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

import jitcache  # noqa: E402
from jitcache.capture import case as case_module  # noqa: E402
from jitcache.capture.choice import MODULES, launch_for  # noqa: E402
from jitcache.cli.main import main  # noqa: E402
from jitcache.codegen.catalog import (  # noqa: E402
    Quant,
    find,
    k_per_block,
    parse_module_name,
    variant_for,
)
from jitcache.emulator.program import FaultError, UnknownError  # noqa: E402
from jitcache.lockfile import load_lock, write_lock  # noqa: E402
from jitcache.runtime import hip as hip_module  # noqa: E402
from jitcache.runtime.hip import Hip  # noqa: E402
from jitcache.selftest.model import kernels  # noqa: E402
from jitcache.store.store import Store  # noqa: E402
from tests import runtime_help as help_  # noqa: E402
from tests.runtime_help import make_lock  # noqa: E402

FP4, FP8 = MODULES["a4w4"], MODULES["a8w8"]
make_case = functools.cache(case_module.make_case)
"""Equal for equal arguments, and the command's time goes into it."""
EVERY = tuple((hot, tail) for hot in (True, False) for tail in ("even", "odd"))


@pytest.fixture
def machine(tmp_path, monkeypatch):
    monkeypatch.setenv("JITCACHE_DIR", str(tmp_path / "store"))
    monkeypatch.setenv("JITCACHE_HIP_LIBRARY", str(help_.recorder()))
    monkeypatch.setenv("RECORDING_HIP_RESULTS", str(tmp_path / "results"))
    monkeypatch.setattr(hip_module, "_opened", None)
    monkeypatch.setattr(case_module, "make_case", make_case)
    (tmp_path / "results").mkdir()
    return tmp_path


def a_lock(machine, *, spec=FP8, block_m=32, variants=((True, "even"),), **settings) -> Path:
    store = Store(machine / "store")
    return make_lock(store, spec=spec, block_ms=(block_m,), variants=variants, **settings)


def case_of(kernel, seed=0):
    instance = find(kernel.instance.name, kernel.module.spec, kernel.module.lock.arch)
    launch = launch_for(instance, kernel.which)
    assert launch.variant == kernel.which
    return make_case(launch, kernel.module.lock.arch, seed)


def raw(tensor) -> bytes:
    return bytes(tensor.contiguous().view(torch.uint8).flatten().tolist())


def put_results(machine, lock, change=None, seed=0) -> list[str]:
    """Have every kernel give what is expected, but for what `change` makes of it; symbols."""
    symbols = []
    for kernel in kernels([jitcache.load(lock)]):
        expected = case_of(kernel, seed).expected
        symbol = kernel.variant.kernel
        given = (change or {}).get(symbol, lambda values: values)(expected.clone())
        if given is not None:
            (machine / "results" / symbol).write_bytes(raw(given))
        symbols.append(symbol)
    return symbols


def run(capsys, *words) -> tuple[int, dict, str]:
    with pytest.raises(SystemExit) as exit_:
        main(["selftest", *map(str, words), "--json"])
    said = capsys.readouterr()
    return exit_.value.code, json.loads(said.out), said.err


def statuses(found: dict) -> dict[str, str]:
    return {k["symbol"]: k["status"] for k in found["kernels"]}


def test_kernels_with_right_results_are_ok(machine, capsys):
    lock = a_lock(machine, variants=EVERY)
    symbols = put_results(machine, lock)
    code, found, err = run(capsys, lock)
    assert code == 0, err
    assert (found["status"], found["counts"]["ok"]) == ("ok", 8)
    assert found["device"] == {"index": 0, "arch": "gfx950:sramecc+:xnack-", "hip": [7, 1]}
    assert statuses(found) == dict.fromkeys(symbols, "ok")
    assert {k["error"] for k in found["kernels"]} == {0.0}
    assert {k["variant"] for k in found["kernels"]} == {
        "hot-even", "hot-odd", "cold-even", "cold-odd",
    }  # fmt: skip
    # One rounding to bfloat16 in stage 1; in stage 2 two experts' parts are added up.
    assert {k["tolerance"] for k in found["kernels"]} == {2.0**-7, 2.0**-6}
    assert all(k["ms"] > 0 for k in found["kernels"])


def test_a_library_that_runs_nothing_makes_every_kernel_wrong(machine, capsys, monkeypatch):
    monkeypatch.delenv("RECORDING_HIP_RESULTS")
    code, found, err = run(capsys, a_lock(machine, variants=EVERY))
    assert (code, found["status"]) == (1, "wrong")
    assert found["counts"] == {"ok": 0, "wrong": 8, "failed": 0, "skipped": 0}
    assert "8 of 8 kernels are not as the reference has them" in err
    # Stage 1's output is NaN before, stage 2's is zero.
    errors = {(k["symbol"].startswith("_Zkernel1"), k["error"]) for k in found["kernels"]}
    assert errors == {(True, None), (False, 1.0)}


def changed(index: int, by: float):
    """Change an element by a part of the largest."""

    def change(values):
        flat = values.flatten()
        flat[index] += by * flat.abs().max()
        return flat

    return change


def one(value: float):
    def change(values):
        values.flatten()[7] = value
        return values

    return change


@pytest.mark.parametrize(
    ("change", "status", "reason"),
    [
        (changed(-1, 0.003), "ok", ""),
        (changed(-1, 0.03), "wrong", "differs from the reference"),
        (changed(0, -0.03), "wrong", "differs from the reference"),
        (one(math.nan), "wrong", "the result holds NaN or infinity"),
        (one(math.inf), "wrong", "the result holds NaN or infinity"),
        (lambda values: values * 1.5, "wrong", "differs from the reference"),
        (lambda values: values.roll(1), "wrong", "differs from the reference"),
        (lambda values: None, "failed", "hipErrorNotFound"),
    ],
)
def test_one_wrong_kernel_among_right_ones_is_the_one_that_is_named(
    machine, capsys, change, status, reason
):
    lock = a_lock(machine)
    bad = "_Zkernel1_32_hot_even_"
    symbols = put_results(machine, lock, {bad: change})
    code, found, _ = run(capsys, lock)
    assert code == (0 if status == "ok" else 1)
    assert statuses(found) == {s: status if s == bad else "ok" for s in symbols}
    kernel = next(k for k in found["kernels"] if k["symbol"] == bad)
    assert reason in kernel["reason"]
    assert (kernel["error"] is None) == ("NaN" in reason or status == "failed")
    if status == "ok":
        assert 0.001 < kernel["error"] < 0.006


def test_the_tolerance_can_be_chosen(machine, capsys):
    lock = a_lock(machine)
    put_results(machine, lock, {"_Zkernel2_32_hot_even_": changed(3, 0.1)})
    assert run(capsys, lock)[0] == 1
    assert run(capsys, lock, "--tolerance", "0.2")[0] == 0


def test_inputs_follow_the_seed(machine, capsys):
    lock = a_lock(machine)
    put_results(machine, lock, seed=5)
    assert run(capsys, lock)[0] == 1
    code, found, _ = run(capsys, lock, "--seed", "5")
    assert (code, found["seed"]) == (0, 5)


@pytest.mark.parametrize(
    "function", ["hipMalloc", "hipMemcpy", "hipModuleLoadData", "hipModuleLaunchKernel"]
)
def test_what_hip_refuses_is_a_failure_of_each_kernel(machine, capsys, monkeypatch, function):
    lock = a_lock(machine)
    put_results(machine, lock)
    monkeypatch.setenv("RECORDING_HIP_FAIL", function)
    code, found, _ = run(capsys, lock)
    assert (code, found["status"], found["counts"]["failed"]) == (1, "wrong", 2)
    for kernel in found["kernels"]:
        assert f"{function} failed: hipErrorOutOfMemory" in kernel["reason"]


def test_a_launch_that_hip_refuses_leaves_the_other_kernels_their_turn(
    machine, capsys, monkeypatch
):
    lock = a_lock(machine, variants=EVERY)
    symbols = put_results(machine, lock)
    monkeypatch.setenv("RECORDING_HIP_FAIL", "_Zkernel1_32_cold_odd_")
    code, found, _ = run(capsys, lock)
    expected = {s: "failed" if s == "_Zkernel1_32_cold_odd_" else "ok" for s in symbols}
    assert (code, statuses(found)) == (1, expected)


@pytest.mark.parametrize("fail", ["", "hipModuleLaunchKernel", "hipMemcpy"])
def test_device_memory_is_given_back_whatever_happens(machine, capsys, monkeypatch, fail):
    lock = a_lock(machine)
    put_results(machine, lock)
    monkeypatch.setenv("RECORDING_HIP_FAIL", fail)
    taken, given = [], []
    allocate, free = Hip.allocate, Hip.free

    def taking(self, size):
        taken.append(allocate(self, size))
        return taken[-1]

    def giving(self, address):
        given.append(address)
        free(self, address)

    monkeypatch.setattr(Hip, "allocate", taking)
    monkeypatch.setattr(Hip, "free", giving)
    assert run(capsys, lock)[0] == (1 if fail else 0)
    assert len(taken) > 10
    assert sorted(given) == sorted(taken)


def test_the_launch_finds_the_inputs_in_device_memory(machine, capsys, monkeypatch):
    lock = a_lock(machine, variants=((False, "odd"),))
    put_results(machine, lock)
    (kernel,) = kernels([jitcache.load(lock)], "gemm1")
    arguments = case_of(kernel).arguments
    seen = {}
    real = Hip.launch

    def launch(self, function, grid, block, extra, stream):
        _, argument = (ctypes.c_void_p * 2).from_address(extra)
        addresses = struct.unpack("<9Q", ctypes.string_at(argument, 72))
        for field, address in zip(help_.POINTERS, addresses, strict=True):
            name = {"a": "states", "b": "w1", "b_scale": "w_scale"}.get(field, field)
            tensor = arguments[name]
            size = 0 if tensor is None else tensor.numel() * tensor.element_size()
            seen[name] = (address != 0, ctypes.string_at(address, size) if address else b"")
        real(self, function, grid, block, extra, stream)

    monkeypatch.setattr(Hip, "launch", launch)
    assert run(capsys, lock, "--kernel", "gemm1")[0] == 0
    assert set(seen) == {
        "states", "a_scale", "w1", "w_scale", "sorted_token_ids", "sorted_expert_ids",
        "num_valid_ids", "sorted_weights", "out",
    }  # fmt: skip
    for name, (there, data) in seen.items():
        tensor = arguments[name]
        assert (there, data) == (tensor is not None, b"" if tensor is None else raw(tensor)), name


SPECS = [
    *dict.fromkeys(MODULES.values()),
    replace(FP8, quant=Quant.PER_TENSOR),
    replace(FP8, a="i8", b="i8"),
    replace(FP8, act="gelu", routed_weight_stage=1, c="f16"),
    replace(MODULES["a16w16"], a="f16", b="f16", c="f16"),
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.name.removeprefix("module_moe_ck2stages_"))
def test_every_kind_of_module_is_launched_and_compared(machine, capsys, spec):
    lock = a_lock(machine, spec=spec)
    with_six_steps(lock)
    put_results(machine, lock)
    code, found, err = run(capsys, lock)
    assert (code, found["counts"]["ok"]) == (0, 2), (found, err)


def with_six_steps(path: Path) -> None:
    """Let the kernel of each instance in a lock be the one for six loop steps along K."""
    lock = load_lock(path)
    (module,) = lock.modules
    instances = []
    for locked in module.instances:
        instance = find(locked.name, parse_module_name(module.name), lock.arch)
        which = variant_for(instance, 6 * k_per_block(instance), non_temporal=True)
        (variant,) = locked.variants
        variant = replace(variant, tail=which.tail, non_temporal=which.non_temporal)
        instances.append(replace(locked, variants=(variant,)))
    write_lock(path, replace(lock, modules=(replace(module, instances=tuple(instances)),)))


def test_every_module_of_a_lock_is_tested(machine, capsys):
    locks = [load_lock(a_lock(machine, spec=spec)) for spec in (FP4, FP8)]
    both = machine / "both.json"
    write_lock(both, replace(locks[0], modules=tuple(m for k in locks for m in k.modules)))
    code, found, _ = run(capsys, both)
    assert {k["module"] for k in found["kernels"]} == {FP4.name, FP8.name}
    assert (code, len(found["kernels"])) == (1, 4)


def test_a_stage_that_splits_k_is_skipped_and_says_so(machine, capsys, monkeypatch):
    monkeypatch.setenv("RECORDING_HIP_ARCH", "gfx942")
    spec = replace(MODULES["a8w8blkscale"], splitk=True)
    lock = a_lock(machine, spec=spec, variants=((True, "even"),), arch="gfx942")
    with_six_steps(lock)
    (second,) = [k for k in kernels([jitcache.load(lock)]) if k.instance.stage == 2]
    (machine / "results" / second.variant.kernel).write_bytes(raw(case_of(second).expected))
    code, found, err = run(capsys, lock)
    assert (code, [k["status"] for k in found["kernels"]]) == (0, ["skipped", "ok"]), err
    assert "splits K" in found["kernels"][0]["reason"]
    code, found, err = run(capsys, lock, "--kernel", "gemm1")
    assert (code, found["status"], found["reason"]) == (5, "unsupported", "all-skipped")


def test_sizes_that_run_another_kernel_are_a_failure(machine, capsys, monkeypatch):
    lock = a_lock(machine, variants=((True, "even"), (True, "odd")))
    put_results(machine, lock)
    real = launch_for

    def other(instance, variant):
        return real(instance, replace(variant, tail="even"))

    monkeypatch.setattr("jitcache.selftest.check.launch_for", other)
    code, found, _ = run(capsys, lock, "--kernel", "gemm1")
    assert (code, [k["status"] for k in found["kernels"]]) == (1, ["ok", "failed"])
    assert "these sizes run another kernel" in found["kernels"][1]["reason"]


def emulated(monkeypatch, outcome) -> list[str]:
    """Have the emulator answer with what `outcome` makes of a capsule; symbols that it ran."""
    ran = []

    def replay(made, objdump):
        assert objdump.name.startswith("llvm-objdump")
        ran.append(made.symbol)
        return {"out": outcome(made)}

    monkeypatch.setattr("jitcache.selftest.runners.replay", replay)
    monkeypatch.setattr("jitcache.emulator.replay.find_objdump", lambda _: Path("llvm-objdump"))
    return ran


def test_the_emulator_runs_what_a_gpu_would(machine, capsys, monkeypatch):
    lock = a_lock(machine, variants=EVERY)
    symbols = put_results(machine, lock)
    right = {s: (machine / "results" / s).read_bytes() for s in symbols}
    monkeypatch.setenv("RECORDING_HIP_DEVICES", "0")
    ran = emulated(monkeypatch, lambda made: right[made.symbol])
    code, found, err = run(capsys, lock, "--emulate")
    assert code == 0, err
    assert (ran, found["counts"]["ok"]) == (symbols, 8)
    assert found["device"] == {"emulator": True, "arch": "gfx950"}
    # Its buffers are those of the case, and the result is compared, not believed.
    emulated(monkeypatch, lambda made: made.out.before)
    code, found, _ = run(capsys, lock, "--emulate")
    assert (code, found["counts"]["wrong"]) == (1, 8)


def test_what_the_emulator_cannot_run_is_skipped_and_what_faults_has_failed(
    machine, capsys, monkeypatch
):
    lock = a_lock(machine, variants=EVERY[:2])
    symbols = put_results(machine, lock)
    errors = {symbols[0]: UnknownError("v_new_f32"), symbols[1]: FaultError("0x1 isn't allocated")}

    def outcome(made):
        if made.symbol in errors:
            raise errors[made.symbol]
        return (machine / "results" / made.symbol).read_bytes()

    emulated(monkeypatch, outcome)
    code, found, _ = run(capsys, lock, "--emulate")
    assert (code, found["status"]) == (1, "wrong")
    assert list(statuses(found).values()) == ["skipped", "failed", "ok", "ok"]
    reasons = [k["reason"] for k in found["kernels"][:2]]
    assert reasons == ["the emulator doesn't know v_new_f32", "0x1 isn't allocated"]


@pytest.mark.parametrize(
    ("missing", "code", "text"),
    [
        ("torch", 5, "pip install 'jitcache[torch]'"),
        ("numpy", 5, "pip install 'jitcache[emulate]'"),
        ("llvm-objdump", 4, "install llvm-22"),
    ],
)
def test_what_the_emulator_needs_is_said(machine, capsys, monkeypatch, missing, code, text):
    lock = a_lock(machine)
    if missing == "llvm-objdump":
        monkeypatch.setenv("PATH", str(machine))
        monkeypatch.setenv("ROCM_PATH", str(machine))
        with pytest.raises(SystemExit) as exit_:
            main(["selftest", str(lock), "--emulate"])
        assert (exit_.value.code, text in capsys.readouterr().err) == (code, True)
        return
    if missing == "torch":
        monkeypatch.setitem(sys.modules, "torch", None)
    else:
        find = importlib.util.find_spec
        monkeypatch.setattr(
            "importlib.util.find_spec", lambda name: None if name == "numpy" else find(name)
        )
    found_code, found, err = run(capsys, lock, "--emulate")
    assert (found_code, found["reason"]) == (code, f"no-{missing}")
    assert text in err


@pytest.mark.parametrize(
    ("env", "reason", "hint"),
    [
        ({"RECORDING_HIP_DEVICES": "0"}, "no-device", "run this on a machine with a gfx950 GPU"),
        ({"JITCACHE_HIP_LIBRARY": "/none.so"}, "no-runtime", "install ROCm's runtime"),
        ({"RECORDING_HIP_ARCH": "gfx1100"}, "other-arch", "run this where the GPU is gfx950"),
        ({"RECORDING_HIP_VERSION": "60300000"}, "other-rocm", "build for this one"),
    ],
)
def test_where_it_cannot_run_it_says_why_and_what_next(
    machine, capsys, monkeypatch, env, reason, hint
):
    lock = a_lock(machine)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    code, found, err = run(capsys, lock)
    assert (code, found["status"], found["reason"]) == (5, "unsupported", reason)
    assert hint in found["hint"]
    assert "no kernel was tested" in found["detail"]
    assert "no kernel was tested" in err
    assert f"hint: {found['hint']}" in err


def test_without_torch_the_next_step_is_said_but_first_that_there_is_no_gpu(
    machine, capsys, monkeypatch
):
    lock = a_lock(machine)
    monkeypatch.setitem(sys.modules, "torch", None)
    code, found, err = run(capsys, lock)
    assert (code, found["reason"]) == (5, "no-torch")
    assert "pip install 'jitcache[torch]'" in err
    monkeypatch.setenv("RECORDING_HIP_DEVICES", "0")
    code, found, _ = run(capsys, lock)
    assert (code, found["reason"]) == (5, "no-device")


def test_the_distributions_runtime_without_a_gpu(machine):
    real = Path("/usr/lib/x86_64-linux-gnu/libamdhip64.so.5")
    if not real.exists() or Path("/dev/kfd").exists():
        pytest.skip("needs a HIP runtime on a machine without AMD GPU")
    done = subprocess.run(
        [sys.executable, "-m", "jitcache", "selftest", str(a_lock(machine)), "--json"],
        env={**os.environ, "JITCACHE_HIP_LIBRARY": str(real)},
        capture_output=True,
        text=True,
        cwd=help_.ROOT,
    )
    found = json.loads(done.stdout)
    assert (done.returncode, found["reason"]) == (5, "no-device")
    assert "the HIP runtime 5.2 finds no GPU (hipErrorNoDevice)" in done.stderr


def test_people_read_a_table_and_what_runs(machine, capsys):
    lock = a_lock(machine, variants=EVERY)
    put_results(machine, lock, {"_Zkernel2_32_hot_odd_": one(math.nan)})
    with pytest.raises(SystemExit) as exit_:
        main(["selftest", str(lock), "--kernel", "gemm2"])
    said = capsys.readouterr()
    assert exit_.value.code == 1
    lines = said.out.splitlines()
    assert lines[0].split() == ["kernel", "result", "error", "allowed", "ms", "why"]
    assert len(lines) == 5
    (wrong,) = [line for line in lines if "wrong" in line]
    assert "hot-odd" in wrong
    assert wrong.endswith("the result holds NaN or infinity")
    assert [line for line in said.err.splitlines() if line.startswith("[4/4] gemm2 ")]


def test_what_does_not_exist_is_a_usage_error(machine, capsys):
    lock = a_lock(machine)
    for words, text in (
        (("--device", "3"), "there is no device 3: 1 can be seen"),
        (("--kernel", "gemm7"), "no kernel's name holds 'gemm7'"),
    ):
        with pytest.raises(SystemExit) as exit_:
            main(["selftest", str(lock), *words])
        assert exit_.value.code == 2
        assert text in capsys.readouterr().err


def test_every_option_and_reason_is_documented(capsys):
    page = (help_.ROOT / "docs" / "selftest.md").read_text()
    headings = [line[3:] for line in page.splitlines() if line.startswith("## ")]
    assert headings == ["Usage", "What it does", "Examples", "Options", "See also"]
    with pytest.raises(SystemExit):
        main(["selftest", "--help"])
    options = {w for w in capsys.readouterr().out.split() if w.startswith("--")}
    assert len(options) == 8
    for word in (options - {"--help"}) | {
        "no-runtime",
        "no-torch",
        "no-numpy",
        "all-skipped",
        "other-arch",
    }:
        assert f"`{word}`" in page, word
