"""Prebuild with a fake compiler and a real ninja: publishing, races, kills, bad disks."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jitcache.action.actions import actions_of
from jitcache.action.headers import HEADERS_OUTPUT
from jitcache.action.resolve import Resolver
from jitcache.errors import StoreError
from jitcache.lockfile import dump_lock, parse_lock
from jitcache.lockmaker import make_lock
from jitcache.outcome import Built
from jitcache.prebuild import Prebuilder
from jitcache.store.store import Store
from tests.fake_toolchain import compiles, make_toolchain
from tests.prebuild_driver import work

ROOT = Path(__file__).parent.parent
UNITS = 7


def build(place: Path, *, store: Path | None = None, name="kimi-k2.5-mxfp4-tp2", **how) -> Built:
    keep_going = how.pop("keep_going", False)
    toolchain = make_toolchain(place, **how)
    opened = Store(store or place / "store")
    resolver = Resolver(opened, toolchain, "gfx950")
    actions = actions_of(work(name), resolver)
    distinct = list({a.key: a for a in actions.values()}.values())
    return Prebuilder(opened, toolchain, "gfx950", resolver, jobs=2, keep_going=keep_going).build(
        distinct
    )


def spawn(place: Path, sleep: float = 0.05) -> subprocess.Popen[str]:
    words = [str(place), str(place / "store"), str(sleep)]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.prebuild_driver", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def outputs(built: Built) -> dict[str, list[str]]:
    return {k: [o.digest for o in r.outputs] for k, r in built.records.items()}


def test_builds_each_unit_once_and_then_finds_all(tmp_path):
    cold = build(tmp_path)
    assert (cold.built, cold.hits, cold.failed) == (UNITS, 0, [])
    warm = build(tmp_path)
    assert (warm.built, warm.hits) == (0, UNITS)
    assert outputs(warm) == outputs(cold)
    assert len(compiles(tmp_path)) == UNITS


def test_another_place_gives_identical_bytes(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "b" / "deeper").mkdir(parents=True)
    one = build(tmp_path / "a")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("USER", "somebody-else")
    two = build(tmp_path / "b" / "deeper")
    assert outputs(one) == outputs(two)


def test_records_say_what_was_read_and_what_it_cost(tmp_path):
    built = build(tmp_path)
    store = Store(tmp_path / "store")
    for record in built.records.values():
        listing = next(o for o in record.outputs if o.name == HEADERS_OUTPUT)
        names = [name for name, _ in json.loads(store.read(listing.digest))]
        assert "csrc/jitcache/family/a4w4.hpp" in names
        assert "ck/ck/ck.hpp" in names
        assert record.facts["peak_rss"] > 0
        if record.target == "gfx950":
            assert record.facts["kernels"][0]["symbol"].startswith("_Z")


def test_nothing_stays_in_the_run_directory_but_what_a_report_needs(tmp_path):
    built = build(tmp_path)
    assert built.run_directory is not None
    assert (built.run_directory / ".ninja_log").is_file()
    assert not list(built.run_directory.rglob("*.co"))


def test_only_the_changed_unit_is_built_again(tmp_path):
    build(tmp_path)
    store = Store(tmp_path / "store")
    victim = next(r for r in store.records() if r.label.startswith("gemm1 256x128"))
    store.remove([victim.key])
    again = build(tmp_path)
    assert (again.built, again.hits) == (1, UNITS - 1)


def test_a_failing_unit_is_named_with_error_log_and_command(tmp_path):
    built = build(tmp_path, fail="gemm1_256x64x128x128", keep_going=True)
    assert built.built == UNITS - 2  # the shim names every instance, so it fails, too
    failure = next(f for f in built.failed if f.label.startswith("gemm1 256x64"))
    assert "no matching function" in failure.error
    assert failure.log is not None
    assert "no matching function" in Path(failure.log).read_text()
    again = subprocess.run(["sh", "-c", str(failure.command)], capture_output=True, text=True)
    assert again.returncode == 1
    assert "no matching function" in again.stderr


def test_what_did_build_before_a_failure_is_kept(tmp_path):
    built = build(tmp_path, fail="gemm1_256x64x128x128", keep_going=True)
    fixed = build(tmp_path)
    assert fixed.hits == built.built
    assert not fixed.failed


def test_without_keep_going_the_rest_is_not_tried(tmp_path):
    built = build(tmp_path, fail="gemm", sleep=0.05)
    assert built.failed
    assert built.not_run
    assert len(built.failed) + len(built.not_run) + built.built == UNITS


def test_a_header_that_changes_during_the_compile_is_not_published(tmp_path):
    toolchain = make_toolchain(tmp_path, sleep=0.2)
    store = Store(tmp_path / "store")
    resolver = Resolver(store, toolchain, "gfx950")
    actions = actions_of(work(), resolver)
    header = tmp_path / "ck" / "ck" / "ck.hpp"

    def change(_event: object) -> None:
        header.write_text("// edited while the compiler ran\n")

    built = Prebuilder(store, toolchain, "gfx950", resolver, jobs=2, on_event=change).build(
        list(actions.values())[:1]
    )
    assert built.built == 0
    assert "changed while it was compiled" in built.failed[0].error
    assert "ck/ck/ck.hpp" in built.failed[0].error
    assert not list(store.records())


def test_the_lock_names_every_kernel_and_reads_back(tmp_path):
    toolchain = make_toolchain(tmp_path)
    store = Store(tmp_path / "store")
    resolver = Resolver(store, toolchain, "gfx950")
    modules = work()
    actions = actions_of(modules, resolver)
    built = Prebuilder(store, toolchain, "gfx950", resolver, jobs=2).build(list(actions.values()))
    lock = make_lock(
        manifest="m",
        manifest_digest="sha256:" + "0" * 64,
        arch="gfx950",
        cu_num=256,
        toolchain=toolchain,
        modules=modules,
        actions=actions,
        records=built.records,
    )
    assert parse_lock(dump_lock(lock), where="test") == lock
    (module,) = lock.modules
    assert [i.name for i in module.instances] == [k.instance.name for k in modules[0].kernels]
    for action in lock.actions():
        for output in action.outputs:
            assert output.name != HEADERS_OUTPUT
            assert store.blob_path(output.digest).stat().st_size == output.size


@pytest.mark.slow
def test_eight_at_once_compile_every_unit_once(tmp_path):
    make_toolchain(tmp_path)
    processes = [spawn(tmp_path) for _ in range(8)]
    results = []
    for process in processes:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        results.append(json.loads(out))
    assert len(compiles(tmp_path)) == UNITS
    assert sum(r["built"] for r in results) == UNITS
    assert {json.dumps(r["outputs"]) for r in results} == {json.dumps(results[0]["outputs"])}


@pytest.mark.slow
def test_kills_at_random_moments_lose_nothing(tmp_path):
    make_toolchain(tmp_path)
    chance = random.Random(950)
    for _ in range(20):
        process = spawn(tmp_path, sleep=0.02)
        time.sleep(chance.uniform(0.0, 0.8))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=10)
        # Start over now and then, so that kills hit early and late moments alike.
        if chance.random() < 0.3:
            shutil.rmtree(tmp_path / "store" / "ac-v1", ignore_errors=True)
    final = build(tmp_path)
    assert final.built + final.hits == UNITS
    assert not final.failed
    report = Store(tmp_path / "store").verify()
    assert not report.damage
    (tmp_path / "clean").mkdir()
    reference = build(tmp_path / "clean")
    assert outputs(final) == outputs(reference)


def test_damage_is_a_miss_and_is_built_again(tmp_path):
    cold = build(tmp_path)
    store = Store(tmp_path / "store")
    records = list(cold.records.values())
    blob = store.blob_path(records[0].outputs[0].digest)
    blob.chmod(0o644)
    blob.write_bytes(blob.read_bytes()[:-1])
    store.layout.record(records[1].key).chmod(0o644)
    store.layout.record(records[1].key).write_bytes(b"{}")
    again = build(tmp_path)
    assert again.built >= 2
    assert outputs(again) == outputs(cold)
    assert not Store(tmp_path / "store").verify().damage


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to a read-only directory")
def test_a_read_only_store_still_serves(tmp_path):
    build(tmp_path)
    root = tmp_path / "store"
    for path in [root, *root.rglob("*")]:
        path.chmod(path.stat().st_mode & ~0o222)
    try:
        assert build(tmp_path).hits == UNITS
        with pytest.raises(StoreError, match="can't be written"):
            build(tmp_path, compiler="compiler-2")
    finally:
        for path in [root, *root.rglob("*")]:
            path.chmod(path.stat().st_mode | 0o200)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system")
@pytest.mark.parametrize("options", ["ro", "size=256k"])
def test_a_full_or_read_only_disk_is_a_store_error(tmp_path, options):
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this machine does not let root mount a tmpfs")
    try:
        if options != "ro":
            (place / "filler").write_bytes(b"x" * 150_000)
        with pytest.raises(StoreError) as caught:
            build(tmp_path, store=place / "store")
        assert caught.value.hint
        if options != "ro":
            (place / "filler").unlink()
            assert not Store(place / "store").verify().damage
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
