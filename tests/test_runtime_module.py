"""Loading and launching a module with the recording HIP library."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import jitcache
from jitcache.errors import BuildError, ForbiddenError, InputError, JitcacheError, UnsupportedError
from jitcache.runtime import hip as hip_module
from jitcache.runtime.hip import HipError, Unavailable, UnavailableError, open_hip
from jitcache.runtime.policy import MissError, RefusedError
from jitcache.runtime.shim import Problem, Shim, Unsupported
from jitcache.store.store import Store
from tests import runtime_help as help_
from tests.runtime_help import calls, expected_kernarg, make_lock, python

PROBLEM = {name: 0x1000 * (i + 1) for i, name in enumerate(help_.POINTERS)} | {
    "tokens": 64, "topk": 8, "sorted_size": 4096, "n": 1024, "k": 7168, "splitk": 1,
    "non_temporal": 0,
}  # fmt: skip


@pytest.fixture
def hip_log(tmp_path, monkeypatch):
    monkeypatch.setenv("JITCACHE_HIP_LIBRARY", str(help_.recorder()))
    monkeypatch.setenv("RECORDING_HIP_LOG", str(tmp_path / "hip.log"))
    monkeypatch.delenv("JITCACHE_JIT", raising=False)
    monkeypatch.setattr(hip_module, "_opened", None)
    return tmp_path / "hip.log"


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def module(store, hip_log):
    return jitcache.load(make_lock(store), store=store)


def first(module, stage=1, block_m=128):
    return module.choose(stage, block_m, 1024)


def test_a_launch_is_what_the_shim_says(module, hip_log):
    name = first(module)
    module.launch(name, Problem(**PROBLEM), stream=0x77)
    (launch,) = calls(hip_log, "launch")
    assert launch["symbol"] == "_Zkernel1_128_hot_even_"
    assert launch["grid"] == [8, 32, 1]
    assert launch["block"] == [256, 1, 1]
    assert bytes.fromhex(launch["kernarg"]) == expected_kernarg(PROBLEM)
    assert (launch["stream"], launch["lds"], launch["device"]) == (0x77, 0, 0)


def test_a_code_object_is_loaded_once(module, hip_log):
    for _ in range(3):
        module.launch(first(module), Problem(**PROBLEM))
    assert len(calls(hip_log, "load")) == 1
    assert len(calls(hip_log, "launch")) == 3


def test_what_is_prepared_needs_no_gpu_and_equals_the_launch(module, hip_log):
    prepared = module.prepare(first(module), Problem(**PROBLEM))
    assert calls(hip_log) == []
    module.launch(first(module), Problem(**PROBLEM))
    assert prepared.kernarg.hex() == calls(hip_log, "launch")[0]["kernarg"]
    symbol, image = module.kernel(first(module), prepared)
    assert symbol == "_Zkernel1_128_hot_even_"
    assert image[:4] == b"\x7fELF"


def test_partial_sums_are_cleared_before_the_launch_on_its_stream(module, hip_log):
    module.launch(first(module), Problem(**PROBLEM | {"splitk": 2}), stream=5)
    kinds = [c["call"] for c in calls(hip_log)]
    assert kinds == ["load", "memset", "launch"]
    clear = calls(hip_log, "memset")[0]
    assert (clear["to"], clear["bytes"], clear["value"], clear["stream"]) == (0x9000, 4096, 0, 5)


def test_the_variant_follows_k(store, hip_log):
    every = ((True, "even"), (True, "odd"), (False, "even"), (False, "odd"))
    module = jitcache.load(make_lock(store, variants=every), store=store)
    for k, wanted in ((256, "cold_odd"), (512, "cold_even"), (768, "hot_odd"), (1024, "hot_even")):
        module.launch(first(module), Problem(**PROBLEM | {"k": k}))
        assert calls(hip_log, "launch")[-1]["symbol"] == f"_Zkernel1_128_{wanted}_"


def test_a_variant_that_was_not_built_names_the_line_to_add(module, hip_log):
    with pytest.raises(MissError, match="hot-odd kernel") as caught:
        module.launch(first(module), Problem(**PROBLEM | {"k": 6912}))
    assert caught.value.line == "model_dim = 6912"
    assert "put `model_dim = 6912` into the manifest test-manifest" in str(caught.value)
    assert calls(hip_log) == []


def test_a_block_m_that_was_not_built_names_the_line_to_add(module):
    with pytest.raises(MissError, match="block_m 64, 128 of this stage were built") as caught:
        module.choose(1, 32, 1024)
    assert caught.value.line == 'scope = "inter-dim"'


def test_another_inter_dim_is_a_miss_where_aiter_would_run_another_kernel(module):
    # At inter_dim 256 AITER's stage 2 dispatch goes to the 64-thread tiles.
    with pytest.raises(MissError, match="gemm2_64x128x128x128") as caught:
        module.choose(2, 128, 256)
    assert caught.value.line == "inter_dim = 256"


def test_a_tuned_name_of_the_whole_module_is_never_replaced(module):
    absent = first(module).replace("gemm1_256x128x128x128_1x4", "gemm1_256x32x128x128_1x4")
    with pytest.raises(MissError, match="gemm1_256x32"):
        module.choose(1, 128, 1024, absent)
    # AITER's whole module lacks the other activation's name and falls back; so do we.
    other = first(module).replace("_silu_", "_gelu_")
    assert module.choose(1, 128, 1024, other) == first(module)
    assert module.choose(1, 128, 1024, first(module, 1, 64)) == first(module, 1, 64)
    with pytest.raises(UnsupportedError, match="not a kernel of stage 1"):
        module.choose(1, 128, 1024, first(module, 2))


def test_no_kernel_at_all_for_a_block_m(module):
    with pytest.raises(UnsupportedError, match="no kernel for block_m 48"):
        module.choose(1, 48, 1024)


def test_what_ck_refuses_is_not_launched(module, hip_log):
    assert module.prepare(first(module), Problem(**PROBLEM | {"k": 7000})) == Unsupported(
        "K is not a multiple of the tile's K"
    )
    with pytest.raises(UnsupportedError, match="multiple of the tile's K"):
        module.launch(first(module), Problem(**PROBLEM | {"k": 7000}))
    with pytest.raises(JitcacheError, match="a made-up exception"):
        module.launch(first(module), Problem(**PROBLEM | {"k": 666}))
    assert calls(hip_log) == []


def test_prewarm_loads_everything_on_every_device(module, hip_log, monkeypatch):
    monkeypatch.setenv("RECORDING_HIP_DEVICES", "2")
    assert module.prewarm() == 8
    assert sorted(c["device"] for c in calls(hip_log, "load")) == [0] * 4 + [1] * 4
    assert module.prewarm() == 0
    monkeypatch.setenv("RECORDING_HIP_CAPTURING", "1")
    module.launch(first(module), Problem(**PROBLEM), device=1)
    assert len(calls(hip_log, "load")) == 8
    assert calls(hip_log, "launch")[0]["device"] == 1
    assert open_hip().current_device() == 0


def test_a_miss_during_capture_is_refused(module, hip_log, monkeypatch):
    monkeypatch.setenv("RECORDING_HIP_CAPTURING", "1")
    with pytest.raises(ForbiddenError, match="capture that is in progress") as caught:
        module.launch(first(module), Problem(**PROBLEM))
    assert "prewarm" in caught.value.hint
    assert calls(hip_log) == []


def test_threads_share_one_load_and_mix_no_arguments(module, hip_log):
    start, failed = threading.Barrier(8), []

    def work(number):
        try:
            start.wait()
            for i in range(25):
                module.launch(
                    first(module),
                    Problem(**PROBLEM | {"a": number + 1, "tokens": i + 1}),
                    stream=number,
                )
        except Exception as e:  # noqa: BLE001
            failed.append(e)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert failed == []
    assert len(calls(hip_log, "load")) == 1
    seen = calls(hip_log, "launch")
    assert len(seen) == 200
    for launch in seen:
        kernarg = bytes.fromhex(launch["kernarg"])
        assert int.from_bytes(kernarg[:8], "little") == launch["stream"] + 1


@pytest.mark.parametrize(
    ("env", "reason", "said"),
    [
        ({"RECORDING_HIP_ARCH": "gfx942:sramecc+"}, "other-arch", "is gfx942, but .* gfx950"),
        ({"RECORDING_HIP_VERSION": "60400000"}, "other-rocm", "built with ROCm 7"),
    ],
)
def test_another_machine_is_refused_with_a_reason(module, hip_log, monkeypatch, env, reason, said):
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(hip_module, "_opened", None)
    with pytest.raises(RefusedError, match=said) as caught:
        module.launch(first(module), Problem(**PROBLEM))
    assert [r.reason for r in caught.value.refusals] == [reason]
    assert calls(hip_log) == []


def test_a_distributions_headers_bind_to_no_rocm_major_but_the_object_format_does(
    store, hip_log, monkeypatch
):
    module = jitcache.load(make_lock(store, provider="llvm"), store=store)
    monkeypatch.setenv("RECORDING_HIP_VERSION", "60400000")
    assert module.check(0) is None
    monkeypatch.setenv("RECORDING_HIP_VERSION", "50221153")
    monkeypatch.setattr(hip_module, "_opened", None)
    refusal = module.check(0)
    assert refusal.reason == "old-rocm"
    assert "needs ROCm 6" in refusal.detail


def test_no_device_and_no_runtime_are_typed_answers(module, hip_log, monkeypatch, tmp_path):
    monkeypatch.setenv("RECORDING_HIP_DEVICES", "0")
    with pytest.raises(UnavailableError, match="hipErrorNoDevice") as caught:
        module.prewarm()
    assert caught.value.why.reason == "no-device"
    monkeypatch.setenv("JITCACHE_HIP_LIBRARY", str(tmp_path / "none.so"))
    monkeypatch.setattr(hip_module, "_opened", None)
    answer = open_hip()
    assert isinstance(answer, Unavailable)
    assert answer.reason == "no-runtime"
    with pytest.raises(UnavailableError, match="no HIP runtime"):
        module.launch(first(module), Problem(**PROBLEM))


def test_errors_carry_hips_names(module, hip_log, monkeypatch):
    monkeypatch.setenv("RECORDING_HIP_FAIL", "hipModuleLoadData")
    with pytest.raises(HipError, match="hipModuleLoadData failed: hipErrorOutOfMemory") as caught:
        module.prewarm()
    assert (caught.value.name, caught.value.code) == ("hipErrorOutOfMemory", 2)
    monkeypatch.setenv("RECORDING_HIP_FAIL", "hipModuleLaunchKernel")
    with pytest.raises(HipError, match="hipModuleLaunchKernel failed"):
        module.launch(first(module), Problem(**PROBLEM))
    with pytest.raises(HipError, match="hipErrorInvalidDevice"):
        module.launch(first(module), Problem(**PROBLEM), device=9)


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
@pytest.mark.parametrize("which", ["kernel", "shim"])
def test_damaged_objects_are_refused(store, hip_log, damage, which):
    path = make_lock(store)
    locked = json.loads(path.read_text())["modules"][0]
    action = locked["host"] if which == "shim" else locked["instances"][0]["variants"][0]
    blob = store.blob_path(action["outputs"][0]["digest"])
    data = bytearray(blob.read_bytes())
    blob.chmod(0o644)
    if damage == "remove":
        blob.unlink()
    elif damage == "truncate":
        blob.write_bytes(data[:-1])
    else:
        data[len(data) // 2] ^= 1
        blob.write_bytes(data)
    with pytest.raises(RefusedError) as caught:
        jitcache.load(path, store=Store(store.layout.root))
    (refusal,) = caught.value.refusals
    assert refusal.reason == ("missing" if damage == "remove" else "damaged")
    assert refusal.what == action["outputs"][0]["name"]


def test_another_result_than_the_locks_is_refused(store, hip_log):
    path = make_lock(store)
    text = path.read_text()
    old = json.loads(text)["modules"][0]["instances"][0]["variants"][0]["outputs"][0]["digest"]
    path.write_text(text.replace(old, "sha256:" + "0" * 64))
    with pytest.raises(RefusedError, match="the lock names sha256:0000") as caught:
        jitcache.load(path, store=store)
    assert caught.value.refusals[0].reason == "other-bytes"


def test_a_shim_of_another_interface_or_with_other_instances_is_refused(store, hip_log):
    with pytest.raises(RefusedError, match="interface version 9") as caught:
        jitcache.load(make_lock(store, abi=9), store=store)
    assert caught.value.refusals[0].reason == "not-a-shim"


def test_a_seed_serves_and_is_named(tmp_path, hip_log):
    seed = Store(tmp_path / "seed")
    path = make_lock(seed)
    local = Store(tmp_path / "local", seeds=[seed.layout.root])
    layers = {
        i["variants"][0]["layer"] for i in jitcache.load(path, store=local).explain()["instances"]
    }
    assert layers == {f"seed {seed.layout.root}"}


def test_load_by_manifest_and_by_module_name(store, hip_log):
    make_lock(store)
    by_manifest = jitcache.load("test-manifest", store=store)
    by_module = jitcache.load(help_.FP4.name, store=store)
    assert by_manifest.name == by_module.name == help_.FP4.name
    make_lock(store, manifest="another")
    with pytest.raises(InputError, match=r"fits 2 lock files: another\.gfx950"):
        jitcache.load(help_.FP4.name, store=store)
    with pytest.raises(InputError, match="holds no module module_other"):
        jitcache.load("another", module="module_other", store=store)


def test_nothing_is_built_unless_the_policy_says_so(store, hip_log, monkeypatch):
    with pytest.raises(ForbiddenError, match="nothing may be built while serving") as caught:
        jitcache.load("kimi-k2.5-mxfp4-tp2", store=store)
    assert "jitcache prebuild kimi-k2.5-mxfp4-tp2" in caught.value.hint
    monkeypatch.setenv("JITCACHE_JIT", "sometimes")
    with pytest.raises(InputError, match="forbid, warn, allow"):
        jitcache.load("kimi-k2.5-mxfp4-tp2", store=store)


def test_explain_says_where_everything_came_from(module, hip_log):
    said = module.explain()
    assert said["module"] == help_.FP4.name
    assert said["built"] == []
    assert [v["devices"] for i in said["instances"] for v in i["variants"]] == [[], [], [], []]
    assert said["host"]["layer"] == "local"
    assert Path(said["host"]["path"]).is_file()
    module.launch(first(module), Problem(**PROBLEM))
    after = module.explain()
    resident = {i["name"]: i["variants"][0]["devices"] for i in after["instances"]}
    assert resident.pop(first(module)) == [0]
    assert set(map(tuple, resident.values())) == {()}
    json.dumps(after)


FORK = """
import os, jitcache
from pathlib import Path
from jitcache.runtime.shim import Problem
from jitcache.store.store import Store
module = jitcache.load({lock!r}, store=Store(Path({root!r})))
name = module.choose(1, 128, 1024)
problem = Problem(**{problem!r})
if {before!r}:
    module.launch(name, problem)
