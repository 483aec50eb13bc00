"""Attacks on a remote: each is refused, and each test fails without its defence."""

from __future__ import annotations

import base64
import dataclasses
import shutil
import subprocess

import pytest
import zstandard

from jitcache import digest
from jitcache.errors import InputError
from jitcache.remote.fetch import Fetched, NotFetched
from jitcache.remote.push import push
from jitcache.sign import trust as trust_module
from jitcache.sign.envelope import pack, unpack
from jitcache.sign.keys import SecretKey, new_key, parse_secret, read_secret
from jitcache.sign.trust import Trust, load_trust, read_trust, save_trust
from jitcache.store.model import Hit, Miss
from jitcache.store.quarantine import incidents_of
from jitcache.store.store import Store
from tests.remote_help import BODY, CI, OTHER, TRUST, directory, object_of, puller, pushed
from tests.store_help import make, overwrite


def refused(got) -> str:
    assert isinstance(got, NotFetched)
    ((_, reason),) = got.reasons
    return reason


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv(trust_module.VARIABLE, raising=False)
    return tmp_path / "config" / "jitcache"


def test_what_one_machine_pushed_another_has(tmp_path):
    remote = directory(tmp_path / "r")
    record, done = pushed(tmp_path, remote)
    assert done.state == "pushed"
    store, fetcher = puller(tmp_path, remote)
    got = fetcher.fetch(record.key, record.outputs)
    assert isinstance(got, Fetched)
    hit = store.lookup(record.key)
    assert isinstance(hit, Hit)
    assert hit.paths["kernel.co"].read_bytes() == BODY + b"one"
    assert pushed(tmp_path, remote)[1].state == "present"


def test_blobs_are_compressed_only_where_it_pays(tmp_path):
    remote = directory(tmp_path / "r")
    noise = b"".join(digest.of_bytes(bytes([i])).encode()[7:] for i in range(4))
    record, _ = pushed(tmp_path, remote, outputs={"big": BODY, "small": b"x"})
    by_name = {o.name: object_of(tmp_path / "r", "cas", o.digest) for o in record.outputs}
    assert (by_name["big"].suffix, by_name["small"].suffix) == (".zst", "")
    assert by_name["big"].stat().st_size < len(BODY) // 4
    assert len(noise) < 512
    assert isinstance(puller(tmp_path, remote)[1].fetch(record.key), Fetched)


@pytest.mark.parametrize("space", ["ac", "cas"])
def test_no_flipped_byte_gets_through(tmp_path, space):
    remote = directory(tmp_path / "r")
    record, _ = pushed(tmp_path, remote)
    path = object_of(
        tmp_path / "r", space, record.key if space == "ac" else record.outputs[0].digest
    )
    sound = path.read_bytes()
    step = max(1, len(sound) // 40)
    for at in range(0, len(sound), step):
        overwrite(path, sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :])
        store, fetcher = puller(tmp_path, directory(tmp_path / "r"))
        got = fetcher.fetch(record.key, record.outputs)
        hit = store.lookup(record.key)
        if isinstance(got, Fetched):
            # A bit of zstd's header that changes nothing: the bytes are right all the same.
            assert isinstance(hit, Hit)
            assert hit.paths["kernel.co"].read_bytes() == BODY + b"one"
            shutil.rmtree(tmp_path / "server")
        else:
            assert isinstance(hit, Miss)


def test_a_valid_record_under_another_key_is_refused(tmp_path):
    remote = directory(tmp_path / "r")
    one, _ = pushed(tmp_path, remote, "one")
    two, _ = pushed(tmp_path, remote, "two")
    there = object_of(tmp_path / "r", "ac", one.key).read_bytes()
    overwrite(object_of(tmp_path / "r", "ac", two.key), there)
    assert "another action" in refused(puller(tmp_path, remote)[1].fetch(two.key))


def test_a_valid_blob_under_another_digest_is_refused(tmp_path):
    remote = directory(tmp_path / "r")
    one, _ = pushed(tmp_path, remote, "one")
    two, _ = pushed(tmp_path, remote, "two")
    there = object_of(tmp_path / "r", "cas", one.outputs[0].digest).read_bytes()
    overwrite(object_of(tmp_path / "r", "cas", two.outputs[0].digest), there)
    assert "don't match" in refused(puller(tmp_path, remote)[1].fetch(two.key))


