"""What compiles have cost, and what the next one will."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jitcache.build import durations
from jitcache.build.durations import Durations, Features, Sample, append, features_of, load
from jitcache.build.model import EdgeUsage
from jitcache.codegen import native
from jitcache.codegen.catalog import Instance, ModuleSpec, Quant, instances, variant_for

SPEC = ModuleSpec("fp4x2", "fp4x2", "b16", Quant.PER_1X32, "silu", 2, preshuffle=True)
INSTANCES = {f"{i.stage} {i.tile}": i for i in instances(SPEC, "gfx950")}
BIG = INSTANCES["1 256x128x128x128_1x4_v3"]


def features(instance: Instance = BIG, *, k: int = 7168, compiler: str = "clang 22") -> Features:
    recipe = native.device_recipe(instance, (variant_for(instance, k),), "gfx950")
    return features_of(recipe, "gfx950", compiler)


def measured(of: Features, cpu_s: float, *, at: int = 1, memory: int = 1 << 30) -> Sample:
    return Sample(of, at, round(cpu_s * 1000), round(cpu_s * 1000), memory)


def test_features_of_real_recipes() -> None:
    got = features()
    assert (got.kind, got.family, got.stage, got.kernels) == ("device", "a4w4", 1, 1)
    tile = BIG.tile
    assert (got.block_size, got.m, got.n, got.k) == (tile.block_size, tile.m, tile.n, tile.k)
    assert got.work == 64
    shim = features_of(native.shim_recipe(SPEC, (BIG,)), "gfx950", "clang 22")
    assert (shim.kind, shim.stage, shim.detail, shim.work) == ("host-shim", 0, "1", 0)
    # Every tile of the catalog can be read.
    assert len({features(i) for i in INSTANCES.values()}) == len(INSTANCES)


def test_nearest_measurement_wins() -> None:
    small = next(i for i in INSTANCES.values() if i.stage == 1 and i.tile.m == 32)
    other = features(k=128 * 3)
    assert other.detail == features().detail
    assert other.variants != features().variants
    steps = [
        ("rule of thumb", None),
        ("tile sizes of the family", measured(features(INSTANCES["2 256x128x128x128_1x4_v3"]), 40)),
        ("tile sizes of the stage", measured(features(small), 14)),
        ("same tile", measured(other, 21)),
        ("other compiler", measured(features(compiler="clang 23"), 22)),
        ("measured", measured(features(), 23)),
    ]
    known = Durations()
    costs = []
    for basis, sample in steps:
        known.merge([] if sample is None else [sample])
        estimate = known.estimate(features())
        assert estimate.basis == basis
        costs.append(estimate.cost_s)
    assert costs[3:] == [21, 22, 23]


def test_median_cost_and_largest_memory() -> None:
    known = Durations(
        measured(features(), cost, at=i, memory=i << 30) for i, cost in enumerate((20, 90, 24))
    )
    estimate = known.estimate(features())
    assert (estimate.cost_s, estimate.memory) == (24, 2 << 30)


def test_unmeasured_tiles_lie_on_the_line_of_the_measured() -> None:
    """Stock's own figures: from the tiles of 32 and 128 rows the one of 64 follows."""
    stage1 = {i.tile.m: i for i in INSTANCES.values() if i.stage == 1 and i.tile.block_size == 256}
    known = Durations(
        [measured(features(stage1[32]), 33.152), measured(features(stage1[128]), 54.274)]
    )
    estimate = known.estimate(features(stage1[64]))
    assert estimate.basis == "tile sizes of the stage"
    assert estimate.cost_s == pytest.approx(39.992, rel=0.02)


def test_noise_never_makes_a_cost_vanish() -> None:
    stage1 = sorted((i for i in INSTANCES.values() if i.stage == 1), key=lambda i: features(i).work)
    low, high = features(stage1[0]), features(stage1[-1])
    falling = Durations([measured(low, 50), measured(high, 10)])
    between = dataclasses.replace(low, m=low.m * 2, detail="x")
    assert falling.estimate(between).cost_s == pytest.approx(30)
    steep = Durations([measured(high, 50), measured(dataclasses.replace(high, m=96), 5)])
    assert steep.estimate(low).cost_s == 2.5


def test_more_kernels_in_one_unit_cost_more_but_share() -> None:
    one = variant_for(BIG, 7168)
    two = (one, dataclasses.replace(one, tail="odd"))
    packed = features_of(native.device_recipe(BIG, two, "gfx950"), "gfx950", "clang 22")
    assert packed.kernels == 2
    estimate = Durations([measured(features(), 20)]).estimate(packed)
    assert estimate.basis == "same tile"
    assert 20 < estimate.cost_s < 40


