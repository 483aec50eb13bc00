"""The compiler's allocator: which is taken, and that it is in no key and changes no byte."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from jitcache import digest
from jitcache.action.actions import actions_of
from jitcache.action.command import compile_command
from jitcache.action.resolve import Resolver
from jitcache.action.worklist import worklist
from jitcache.errors import InputError, UsageError
from jitcache.manifest.load import load_manifest
from jitcache.outcome import Built
from jitcache.plan.planner import plan
from jitcache.prebuild import Prebuilder
from jitcache.store.store import Store
from jitcache.toolchain.allocator import (
    LIBRARIES,
    VARIABLE,
    Allocator,
    SystemAllocator,
    find_allocator,
    wished,
)
from jitcache.toolchain.environment import clean_environment
from tests.compile_help import Alone, cheapest, installed
from tests.fake_toolchain import make_toolchain

X86 = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x03\x00\x3e\x00"
ARM = X86[:18] + b"\xb7\x00"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "clang").write_bytes(X86)
    return tmp_path


def install(root: Path, name: str, place: str = "usr/lib/x86_64-linux-gnu", head=X86) -> Path:
    path = root / place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head)
    return path


def test_the_best_that_is_installed_is_taken(root: Path) -> None:
    found = find_allocator("auto", root / "clang", root=root)
    assert found == SystemAllocator("none of mimalloc, jemalloc, tcmalloc is installed")
    assert found.env == ()
    for name in reversed(LIBRARIES):
        path = install(root, LIBRARIES[name][-1])
        found = find_allocator("auto", root / "clang", root=root)
        assert found == Allocator(name, path)
        assert found.env == (("LD_PRELOAD", str(path)),)


def test_one_for_another_machine_is_passed_over(root: Path) -> None:
    install(root, "libmimalloc.so.2", "usr/lib/aarch64-linux-gnu", ARM)
    good = install(root, "libjemalloc.so.2", "usr/lib64")
    assert find_allocator("auto", root / "clang", root=root) == Allocator("jemalloc", good)
    with pytest.raises(UsageError, match="mimalloc is not installed"):
        find_allocator("mimalloc", root / "clang", root=root)
    with pytest.raises(UsageError, match="can load"):
        find_allocator(
            str(root / "usr/lib/aarch64-linux-gnu/libmimalloc.so.2"), root / "clang", root=root
        )


def test_a_compiler_that_is_a_script_gets_none(root: Path) -> None:
    install(root, "libmimalloc.so.2")
    (root / "clang").write_text("#!/bin/sh\n")
    assert isinstance(find_allocator("auto", root / "clang", root=root), SystemAllocator)


def test_what_is_asked_for_is_what_is_taken(root: Path) -> None:
    install(root, "libmimalloc.so.2")
    own = install(root, "libmine.so", "opt")
    assert find_allocator("off", root / "clang", root=root) == SystemAllocator("switched off")
    assert find_allocator(str(own), root / "clang", root=root) == Allocator("libmine.so", own)
    with pytest.raises(UsageError, match="no allocator is called 'hoard'"):
        find_allocator("hoard", root / "clang", root=root)
    with pytest.raises(UsageError, match="can load"):
        find_allocator("/nowhere.so", root / "clang", root=root)


def test_flag_variable_and_configuration_in_this_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert wished(None, {}) == "auto"
    config = tmp_path / "jitcache" / "config.toml"
    config.parent.mkdir(mode=0o700)
    config.write_text('[build]\nallocator = "jemalloc"\n')
    config.chmod(0o600)
    assert wished(None, {}) == "jemalloc"
    assert wished(None, {VARIABLE: "tcmalloc"}) == "tcmalloc"
    assert wished("off", {VARIABLE: "tcmalloc"}) == "off"


@pytest.mark.parametrize(
    "text", ["[build]\nallocator = 3\n", "[build]\nspeed = 1\n", "build = 1\n", "[builds]\n"]
)
def test_a_bad_configuration_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "jitcache").mkdir(mode=0o700)
    (tmp_path / "jitcache" / "config.toml").write_text(text)
    with pytest.raises(InputError) as caught:
        wished(None, {})
    assert caught.value.where == str(tmp_path / "jitcache" / "config.toml")


def build(place: Path, env: tuple[tuple[str, str], ...]) -> Built:
    place.mkdir()
    manifest = load_manifest("kimi-k2.5-mxfp4-tp2")
    modules = worklist(plan(manifest, target=manifest.targets[0], block_m=(128,)))
    store = Store(place / "store")
    toolchain = make_toolchain(place)
    resolver = Resolver(store, toolchain, "gfx950")
    builder = Prebuilder(store, toolchain, "gfx950", resolver, jobs=2, compiler_env=env)
    return builder.build(list(actions_of(modules, resolver).values()))


def test_it_reaches_every_compiler_and_no_key(tmp_path: Path) -> None:
    plain = build(tmp_path / "plain", ())
    # Harmless to the fake compiler, which the dynamic loader tells so.
    quick = build(tmp_path / "quick", Allocator("mine", Path("/nowhere/mine.so")).env)
    assert quick.failed == []
    assert set(quick.records) == set(plain.records)
    assert len(quick.records) == 3
    texts = [
        (built.run_directory / "build.ninja").read_text()
        for built in (plain, quick)
        if built.run_directory is not None
    ]
    assert [t.count("LD_PRELOAD=/nowhere/mine.so") for t in texts] == [0, 3]


@pytest.mark.compile
def test_a_real_kernel_has_the_same_bytes_with_and_without(tmp_path: Path, alone: Alone) -> None:
    toolchain = installed("gfx950")
    allocator = find_allocator("auto", toolchain.compiler)
    if isinstance(allocator, SystemAllocator):
        pytest.skip(allocator.reason)
    recipe = cheapest()
    (tmp_path / recipe.source_name).write_text(recipe.render())
    names = {"{source}": recipe.source_name, "{output}": "out.co", "{depfile}": "out.d"}
    # What the allocator is asked to show at exit proves that it was there.
    more = dict(allocator.env) | {"MIMALLOC_SHOW_STATS": "1"}
    done = subprocess.run(
        [names.get(w, w) for w in compile_command(toolchain, "device").argv],
        cwd=tmp_path,
        env=clean_environment(os.environ, str(tmp_path)) | more,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[:2000]
    assert "ld.so" not in done.stderr
    assert ("mi_malloc" in done.stderr or "heap stats" in done.stderr) == (
        allocator.name == "mimalloc"
    )
    assert digest.of_file(tmp_path / "out.co") == alone.digest(toolchain, recipe)
