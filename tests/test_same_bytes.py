"""What is in no key, because a real kernel's bytes don't depend on it: place and environment.

The allocator, packing, launchers and the split of front end and back end have such a test with
their own (test_allocator, test_packing, test_launcher, test_split).
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from jitcache.action.actions import Action
from jitcache.action.resolve import Resolver
from jitcache.errors import JitcacheError
from jitcache.prebuild import Prebuilder
from jitcache.store.model import Output
from jitcache.store.store import Store
from jitcache.toolchain.find import find_toolchain, path_of
from jitcache.toolchain.model import Toolchain
from tests.compile_help import Alone, cheapest

pytestmark = pytest.mark.compile


def toolchain_at(place: Path, ck: Path | None = None) -> Toolchain:
    return find_toolchain("gfx950", provider="llvm", ck=ck, cache_dir=place / "store")


def built(place: Path, toolchain: Toolchain) -> tuple[str, tuple[Output, ...]]:
    """Key and outputs of the cheapest A4W4 kernel, built in a store of its own."""
    store = Store(place / "store")
    resolver = Resolver(store, toolchain, "gfx950")
    action = Action(resolver.resolve(cheapest()), "kernel")
    done = Prebuilder(store, toolchain, "gfx950", resolver, jobs=1).build([action])
    assert done.failed == []
    return action.key, done.records[action.key].outputs


def copy_of_ck(toolchain: Toolchain, to: Path) -> Path:
    """CK's headers and its configuration, as an AITER checkout has them."""
    for root, place in (("ck", "composable_kernel/include/ck"), ("ck-config", "ck_helper/ck")):
        shutil.copytree(path_of(toolchain, root, "ck"), to / "3rdparty" / place)
    return to


def test_neither_place_nor_environment_changes_a_kernel_or_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: Alone
) -> None:
    try:
        here = toolchain_at(tmp_path / "one")
    except JitcacheError as e:
        pytest.skip(f"no toolchain: {e.what}")
    (first,) = alone.records(here, "gfx950", [cheapest()])
    moved = copy_of_ck(here, tmp_path / "another" / "place")
    evil = tmp_path / "evil"
    for name in ("ck/ck.hpp", "hip/hip_runtime.h", "hip_runtime.h", "type_traits"):
        (evil / name).parent.mkdir(parents=True, exist_ok=True)
        (evil / name).write_text("#error not this one\n")
    (evil / ".config").mkdir()
    (evil / ".config" / "clang++.cfg").write_text("-O0\n")
    for name in ("CPATH", "CPLUS_INCLUDE_PATH", "HIP_PATH", "HIP_DEVICE_LIB_PATH", "HOME"):
        monkeypatch.setenv(name, str(evil))
    monkeypatch.setenv("CCC_OVERRIDE_OPTIONS", "# O0")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    there = toolchain_at(tmp_path / "two", moved)
    for root in ("ck", "ck-config", "rocm"):
        assert path_of(there, root, "") != path_of(here, root, "")
    assert built(tmp_path / "two", there) == (first.key, first.outputs)
