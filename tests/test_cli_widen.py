"""The widen command, with a fake compiler."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jitcache.cli.main import main
from jitcache.lockfile import load_lock
from jitcache.store.model import Hit
from jitcache.store.store import Store
from jitcache.widen import Kernel, missing_work
from tests.fake_toolchain import compiles, make_toolchain

NAME = "kimi-k2.5-mxfp4-tp2"
MODULE = "module_moe_ck2stages_fp4x2_fp4x2_preshuffle_on_b16_silu_per_1x32_mulWeightStage2"
SMALL = (
    "moe_ck2stages_gemm1_256x64x128x128_1x4_MulABScaleShuffled_v3_Nswizzle0_Quant3"
    "_MulRoutedWeight0_silu_FP4X2_FP4X2_B16"
)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("JITCACHE_DIR", str(tmp_path / "store"))
    monkeypatch.delenv("JITCACHE_SALT", raising=False)
    use(monkeypatch, tmp_path)
    return tmp_path


def use(monkeypatch, place: Path, **how) -> None:
    for module in ("prebuild", "widen"):
        monkeypatch.setattr(
            f"jitcache.cli.{module}.find_toolchain",
            lambda arch, **_: make_toolchain(place, arch=arch, **how),
        )
        # The fake CK's headers hold nothing to read features from.
        monkeypatch.setattr(f"jitcache.cli.{module}.require", lambda *_: None)
    monkeypatch.setattr("jitcache.cli.widen.missing", lambda *_: None)


def run(capsys, *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main([str(w) for w in words])
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


@pytest.fixture
def lock(place, capsys):
    """A lock of the two kernels of block_m 128."""
    code, out, err = run(capsys, "prebuild", NAME, "--block-m", "128", "--json", "--quiet")
    assert code == 0, err
    return Path(json.loads(out)["lock"])


def names(path, module=0):
    held = load_lock(path).modules[module]
    return [(i.name, v.hot_loop, v.tail) for i in held.instances for v in i.variants]


def test_only_what_is_missing_and_a_new_shim_are_built(place, lock, capsys):
    before, old = load_lock(lock), names(lock)
    code, out, err = run(
        capsys, "widen", lock, "--kernel", f"{SMALL}:hot-even", "--json", "--quiet"
    )
    assert code == 0, err
    said = json.loads(out)
    assert (said["built"], said["hits"]) == (2, 0)
    assert said["added"] == [f"{SMALL}:hot-even"]
    assert len(compiles(place)) == 5
    assert names(lock) == [*old, (SMALL, True, "even")]
    after = load_lock(lock)
    assert after.modules[0].instances[:2] == before.modules[0].instances
    assert after.modules[0].instances[2].block_m == 64
    assert after.modules[0].host != before.modules[0].host
    assert all(isinstance(Store.of_user().lookup(a.key), Hit) for a in after.actions())
    # What is there isn't added again.
    code, out, _ = run(capsys, "widen", lock, "--kernel", f"{SMALL}:hot-even", "--json", "--quiet")
    assert (json.loads(out)["added"], json.loads(out)["built"]) == ([], 0)
    assert len(compiles(place)) == 5
    assert load_lock(lock) == after


def test_one_shim_serves_whatever_is_missed_first(place, lock, capsys, tmp_path):
    other = SMALL.replace("256x64x128x128_1x4", "64x32x32x128_1x1")
    one, both = tmp_path / "one.json", tmp_path / "both.json"
    for start, kernel, to in ((lock, SMALL, one), (one, other, both), (lock, other, one)):
        words = ("widen", start, "--kernel", f"{kernel}:hot-even", "--out", to, "--quiet")
        assert run(capsys, *words)[0] == 0
    # Three of the plan, two kernels, one shim of the whole module.
    assert len(compiles(place)) == 6
    shim = load_lock(both).modules[0].host
    assert shim == load_lock(one).modules[0].host != load_lock(lock).modules[0].host
    text = Store.of_user().lookup(shim.key).record
    assert text.label.startswith("host shim of the whole module_moe_ck2stages_fp4x2")


def test_the_shim_knows_what_this_ck_can_build_and_what_is_held(place, lock, capsys):
    held = load_lock(lock)
    (module,) = held.modules
    ours = [i.name for i in module.instances]
    wanted = [Kernel(ours[0], "cold-odd"), Kernel(SMALL, "hot-even")]

    def shim(buildable):
        work = missing_work(held, module, wanted, buildable)
        assert [k.instance.name for k in work.kernels] == [ours[0], SMALL]
        return [i["name"] for i in work.shim.context["instances"]]

    assert len(shim(lambda _: True)) == 10
    assert shim(lambda i: i.tile.m == 64 and i.stage == 1) == [SMALL, *ours]
    only_ours = missing_work(held, module, wanted[:1], lambda _: True)
    assert only_ours.shim is None


def test_a_further_variant_comes_after_those_that_are_there(place, lock, capsys, tmp_path):
    ours = names(lock)[0][0]
    out_path = tmp_path / "wider.json"
    before = lock.read_bytes()
    code, out, err = run(
        capsys, "widen", lock, "--kernel", f"{ours}:cold-odd", "--out", out_path, "--module", MODULE
    )
    assert code == 0, err
    assert "1 kernels added, 1 built, 0 fetched, 0 found" in out
    assert load_lock(out_path).modules[0].host == load_lock(lock).modules[0].host
    variants = load_lock(out_path).modules[0].instances[0].variants
    assert [(v.hot_loop, v.tail) for v in variants] == [(True, "even"), (False, "odd")]
    assert lock.read_bytes() == before


@pytest.mark.parametrize(
    ("kernel", "said"),
    [
        (SMALL, "must be an instance's name, a colon and a variant"),
        (f"{SMALL}:warm-even", "has no variant warm-even"),
        (SMALL.replace("silu", "gelu") + ":hot-even", "has no instance"),
        ("nonsense:hot-even", "has no instance nonsense"),
    ],
)
def test_what_no_module_has(place, lock, capsys, kernel, said):
    before = lock.read_bytes()
    code, _, err = run(capsys, "widen", lock, "--kernel", kernel)
    assert code == 3
    assert said in err
    assert lock.read_bytes() == before


def test_toolchains_are_not_mixed(place, lock, capsys, monkeypatch):
    use(monkeypatch, place, compiler="compiler-2")
    code, _, err = run(capsys, "widen", lock, "--kernel", f"{SMALL}:hot-even")
    assert code == 4
    assert "was built with fake-compiler-1, and here is fake-compiler-2" in err
    assert len(compiles(place)) == 3


def test_a_kernel_that_does_not_compile_leaves_the_lock(place, lock, capsys, monkeypatch):
    use(monkeypatch, place, fail="256x64x128x128")
    before = lock.read_bytes()
    code, _, err = run(capsys, "widen", lock, "--kernel", f"{SMALL}:hot-even")
    assert code == 1
    assert "could not be built" in err
    assert lock.read_bytes() == before


def test_forbid_compiles_nothing(place, lock, capsys, monkeypatch):
    monkeypatch.setenv("JITCACHE_JIT", "forbid")
    code, _, err = run(capsys, "widen", lock, "--kernel", f"{SMALL}:hot-even")
    assert code == 9
    assert "2 of 2 actions would have to be compiled" in err
    assert len(compiles(place)) == 3
