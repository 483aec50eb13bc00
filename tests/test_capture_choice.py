"""Which launches stand for which family, without torch."""

from __future__ import annotations

import pytest

from jitcache.capture.choice import MODULES, choose, launch_for
from jitcache.codegen.catalog import Variant, all_families, instances, rejects, steps, variants
from jitcache.errors import UnsupportedError, UsageError


def test_every_family_has_both_stages_on_every_architecture_it_runs_on():
    expected = {(f.tag, a) for f in all_families() for a in f.arches if a in f.runs_on}
    found = {(c.family, c.arch): c for c in choose()}
    assert set(found) == expected
    assert {tag for tag, _ in found} == set(MODULES)
    for choice in found.values():
        assert [launch.instance.stage for launch in choice.launches] == [1, 2]
        assert {launch.instance.family for launch in choice.launches} == {choice.family}


def test_launches_are_small_and_ones_that_ck_takes():
    for choice in choose():
        for launch in choice.launches:
            assert launch.variant.hot_loop
            assert launch.variant.tail in ("even", "full")
            assert rejects(launch.instance, launch.n, launch.k) is None
            of_stage = [
                i for i in instances(choice.spec, choice.arch) if i.stage == launch.instance.stage
            ]
            rows = [i.tile.m for i in of_stage]
            assert launch.instance.tile.m == min(rows)
            # Several rows of padding, and a block of sorted rows that nobody uses.
            assert launch.tokens * launch.topk % launch.instance.tile.m


def test_other_steps_run_other_kernels():
    launch = choose(["a4w4"], steps=3)[0].launches[0]
    assert steps(launch.instance, launch.k) == 3
    assert launch.variant.tail == "odd"


def test_what_cannot_be_chosen_is_said():
    with pytest.raises(UsageError, match="there is no family a5w5"):
        choose(["a5w5"])
    with pytest.raises(UnsupportedError, match="no CK2stages kernels for gfx90a"):
        choose(arches=["gfx90a"])
    with pytest.raises(UnsupportedError, match="a4w4 runs on gfx942"):
        choose(["a4w4"], ["gfx942"])


def test_every_kernel_of_the_families_has_a_launch_that_runs_just_it():
    for choice in choose():
        for instance in instances(choice.spec, choice.arch):
            for variant in variants(instance):
                launch = launch_for(instance, variant)
                assert launch is not None
                assert launch.variant == variant
                assert rejects(instance, launch.n, launch.k) is None
                # The loop goes round more than once, so that a step builds on another.
                assert steps(instance, launch.k) >= 5 or not variant.hot_loop


def test_a_kernel_that_no_depth_runs_has_no_launch():
    # Its pipeline tells odd from even.
    instance = choose(["a4w4"])[0].launches[0].instance
    assert launch_for(instance, Variant(True, "full")) is None
