"""Packs: the same bytes always, nothing believed unverified, and a seed when unpacked."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitcache.errors import DamagedError, ExitCode, InputError, JitcacheError, StoreError
from jitcache.lockfile import Lock, load_lock
from jitcache.pack.image import layer_of, write_image
from jitcache.pack.model import Limits
from jitcache.pack.provenance import statement
from jitcache.pack.read import unpack
from jitcache.pack.write import gather, members, tar_pieces, tar_size, write_pack
from jitcache.store.layout import Bucket
from jitcache.store.model import Hit
from jitcache.store.store import Store
from tests.pack_help import BELIEF, archive, filled, listing, squeezed, with_member, without
from tests.remote_help import CI
from tests.store_help import memory_dir, overwrite, temps


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with memory_dir() as directory:
        yield directory


@pytest.fixture(scope="module")
def sound(place: Path) -> tuple[Store, Lock, Path]:
    store, lock = filled(place)
    write_pack(store, lock, place / "small.tar.zst", signers=[CI])
    return store, lock, place / "small.tar.zst"


@pytest.fixture
def empty(place: Path, request: pytest.FixtureRequest) -> Store:
    return Store(place / f"empty-{abs(hash(request.node.nodeid))}")


def nothing_published(store: Store) -> bool:
    return list(store.records()) == [] and temps(store) == []


def test_unpacked_into_an_empty_store_everything_is_found(sound, empty):
    _, lock, path = sound
    got = unpack(path, empty, BELIEF)
    assert (got.lock, got.records, got.blobs) == (lock, 3, 4)
    for action in lock.actions():
        hit = empty.lookup(action.key)
        assert isinstance(hit, Hit)
        assert set(action.outputs) <= set(hit.record.outputs)
    assert load_lock(empty.layout.bucket(Bucket.LOCKS) / "small.gfx950.lock.json") == lock
    assert temps(empty) == []


def test_extracted_by_tar_it_is_a_seed(sound, tmp_path):
    _, lock, path = sound
    raw = tmp_path / "raw.tar"
    subprocess.run([shutil.which("zstd") or "true", "-qdo", raw, path], check=True)
    if not raw.exists():
        pytest.skip("the zstd program is not installed")
    seed = tmp_path / "seed"
    seed.mkdir()
    subprocess.run(["tar", "-xf", raw, "-C", seed], check=True)
    reader = Store(tmp_path / "none", seeds=[seed])
    assert all(isinstance(reader.lookup(a.key), Hit) for a in lock.actions())
    assert not (tmp_path / "none").exists()


def test_members_are_sorted_owned_by_root_and_timeless(sound):
    infos = listing(sound[2])
    names = [i.name for i in infos]
    assert names == sorted(names)
    assert {(i.mtime, i.uid, i.gid, i.uname, i.gname) for i in infos} == {(0, 0, 0, "", "")}
    assert {oct(i.mode) for i in infos if i.isfile()} == {"0o444", "0o555"}
    assert {oct(i.mode) for i in infos if i.isdir()} == {"0o755"}
    assert {"CACHEDIR.TAG", "locks-v1/small.gfx950.lock.json"} <= set(names)


def test_the_same_bytes_twice_and_from_another_store(sound, place, tmp_path):
    _, lock, path = sound
    other = Store(place / "other")
    unpack(path, other, BELIEF)
    for file in other.layout.root.rglob("*"):
        if file.is_file():
            os.utime(file, (1, 1))
    write_pack(other, lock, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_the_order_of_records_does_not_matter(sound):
    store, lock, _ = sound
    found = gather(store, lock)
    expected = b"".join(tar_pieces(members(lock, found)))
    for seed in range(5):
        random.Random(seed).shuffle(found)
        files = members(lock, found)
        assert b"".join(tar_pieces(files)) == expected
        assert tar_size(files) == len(expected)


def test_what_is_missing_or_damaged_is_not_packed(place, tmp_path):
    store, lock = filled(tmp_path)
    target = tmp_path / "x.tar.zst"
    key = lock.modules[0].host.key
    blob = store.blob_path(lock.modules[0].host.outputs[0].digest)
    data = blob.read_bytes()
    overwrite(blob, b"X" + data[1:])
    with pytest.raises(DamagedError):
        write_pack(store, lock, target)
    store.layout.record(key).unlink()
    with pytest.raises(StoreError, match="1 actions"):
        write_pack(store, lock, target)
    assert not target.exists()
    assert [p for p in tmp_path.iterdir() if p.name.startswith(".pack")] == []


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


FAN = "cas-v1/" + "0" * 2
ATTACKS = {
    "up": (member("../evil"), "no store has"),
    "up within": (member("cas-v1/../../evil"), "no store has"),
    "absolute": (member("/etc/cron.d/evil"), "no store has"),
    "other name": (member("setup.py"), "no store has"),
    "name with newline": (member("CACHEDIR.TAG\n"), "no store has"),
    "lock elsewhere": (member("locks-v1/../x.lock.json"), "no store has"),
    "symlink": (member(FAN, tarfile.SYMTYPE, "/etc"), "neither"),
    "hard link": (member(FAN + "/" + "1" * 62, tarfile.LNKTYPE, "/etc/passwd"), "neither"),
    "device": (member(FAN + "/" + "1" * 62, tarfile.CHRTYPE), "neither"),
    "block device": (member("cas-v1", tarfile.BLKTYPE), "neither"),
    "fifo": (member("ac-v1", tarfile.FIFOTYPE), "neither"),
    "pax header": (member("CACHEDIR.TAG", tarfile.XHDTYPE), "neither"),
    "long name": (member("././@LongLink", tarfile.GNUTYPE_LONGNAME), "neither"),
    "sparse": (member(FAN + "/" + "1" * 62, tarfile.GNUTYPE_SPARSE), "neither"),
    "other directory": (member("pins-v1", tarfile.DIRTYPE), "directory that no store has"),
    "directory up": (member("cas-v1/..", tarfile.DIRTYPE), "directory that no store has"),
    "twice": (member("CACHEDIR.TAG"), "twice"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_archive_of_somebody_else_is_refused(attack, sound, empty, tmp_path):
    info, said = ATTACKS[attack]
    evil = tmp_path / "evil"
    evil.write_bytes(squeezed(with_member(archive(*sound[:2]), info)))
    with pytest.raises(InputError, match=said) as caught:
        unpack(evil, empty, BELIEF)
    assert caught.value.exit_code is ExitCode.INPUT
    assert nothing_published(empty)


def test_bombs_and_lies_about_size_are_refused(sound, empty, tmp_path):
    tar = archive(*sound[:2])
    path = tmp_path / "bomb"
    big = tar + bytes(50 << 20)
    path.write_bytes(squeezed(big))
    with pytest.raises(InputError, match="at most"):
        unpack(path, empty, BELIEF, limits=Limits(total=1 << 20))
    path.write_bytes(squeezed(tar, stated=False))
    with pytest.raises(InputError, match="does not state"):
        unpack(path, empty, BELIEF)
    path.write_bytes(squeezed(tar) + squeezed(tar))
    with pytest.raises(InputError, match="followed by"):
        unpack(path, empty, BELIEF)
    path.write_bytes(squeezed(tar) + b"x")
    with pytest.raises(InputError, match="followed by"):
        unpack(path, empty, BELIEF)
    path.write_bytes(squeezed(tar + b"x" * 512))
    with pytest.raises(InputError, match="after its end"):
        unpack(path, empty, BELIEF)
    huge = member(FAN + "/" + "1" * 62)
    huge.size = 1 << 40
    path.write_bytes(squeezed(huge.tobuf(tarfile.GNU_FORMAT) + tar))
    with pytest.raises(InputError, match="too many"):
        unpack(path, empty, BELIEF)
    path.write_bytes(squeezed(tar))
    with pytest.raises(InputError, match="more than 3 members"):
        unpack(path, empty, BELIEF, limits=Limits(members=3))
    with pytest.raises(InputError, match="too many"):
        unpack(path, empty, BELIEF, limits=Limits(small=10))
    assert nothing_published(empty)


def test_a_window_that_needs_a_gigabyte_is_refused(sound, empty, tmp_path):
    import zstandard

    how = zstandard.ZstdCompressionParameters.from_level(1, window_log=30)
    tool = zstandard.ZstdCompressor(compression_params=how)
    out = tool.compressobj(size=len(archive(*sound[:2])) + (300 << 20))
    path = tmp_path / "wide"
    path.write_bytes(
        out.compress(archive(*sound[:2])) + out.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    )
    with pytest.raises(InputError, match="window"):
        unpack(path, empty, BELIEF)


@pytest.mark.parametrize("part", ["ac-v1/", "cas-v1/", "locks-v1/"])
def test_a_pack_that_lacks_something_is_refused(part, sound, empty, tmp_path):
    path = tmp_path / "less"
    path.write_bytes(squeezed(without(archive(*sound[:2]), part)))
    with pytest.raises(JitcacheError) as caught:
        unpack(path, empty, BELIEF)
    assert caught.value.exit_code in (ExitCode.DAMAGED, ExitCode.INPUT)
    assert nothing_published(empty)


def test_blobs_and_records_the_lock_does_not_name_are_refused(sound, empty, tmp_path):
    from jitcache import digest

    hexes = digest.of_bytes(b"more")[7:]
    path = tmp_path / "more"
    extra = member(f"cas-v1/{hexes[:2]}/{hexes[2:]}")
    path.write_bytes(squeezed(with_member(archive(*sound[:2]), extra, b"more")))
    with pytest.raises(DamagedError, match="no record names"):
        unpack(path, empty, BELIEF)
    store, lock = filled(tmp_path / "b", names=("one", "three"))
    hit = store.lookup(lock.modules[0].instances[0].variants[1].action.key)
    assert isinstance(hit, Hit)
    record = store.layout.record(hit.record.key)
    name = str(record.relative_to(store.layout.root))
    tar = with_member(archive(*sound[:2]), member(name), record.read_bytes())
    path.write_bytes(squeezed(tar))
    with pytest.raises(DamagedError, match="the lock doesn't name"):
        unpack(path, empty, BELIEF)
    assert nothing_published(empty)


@given(where=st.integers(0, 10**9), bit=st.integers(0, 7))
def test_a_flipped_bit_never_gives_wrong_kernels(sound, where, bit):
    whole, lock, _ = sound
    data = bytearray(sound[2].read_bytes())
    data[where % len(data)] ^= 1 << bit
    with memory_dir() as directory:
        path = directory / "flipped"
        path.write_bytes(data)
        store = Store(directory / "store")
        check(path, store, whole, lock)


def check(path: Path, store: Store, whole: Store, lock: Lock) -> None:
    """Refused without a trace; or harmless: a reserved bit, a mode or time, CACHEDIR.TAG."""
    try:
        unpack(path, store, BELIEF)
    except JitcacheError:
        assert nothing_published(store)
        return
    for action in lock.actions():
        for output in action.outputs:
            assert store.read(output.digest) == whole.read(output.digest)


@given(where=st.integers(0, 10**9), bit=st.integers(0, 7))
def test_a_flipped_bit_inside_never_gives_wrong_kernels(sound, where, bit):
    whole, lock, _ = sound
    data = bytearray(archive(whole, lock))
    data[where % len(data)] ^= 1 << bit
    with memory_dir() as directory:
        path = directory / "flipped"
        path.write_bytes(squeezed(bytes(data)))
        store = Store(directory / "store")
        check(path, store, whole, lock)


@given(cut=st.integers(0, 10**9))
def test_a_pack_cut_short_is_refused(sound, cut):
    data = sound[2].read_bytes()
    with memory_dir() as directory:
        path = directory / "cut"
        path.write_bytes(data[: cut % len(data)])
        store = Store(directory / "store")
        with pytest.raises(JitcacheError):
            unpack(path, store, BELIEF)
        assert nothing_published(store)


def test_another_digest_than_asked_for_is_refused(sound, empty):
    from jitcache import digest

    with pytest.raises(DamagedError, match="not sha256:"):
        unpack(sound[2], empty, BELIEF, digest=digest.of_bytes(b"other"))
    assert unpack(sound[2], empty, BELIEF, digest=digest.of_file(sound[2])).records == 3


def test_the_image_holds_the_pack_and_names_it(sound, tmp_path):
    store, lock, path = sound
    packed = write_image(store, lock, tmp_path / "image", signers=[CI])
    layer, digest_ = layer_of(tmp_path / "image")
    assert layer.read_bytes() == path.read_bytes()
    assert digest_ == packed.digest
    with pytest.raises(InputError, match="not an empty"):
        write_image(store, lock, tmp_path / "image")


def test_an_image_whose_manifest_was_changed_is_refused(sound, tmp_path):
    store, lock, _ = sound
    write_image(store, lock, tmp_path / "image")
    index = json.loads((tmp_path / "image" / "index.json").read_bytes())
    name = index["manifests"][0]["digest"][7:]
    manifest = tmp_path / "image" / "blobs" / "sha256" / name
    manifest.write_bytes(manifest.read_bytes() + b" ")
    with pytest.raises(DamagedError, match="index names"):
        layer_of(tmp_path / "image")


@pytest.mark.servers
def test_skopeo_and_umoci_read_the_image(sound, tmp_path):
    if not shutil.which("skopeo") or not shutil.which("umoci"):
        pytest.skip("needs the packages skopeo and umoci")
    store, lock, _ = sound
    packed = write_image(store, lock, tmp_path / "image")
    assert (
        subprocess.run(
            ["umoci", "stat", "--json", "--image", f"{tmp_path}/image:latest"],
            capture_output=True,
            check=False,
        ).returncode
        == 0
    )
    said = subprocess.run(
        ["skopeo", "inspect", "--config", f"oci:{tmp_path}/image:latest"],
        capture_output=True,
        check=True,
    )
    conf = json.loads(said.stdout)
    assert conf["rootfs"]["diff_ids"] == [packed.tar_digest]
    assert conf["config"]["Labels"]["jitcache.arch"] == "gfx950"
    subprocess.run(
        ["skopeo", "copy", "-q", f"oci:{tmp_path}/image:latest", f"oci:{tmp_path}/copy:latest"],
        check=True,
    )
    assert layer_of(tmp_path / "copy")[1] == packed.digest


def test_provenance_names_every_output_and_the_toolchain(sound):
    store, lock, _ = sound
    records = [r for r, _ in gather(store, lock)]
    said = statement(lock, records, {"small.tar.zst": "sha256:" + "ab" * 32})
    assert said == statement(lock, reversed(records), {"small.tar.zst": "sha256:" + "ab" * 32})
    digests = {s["digest"]["sha256"] for s in said["subject"]}
    assert {o.digest[7:] for r in records for o in r.outputs} | {"ab" * 32} == digests
    definition = said["predicate"]["buildDefinition"]
    assert definition["internalParameters"]["toolchain"] == "llvm-22"
