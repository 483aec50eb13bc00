"""Which kernel of an instance runs, and whether it is there."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from jitcache.codegen.catalog import Variant
from jitcache.lockfile import LockedVariant, load_lock
from jitcache.runtime.content import Content
from jitcache.runtime.policy import MissError
from jitcache.runtime.shim import Answer, Problem
from jitcache.store.store import Store
from tests.runtime_help import make_lock


def content(tmp_path, *variants):
    """One instance with the variants (hot, tail, non-temporal)."""
    lock = load_lock(make_lock(Store(tmp_path), block_ms=(128,)))
    (locked,) = lock.modules
    (one, *_) = locked.instances
    action = one.variants[0].action
    made = tuple(LockedVariant(*v, f"kernel{i}", action) for i, v in enumerate(variants))
    instance = type(one)(one.name, 1, 128, made)
    module = type(locked)(locked.name, locked.host, (instance,))
    shim = SimpleNamespace(names=(one.name,), ask=lambda index, problem: None)
    return Content(lock, module, None, {}, shim), one.name


def said(hot, even, non_temporal):
    zeros = dict.fromkeys(Answer._fields, 0)
    return Answer(**zeros | {"hot_loop": hot, "tail_even": even, "non_temporal": non_temporal})


EVERY = [(h, t, n) for n in (False, True) for h in (True, False) for t in ("even", "odd")]


def test_each_answer_of_the_shim_runs_its_own_kernel(tmp_path):
    held, name = content(tmp_path, *EVERY)
    for hot, tail, non_temporal in EVERY:
        answer = said(int(hot), int(tail == "even"), int(non_temporal))
        found = held.variant(name, answer, Problem(k=1))
        assert (found.hot_loop, found.tail, found.non_temporal) == (hot, tail, non_temporal)


def test_a_full_tail_and_untold_loads_run_for_either(tmp_path):
    held, name = content(tmp_path, (True, "full", None))
    (only,) = held.instances[name].variants
    assert held.variant(name, said(1, 0, 0), Problem(k=1)) == only
    assert held.variant(name, said(1, 1, 1), Problem(k=1)) == only
    with pytest.raises(MissError, match="cold-even-nt kernel"):
        held.variant(name, said(0, 1, 1), Problem(k=1))


def test_what_is_held_is_told_by_every_part(tmp_path):
    held, name = content(tmp_path, (True, "even", False))
    assert held.holds(name, Variant(True, "even", False))
    assert not held.holds(name, Variant(False, "even", False))
    assert not held.holds(name, Variant(True, "odd", False))
    assert not held.holds(name, Variant(True, "even", True))
    assert not held.holds("another", Variant(True, "even", False))
