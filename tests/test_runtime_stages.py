"""The MoE stages on torch tensors, down to the recorded launch."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

import jitcache  # noqa: E402
from jitcache.codegen.catalog import ModuleSpec, Quant  # noqa: E402
from jitcache.errors import UsageError  # noqa: E402
from jitcache.runtime import hip as hip_module  # noqa: E402
from jitcache.runtime.policy import MissError  # noqa: E402
from jitcache.runtime.stages import Stages  # noqa: E402
from jitcache.store.store import Store  # noqa: E402
from tests import runtime_help as help_  # noqa: E402
from tests.runtime_help import calls, expected_kernarg, make_lock  # noqa: E402

E, TOKENS, TOPK, MODEL, INTER, BLOCK_M = 3, 5, 2, 1024, 1024, 64
SORTED = 512
BOTH = ((True, "even"), (True, "odd"), (False, "even"), (False, "odd"))


def spec_of(kind: str, arch: str = "gfx950") -> ModuleSpec:
    return {
        "fp4": help_.FP4,
        "per_token": ModuleSpec("f8", "f8", "b16", Quant.PER_TOKEN, "gelu", 2, preshuffle=True),
        "blockscale": ModuleSpec("f8", "f8", "b16", Quant.PER_1X128, "silu", 2, preshuffle=True),
        "splitk": ModuleSpec(
            "f8", "f8", "b16", Quant.PER_1X128, "silu", 2, preshuffle=True, splitk=True
        ),
        "bf16": ModuleSpec("b16", "b16", "b16", Quant.NO, "silu", 1, preshuffle=True),
    }[kind]


KINDS = ("fp4", "per_token", "blockscale", "bf16")


@pytest.fixture
def open_stages(tmp_path, monkeypatch):
    monkeypatch.setenv("JITCACHE_HIP_LIBRARY", str(help_.recorder()))
    monkeypatch.setenv("RECORDING_HIP_LOG", str(tmp_path / "hip.log"))
    monkeypatch.setattr(hip_module, "_opened", None)

    def opened(kind="fp4"):
        store = Store(tmp_path / "store")
        path = make_lock(
            store, spec=spec_of(kind), block_ms=(BLOCK_M,), inter_dim=INTER, variants=BOTH
        )
        return Stages(jitcache.load(path, store=store), host_memory=True)

    return opened


@pytest.fixture
def log(tmp_path):
    return tmp_path / "hip.log"


def arguments(kind: str, stage: int) -> dict:
    """A correct call."""
    spec = spec_of(kind)
    pack = 2 if kind == "fp4" else 1
    types = {"fp4": torch.uint8, "bf16": torch.bfloat16}
    dtype = types.get(kind, torch.float8_e4m3fn)
    k, n = (MODEL, INTER) if stage == 1 else (INTER, MODEL)
    rows, wide = TOKENS * (TOPK if stage == 2 else 1), n * (2 if stage == 1 else 1)
    scales = {
        "fp4": ((SORTED * k // 32,), (E * wide * k // 32,), torch.uint8),
        "per_token": ((rows, 1), (E, wide), torch.float32),
        "blockscale": ((rows, k // 128), (E, wide // 128, k // 128), torch.float32),
    }.get("blockscale" if kind == "splitk" else kind)
    split = kind == "splitk" and stage == 1
    shape = (TOKENS, k // pack) if stage == 1 else (TOKENS, TOPK, k // pack)
    outs = [(TOKENS, TOPK, n) if stage == 1 else (TOKENS, n), torch.bfloat16]
    if split:
        # As AITER's host makes it: 9bab8388, aiter/fused_moe.py:2256-2260.
        outs = [(SORTED, wide), torch.float32]
    return {
        "states": torch.zeros(shape, dtype=dtype),
        "w1": torch.zeros((E, 2 * INTER, MODEL // pack), dtype=dtype),
        "w2": torch.zeros((E, MODEL, INTER // pack), dtype=dtype),
        "sorted_token_ids": torch.zeros(SORTED, dtype=torch.int32),
        "sorted_expert_ids": torch.zeros(SORTED // BLOCK_M, dtype=torch.int32),
        "num_valid_ids": torch.zeros(2, dtype=torch.int32),
        "out": torch.zeros(outs[0], dtype=outs[1]),
        "topk": TOPK,
        "kernelName": "",
        "w_scale": torch.zeros(scales[1], dtype=scales[2]) if scales else None,
        "a_scale": torch.zeros(scales[0], dtype=scales[2]) if scales else None,
        "block_m": BLOCK_M,
        "sorted_weights": torch.zeros(SORTED) if stage == spec.routed_weight_stage else None,
        "quant_type": spec.quant.number,
        "activation": {"silu": 0, "gelu": 1}[spec.act],
        "splitk": 2 if split else 1,
        "non_temporal_load": False,
        "dst_type": None,
        "is_shuffled": True,
    }


def problem_of(given: dict, stage: int) -> dict[str, int]:
    """What the host shim must be asked for a call."""
    weight = given["w1"] if stage == 1 else given["w2"]
    pointers = {
        "a": given["states"],
        "a_scale": given["a_scale"],
        "b": weight,
        "b_scale": given["w_scale"],
        "sorted_token_ids": given["sorted_token_ids"],
        "sorted_expert_ids": given["sorted_expert_ids"],
        "num_valid_ids": given["num_valid_ids"],
        "sorted_weights": given["sorted_weights"],
        "out": given["out"],
    }
    problem = {name: 0 if t is None else t.data_ptr() for name, t in pointers.items()}
    n, k = (INTER, MODEL) if stage == 1 else (MODEL, INTER)
    problem |= {"tokens": TOKENS, "topk": TOPK, "sorted_size": SORTED, "n": n, "k": k}
    return problem | {"splitk": given["splitk"], "non_temporal": 0}


@pytest.mark.parametrize("split", [0, None])
def test_no_split_is_a_split_of_one(open_stages, log, split):
    open_stages().ck_moe_stage1(*(arguments("fp4", 1) | {"splitk": split}).values())
    (launch,) = calls(log, "launch")
    assert bytes.fromhex(launch["kernarg"])[92:96] == (1).to_bytes(4, "little")


def test_split_k_sums_up_in_a_buffer_of_every_sorted_row(open_stages, log):
    stages = open_stages("splitk")
    call = arguments("splitk", 1)
    stages.ck_moe_stage1(*call.values())
    assert [c["call"] for c in calls(log)] == ["load", "memset", "launch"]
    (launch,) = calls(log, "launch")
    assert bytes.fromhex(launch["kernarg"]) == expected_kernarg(problem_of(call, 1))
    # The launch clears all of it, so that a smaller one would be written past its end.
    short = call | {"out": call["out"][:-1].contiguous()}
    with pytest.raises(UsageError, match=r"out has .* elements"):
        stages.ck_moe_stage1(*short.values())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stage", [1, 2])
def test_nineteen_positional_arguments_become_the_launch(open_stages, log, kind, stage):
    stages = open_stages(kind)
    call = arguments(kind, stage)
    assert len(call) == 19
    getattr(stages, f"ck_moe_stage{stage}")(*call.values())
    (launch,) = calls(log, "launch")
    problem = problem_of(call, stage)
    assert bytes.fromhex(launch["kernarg"]) == expected_kernarg(problem)
    assert launch["symbol"].startswith(f"_Zkernel{stage}_{BLOCK_M}_")


def test_the_sorted_size_is_what_the_tokens_can_fill(open_stages):
    stages = open_stages()
    call = arguments("fp4", 1)
    call["states"] = call["states"][:1].contiguous()
    call["out"] = call["out"][:1].contiguous()
    assert stages.check(1, **call).problem.sorted_size == TOPK * BLOCK_M


def strided(t):
    return torch.zeros((*t.shape, 2), dtype=t.dtype)[..., 0]


def unaligned(t):
    raw = torch.zeros(t.numel() * t.element_size() + 64, dtype=torch.uint8)
    start = -raw.data_ptr() % 16 + 2 * t.element_size()
    return raw[start : start + t.numel() * t.element_size()].view(t.dtype).view(t.shape)


WRONG = [
    ("states", lambda t: t.to(torch.int32), "states must be .* but is int32"),
    ("w1", lambda t: t.view(torch.int8), "w1 must be .* but is int8"),
    ("out", lambda t: t.to(torch.float16), "out must be bfloat16, but is float16"),
    ("out", lambda t: t.float(), "out must be bfloat16, but is float32"),
    ("out", lambda t: t[:-1].contiguous(), "out has .* elements"),
    ("w2", lambda t: t[:-1].contiguous(), "w2 has 2 experts, but w1 has 3"),
    ("w1", lambda t: t[..., :-64].contiguous(), "w1 has the shape .* doesn't hold 3 experts"),
    ("w1", lambda t: t[0], "w1 must have 3 dimensions"),
    ("states", strided, "states is not contiguous"),
    ("states", unaligned, "states is not aligned to 16 bytes"),
    ("states", lambda t: t.to("meta"), "on cpu, but out is on|on meta, but out is on cpu"),
    ("sorted_token_ids", lambda t: t.long(), "sorted_token_ids must be int32, but is int64"),
    ("sorted_expert_ids", lambda t: t[:-1].contiguous(), "sorted_expert_ids has 7 elements"),
    ("a_scale", lambda _: None, "a_scale is missing: per_1x32 needs it"),
    ("w_scale", lambda _: None, "w_scale is missing"),
    ("w_scale", lambda t: t.float(), "w_scale must be float8_e8m0fnu or uint8, but is float32"),
    ("w_scale", lambda t: t[:-1].contiguous(), "w_scale has .* are read"),
    ("sorted_weights", lambda _: torch.zeros(SORTED), "sorted_weights must not be given"),
    ("quant_type", lambda _: 2, "quant_type is per_token, but the module has per_1x32"),
    ("activation", lambda _: 1, "activation is 1, but the module has 0"),
    ("is_shuffled", lambda _: False, "is_shuffled is False"),
    ("topk", lambda _: 0, "topk must be positive"),
    ("splitk", lambda _: 2, "splitk is 2, but the module does not split K"),
    ("dst_type", lambda _: "f16", "dst_type is f16"),
]


@pytest.mark.parametrize(("name", "change", "said"), WRONG, ids=[w[2][:40] for w in WRONG])
def test_misuse_is_refused_before_anything_is_launched(open_stages, log, name, change, said):
    call = arguments("fp4", 1)
    call[name] = change(call[name])
    with pytest.raises(UsageError, match=said):
        open_stages().ck_moe_stage1(**call)
    assert calls(log) == []


def test_a_routed_weight_is_demanded_where_the_module_multiplies(open_stages):
    call = arguments("fp4", 2) | {"sorted_weights": None}
    with pytest.raises(UsageError, match="sorted_weights must be given"):
        open_stages().ck_moe_stage2(**call)


def test_host_memory_is_refused_unless_asked_for(open_stages):
    module = open_stages().module
    with pytest.raises(UsageError, match="out is on cpu, not on a GPU"):
        Stages(module).ck_moe_stage1(**arguments("fp4", 1))


def test_a_block_m_without_kernel_is_a_miss(open_stages):
    call = arguments("fp4", 1) | {"block_m": 32}
    call["sorted_expert_ids"] = torch.zeros(SORTED // 32, dtype=torch.int32)
    with pytest.raises(MissError, match="block_m 32"):
        open_stages().ck_moe_stage1(**call)
