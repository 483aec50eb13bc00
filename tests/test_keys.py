"""What makes a key, and what doesn't: an under-keyed cache gives somebody else's kernel."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import pytest

from jitcache import digest
from jitcache.action.resolve import Resolver
from jitcache.codegen import native, templating
from jitcache.codegen.catalog import ModuleSpec, Quant, instances, variant_for
from jitcache.store.store import Store
from jitcache.toolchain.model import Part
from jitcache.toolchain.shortcuts import MACRO
from tests.fake_toolchain import CSRC, copy_csrc, make_ck, make_toolchain

SPEC = ModuleSpec("fp4x2", "fp4x2", "b16", Quant.PER_1X32, "silu", 2, preshuffle=True)
INSTANCES = instances(SPEC, "gfx950")
SHORTCUTS = Path("jitcache", "shortcuts")


def device() -> native.Recipe:
    return native.device_recipe(INSTANCES[2], (variant_for(INSTANCES[2], 7168),), "gfx950")


def shim() -> native.Recipe:
    return native.shim_recipe(SPEC, INSTANCES)


def key_of(place: Path, recipe=None, *, salt="", arch="gfx950", store=None, **how) -> str:
    store = store or Store(place / "store")
    toolchain = make_toolchain(place, **how)
    return Resolver(store, toolchain, arch, salt).resolve(recipe or device()).key


def test_equal_inputs_give_equal_keys_in_another_process_and_store(tmp_path):
    first = key_of(tmp_path)
    assert key_of(tmp_path, store=Store(tmp_path / "other")) == first


def test_a_changed_header_is_another_key(tmp_path):
    before = key_of(tmp_path)
    header = tmp_path / "ck" / "ck" / "ck.hpp"
    header.write_text(header.read_text() + "// changed\n")
    assert key_of(tmp_path) != before


def test_a_header_changed_back_is_the_old_key(tmp_path):
    before = key_of(tmp_path)
    header = tmp_path / "ck" / "ck" / "ck.hpp"
    text = header.read_text()
    header.write_text("// changed\n")
    key_of(tmp_path)
    header.write_text(text)
    assert key_of(tmp_path) == before


def test_an_edit_that_keeps_size_and_mtime_is_seen(tmp_path):
    header = tmp_path / "ck" / "ck" / "ck.hpp"
    before = key_of(tmp_path)
    old = header.stat()
    header.write_text(header.read_text().replace("ck.hpp", "CK.HPP"))
    os.utime(header, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert key_of(tmp_path) != before


def test_a_touched_header_is_the_same_key(tmp_path):
    before = key_of(tmp_path)
    for header in (tmp_path / "ck").rglob("*.hpp"):
        os.utime(header, (1, 1))
    assert key_of(tmp_path) == before


def test_a_header_that_hides_another_is_another_key(tmp_path):
    csrc = copy_csrc(tmp_path / "csrc")
    before = key_of(tmp_path, csrc=csrc)
    hiding = csrc / "ck" / "ck.hpp"
    hiding.parent.mkdir()
    hiding.write_text("// ck/ck.hpp\n// but from the root that is searched first\n")
    assert key_of(tmp_path, csrc=csrc) != before


def test_another_clone_is_the_same_key(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = key_of(tmp_path / "a")
    csrc = copy_csrc(tmp_path / "b" / "sources")
    assert key_of(tmp_path / "b", csrc=csrc) == first


def test_another_clone_with_another_source_is_another_key(tmp_path):
    before = key_of(tmp_path)
    csrc = copy_csrc(tmp_path / "sources")
    with (csrc / "jitcache" / "family" / "a4w4.hpp").open("a") as f:
        f.write("// an edit\n")
    assert key_of(tmp_path, csrc=csrc) != before


@pytest.mark.parametrize("header", sorted(p.name for p in (CSRC / SHORTCUTS).iterdir()))
def test_every_shortcut_header_is_in_the_key(tmp_path, header):
    before = key_of(tmp_path)
    csrc = copy_csrc(tmp_path / "sources")
    with (csrc / SHORTCUTS / header).open("a") as f:
        f.write("// an edit\n")
    assert key_of(tmp_path, csrc=csrc) != before


def test_with_and_without_shortcuts_are_two_keys_of_a_kernel_and_one_of_a_shim(tmp_path):
    without = make_toolchain(tmp_path)
    used = dataclasses.replace(without, device_flags=(*without.device_flags, MACRO))
    store = Store(tmp_path / "store")  # one memo for both
    keys, shims = zip(
        *(
            (resolver.resolve(device()).key, resolver.resolve(shim()).key)
            for resolver in (Resolver(store, t, "gfx950") for t in (without, used, without, used))
        ),
        strict=True,
    )
    assert keys[0] == keys[2] != keys[1] == keys[3]
    assert len(set(shims)) == 1


@pytest.mark.parametrize("variable", ["HOME", "USER", "TMPDIR", "CPATH", "ROCM_PATH", "LANG"])
def test_the_environment_is_in_no_key(tmp_path, monkeypatch, variable):
    before = key_of(tmp_path, store=Store(tmp_path / "one"))
    monkeypatch.setenv(variable, str(tmp_path))
    assert key_of(tmp_path, store=Store(tmp_path / "two")) == before


def test_flags_salt_compiler_and_target_are_in_the_key(tmp_path):
    keys = {
        key_of(tmp_path),
        key_of(tmp_path, flags=("-O2",)),
        key_of(tmp_path, salt="x"),
        key_of(tmp_path, compiler="compiler-2"),
        key_of(tmp_path, arch="gfx942"),
    }
    assert len(keys) == 5


def test_a_changed_template_is_another_key(tmp_path, monkeypatch):
    before = key_of(tmp_path)
    changed = templating.text_of("device_tu.hip.j2") + "// another line\n"
    monkeypatch.setattr(templating, "text_of", lambda name: changed)
    for cached in ("digest_of", "_environment"):
        monkeypatch.setattr(templating, cached, getattr(templating, cached).__wrapped__)
    assert key_of(tmp_path) != before


def test_the_host_runtime_is_in_the_key_of_shims_only(tmp_path):
    toolchain = make_toolchain(tmp_path)
    other = dataclasses.replace(
        toolchain,
        parts=tuple(
            dataclasses.replace(p, digest=digest.of_bytes(b"newer")) if p.host_only else p
            for p in toolchain.parts
        ),
    )
    store = Store(tmp_path / "store")
    one, two = (Resolver(store, t, "gfx950") for t in (toolchain, other))
    assert one.resolve(device()).key == two.resolve(device()).key
    assert one.resolve(shim()).key != two.resolve(shim()).key


def test_a_part_that_appears_is_another_key(tmp_path):
    toolchain = make_toolchain(tmp_path)
    extra = Part("device-libs", tmp_path, "1", digest.of_bytes(b"ocml"))
    other = dataclasses.replace(toolchain, parts=(*toolchain.parts, extra))
    store = Store(tmp_path / "store")
    assert (
        Resolver(store, toolchain, "gfx950").resolve(device()).key
        != Resolver(store, other, "gfx950").resolve(device()).key
    )


def test_no_path_of_the_machine_is_in_the_record(tmp_path):
    resolver = Resolver(Store(tmp_path / "store"), make_toolchain(tmp_path), "gfx950")
    resolved = resolver.resolve(device())
    record = digest.canonical_json(resolver.inputs(device(), resolved.headers)).decode()
    assert str(tmp_path) not in record
    assert str(Path(native.__file__).parent.parent) not in record


def test_a_warm_key_runs_no_compiler_and_renders_nothing(tmp_path, monkeypatch):
    store = Store(tmp_path / "store")
    toolchain = make_toolchain(tmp_path)
    cold = Resolver(store, toolchain, "gfx950").resolve(device())
    store.stat_memo.save()
    (tmp_path / "clang").write_text("#!/bin/sh\nexit 1\n")
    monkeypatch.setattr(native.Recipe, "render", lambda _: pytest.fail("rendered"))
    warm = Resolver(Store(tmp_path / "store"), toolchain, "gfx950").resolve(device())
    assert warm.key == cold.key
    assert warm.headers == cold.headers


def test_garbage_in_the_memo_only_costs_time(tmp_path):
    before = key_of(tmp_path)
    for file in (tmp_path / "store" / "memo-v1").rglob("*.json"):
        file.write_bytes(b"\x00garbage")
    assert key_of(tmp_path) == before


def test_a_removed_ck_is_an_error_for_people(tmp_path):
    from jitcache.errors import ToolchainError

    make_toolchain(tmp_path)
    shutil.rmtree(tmp_path / "ck")
    (tmp_path / "ck").mkdir()
    with pytest.raises(ToolchainError, match="file not found"):
        key_of(tmp_path)


def test_a_moved_ck_is_found_again(tmp_path):
    before = key_of(tmp_path)
    shutil.rmtree(tmp_path / "ck")
    make_ck(tmp_path / "ck")
    assert key_of(tmp_path) == before