pid = os.fork()
if pid == 0:
    try:
        module.launch(name, problem, stream=9)
        print("child launched", flush=True)
    except Exception as e:
        print(type(e).__name__, e, flush=True)
    os._exit(0)
os.waitpid(pid, 0)
module.launch(name, problem)
"""


@pytest.mark.parametrize("before", [False, True])
def test_fork_after_load_works_and_fork_after_launch_says_so(store, tmp_path, before):
    lock = make_lock(store)
    code = FORK.format(lock=str(lock), root=str(store.layout.root), problem=PROBLEM, before=before)
    done = python(code, env={"RECORDING_HIP_LOG": str(tmp_path / "log")})
    assert done.returncode == 0, done.stderr
    launches = [c["stream"] for c in calls(tmp_path / "log", "launch")]
    if before:
        assert "UnavailableError HIP was used before this process was forked" in done.stdout
        assert launches == [0, 0]
    else:
        assert "child launched" in done.stdout
        assert launches == [9, 0]


def test_load_imports_nothing_heavy(store):
    lock = make_lock(store)
    code = (
        "import sys, jitcache\n"
        f"jitcache.load({str(lock)!r})\n"
        "print([m for m in 'torch click msgspec jinja2 numpy elftools zstandard'.split()"
        " if m in sys.modules])"
    )
    done = python(code, env={"JITCACHE_DIR": str(store.layout.root)})
    assert done.stdout.strip() == "[]", done.stderr


def test_the_distributions_runtime_without_a_gpu(store, tmp_path):
    real = Path("/usr/lib/x86_64-linux-gnu/libamdhip64.so.5")
    if not real.exists() or Path("/dev/kfd").exists():
        pytest.skip("needs a HIP runtime on a machine without AMD GPU")
    lock = make_lock(store)
    code = (
        "import jitcache\n"
        "from jitcache.runtime.hip import UnavailableError, open_hip\n"
        "from jitcache.runtime.shim import Problem\n"
        f"m = jitcache.load({str(lock)!r})\n"
        "launch = lambda: m.launch(m.choose(1, 128, 1024), Problem(**PROBLEM))\n"
        "for use in (m.prewarm, launch):\n"
        "    try:\n        use()\n"
        "    except UnavailableError as e:\n"
        "        print(open_hip().version[0], e.why.reason, e.what)"
    ).replace("PROBLEM", repr(PROBLEM))
    env = {"JITCACHE_DIR": str(store.layout.root), "JITCACHE_HIP_LIBRARY": str(real)}
    done = python(code, env=env)
    said = done.stdout.splitlines()
    assert len(said) == 2, done.stderr
    assert all(line.startswith("5 no-device the HIP runtime 5.") for line in said)


def test_the_library_that_is_already_mapped_is_preferred(tmp_path):
    code = (
        "import ctypes\n"
        f"ctypes.CDLL({str(help_.recorder())!r})\n"
        "from jitcache.runtime.hip import open_hip\n"
        "print(open_hip().path)"
    )
    done = python(code, env={"JITCACHE_HIP_LIBRARY": ""})
    assert done.stdout.strip() == str(help_.recorder()), done.stderr


def test_a_shim_where_nothing_may_be_executed(tmp_path, monkeypatch):
    path = tmp_path / "shim.so"
    path.write_bytes(help_.shim_bytes(("one",), (128,), (256,)))
    real = ctypes.PyDLL

    def no_exec(name):
        if name == str(path):
            raise OSError("failed to map segment from shared object")
        return real(name)

    monkeypatch.setattr(ctypes, "PyDLL", no_exec)
    assert Shim(path).names == ("one",)


def test_eight_processes_start_together(store, tmp_path):
    lock = make_lock(store)
    code = f"import jitcache\nm = jitcache.load({str(lock)!r})\nprint(m.prewarm())"
    env = {
        **os.environ,
        "JITCACHE_DIR": str(store.layout.root),
        "JITCACHE_HIP_LIBRARY": str(help_.recorder()),
    }
    ranks = [
        subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True)
        for _ in range(8)
    ]
    assert [r.communicate()[0].strip() for r in ranks] == ["4"] * 8


def test_variants_that_share_a_code_object_load_it_once(store, hip_log):
    path = make_lock(store, block_ms=(128,), variants=((True, "even"), (True, "odd")))
    document = json.loads(path.read_text())
    for instance in document["modules"][0]["instances"]:
        one, other = instance["variants"]
        # The recorder looks for a symbol's text, so a part of the first one's is there, too.
        other |= {key: one[key] for key in ("action", "outputs")}
        other["kernel"] = one["kernel"][:-1]
    path.write_text(json.dumps(document))
    assert jitcache.load(path, store=store).prewarm() == 4
    assert len(calls(hip_log, "load")) == 2


@pytest.mark.parametrize("policy", ["allow", "warn"])
def test_what_is_missing_is_built_where_the_policy_allows(store, hip_log, monkeypatch, policy):
    path = make_lock(store)
    kept = path.rename(store.layout.root / "kept.json")
    # Stands for `python -m jitcache prebuild`: it writes the lock and says how much it built.
    builder = store.layout.root / "python"
    asked = store.layout.root / "asked"
    builder.write_text(
        f'#!/bin/sh\necho "$JITCACHE_DIR $@" > {asked}\ncp {kept} {path}\necho \'{{"built": 3}}\'\n'
    )
    builder.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(builder))
    monkeypatch.setenv("JITCACHE_JIT", policy)
    if policy == "warn":
        with pytest.warns(RuntimeWarning, match="jitcache compiles test-manifest now: no lock"):
            module = jitcache.load("test-manifest", store=store, arch="gfx950")
    else:
        module = jitcache.load("test-manifest", store=store, arch="gfx950")
    said = asked.read_text().strip()
    wanted = "-m jitcache prebuild test-manifest --arch gfx950 --quiet --json"
    assert said == f"{store.layout.root} {wanted}"
    (built,) = module.explain()["built"]
    assert built.startswith("built 3 objects of test-manifest: no lock file")


def test_a_build_that_fails_is_told_with_its_last_lines(store, hip_log, monkeypatch):
    builder = store.layout.root / "python"
    builder.parent.mkdir(parents=True)
    builder.write_text("#!/bin/sh\necho error: no compiler >&2\nexit 4\n")
    builder.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(builder))
    monkeypatch.setenv("JITCACHE_JIT", "allow")
    with pytest.raises(BuildError, match="building it failed") as caught:
        jitcache.load("test-manifest", store=store)
    assert caught.value.details == ("error: no compiler",)
