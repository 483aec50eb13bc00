"""Compiler launchers: same keys, same bytes, and nothing of the user's that would change that."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jitcache.action.actions import actions_of
from jitcache.action.command import compile_command, launched
from jitcache.action.resolve import Resolver
from jitcache.errors import UsageError
from jitcache.prebuild import Prebuilder
from jitcache.store.store import Store
from jitcache.toolchain.launcher import Launcher, find_launcher
from tests.compile_help import installed
from tests.fake_toolchain import make_toolchain
from tests.prebuild_driver import work
from tests.remote_servers import free_port


def launcher_script(place: Path, name: str = "ccache") -> Path:
    """A launcher that notes what it launches, and keeps every object by its command line."""
    path = place / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'#!/bin/sh\necho "$*" >> {place}/launched\nexec "$@"\n')
    path.chmod(0o755)
    return path


def build(place: Path, store: str, launcher: Launcher, **how):
    toolchain = make_toolchain(place, **how)
    opened = Store(place / store)
    resolver = Resolver(opened, toolchain, "gfx950")
    actions = list(actions_of(work(), resolver).values())
    return Prebuilder(
        opened,
        toolchain,
        "gfx950",
        resolver,
        jobs=2,
        launcher=launcher.words,
        compiler_env=launcher.env,
    ).build(actions)


def test_keys_and_outputs_are_those_without_a_launcher(tmp_path):
    script = launcher_script(tmp_path)
    plain = build(tmp_path, "plain", Launcher())
    behind = build(tmp_path, "behind", Launcher((str(script),)))
    assert not behind.failed
    assert {k: r.outputs for k, r in behind.records.items()} == {
        k: r.outputs for k, r in plain.records.items()
    }


def test_kernels_are_launched_and_host_shims_are_not(tmp_path):
    script = launcher_script(tmp_path)
    built = build(tmp_path, "store", Launcher((str(script),)))
    lines = (tmp_path / "launched").read_text().splitlines()
    kernels = [r for r in built.records.values() if r.target == "gfx950"]
    assert len(lines) == len(kernels) < built.built
    for line in lines:
        words = line.split()
        assert words[0] == str(tmp_path / "clang")
        assert "-c" in words
        assert "-dependency-file" not in words
        assert "--cuda-device-only" in words


def test_a_header_that_changes_behind_a_launcher_is_noticed_too(tmp_path):
    script = launcher_script(tmp_path)
    header = tmp_path / "ck" / "ck" / "ck.hpp"
    body = f'echo "// edited meanwhile" > {header}\nexec "$@"\n'
    make_toolchain(tmp_path)
    script.write_text(f"#!/bin/sh\n{body}")
    built = build(tmp_path, "store", Launcher((str(script),)))
    kernels = [f for f in built.failed if f.label.startswith("gemm")]
    assert kernels
    assert all("changed while it was compiled" in f.error for f in kernels)


def test_only_the_words_for_the_dependency_file_go(tmp_path):
    argv = compile_command(make_toolchain(tmp_path), "device").argv
    behind = launched(argv, ("ccache",))
    assert behind[0] == "ccache"
    assert "-c" in behind
    assert "{depfile}" not in behind
    left = [w for w in argv if w not in behind]
    assert set(left) == {"-Xclang", "-dependency-file", "{depfile}", "-MT", "-sys-header-deps"}
    assert behind.count("{output}") == 1


def test_the_user_s_cache_is_found_and_the_user_s_sloppiness_is_not(tmp_path):
    script = launcher_script(tmp_path)
    environ = {
        "PATH": str(script.parent),
        "CCACHE_DIR": "/cache",
        "CCACHE_SLOPPINESS": "include_file_mtime",
        "CCACHE_IGNOREOPTIONS": "-m*",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }
    found = find_launcher("ccache", make_toolchain(tmp_path), environ)
    env = dict(found.env)
    assert found.words == (str(script),)
    assert env["CCACHE_DIR"] == "/cache"
    assert env["CCACHE_CONFIGPATH"] == "/dev/null"
    assert env["CCACHE_NOHASHDIR"] == "1"
    assert not {"CCACHE_SLOPPINESS", "CCACHE_IGNOREOPTIONS", "AWS_SECRET_ACCESS_KEY"} & set(env)


@pytest.mark.parametrize(
    ("name", "variable"),
    [("ccache", "CCACHE_COMPILERCHECK"), ("sccache", "SCCACHE_C_CUSTOM_CACHE_BUSTER")],
)
def test_a_launcher_is_told_of_every_part_of_the_toolchain(tmp_path, name, variable):
    """Device libraries are in no command line and in no header that a launcher hashes."""
    environ = {"PATH": str(launcher_script(tmp_path, name).parent)}
    told = {
        dict(find_launcher(name, make_toolchain(tmp_path, compiler=c), environ).env)[variable]
        for c in ("compiler-1", "compiler-2")
    }
    assert len(told) == 2


def test_sccache_s_server_is_started_outside_of_the_run(tmp_path):
    script = launcher_script(tmp_path, "sccache")
    script.write_text(f'#!/bin/sh\necho "$* $TMPDIR" >> {tmp_path}/launched\n')
    environ = {"PATH": str(script.parent), "TMPDIR": "/tmp"}
    find_launcher("sccache", make_toolchain(tmp_path), environ)
    assert (tmp_path / "launched").read_text() == "--start-server /tmp\n"


def test_a_launcher_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UsageError, match="sccache is not installed"):
        find_launcher("sccache", make_toolchain(tmp_path), {"PATH": str(tmp_path)})
    assert find_launcher(None, make_toolchain(tmp_path), {}) == Launcher()


def hits(name: str, env: dict[str, str]) -> int:
    """How many results a launcher has taken from its cache so far."""
    words = ["ccache", "--print-stats"] if name == "ccache" else ["sccache", "-s"]
    said = subprocess.run(words, env=env, capture_output=True, text=True, check=True).stdout
    found = re.search(r"^(?:direct_cache_hit|Cache hits)\s+(\d+)$", said, re.MULTILINE)
    return int(found[1]) if found else 0


@pytest.mark.compile
@pytest.mark.parametrize("name", ["ccache", "sccache"])
def test_real_launchers_give_the_same_bytes_and_hit(tmp_path, name, alone):
    """Real kernels: without a launcher, behind it, and from its cache alone."""
    path = f"{os.environ['PATH']}:{Path(sys.executable).parent}"
    if shutil.which(name, path=path) is None:
        pytest.skip(f"{name} is not installed")
    env = os.environ | {
        "PATH": path,
        "CCACHE_DIR": str(tmp_path / "ccache"),
        "SCCACHE_DIR": str(tmp_path / "sccache"),
        "SCCACHE_SERVER_PORT": str(free_port()),
    }

    def prebuild(store: str, *words: str) -> dict[str, list[str]]:
        argv = [sys.executable, "-m", "jitcache", "prebuild", "kimi-k2.5-mxfp4-tp2"]
        argv += ["--block-m", "32", "--pack", "off", "--json", *words]
        done = subprocess.run(
            argv, env=env | {"JITCACHE_DIR": str(tmp_path / store)}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        records = [r for r in Store(tmp_path / store).records() if r.target == "gfx950"]
        return {r.key: [o.digest for o in r.outputs] for r in records}

    (module,) = work()
    recipes = [k.recipe for k in module.kernels if k.block_m == 32]
    without = alone.records(installed("gfx950"), "gfx950", recipes)
    plain = {r.key: [o.digest for o in r.outputs] for r in without}
    try:
        compiled = prebuild("behind", "--launcher", name)
        before = hits(name, env)
        shutil.rmtree(tmp_path / "behind/ac-v1")
        shutil.rmtree(tmp_path / "behind/cas-v1")
        cached = prebuild("behind", "--launcher", name)
        assert hits(name, env) - before == len(plain) == 2
    finally:
        if name == "sccache":
            subprocess.run(["sccache", "--stop-server"], env=env, capture_output=True)
    assert plain == compiled == cached