def test_a_signature_moved_to_another_record_is_refused(tmp_path):
    remote = directory(tmp_path / "r")
    one, _ = pushed(tmp_path, remote, "one")
    signature = object_of(tmp_path / "r", "ac", one.key).read_bytes().split(b"\n", 1)[1]
    other = dataclasses.replace(one, facts={"vgprs": 1})
    forged = pack(other, [CI]).split(b"\n", 1)[0] + b"\n" + signature
    overwrite(object_of(tmp_path / "r", "ac", one.key), forged)
    assert "is wrong" in refused(puller(tmp_path, remote)[1].fetch(one.key))


@pytest.mark.parametrize(
    ("signers", "trust", "reason"),
    [
        ((), TRUST, "not signed"),
        ((OTHER,), TRUST, "'other' is not trusted"),
        ((SecretKey("ci", bytes(32)),), TRUST, "signature of 'ci' is wrong"),
        ((CI,), Trust(), "'ci' is not trusted"),
        ((CI,), Trust((*TRUST.trusted,), (CI.public(),)), "'ci' was revoked"),
        ((CI,), Trust().adding(CI.public(), since=1_790_000_001), "older than"),
    ],
)
def test_only_a_trusted_key_counts(tmp_path, signers, trust, reason):
    remote = directory(tmp_path / "r")
    record, _ = pushed(tmp_path, remote, signers=signers)
    store, fetcher = puller(tmp_path, remote, trust)
    assert reason in refused(fetcher.fetch(record.key))
    assert isinstance(store.lookup(record.key), Miss)


def test_one_good_signature_among_others_is_enough(tmp_path):
    remote = directory(tmp_path / "r")
    record, _ = pushed(tmp_path, remote, signers=(OTHER, CI))
    assert isinstance(puller(tmp_path, remote)[1].fetch(record.key), Fetched)


def test_unsigned_only_where_the_user_said_so(tmp_path):
    remote = directory(tmp_path / "r", signed=False)
    record, _ = pushed(tmp_path, remote, signers=())
    assert isinstance(puller(tmp_path, remote, Trust())[1].fetch(record.key), Fetched)


@pytest.mark.parametrize("what", ["action", "blob"])
def test_what_was_disowned_is_refused_even_unsigned(tmp_path, what):
    remote = directory(tmp_path / "r", signed=False)
    record, _ = pushed(tmp_path, remote)
    name = record.key if what == "action" else record.outputs[0].digest
    assert "was revoked" in refused(
        puller(tmp_path, remote, TRUST.revoking(name))[1].fetch(record.key)
    )


def test_an_old_record_replayed_is_not_what_the_lock_names(tmp_path):
    old_remote, new_remote = directory(tmp_path / "old"), directory(tmp_path / "new")
    old, _ = pushed(tmp_path / "a", old_remote, outputs={"kernel.co": BODY + b"old"})
    new, _ = pushed(tmp_path / "b", new_remote, outputs={"kernel.co": BODY + b"new"})
    assert old.key == new.key
    got = puller(tmp_path, old_remote)[1].fetch(new.key, new.outputs)
    assert "lock file" in refused(got)


def test_another_target_is_refused(tmp_path):
    remote = directory(tmp_path / "r")
    store = Store(tmp_path / "builder")
    record, files = make(tmp_path / "w", "one", target="gfx942")
    push(store, remote, store.put(record, files), [CI])
    assert "for gfx942" in refused(puller(tmp_path, remote)[1].fetch(record.key))


def test_a_key_that_is_not_the_digest_of_its_inputs_is_refused(tmp_path):
    remote = directory(tmp_path / "r")
    record, _ = pushed(tmp_path, remote)
    lie = dataclasses.replace(record, inputs={"instance": "another"})
    overwrite(object_of(tmp_path / "r", "ac", record.key), pack(lie, [CI]))
    assert "digest of the inputs" in refused(puller(tmp_path, remote)[1].fetch(record.key))


