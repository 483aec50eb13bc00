"""Real kernels that tests compare with: each is compiled once, alone, for a whole run of tests."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from jitcache.action.actions import Action
from jitcache.action.resolve import Resolver
from jitcache.codegen.catalog import ModuleSpec, Quant, instances, variant_for
from jitcache.codegen.native import Recipe, device_recipe
from jitcache.errors import JitcacheError
from jitcache.prebuild import Prebuilder
from jitcache.store.model import ActionRecord
from jitcache.store.store import Store
from jitcache.toolchain.find import find_toolchain
from jitcache.toolchain.model import Toolchain


def installed(arch: str, cache_dir: Path | None = None) -> Toolchain:
    """The toolchain of this machine; skips the test where there is none."""
    try:
        return find_toolchain(arch, cache_dir=cache_dir)
    except JitcacheError as e:
        pytest.skip(f"no toolchain: {e.what}")


def cheapest() -> Recipe:
    """The cheapest A4W4 kernel, at the K of Kimi's stage 1."""
    spec = ModuleSpec("fp4x2", "fp4x2", "b16", Quant.PER_1X32, "silu", 2, preshuffle=True)
    smallest = min(instances(spec, "gfx950"), key=lambda i: i.tile.m * i.tile.n)
    return device_recipe(smallest, (variant_for(smallest, 7168),), "gfx950")


class Alone:
    """Kernels compiled one by one, with nothing in the way: no pack, no launcher, no allocator.

    Args:
        store: where they are kept for the tests that ask again.
    """

    def __init__(self, store: Path) -> None:
        self._store = store

    @classmethod
    def of_run(cls, factory: pytest.TempPathFactory) -> Alone:
        """That of all processes of this run of tests."""
        base = factory.getbasetemp()
        # The processes of one run have a directory each, side by side.
        shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
        return cls(shared / "compiled-alone")

    def records(
        self, toolchain: Toolchain, arch: str, recipes: Sequence[Recipe]
    ) -> list[ActionRecord]:
        """Their records, in the order of the recipes."""
        store = Store(self._store)
        resolver = Resolver(store, toolchain, arch)
        actions = [Action(resolver.resolve(r), r.stem) for r in recipes]
        built = Prebuilder(store, toolchain, arch, resolver, jobs=1).build(actions)
        assert built.failed == []
        return [built.records[a.key] for a in actions]

    def digest(self, toolchain: Toolchain, recipe: Recipe) -> str:
        """Digest of the code object of one gfx950 kernel."""
        (record,) = self.records(toolchain, "gfx950", [recipe])
        return next(o.digest for o in record.outputs if o.name == recipe.output_name)
