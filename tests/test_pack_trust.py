"""What comes in a pack is believed only if a trusted key has signed all of it."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
from pathlib import Path

import pytest

from jitcache.errors import DamagedError, ExitCode, UntrustedError
from jitcache.lockfile import Lock, write_lock
from jitcache.pack.read import unpack
from jitcache.pack.signed import Belief, require_signed
from jitcache.pack.warm import fetch, lock_from, readiness
from jitcache.pack.write import contents, gather, members, tar_pieces, write_pack
from jitcache.remote.fetch import Fetched, Fetcher
from jitcache.remote.push import push
from jitcache.sign import beside
from jitcache.sign.keys import SecretKey
from jitcache.sign.trust import Trust
from jitcache.store.gcplan import Limits as GcLimits
from jitcache.store.layout import Bucket
from jitcache.store.store import Store
from tests.pack_help import BELIEF, filled, squeezed
from tests.remote_help import CI, OTHER, TRUST, directory
from tests.remote_servers import needs
from tests.store_help import make, overwrite

UNSIGNED = Belief(TRUST, signed=False)


@pytest.fixture
def made(tmp_path) -> tuple[Store, Lock]:
    return filled(tmp_path)


def packed(tmp_path, made, *signers):
    path = tmp_path / "p.tar.zst"
    done = write_pack(*made, path, signers=signers)
    assert done.signed is bool(signers)
    return path


def refusal(path, store, belief=BELIEF) -> str:
    with pytest.raises(UntrustedError) as caught:
        unpack(path, store, belief)
    assert caught.value.exit_code is ExitCode.UNTRUSTED
    assert list(store.records()) == []
    assert not store.layout.bucket(Bucket.LOCKS).exists()
    return str(caught.value)


def swapped(lock: Lock) -> Lock:
    """The lock with the actions of its two kernels exchanged."""
    (module,) = lock.modules
    (instance,) = module.instances
    one, two = instance.variants
    exchanged = (
        dataclasses.replace(one, action=two.action),
        dataclasses.replace(two, action=one.action),
    )
    instance = dataclasses.replace(instance, variants=exchanged)
    return dataclasses.replace(lock, modules=(dataclasses.replace(module, instances=(instance,)),))


@pytest.mark.parametrize(
    ("signers", "trust", "reason"),
    [
        ((), TRUST, "it is not signed"),
        ((OTHER,), TRUST, "'other' is not trusted"),
        ((SecretKey("ci", bytes(32)),), TRUST, "signature of 'ci' is wrong"),
        ((CI,), Trust(), "'ci' is not trusted"),
        ((CI,), Trust((*TRUST.trusted,), (CI.public(),)), "'ci' was revoked"),
        ((CI,), Trust().adding(CI.public(), since=1_790_000_001), "older than"),
    ],
)
def test_only_a_trusted_key_counts(signers, trust, reason, made, tmp_path):
    path = packed(tmp_path, made, *signers)
    said = refusal(path, Store(tmp_path / "new"), Belief(trust))
    assert said.count(reason) == 4  # three records and the lock file


def test_signatures_off_believes_all_but_what_was_disowned(made, tmp_path):
    path = packed(tmp_path, made)
    assert unpack(path, Store(tmp_path / "a"), UNSIGNED).records == 3
    key = made[1].modules[0].host.key
    belief = Belief(TRUST.revoking(key), signed=False)
    assert "was revoked" in refusal(path, Store(tmp_path / "b"), belief)


def test_one_good_signature_of_several_is_enough(made, tmp_path):
    path = packed(tmp_path, made, OTHER, CI)
    assert unpack(path, Store(tmp_path / "new"), BELIEF).records == 3


def test_a_lock_that_swaps_signed_kernels_is_refused(made, tmp_path):
    store, lock = made
    honest = contents(store, lock, [CI])
    signatures = [m for m in honest if m.name.startswith("sig-v1")]
    files = members(swapped(lock), gather(store, lock), signatures)
    path = tmp_path / "swapped"
    path.write_bytes(squeezed(b"".join(tar_pieces(files))))
    said = refusal(path, Store(tmp_path / "new"))
    assert "the lock file: the signature of 'ci' is wrong" in said
    assert "gemm" not in said  # each record by itself is as it was signed


def test_a_signature_moved_to_another_record_is_refused(made, tmp_path):
    store, lock = made
    files = contents(store, lock, [CI])
    of_records = [m for m in files if m.name.startswith("sig-v1/") and "lock.json" not in m.name]
    moved = dict(zip((m.name for m in of_records), [*of_records[1:], of_records[0]], strict=True))
    files = [
        dataclasses.replace(m, source=moved[m.name].source, size=moved[m.name].size)
        if m.name in moved
        else m
        for m in files
    ]
    path = tmp_path / "moved"
    path.write_bytes(squeezed(b"".join(tar_pieces(files))))
    assert refusal(path, Store(tmp_path / "new")).count("is wrong") == 3


def test_signatures_travel_on_and_a_seed_has_them(made, tmp_path):
    path = packed(tmp_path, made, CI)
    middle = Store(tmp_path / "middle")
    unpack(path, middle, BELIEF)
    again = tmp_path / "again"
    assert write_pack(middle, made[1], again).signed
    assert again.read_bytes() == path.read_bytes()
    last = Store(tmp_path / "last")
    assert lock_from(str(middle.layout.root), last, BELIEF, "small", None) == made[1]
    fetch(made[1], last, [str(middle.layout.root)], BELIEF).require(made[1])


def test_signatures_pulled_from_a_remote_travel_on(made, tmp_path):
    store, lock = made
    remote = directory(tmp_path / "r")
    for record, _ in gather(store, lock):
        assert push(store, remote, record, [CI]).state == "pushed"
    here = Store(tmp_path / "here")
    fetcher = Fetcher(here, [remote], TRUST, {"gfx950", "host"})
    fetch(lock, here, [], BELIEF, fetcher).require(lock)
    for record, _ in gather(here, lock):
        assert TRUST.refusal(beside.envelope(here.layout, record)) is None


def test_a_seed_as_a_source_must_be_signed(made, tmp_path):
    store, lock = made
    new = Store(tmp_path / "new")
    source = str(store.layout.root)
    with pytest.raises(UntrustedError, match="not signed"):
        fetch(lock, new, [source], BELIEF)
    assert list(new.records()) == []
    write_lock(store.layout.bucket(Bucket.LOCKS) / "small.gfx950.lock.json", lock)
    with pytest.raises(UntrustedError, match="the lock file: it is not signed"):
        lock_from(source, new, BELIEF, "small", None)
    assert lock_from(source, new, UNSIGNED, "small", None) == lock
    fetch(lock, new, [source], UNSIGNED).require(lock)


def test_a_signed_lock_of_a_seed_that_was_exchanged_is_refused(made, tmp_path):
    path = packed(tmp_path, made, CI)
    seed = Store(tmp_path / "seed")
    unpack(path, seed, BELIEF)
    write_lock(seed.layout.bucket(Bucket.LOCKS) / "small.gfx950.lock.json", swapped(made[1]))
    with pytest.raises(UntrustedError, match="the lock file: the signature of 'ci' is wrong"):
        lock_from(str(seed.layout.root), Store(tmp_path / "new"), BELIEF, "small", None)


def test_signatures_go_with_their_records(made, tmp_path):
    path = packed(tmp_path, made, CI)
    for number, how in enumerate(("remove", "gc")):
        store = Store(tmp_path / f"s{number}")
        unpack(path, store, BELIEF)
        keys = [a.key for a in made[1].actions()]
        assert all(store.layout.signatures(k).exists() for k in keys)
        if how == "remove":
            store.remove(keys)
        else:
            assert len(store.gc(GcLimits(max_size=0, grace_s=-10)).removed) == 3
        assert not any(store.layout.signatures(k).exists() for k in keys)


def test_what_is_kept_is_not_called_signed_if_it_is_another_record(made, tmp_path):
    """The first record of a key stays; the signature of another one says nothing of it."""
    store, lock = made
    path = packed(tmp_path, made, CI)
    other = Store(tmp_path / "other")
    record, paths = gather(store, lock)[0]
    other.put(dataclasses.replace(record, created=record.created + 1), paths)
    unpack(path, other, BELIEF)
    assert not other.layout.signatures(record.key).exists()
    assert not write_pack(other, lock, tmp_path / "again").signed
    remote = directory(tmp_path / "r")
    push(store, remote, record, [CI])
    assert isinstance(Fetcher(other, [remote], TRUST, {"host"}).fetch(record.key), Fetched)
    assert not other.layout.signatures(record.key).exists()


def test_warm_asks_the_remotes_for_what_the_sources_lack(made, tmp_path):
    store, lock = made
    remote = directory(tmp_path / "r")
    records = [r for r, _ in gather(store, lock)]
    for record in records[:2]:
        push(store, remote, record, [CI])
    push(store, remote, records[2], [OTHER])
    here = Store(tmp_path / "here")
    fetcher = Fetcher(here, [remote], TRUST, {"gfx950", "host"})
    state = fetch(lock, here, [], BELIEF, fetcher)
    (absent,) = state.absent
    assert "remote dir: the record is refused: the key 'other' is not trusted" in absent.detail
    assert readiness(lock, here).kernels_present + readiness(lock, here).shims_present == 2


def test_a_remote_is_not_asked_while_nothing_is_missing(made):
    class Never(Fetcher):
        def __init__(self) -> None: ...

        def fetch(self, *_):
            raise AssertionError

    fetch(made[1], made[0], ["/nonexistent"], BELIEF, Never()).require(made[1])


def test_malformed_signatures_beside_a_record_are_none(made, tmp_path):
    path = packed(tmp_path, made, CI)
    seed = Store(tmp_path / "seed")
    unpack(path, seed, BELIEF)
    key = made[1].modules[0].host.key
    overwrite(seed.layout.signatures(key), json.dumps({"signatures": ["x"]}).encode())
    with pytest.raises(UntrustedError, match="it is not signed"):
        fetch(made[1], Store(tmp_path / "new"), [str(seed.layout.root)], BELIEF)


@pytest.mark.parametrize("name", [f"sig-v1/00/{'0' * 62}.json", "sig-v1/other.gfx950.lock.json"])
def test_signatures_of_nothing_are_refused(name, made, tmp_path):
    files = contents(*made, [CI])
    extra = dataclasses.replace(next(f for f in files if f.name.startswith("sig-v1")), name=name)
    path = tmp_path / "extra"
    path.write_bytes(squeezed(b"".join(tar_pieces([*files, extra]))))
    with pytest.raises(DamagedError, match="signatures of no"):
        unpack(path, Store(tmp_path / "new"), UNSIGNED)


@pytest.mark.parametrize("data", [b"", b"{}", b'{"signatures":["ci:AA=="]}', b"\xff"])
def test_malformed_signatures_in_a_pack_are_damage(data, made, tmp_path):
    files = [
        dataclasses.replace(f, source=data, size=len(data)) if f.name.startswith("sig-v1") else f
        for f in contents(*made, [CI])
    ]
    path = tmp_path / "malformed"
    path.write_bytes(squeezed(b"".join(tar_pieces(files))))
    with pytest.raises(DamagedError, match="sig-v1/"):
        unpack(path, Store(tmp_path / "new"), UNSIGNED)


def test_the_signature_of_an_older_lock_does_not_travel_on(made, tmp_path):
    path = packed(tmp_path, made, CI)
    store = Store(tmp_path / "new")
    unpack(path, store, BELIEF)
    assert not write_pack(store, swapped(made[1]), tmp_path / "again").signed


def test_openssl_verifies_a_seed_as_the_docs_say(made, tmp_path):
    needs("bash", "openssl", "sed", "base64")
    text = (Path(__file__).parent.parent / "docs" / "trust.md").read_text()
    section = text.partition("## Checking without jitcache\n")[2].partition("\n## ")[0]
    script = "\n".join(line[4:] for line in section.splitlines() if line.startswith("    "))
    seed = Store(tmp_path / "seed")
    unpack(packed(tmp_path, made, CI), seed, BELIEF)

    def run() -> tuple[int, int]:
        ran = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            env={
                "PATH": os.environ["PATH"],
                "KEY": str(CI.public()),
                "SEED": str(seed.layout.root),
            },
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        return ran.returncode, ran.stdout.count("Signature Verified Successfully")

    assert run() == (0, 4)
    lock = seed.layout.bucket(Bucket.LOCKS) / "small.gfx950.lock.json"
    lock.write_bytes(lock.read_bytes().replace(b'"cu_num": 256', b'"cu_num": 304'))
    assert run() == (1, 0)


def test_verify_asks_for_signatures_where_it_is_told_to(made, tmp_path):
    path = packed(tmp_path, made, CI)
    seed = Store(tmp_path / "seed")
    unpack(path, seed, BELIEF)
    assert require_signed(TRUST, seed.layout) == 4
    with pytest.raises(UntrustedError, match="'ci' is not trusted") as caught:
        require_signed(Trust(), seed.layout)
    assert len(caught.value.details) == 4
    record, files = make(tmp_path / "own", "built here")
    seed.put(record, files)
    with pytest.raises(UntrustedError, match=r"gemm built here .*: it is not signed"):
        require_signed(TRUST, seed.layout)
    seed.remove([record.key])
    write_lock(seed.layout.bucket(Bucket.LOCKS) / "small.gfx950.lock.json", swapped(made[1]))
    with pytest.raises(UntrustedError, match=r"small.gfx950.lock.json: the signature of 'ci'"):
        require_signed(TRUST, seed.layout)
    unpack(path, seed, BELIEF)
    overwrite(seed.layout.record(record_of(made).key), b"torn")
    with pytest.raises(UntrustedError, match="is not sealed"):
        require_signed(TRUST, seed.layout)


def record_of(made):
    return gather(*made)[0][0]
