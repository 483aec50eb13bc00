"""Sample capsules hold what CK's kernels read: an independent decoder computes their result.

Host shims are the stand-in of tests/runtime_help.py here; with real ones and kernels the test
at the end does the same.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from jitcache import digest  # noqa: E402
from jitcache.capture.choice import choose  # noqa: E402
from jitcache.capture.sample import write_samples  # noqa: E402
from jitcache.codegen.catalog import k_per_block  # noqa: E402
from jitcache.lockfile import Lock, LockedInstance, LockedModule, LockedVariant  # noqa: E402
from jitcache.runtime import layouts  # noqa: E402
from jitcache.store.store import Store  # noqa: E402
from tests import capsule_decoder as decoder  # noqa: E402
from tests import runtime_help as help_  # noqa: E402
from tests.fake_clang import code_object  # noqa: E402

CHOICES = {f"{c.family}-{c.arch}": c for c in choose()}


def lock_of(store: Store, choice) -> Lock:
    """A lock of the choice's two kernels, with stand-ins for kernels and shim."""
    instances = []
    for launch in choice.launches:
        v, symbol = launch.variant, f"_Z{launch.instance.stage}"
        code = code_object(symbol, choice.arch, b"x" * 64)
        action = help_.put(store, f"{symbol}.co", code, target=choice.arch)
        variant = LockedVariant(v.hot_loop, "even", v.non_temporal, symbol, action)
        name, tile = launch.instance.name, launch.instance.tile
        instances.append(LockedInstance(name, launch.instance.stage, tile.m, (variant,)))
    tiles = [launch.instance.tile for launch in choice.launches]
    steps = tuple(k_per_block(launch.instance) for launch in choice.launches)
    shim = help_.shim_bytes(tuple(i.name for i in instances), tuple(t.m for t in tiles), steps)
    host = help_.put(store, "shim.so", shim, target="host", mode=0o555)
    module = LockedModule(choice.spec.name, host, tuple(instances))
    none = digest.of_bytes(b"")
    return Lock("capture", none, choice.arch, 256, "test", "llvm", (7, 1), (module,))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    place = tmp_path_factory.mktemp("capsules")
    made = {}

    def write(name: str, seed: int = 0) -> list[Path]:
        if (name, seed) not in made:
            directory = place / f"{name}-{seed}"
            directory.mkdir()
            store = Store(directory / "store")
            lock = lock_of(store, CHOICES[name])
            found = write_samples(CHOICES[name], lock, store, directory, seed=seed)
            made[name, seed] = [s.file for s in found]
        return made[name, seed]

    return write


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("stage", [1, 2])
def test_what_the_kernels_read_gives_what_is_expected(written, name, stage):
    c = decoder.read(written(name)[stage - 1])
    assert c.words["stage"] == str(stage)
    assert decoder.worst(c) <= 2.0**-8 * stage


def plain(weights, *_):
    return weights


def plain_scales(scales, *, rows=256):
    return torch.nn.functional.pad(scales, (0, 0, 0, -len(scales) % rows))


MISTAKES = {
    "weights in plain order": ("a16w16-gfx942", 1, "shuffle_weights", plain),
    "fp4 weights in plain order": ("a4w4-gfx950", 2, "shuffle_weights", plain),
    "scales in plain order": ("a4w4_bns-gfx950", 2, "shuffle_scales", plain_scales),
    "int4 in plain order": ("a8w4-gfx950", 2, "_INT4_ORDER", tuple(range(8))),
    "int4 shuffled 16 at a time": ("a8w4-gfx950", 1, "_INT4_PACK", 16),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_decoder_tells_other_layouts(tmp_path, monkeypatch, mistake):
    name, stage, what, wrong = MISTAKES[mistake]
    monkeypatch.setattr(layouts, what, wrong)
    choice, store = CHOICES[name], Store(tmp_path / "store")
    one = dataclasses.replace(choice, launches=(choice.launches[stage - 1],))
    (sample,) = write_samples(one, lock_of(store, choice), store, tmp_path)
    assert decoder.worst(decoder.read(sample.file)) > 0.2
