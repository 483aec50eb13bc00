"""Workers as processes with stores of their own: shares, leases, kills, and what goes wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time

import pytest

from jitcache.errors import ExitCode
from jitcache.lockfile import load_lock
from jitcache.store.store import Store
from tests.fake_toolchain import add_bitcode_tools
from tests.fleet_help import MANIFESTS, Fleet

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def one_manifest(tmp_path_factory):
    """A fleet with a plan of three actions, made once."""
    fleet = Fleet(tmp_path_factory.mktemp("one"))
    fleet.make_plan(MANIFESTS[0])
    return fleet


@pytest.fixture(scope="module")
def three_manifests(tmp_path_factory):
    """A fleet with a plan of eight actions, made once."""
    fleet = Fleet(tmp_path_factory.mktemp("three"))
    fleet.make_plan(*MANIFESTS)
    return fleet


def emptied(fleet: Fleet) -> Fleet:
    # At the same place in every test, so that nobody has to scan headers again.
    for name in ("remote", "leases"):
        shutil.rmtree(fleet.place / name, ignore_errors=True)
        (fleet.place / name).mkdir()
    for store in fleet.place.glob("w*"):
        shutil.rmtree(store)
    (fleet.place / "compiles").unlink(missing_ok=True)
    return fleet


@pytest.fixture
def fleet(one_manifest):
    return emptied(one_manifest)


@pytest.fixture
def matrix(three_manifests):
    return emptied(three_manifests)


def finish(process: subprocess.Popen[str]):
    out, err = process.communicate(timeout=60)
    return process.returncode, json.loads(out) if out else None, err


def test_shares_build_everything_once_and_any_machine_gathers_it(matrix):
    workers = [matrix.start_worker("--shard", f"{i}/3", store=f"w{i}") for i in range(3)]
    told = [finish(w)[1] for w in workers]
    assert sum(t["built"] for t in told) == matrix.compiled() == matrix.actions
    assert [t["duplicates"] for t in told] == [0, 0, 0]
    got = matrix.gather(store="w-gather")
    assert (got["there"], got["fetched"], got["missing"]) == (matrix.actions, matrix.actions, [])
    assert len(got["locks"]) == 3
    kimi = load_lock(matrix.place / "w-gather/locks-v1/kimi-k2.5-mxfp4-tp2.gfx950.lock.json")
    assert [i.block_m for m in kimi.modules for i in m.instances] == [32, 32]
    assert not Store(matrix.place / "w-gather").verify().damage


def test_the_locks_are_those_that_prebuild_writes(fleet):
    """Byte for byte: whoever built it, and wherever."""
    fleet.worker("--shard", "0/1", store="w0")
    fleet.gather(store="w1")
    from jitcache.action.actions import actions_of
    from jitcache.action.resolve import Resolver
    from jitcache.action.worklist import worklist
    from jitcache.lockfile import dump_lock
    from jitcache.lockmaker import make_lock
    from jitcache.manifest.load import load_manifest, manifest_digest
    from jitcache.plan.planner import plan
    from tests.fake_toolchain import make_toolchain

    manifest = load_manifest("kimi-k2.5-mxfp4-tp2")
    modules = worklist(plan(manifest, target=manifest.targets[0], block_m=[32], scope="inter-dim"))
    toolchain = make_toolchain(fleet.place)
    store = Store(fleet.place / "w0")
    actions = actions_of(modules, Resolver(store, toolchain, "gfx950"))
    lock = make_lock(
        manifest=manifest.name,
        manifest_digest=manifest_digest(manifest),
        arch="gfx950",
        cu_num=manifest.targets[0].cu_num,
        toolchain=toolchain,
        modules=modules,
        actions=actions,
        records={r.key: r for r in store.records()},
    )
    gathered = fleet.place / "w1/locks-v1/kimi-k2.5-mxfp4-tp2.gfx950.lock.json"
    assert gathered.read_bytes() == dump_lock(lock)


def test_kernels_of_a_share_have_one_front_end(tmp_path):
    fleet = Fleet(tmp_path)
    fleet.make_plan(MANIFESTS[0])
    fleet.worker("--shard", "0/1", store="w0")
    assert fleet.compiled() == fleet.actions == 3
    add_bitcode_tools(tmp_path)
    told = fleet.worker("--shard", "0/1", store="w1", JITCACHE_REMOTES="")
    assert told["built"] == 3
    assert fleet.compiled() == 3 + 2  # two kernels in one, and the host shim
    keys = [{r.key for r in Store(tmp_path / name).records()} for name in ("w0", "w1")]
    assert keys[0] == keys[1]


def test_a_second_run_compiles_nothing_wherever_it_runs(fleet):
    fleet.worker("--shard", "0/1", store="w0")
    same = fleet.worker("--shard", "0/1", store="w0")
    assert (same["built"], same["hits"], same["pushed"]) == (0, fleet.actions, 0)
    other = fleet.worker("--shard", "0/1", store="w1")
    assert (other["built"], other["fetched"]) == (0, fleet.actions)
    assert fleet.compiled() == fleet.actions


def test_two_workers_with_one_shard_number_duplicate_harmlessly(fleet):
    workers = [
        fleet.start_worker("--shard", "0/1", store=f"w{i}", FLEET_SLEEP="0.05") for i in range(2)
    ]
    ends = [finish(w) for w in workers]
    assert [code for code, _, _ in ends] == [0, 0]
    built = sum(t["built"] for _, t, _ in ends)
    assert built == fleet.compiled()
    assert sum(t["duplicates"] for _, t, _ in ends) == built - fleet.actions
    assert fleet.gather(store="w-gather")["missing"] == []


def test_killed_workers_with_leases_are_taken_over(matrix):
    """Two of four die at once, with whatever they held; the others do their work."""
    how = {"FLEET_SLEEP": "0.3"}
    words = ("--lease", str(matrix.place / "leases"), "--lease-expiry", "1")
    workers = [
        matrix.start_worker(*words, "--shard", f"{i}/4", store=f"w{i}", **how) for i in range(4)
    ]
    until = time.monotonic() + 20
    while matrix.compiled() < 3 and time.monotonic() < until:
        time.sleep(0.02)
    for victim in workers[:2]:
        os.killpg(victim.pid, signal.SIGKILL)
        victim.communicate(timeout=10)
    ends = [finish(w) for w in workers[2:]]
    assert [code for code, _, _ in ends] == [0, 0], ends
    assert matrix.gather(store="w-gather")["missing"] == []
    # At most what the dead were compiling, one each, was compiled a second time.
    assert matrix.compiled() <= matrix.actions + 2
    assert not Store(matrix.place / "w-gather").verify().damage


def test_leases_share_the_work_out_without_duplicates(fleet):
    words = ("--lease", str(fleet.place / "leases"))
    workers = [fleet.start_worker(*words, "--shard", f"{i}/2", store=f"w{i}") for i in range(2)]
    told = [finish(w)[1] for w in workers]
    assert sum(t["built"] for t in told) == fleet.compiled() == fleet.actions
    assert sum(t["built"] + t["elsewhere"] for t in told) == 2 * fleet.actions


def test_another_toolchain_is_refused_before_anything_is_built(fleet):
    said = fleet.worker(
        "--shard", "0/1", code=ExitCode.TOOLCHAIN, store="w0", FLEET_COMPILER="compiler-2"
    )
    assert "plan: fake-compiler-1" in said
    assert "here: fake-compiler-2" in said
    assert fleet.compiled() == 0


def test_other_headers_of_the_same_toolchain_are_refused(fleet):
    header = fleet.place / "ck/ck/ck.hpp"
    before = header.read_text()
    header.write_text("// edited on this machine\n")
    try:
        said = fleet.worker("--shard", "0/1", code=ExitCode.TOOLCHAIN, store="w0")
    finally:
        header.write_text(before)
    assert "headers that it reads differ" in said
    assert fleet.compiled() == 0


def test_a_lost_remote_stops_the_worker_and_the_next_run_pushes_what_it_kept(fleet):
    shutil.rmtree(fleet.place / "remote")
    lost = {"FLEET_SLEEP": "0.2"}
    said = fleet.worker("--shard", "0/1", code=ExitCode.AGAIN, store="w0", **lost)
    assert "no remote can be written any more" in said
    kept = len(list(Store(fleet.place / "w0").records()))
    assert 1 <= kept < fleet.actions
    remote = fleet.place / "remote"
    remote.mkdir()
    # Even if it is killed in the first compile: what there was is pushed before anything else.
    process = fleet.start_worker("--shard", "0/1", store="w0", FLEET_SLEEP="30")
    until = time.monotonic() + 20
    while len(list(remote.glob("ac/*/*"))) < kept and time.monotonic() < until:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=10)
    assert len(list(remote.glob("ac/*/*"))) == kept
    told = fleet.worker("--shard", "0/1", store="w0")
    assert (told["built"], told["hits"]) == (fleet.actions - kept, kept)
    assert (told["pushed"], told["present"]) == (fleet.actions - kept, kept)


def test_of_two_remotes_one_may_be_lost_and_is_filled_later(fleet):
    other = fleet.place / "w-other"
    both = f"rw:file://{fleet.place}/remote rw:file://{other}"
    said = fleet.worker("--shard", "0/1", code=ExitCode.AGAIN, store="w0", JITCACHE_REMOTES=both)
    assert f"{fleet.actions} actions could not be pushed everywhere" in said
    assert fleet.compiled() == fleet.actions
    other.mkdir()
    told = fleet.worker("--shard", "0/1", store="w0", JITCACHE_REMOTES=both)
    assert (told["built"], told["pushed"], told["present"]) == (0, fleet.actions, fleet.actions)


def test_what_fails_is_named_and_the_rest_is_built(fleet):
    said = fleet.worker("--shard", "0/1", code=1, store="w0", FLEET_FAIL="gemm1_64x32x32x128")
    assert "gemm1 64x32x32x128" in said
    assert "no matching function" in said
    # That kernel, and the shim that names it.
    missing = fleet.gather(store="w1", code=1)
    assert "2 actions of the plan are missing" in missing
    assert not list((fleet.place / "w1/locks-v1").glob("*.json"))


def test_with_leases_a_failing_action_is_tried_twice_and_then_reported_by_all(fleet):
    words = ("--lease", str(fleet.place / "leases"))
    fail = {"FLEET_FAIL": "gemm1_64x32x32x128"}
    for i in range(3):
        fleet.worker(*words, code=1, store=f"w{i}", **fail)
    log = (fleet.place / "compiles").read_text().splitlines()
    assert len([line for line in log if line.startswith("gemm1_64x32x32x128")]) == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system")
def test_a_full_disk_is_exit_6_and_what_was_published_stays(matrix):
    place = matrix.place / "w-small"
    place.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", place], capture_output=True
    ).returncode:
        pytest.skip("this machine does not let root mount a tmpfs")
    try:
        words = ("--lease", str(matrix.place / "leases"), "--lease-expiry", "1")
        (place / "filler").write_bytes(b"x" * 250_000)
        said = matrix.worker(*words, code=ExitCode.STORE, store="w-small/store")
        assert "disk is full" in said or "No space left" in said
    finally:
        subprocess.run(["umount", "-l", place], check=True)
    # Whatever it held is free: nobody waits for an expiry.
    board = next((matrix.place / "leases").glob("*/lease")).parent
    taken = {p.name for p in (board / "lease").iterdir()}
    settled = {f"{p.name}.0" for p in board.glob("done/*")}
    settled |= {p.name.removesuffix(".released") for p in board.glob("end/*")}
    assert taken == settled
    told = matrix.worker("--lease", str(matrix.place / "leases"), store="w1")
    assert told["built"] + told["elsewhere"] + told["fetched"] == matrix.actions
    assert matrix.gather(store="w2")["missing"] == []


def test_workers_whose_clocks_are_hours_apart_do_not_disturb_each_other(fleet):
    words = ("--lease", str(fleet.place / "leases"), "--lease-expiry", "2")
    workers = [
        fleet.start_worker(*words, store=f"w{i}", FLEET_SLEEP="0.2", FLEET_CLOCK=off)
        for i, off in enumerate(("-3600", "3600"))
    ]
    ends = [finish(w) for w in workers]
    assert [code for code, _, _ in ends] == [0, 0], ends
    assert sum(t["built"] for _, t, _ in ends) == fleet.compiled() == fleet.actions
    created = [r.created for i in (0, 1) for r in Store(fleet.place / f"w{i}").records()]
    assert max(created) - min(created) > 7000
    assert fleet.gather(store="w-gather")["missing"] == []


def test_without_a_share_or_leases_the_worker_asks(fleet):
    said = fleet.worker(code=ExitCode.USAGE, store="w0")
    assert "which share is this worker's?" in said


def test_without_a_key_nothing_is_built(fleet):
    said = fleet.worker("--shard", "0/1", code=ExitCode.USAGE, store="w0", JITCACHE_SIGNING_KEY="")
    assert "no key to sign with" in said
    assert fleet.compiled() == 0
