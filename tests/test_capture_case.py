"""Data of sample launches: repeatable, of sensible size, and for any problem."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from jitcache.capture.case import make_case  # noqa: E402
from jitcache.capture.choice import MODULES, Launch, choose  # noqa: E402
from jitcache.codegen.catalog import ModuleSpec, Quant, instances  # noqa: E402
from jitcache.errors import UnsupportedError  # noqa: E402

LAUNCHES = {
    f"{c.family}-{c.arch}-{launch.instance.stage}": (launch, c.arch)
    for c in choose()
    for launch in c.launches
}


def tensors(case):
    found = {n: v for n, v in case.arguments.items() if isinstance(v, torch.Tensor)}
    return found | {"expected": case.expected}


def same(a, b):
    return torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))


def test_a_case_is_repeatable_and_another_seed_gives_another():
    launch, arch = LAUNCHES["a4w4-gfx950-1"]
    first, again, other = (tensors(make_case(launch, arch, seed)) for seed in (1, 1, 2))
    assert all(same(first[name], again[name]) for name in first)
    assert not any(same(first[name], other[name]) for name in ("states", "w1", "expected"))


@pytest.mark.parametrize("name", LAUNCHES)
def test_results_are_of_order_one_and_no_two_scales_are_alike(name):
    launch, arch = LAUNCHES[name]
    case = make_case(launch, arch)
    expected = case.expected.float()
    assert 0.3 < expected.std() < 1.5
    assert expected.abs().max() < 32
    # Every token's result is there, and is not that of another.
    rows = expected.flatten(0, -2)
    assert len(rows.unique(dim=0)) == len(rows)
    for scale in ("a_scale", "w_scale"):
        if (found := case.arguments[scale]) is not None:
            assert len(found.unique()) > 3 if found.dtype == torch.uint8 else len(found) > 2
            wanted = found.numel() if found.dtype == torch.float32 else 4
            assert len(found.unique()) >= wanted * 0.9
    token_ids, valid = case.arguments["sorted_token_ids"], int(case.arguments["num_valid_ids"][0])
    padding = (token_ids[:valid] & 0xFFFFFF) == launch.tokens
    assert 0 < padding.sum() < valid < len(token_ids)


def test_stage_1_starts_from_nan_and_stage_2_from_zero():
    first, second = (make_case(*LAUNCHES[f"a16w16-gfx942-{s}"]).arguments["out"] for s in (1, 2))
    assert first.isnan().all()
    assert not second.any()


OTHERS = {
    "int8": ModuleSpec("i8", "i8", "f16", Quant.PER_TOKEN, "gelu", 1, preshuffle=True),
    "per tensor": ModuleSpec("f8", "f8", "b16", Quant.PER_TENSOR, "silu", 2, preshuffle=True),
    "half": ModuleSpec("f16", "f16", "f16", Quant.NO, "gelu", 2, preshuffle=True),
}


@pytest.mark.parametrize("which", OTHERS)
@pytest.mark.parametrize("stage", [1, 2])
def test_any_instance_and_size_has_a_case(which, stage):
    instance = next(i for i in instances(OTHERS[which], "gfx942") if i.stage == stage)
    launch = Launch(instance, 2 * instance.tile.n, 512, tokens=9, topk=3, experts=4)
    case = make_case(launch, "gfx942")
    assert case.expected.shape == ((9, 3, launch.n) if stage == 1 else (9, launch.n))
    assert not case.expected.isnan().any()
    assert 0.05 < case.expected.float().std() < 3


def test_what_has_no_case_says_why():
    splitk = replace(MODULES["a8w8blkscale"], splitk=True)
    first = next(i for i in instances(splitk, "gfx950") if i.stage == 1)
    with pytest.raises(UnsupportedError, match="partial sums"):
        make_case(Launch(first, 256, 512), "gfx950")
    launch, arch = LAUNCHES["a8w8blkscale-gfx950-2"]
    with pytest.raises(UnsupportedError, match="N 64 is not a multiple of 128"):
        make_case(replace(launch, n=64), arch)
