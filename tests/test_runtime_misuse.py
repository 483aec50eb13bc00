"""Misuse of a loaded module, by each way in: a clear error and no launch, or the right behaviour.

The checks of single arguments are in test_runtime_stages, whose list is run again here: through
the torch op, and after a right call, because a signature that was examined isn't again.
"""

from __future__ import annotations

import functools
import threading

import pytest

torch = pytest.importorskip("torch")

import jitcache  # noqa: E402
from jitcache.errors import ForbiddenError, UnsupportedError, UsageError  # noqa: E402
from jitcache.runtime import hip as hip_module  # noqa: E402
from jitcache.runtime import ops  # noqa: E402
from jitcache.runtime.policy import MissError  # noqa: E402
from jitcache.runtime.stages import Stages  # noqa: E402
from jitcache.store.store import Store  # noqa: E402
from tests.runtime_help import calls, make_lock, python, recorder  # noqa: E402
from tests.test_runtime_stages import (  # noqa: E402
    BLOCK_M,
    BOTH,
    INTER,
    KINDS,
    SORTED,
    WRONG,
    arguments,
    spec_of,
    strided,
)


@pytest.fixture(scope="module")
def lock_of(tmp_path_factory):
    """The lock file of a kind's module, built once for all tests here."""

    @functools.cache
    def made(kind):
        return make_lock(
            Store(tmp_path_factory.mktemp(kind)),
            spec=spec_of(kind),
            block_ms=(BLOCK_M,),
            inter_dim=INTER,
            variants=BOTH,
        )

    return made


@pytest.fixture
def log(tmp_path):
    return tmp_path / "hip.log"


@pytest.fixture
def open_stages(lock_of, log, monkeypatch):
    monkeypatch.setenv("JITCACHE_HIP_LIBRARY", str(recorder()))
    monkeypatch.setenv("RECORDING_HIP_LOG", str(log))
    monkeypatch.setattr(hip_module, "_opened", None)

    def opened(kind="fp4"):
        lock = lock_of(kind)
        return Stages(jitcache.load(lock, store=Store(lock.parent.parent)), host_memory=True)

    return opened


def by_stages(stages, stage, call):
    getattr(stages, f"ck_moe_stage{stage}")(*call.values())


def by_op(stages, stage, call):
    getattr(ops.bind(stages), f"ck_moe_stage{stage}")(*call.values())


WAYS = pytest.mark.parametrize("way", [by_stages, by_op], ids=["stages", "op"])


@WAYS
@pytest.mark.parametrize(("name", "change", "said"), WRONG, ids=[w[2][:40] for w in WRONG])
def test_a_right_call_lets_no_wrong_one_through(open_stages, log, way, name, change, said):
    stages = open_stages()
    call = arguments("fp4", 1)
    way(stages, 1, call)
    call[name] = change(call[name])
    with pytest.raises(UsageError, match=f"{said}|the tensors are on cpu and meta"):
        way(stages, 1, call)
    assert len(calls(log, "launch")) == 1


def test_a_call_is_examined_once_and_its_addresses_each_time(open_stages, monkeypatch):
    from jitcache.runtime import stages as stages_module

    examined = []
    real = stages_module.examine
    monkeypatch.setattr(
        stages_module, "examine", lambda *a, **k: examined.append(1) or real(*a, **k)
    )
    stages = open_stages()
    for _ in range(3):
        fresh = arguments("fp4", 1)
        problem = stages.check(1, *fresh.values()).problem
        assert problem.a == fresh["states"].data_ptr()
        assert problem.out == fresh["out"].data_ptr()
    assert len(examined) == 1
    # Equal numbers of another type are not the same argument.
    with pytest.raises(UsageError, match=r"topk must be a whole number, but is 2\.0"):
        stages.check(1, *(arguments("fp4", 1) | {"topk": 2.0}).values())


def test_the_kernel_is_chosen_anew_for_another_block_m_or_name(open_stages, log):
    stages = open_stages()
    call = arguments("fp4", 1)
    stages.ck_moe_stage1(*call.values())
    with pytest.raises(MissError, match="block_m 64 of this stage were built"):
        stages.ck_moe_stage1(*(call | {"block_m": 128}).values())
    absent = stages.module.choose(1, BLOCK_M, INTER).replace("256x64x128", "256x32x128")
    with pytest.raises(MissError, match="a tuned table or a caller names it"):
        stages.ck_moe_stage1(*(call | {"kernelName": absent}).values())
    assert len(calls(log, "launch")) == 1


