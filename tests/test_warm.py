"""Warming and the readiness gate: everything in place, or exit 9 with what isn't."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest

from jitcache.errors import ForbiddenError, InputError
from jitcache.lockfile import write_lock
from jitcache.pack.image import write_image
from jitcache.pack.read import unpack
from jitcache.pack.warm import fetch, find_lock, prefetch, readiness
from jitcache.pack.write import write_pack
from jitcache.store.layout import Bucket
from jitcache.store.store import Store
from tests.pack_help import BELIEF, filled
from tests.remote_help import CI

SIGNER = {"JITCACHE_SIGNING_KEY": f"ci:{base64.b64encode(CI.seed).decode()}"}
TRUSTING = {"JITCACHE_TRUSTED_KEYS": str(CI.public())}
ROOT = Path(__file__).parent.parent


def jitcache(
    *args: object, store: Path, seeds: str = "", **more: str
) -> subprocess.CompletedProcess:
    """The command in an empty environment: no compiler, no CK, nothing of ours."""
    environment = {
        "JITCACHE_DIR": str(store),
        "PATH": "/nonexistent",
        "JITCACHE_SEEDS": seeds,
        **more,
    }
    return subprocess.run(
        [sys.executable, "-m", "jitcache", *map(str, args)],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def test_each_kind_of_source_fills_an_empty_store(tmp_path):
    store, lock = filled(tmp_path)
    write_pack(store, lock, tmp_path / "p.tar.zst", signers=[CI])
    write_image(store, lock, tmp_path / "image", signers=[CI])
    unpack(tmp_path / "p.tar.zst", Store(tmp_path / "seed"), BELIEF)
    for number, source in enumerate(("p.tar.zst", "image", "seed")):
        target = Store(tmp_path / f"target-{number}")
        assert readiness(lock, target).kernels_present == 0
        state = fetch(lock, target, [str(tmp_path / source)], BELIEF)
        assert str(state) == "2/2 kernels and 1/1 host shims present, 0 to build"
        assert prefetch(state) == sum(
            p.stat().st_size for p in {p for h in state.hits.values() for p in h.paths.values()}
        )
        state.require(lock)


def test_what_is_missing_is_named(tmp_path):
    store, lock = filled(tmp_path)
    gone = lock.modules[0].instances[0].variants[1].action
    store.remove([gone.key])
    store.layout.record(gone.key).unlink(missing_ok=True)
    state = readiness(lock, store)
    assert str(state) == "1/2 kernels and 1/1 host shims present, 1 to build"
    with pytest.raises(ForbiddenError, match=r"gemm1_64x32 \(hot loop, even\): absent"):
        state.require(lock)


def test_other_bytes_than_the_lock_names_are_not_present(tmp_path):
    import dataclasses

    store, lock = filled(tmp_path)
    module = lock.modules[0]
    other = dataclasses.replace(module.host.outputs[0], digest="sha256:" + "0" * 64)
    host = dataclasses.replace(module.host, outputs=(other,))
    changed = dataclasses.replace(lock, modules=(dataclasses.replace(module, host=host),))
    state = readiness(changed, store)
    assert [a.reason for a in state.absent] == ["other-bytes"]


def test_a_lock_is_found_by_its_manifest(tmp_path):
    store, lock = filled(tmp_path)
    place = store.layout.bucket(Bucket.LOCKS)
    write_lock(place / "small.gfx950.lock.json", lock)
    assert find_lock("small", None, [tmp_path / "none", store.layout.root]) == lock
    with pytest.raises(InputError, match="no store or seed"):
        find_lock("small", "gfx942", [store.layout.root])
    with pytest.raises(InputError, match="no store or seed"):
        find_lock("smal", None, [store.layout.root])


def test_pack_unpack_warm_and_gate_as_commands(tmp_path):
    store, lock = filled(tmp_path)
    lock_file = tmp_path / "small.lock.json"
    write_lock(lock_file, lock)
    root, pack = store.layout.root, tmp_path / "p.tar.zst"
    words = ("pack", lock_file, "-o", pack, "--provenance", tmp_path / "s.json", "--json")
    assert jitcache(*words, store=root).returncode == 2  # nobody signs the provenance
    packed = jitcache(*words, store=root, **SIGNER)
    assert packed.returncode == 0, packed.stderr
    assert (json.loads(packed.stdout)["records"], json.loads(packed.stdout)["signed"]) == (3, True)
    payload = base64.b64decode(json.loads((tmp_path / "s.json").read_text())["payload"])
    assert json.loads(payload)["_type"].startswith("https://in-toto.io")
    gate = jitcache("doctor", "--strict", "--lock", lock_file, store=tmp_path / "new")
    assert gate.returncode == 9
    assert "0/2 kernels" in gate.stdout
    assert "gemm1_64x32" in gate.stderr
    words = ("warm", "--lock", lock_file, "--from", pack, "--prefetch")
    stranger = jitcache(*words, store=tmp_path / "new")
    assert stranger.returncode == 10
    assert "the key 'ci' is not trusted here" in stranger.stderr
    warm = jitcache(*words, store=tmp_path / "new", **TRUSTING)
    assert warm.returncode == 0, warm.stderr
    assert "2/2 kernels and 1/1 host shims present, 0 to build" in warm.stdout
    words = ("unpack", pack, "--to", tmp_path / "seed")
    assert jitcache(*words, store=tmp_path / "unused").returncode == 10
    unpacked = jitcache(*words, store=tmp_path / "unused", **TRUSTING)
    assert unpacked.returncode == 0, unpacked.stderr
    believed = jitcache("unpack", pack, "--signatures", "off", store=tmp_path / "another")
    assert believed.returncode == 0, believed.stderr
    by_source = jitcache(
        "warm", "--manifest", "small", "--from", pack, store=tmp_path / "third", **TRUSTING
    )
    assert by_source.returncode == 0, by_source.stderr
    seeds = str(tmp_path / "seed")
    by_name = jitcache("warm", "--manifest", "small", store=tmp_path / "no", seeds=seeds)
    assert by_name.returncode == 0, by_name.stderr
    bad = jitcache("doctor", "--strict", store=tmp_path / "new")
    assert bad.returncode == 2
    wrong = jitcache(
        *("unpack", pack, "--digest", "sha256:" + "0" * 64), store=tmp_path / "new", **TRUSTING
    )
    assert wrong.returncode == 7
    neither = jitcache("pack", lock_file, store=root)
    assert neither.returncode == 2


def test_a_check_that_finds_everything_imports_nothing_for_fetching(tmp_path):
    """Every start of a server pays for these imports."""
    store, lock = filled(tmp_path)
    write_lock(tmp_path / "lock.json", lock)
    unwanted = ["cryptography", "http.client", "zstandard", "tarfile", "jitcache.remote.fetch"]
    code = (
        "import sys\n"
        "from jitcache.cli.main import main\n"
        f"try: main(['warm', '--lock', {str(tmp_path / 'lock.json')!r}])\n"
        "except SystemExit as e: assert e.code == 0\n"
        f"print([m for m in {unwanted!r} if m in sys.modules])\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", code],
        env={"JITCACHE_DIR": str(store.layout.root), "PATH": "/nonexistent"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.splitlines()[-1] == "[]"