@pytest.mark.parametrize("claimed", [1 << 30, 3])
def test_sizes_are_bounded_by_what_was_signed(tmp_path, claimed):
    """A zstd bomb, and a frame that unpacks to less than was signed."""
    remote = directory(tmp_path / "r")
    record, _ = pushed(tmp_path, remote)
    bomb = zstandard.ZstdCompressor().compress(bytes(min(claimed, 1 << 24)))
    overwrite(object_of(tmp_path / "r", "cas", record.outputs[0].digest), bomb)
    reason = refused(puller(tmp_path, remote)[1].fetch(record.key))
    assert ("more than" if claimed > 3 else "were stated") in reason


def test_a_fifo_or_link_on_the_share_is_refused(tmp_path):
    import os

    remote = directory(tmp_path / "r")
    record, _ = pushed(tmp_path, remote)
    path = object_of(tmp_path / "r", "ac", record.key)
    data = path.read_bytes()
    path.unlink()
    os.mkfifo(path)
    assert "no regular file" in refused(puller(tmp_path, remote)[1].fetch(record.key))
    path.unlink()
    (tmp_path / "elsewhere").write_bytes(data)
    path.symlink_to(tmp_path / "elsewhere")
    assert "no regular file" in refused(puller(tmp_path, remote)[1].fetch(record.key))


def test_the_first_record_stays_and_the_other_is_evidence(tmp_path):
    remote = directory(tmp_path / "r")
    first, _ = pushed(tmp_path / "a", remote, outputs={"kernel.co": BODY + b"first"})
    second, done = pushed(tmp_path / "b", remote, outputs={"kernel.co": BODY + b"second"})
    assert done.state == "divergent"
    there = unpack(object_of(tmp_path / "r", "ac", first.key).read_bytes())
    assert there.record.outputs == first.outputs
    (incident,) = incidents_of(Store(tmp_path / "b" / "builder").layout, second.key)
    assert unpack((incident / "record.json").read_bytes()).record == first


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_verifies_what_we_sign(tmp_path):
    record, _ = make(tmp_path, "one")
    envelope = unpack(pack(record, [CI]))
    der = bytes.fromhex("302a300506032b6570032100") + CI.public().data
    pem = b"-----BEGIN PUBLIC KEY-----\n" + base64.b64encode(der) + b"\n-----END PUBLIC KEY-----\n"
    for name, data in (
        ("key.pem", pem),
        ("data", envelope.signed),
        ("sig", envelope.signatures[0].data),
        ("other", envelope.signed + b" "),
    ):
        (tmp_path / name).write_bytes(data)

    def verifies(file: str) -> bool:
        words = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "key.pem", "-rawin"]
        words += ["-in", file, "-sigfile", "sig"]
        return subprocess.run(words, cwd=tmp_path, capture_output=True).returncode == 0

    assert (verifies("data"), verifies("other")) == (True, False)


def test_the_trust_file_keeps_what_it_was_told(home):
    told = TRUST.adding(OTHER.public(), since=7).revoking("ci").revoking("sha256:" + "a" * 64)
    save_trust(told)
    assert read_trust() == told
    with pytest.raises(InputError, match="revoked"):
        told.adding(CI.public())
    with pytest.raises(InputError, match="another key"):
        told.adding(SecretKey("other", bytes([1] * 32)).public())


def test_the_environment_adds_keys_but_never_a_revoked_one(home, monkeypatch):
    monkeypatch.setenv(trust_module.VARIABLE, str(CI.public()))
    assert [t.key for t in load_trust().trusted] == [CI.public()]
    save_trust(TRUST.revoking("ci"))
    with pytest.raises(InputError, match="revoked"):
        load_trust()


def test_a_trust_file_that_others_can_write_is_refused(home):
    path = save_trust(TRUST)
    path.chmod(0o666)
    with pytest.raises(InputError, match="another user"):
        read_trust()
    path.chmod(0o644)
    path.parent.chmod(0o777)
    with pytest.raises(InputError, match="another user"):
        read_trust()


def test_secret_keys_show_themselves_to_nobody(tmp_path):
    key = new_key("ci")
    text = "ci:" + base64.b64encode(key.seed).decode()
    assert parse_secret(text, where="x") == key
    assert base64.b64encode(key.seed).decode()[:8] not in repr(key)
    path = tmp_path / "key"
    path.write_text(text)
    path.chmod(0o644)
    with pytest.raises(InputError, match="others can read"):
        read_secret(path)
    with pytest.raises(InputError) as caught:
        parse_secret(text[:-9], where="x")
    assert text[3:11] not in str(caught.value)