def test_what_is_remembered_of_calls_is_bounded(open_stages, monkeypatch):
    monkeypatch.setattr("jitcache.runtime.stages._KNOWN_CALLS", 2)
    stages = open_stages()
    call = arguments("fp4", 1)
    for tokens in (1, 2, 3, 4, 5):
        few = call | {name: call[name][:tokens].contiguous() for name in ("states", "out")}
        assert stages.check(1, *few.values()).problem.tokens == tokens
    assert len(stages._known) <= 2


MATRIX = ("states", "w1", "w2", "out", "sorted_token_ids", "sorted_expert_ids", "num_valid_ids")


@pytest.mark.parametrize("name", [*MATRIX, "sorted_weights"])
def test_every_tensor_but_scales_must_be_contiguous(open_stages, log, name):
    call = arguments("fp4", 2)
    call[name] = strided(call[name])
    with pytest.raises(UsageError, match=f"{name} is not contiguous"):
        by_stages(open_stages(), 2, call)
    assert calls(log) == []


def shifted(t, by: int):
    """The same shape at an address that is `by` bytes behind a multiple of 64."""
    size = t.numel() * t.element_size()
    memory = bytearray(size + 128)
    at = -torch.frombuffer(memory, dtype=torch.uint8).data_ptr() % 64 + by
    whole = torch.frombuffer(memory, dtype=torch.uint8, offset=at, count=size)
    if by % t.element_size():
        return torch.frombuffer(memory, dtype=t.dtype, offset=at, count=t.numel()).view(t.shape)
    return whole.view(t.dtype).view(t.shape)


@pytest.mark.parametrize(
    ("name", "by", "bytes_"),
    [
        *((name, 8, 16) for name in ("states", "w1", "w2", "out")),
        *((name, 2, 4) for name in (*MATRIX[4:], "sorted_weights", "a_scale", "w_scale")),
    ],
)
def test_every_tensor_must_be_aligned(open_stages, log, name, by, bytes_):
    stages = open_stages("per_token")
    call = arguments("per_token", 2)
    by_stages(stages, 2, call)
    call[name] = shifted(call[name], by)
    with pytest.raises(UsageError, match=f"{name} is not aligned to {bytes_} bytes"):
        by_stages(stages, 2, call)
    call[name] = shifted(call[name], 16)
    by_stages(stages, 2, call)
    assert len(calls(log, "launch")) == 2


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("kind", [k for k in KINDS if k != "bf16"])
@pytest.mark.parametrize("name", ["a_scale", "w_scale"])
def test_a_missing_scale_is_named(open_stages, log, kind, stage, name):
    call = arguments(kind, stage) | {name: None}
    with pytest.raises(UsageError, match=f"{name} is missing"):
        by_stages(open_stages(kind), stage, call)
    assert calls(log) == []


@pytest.mark.parametrize("name", [*MATRIX])
@pytest.mark.parametrize("other", [None, "x"])
def test_what_is_no_tensor_is_named(open_stages, log, name, other):
    call = arguments("fp4", 1) | {name: other}
    said = f"{name} is missing" if other is None else "an argument is not a tensor"
    with pytest.raises(UsageError, match=said):
        open_stages().ck_moe_stage1(*call.values())
    assert calls(log) == []


@pytest.mark.parametrize("stage", [1, 2])
def test_other_expert_counts_are_refused(open_stages, log, stage):
    for name, said in (("w1", "w2 has 3 experts, but w1 has 2"), ("w2", "w2 has 2 experts")):
        call = arguments("fp4", stage)
        call[name] = call[name][:2].contiguous()
        with pytest.raises(UsageError, match=said):
            by_stages(open_stages(), stage, call)
    assert calls(log) == []


def test_no_tokens_are_refused(open_stages, log):
    call = arguments("fp4", 1)
    call |= {name: call[name][:0] for name in ("states", "out")}
    with pytest.raises(UsageError, match="states has no memory"):
        by_stages(open_stages(), 1, call)
    assert calls(log) == []