def test_rule_of_thumb_has_the_right_order() -> None:
    costs = {name: Durations().estimate(features(i)).cost_s for name, i in INSTANCES.items()}
    assert costs["1 256x128x128x128_1x4_v3"] == pytest.approx(23.2, rel=0.02)
    assert costs["1 64x32x32x128_1x1_v3"] == pytest.approx(14.5, rel=0.02)
    # One wave for a whole 128 x 128 block: those made stock's cold build 110 s instead of 60.
    assert max(costs, key=costs.__getitem__).startswith("2 64x128x128")
    shim = features_of(native.shim_recipe(SPEC, (BIG,)), "gfx950", "clang 22")
    assert Durations().estimate(shim).cost_s < min(costs.values())


SAMPLES = st.builds(
    Sample,
    st.sampled_from([features(i) for i in INSTANCES.values()][:3]),
    st.integers(0, 20),
    st.integers(0, 50),
    st.integers(0, 50),
    st.integers(0, 9),
)


@settings(max_examples=60)
@given(st.lists(SAMPLES, max_size=30), st.lists(SAMPLES, max_size=30))
def test_merging_needs_no_order_and_no_counting(one: list[Sample], two: list[Sample]) -> None:
    ab, ba = Durations(one), Durations(two)
    ab.merge(list(ba))
    ba.merge(one)
    assert ab.to_json() == ba.to_json()
    ab.merge(list(ba))
    assert ab.to_json() == ba.to_json()
    for of in {s.features for s in ab}:
        ats = sorted(s.at for s in {*one, *two} if s.features == of)
        assert [s.at for s in ab if s.features == of] == ats[-8:]


def test_export_is_json_without_floats_and_reads_back() -> None:
    known = Durations([durations.sample_of(features(), EdgeUsage(0, 2.25, 1.5, 4096), 7)])
    text = json.dumps(known.to_json())
    assert "." not in text.replace("clang 22.", "")
    assert list(Durations(map(durations.from_json, json.loads(text)))) == list(known)
    assert next(iter(known)).cpu_ms == 1500


def test_the_file_grows_and_is_read_back(tmp_path: Path) -> None:
    place = tmp_path / "store" / "durations-v1"
    assert list(load(place)) == []
    append(place, [measured(features(), 20, at=1)])
    append(place, [measured(features(), 21, at=2), measured(features(), 21, at=2)])
    assert [s.at for s in load(place)] == [1, 2]


def test_torn_and_strange_lines_are_left_out(tmp_path: Path) -> None:
    append(tmp_path, [measured(features(), 20, at=1)])
    path = tmp_path / "samples.jsonl"
    line = path.read_bytes().strip()
    wrong = (
        line[:40],
        b"\xff\x00",
        b"[]",
        b'{"features":{}}',
        line.replace(b'"at":1', b'"at":"1"'),
        line.replace(b'"at":1', b'"at":true'),
        line.replace(b'"at":1', b'"at":-1'),
        line.replace(b'"block_size":256', b'"block_size":0'),
        line.replace(b'"kernels":1', b'"kernels":0'),
        line.replace(b'"at":1', b'"at":1,"more":2'),
        b"[" * 100_000,
    )
    assert all(w != line for w in wrong)
    path.write_bytes(b"\n".join(wrong) + line[:30])
    append(tmp_path, [measured(features(), 22, at=3)])
    assert [s.at for s in load(tmp_path)] == [3]


@settings(max_examples=60)
@given(st.binary(max_size=100))
def test_any_bytes_are_a_sample_or_nothing(data: bytes) -> None:
    assert durations.parse_line(data) is None


def test_a_large_file_is_rewritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durations, "_COMPACT", 4000)
    append(tmp_path, [measured(features(), 20, at=i) for i in range(40)])
    path = tmp_path / "samples.jsonl"
    before = path.stat().st_size
    known = load(tmp_path)
    assert [s.at for s in known] == list(range(32, 40))
    assert path.stat().st_size < before / 3
    assert list(load(tmp_path)) == list(known)
    assert [p.name for p in tmp_path.iterdir()] == ["samples.jsonl"]


def test_a_place_that_cannot_be_written_fails_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    append(tmp_path / "file" / "x", [measured(features(), 20)])
    assert list(load(tmp_path / "file")) == []