@WAYS
@pytest.mark.parametrize("stage", [1, 2])
def test_a_block_m_that_was_not_built_and_one_that_nothing_supports(open_stages, log, way, stage):
    def with_block(block_m):
        blocks = torch.zeros(-(-SORTED // block_m), dtype=torch.int32)
        return arguments("fp4", stage) | {"block_m": block_m, "sorted_expert_ids": blocks}

    with pytest.raises(MissError, match="block_m 64 of this stage were built") as caught:
        way(open_stages(), stage, with_block(32))
    assert caught.value.line == 'scope = "inter-dim"'
    with pytest.raises(UnsupportedError, match="no kernel for block_m 48"):
        way(open_stages(), stage, with_block(48))
    assert calls(log) == []


@WAYS
def test_during_capture_what_is_not_loaded_is_refused_and_what_is_runs(
    open_stages,
    log,
    monkeypatch,
    way,
):
    stages = open_stages()
    monkeypatch.setenv("RECORDING_HIP_CAPTURING", "1")
    with pytest.raises(ForbiddenError, match="capture that is in progress") as caught:
        way(stages, 1, arguments("fp4", 1))
    assert "prewarm" in caught.value.hint
    assert calls(log) == []
    monkeypatch.setenv("RECORDING_HIP_CAPTURING", "0")
    stages.module.prewarm()
    monkeypatch.setenv("RECORDING_HIP_CAPTURING", "1")
    before = len(calls(log))
    way(stages, 1, arguments("fp4", 1))
    assert [c["call"] for c in calls(log)[before:]] == ["launch"]


def in_threads(count, work):
    """Run `work(number)` in threads that start together; what they gave."""
    start = threading.Barrier(count)
    results: list = [None] * count

    def run(number):
        start.wait()
        try:
            results[number] = work(number)
        except Exception as e:  # noqa: BLE001
            results[number] = e

    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return results


@WAYS
def test_threads_that_launch_first_share_one_load(open_stages, log, way, monkeypatch):
    # Long enough for all of them to find that it isn't loaded.
    monkeypatch.setenv("RECORDING_HIP_LOAD_MS", "50")
    stages = open_stages()
    given = [arguments("fp4", 1) for _ in range(8)]
    assert in_threads(8, lambda n: way(stages, 1, given[n])) == [None] * 8
    assert len(calls(log, "load")) == 1
    outs = {int.from_bytes(bytes.fromhex(c["kernarg"])[64:72], "little") for c in calls(log)[1:]}
    assert outs == {call["out"].data_ptr() for call in given}


FORK = """
import os, signal
os.environ["JITCACHE_DIR"] = {root!r}
from tests.test_runtime_stages import arguments
import jitcache
from jitcache.runtime.stages import Stages
module = jitcache.load({lock!r})
stages = Stages(module, host_memory=True)
call = list(arguments("fp4", 1).values())
stages.ck_moe_stage1(*call)
# A thread that is in the middle of something doesn't exist in the child.
module._guard.acquire()
pid = os.fork()
if pid == 0:
    signal.alarm(20)
    try:
        module.explain()
        stages.ck_moe_stage1(*call)
        print("the child launched", flush=True)
    except Exception as e:
        print(type(e).__name__, e, flush=True)
    os._exit(0)
module._guard.release()
print("status", os.waitpid(pid, 0)[1], flush=True)
stages.ck_moe_stage1(*call)
"""


def test_a_forked_process_gets_a_clean_answer(log, lock_of):
    # Forking before HIP was used, and without torch: test_runtime_module.
    lock = lock_of("fp4")
    code = FORK.format(lock=str(lock), root=str(lock.parent.parent))
    done = python(code, env={"RECORDING_HIP_LOG": str(log)})
    assert done.returncode == 0, done.stderr
    answer, hint, status = done.stdout.splitlines()
    assert answer.startswith("UnavailableError HIP was used before this process was forked")
    assert hint.startswith("hint: start workers with the `spawn` method")
    assert status == "status 0"
    assert len(calls(log, "launch")) == 2


EXIT = """
import os, sys, threading
os.environ["JITCACHE_DIR"] = {root!r}
import jitcache
if {torch!r}:
    from tests.test_runtime_stages import arguments
    from jitcache.runtime import ops
    from jitcache.runtime.stages import Stages
module = jitcache.load({lock!r})
module.prewarm()
if {torch!r}:
    bound = ops.bind(Stages(module, host_memory=True))
    bound.ck_moe_stage1(*arguments("fp4", 1).values())
waiting = threading.Thread(target=threading.Event().wait, daemon=True)
waiting.start()
print("done", flush=True)
{end}
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "code", "with_torch"),
    [("", 0, True), ("", 0, False), ("sys.exit(3)", 3, False), ("1 / 0", 1, False)],
)
def test_a_process_ends_with_modules_loaded(log, lock_of, end, code, with_torch):
    lock = lock_of("fp4")
    text = EXIT.format(lock=str(lock), root=str(lock.parent.parent), torch=with_torch, end=end)
    done = python(text, env={"RECORDING_HIP_LOG": str(log)})
    assert (done.stdout, done.returncode) == ("done\n", code)
    wanted = "ZeroDivisionError: division by zero" if code == 1 else ""
    assert done.stderr.strip().split("\n")[-1] == wanted
    assert len(calls(log, "load")) == 8
