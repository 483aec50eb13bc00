"""Packs in a registry: docker-registry and skopeo on loopback, and one that keeps referrers."""

from __future__ import annotations

import base64
import contextlib
import json
import resource
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitcache import digest
from jitcache.cli.main import main
from jitcache.errors import JitcacheError, UntrustedError, UsageError
from jitcache.jsonread import ShapeError
from jitcache.lockfile import write_lock
from jitcache.pack.image import layer_of
from jitcache.pack.model import Limits
from jitcache.pack.provenance import finished, statement, subjects
from jitcache.pack.registry import PackRegistry, publish
from jitcache.pack.source import unpack_from
from jitcache.pack.warm import fetch, lock_from
from jitcache.pack.write import gather, write_pack
from jitcache.remote.interface import Failed, Stored
from jitcache.remote.oci import INDEX_TYPE, OciClient
from jitcache.remote.reference import is_reference, read_reference
from jitcache.remote.transport import split
from jitcache.sign.dsse import encoding, unwrap, wrap
from jitcache.sign.trust import Trust
from jitcache.store.store import Store
from tests.pack_help import BELIEF, filled
from tests.remote_help import CI, OTHER, TRUST
from tests.remote_servers import docker_registry, free_port, needs, reply, serving


@pytest.fixture
def made(tmp_path):
    return filled(tmp_path)


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A real registry; its host and port."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "none"))
    (tmp_path / "registry").mkdir()
    with docker_registry(tmp_path / "registry") as host:
        yield host


def push(made, host, *signers):
    reference = read_reference(f"oci://{host}/kernels/kimi:gfx950")
    return publish(*made, reference, signers=signers, level=3)


def blobs_of(tmp_path, name: str):
    hexes = name.removeprefix("sha256:")
    (path,) = (tmp_path / "registry/data").glob(f"**/blobs/sha256/{hexes[:2]}/{hexes}/data")
    return path


@pytest.mark.servers
def test_what_was_pushed_is_pulled_by_tag_and_by_digest(made, host, tmp_path):
    done = push(made, host, CI)
    assert done.image.pinned
    pack = tmp_path / "p"
    assert write_pack(*made, pack, signers=[CI]) == done.packed  # the same object, byte for byte
    for number, source in enumerate((f"oci://{host}/kernels/kimi:gfx950", str(done.image))):
        new = Store(tmp_path / f"new-{number}")
        got = unpack_from(source, new, BELIEF, done.packed.digest)
        assert not isinstance(got, Failed)
        assert got.records == 3
        other = Store(tmp_path / f"warm-{number}")
        lock = lock_from(source, other, BELIEF, "small", "gfx950")
        assert lock == made[1]
        third = Store(tmp_path / f"fetch-{number}")
        fetch(lock, third, [source], BELIEF).require(lock)
        assert not list(third.layout.root.glob("tmp-v1/*"))
    with pytest.raises(UntrustedError, match="'ci' is not trusted"):
        unpack_from(str(done.image), Store(tmp_path / "x"), type(BELIEF)(Trust()))


@pytest.mark.servers
def test_a_registry_that_serves_something_else_is_refused(made, host, tmp_path):
    done = push(made, host, CI)
    layer = blobs_of(tmp_path, done.packed.digest)
    sound = layer.read_bytes()
    new = Store(tmp_path / "new")
    layer.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    got = unpack_from(str(done.image), new, BELIEF)
    assert isinstance(got, Failed)
    assert (got.kind, "don't match" in got.detail) == ("damaged", True)
    layer.write_bytes(sound + b"x")
    assert isinstance(unpack_from(str(done.image), new, BELIEF), Failed)
    layer.write_bytes(sound)
    manifest = blobs_of(tmp_path, done.image.version)
    manifest.write_bytes(manifest.read_bytes().replace(b"gfx950", b"gfx942", 1))
    got = unpack_from(str(done.image), new, BELIEF)
    assert isinstance(got, Failed)
    assert list(new.records()) == []


@pytest.mark.servers
def test_provenance_is_found_by_the_fallback_tag_and_verified(made, host, tmp_path):
    done = push(made, host, CI)
    client = PackRegistry(done.image)._client
    index = json.loads(client.get_manifest(done.image.version.replace(":", "-"), INDEX_TYPE).data)
    assert [d["artifactType"] for d in index["manifests"]] == [
        "application/vnd.dsse.envelope.v1+json"
    ]
    payload = PackRegistry(done.image).provenance(TRUST)
    assert unwrap(done.provenance)[0] == payload
    named = {s["digest"]["sha256"] for s in json.loads(payload)["subject"]}
    assert {done.packed.digest[7:], done.image.version[7:]} <= named
    with pytest.raises(UntrustedError, match="'ci' is not trusted"):
        PackRegistry(done.image).provenance(Trust())
    with pytest.raises(UntrustedError, match="older than"):
        PackRegistry(done.image).provenance(Trust().adding(CI.public(), since=1_790_000_001))
    push(made, host, CI)  # again: listed once
    push(made, host, CI, OTHER)  # the signatures are in the layer, so this is another image
    again = json.loads(client.get_manifest(done.image.version.replace(":", "-"), INDEX_TYPE).data)
    assert again == index


@pytest.mark.servers
def test_a_statement_about_another_image_is_refused(made, host, tmp_path):
    done = push(made, host, CI)
    unsigned = push(made, host)
    with pytest.raises(UntrustedError, match="no provenance"):
        PackRegistry(unsigned.image).provenance(TRUST)
    size = blobs_of(tmp_path, unsigned.image.version).stat().st_size
    PackRegistry(unsigned.image).attest(unsigned.image.version, size, done.provenance)
    with pytest.raises(UntrustedError, match="another image"):
        PackRegistry(unsigned.image).provenance(TRUST)


@pytest.mark.servers
def test_skopeo_reads_what_we_pushed_and_we_what_skopeo_copied(made, host, tmp_path):
    needs("skopeo")
    done = push(made, host, CI)
    image = f"docker://{host}/kernels/kimi"

    def skopeo(*words: str) -> bytes:
        return subprocess.run(["skopeo", *words], capture_output=True, check=True).stdout

    raw = skopeo("inspect", "--tls-verify=false", "--raw", f"{image}@{done.image.version}")
    assert digest.of_bytes(raw) == done.image.version
    copied = tmp_path / "copied"
    skopeo("copy", "--src-tls-verify=false", f"{image}:gfx950", f"oci:{copied}:latest")
    assert layer_of(copied)[1] == done.packed.digest
    skopeo("copy", "--dest-tls-verify=false", f"oci:{copied}:latest", f"docker://{host}/mirror:1")
    new = Store(tmp_path / "new")
    got = unpack_from(f"oci://{host}/mirror:1", new, BELIEF)
    assert not isinstance(got, Failed)


@pytest.mark.servers
def test_there_is_no_such_image_or_it_is_none_of_ours(made, host, tmp_path):
    new = Store(tmp_path / "new")
    got = unpack_from(f"oci://{host}/kernels/none:1", new, BELIEF)
    assert isinstance(got, Failed)
    assert "there is no image" in got.detail
    done = push(made, host, CI)
    attested = json.loads(
        PackRegistry(done.image)
        ._client.get_manifest(done.image.version.replace(":", "-"), INDEX_TYPE)
        .data
    )["manifests"][0]["digest"]
    with pytest.raises(JitcacheError, match="not an image of one pack"):
        unpack_from(f"oci://{host}/kernels/kimi@{attested}", new, BELIEF)


def test_a_dead_registry_is_told_and_the_next_source_is_asked(made, tmp_path):
    pack = tmp_path / "p"
    write_pack(*made, pack, signers=[CI])
    new = Store(tmp_path / "new")
    dead = f"oci://127.0.0.1:{free_port()}/kernels/kimi:1"
    fetch(made[1], new, [dead, str(pack)], BELIEF).require(made[1])
    (notice,) = [n for n in new.notices if n.kind == "source-failed"]
    assert "refused" in notice.detail


def test_more_than_allowed_is_not_downloaded(made, tmp_path):
    asked = []
    layer = {"mediaType": "application/vnd.oci.image.layer.v1.tar+zstd", "size": 1 << 40}
    manifest = json.dumps({"layers": [{**layer, "digest": "sha256:" + "0" * 64}]}).encode()

    def answer(handler):
        asked.append(handler.path)
        reply(handler, 200, manifest)

    with serving(answer) as url:
        registry_ = PackRegistry(read_reference(url.replace("http:", "oci:") + "/k:1"))
        got = registry_.pull(tmp_path / "target", Limits())
    assert isinstance(got, Failed)
    assert "at most" in got.detail
    assert len(asked) == 1


@pytest.mark.parametrize("size", [100, 1 << 20])
def test_a_full_disk_is_no_fault_of_the_registry(size, tmp_path):
    asked = []
    layer = {"mediaType": "application/vnd.oci.image.layer.v1.tar+zstd", "size": size}
    data = bytes(size)
    manifest = json.dumps({"layers": [{**layer, "digest": digest.of_bytes(data)}]}).encode()

    def answer(handler):
        asked.append(handler.path)
        reply(handler, 200, manifest if "manifests" in handler.path else data)

    with serving(answer) as url:
        registry_ = PackRegistry(read_reference(url.replace("http:", "oci:") + "/k:1"))
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50, limits[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                registry_.pull(tmp_path / "target", Limits())
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(asked) == 2  # not tried again


def test_a_registry_that_keeps_referrers_is_not_given_a_tag():
    subject, seen = "sha256:" + "5" * 64, []
    entry = {"mediaType": "m", "digest": "sha256:" + "6" * 64, "size": 2}

    def answer(handler):
        seen.append((handler.command, handler.path))
        if handler.command == "PUT":
            reply(handler, 201, headers={"OCI-Subject": subject})
        else:
            reply(handler, 200, json.dumps({"manifests": [entry]}).encode())

    with serving(answer) as url:
        origin = split(url)
        assert origin is not None
        client = OciClient(origin[0], "k")
        assert client.attach(b"{}", subject, entry) == Stored()
        assert client.referrers(subject) == [entry]
    assert seen == [
        ("PUT", f"/v2/k/manifests/{entry['digest']}"),
        ("GET", f"/v2/k/referrers/{subject}"),
    ]


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("oci://h/a", "oci://h/a:latest"),
        ("oci://h:5000/a/b:v1", "oci://h:5000/a/b:v1"),
        ("oci+http://[::1]:80/a:v1", "oci+http://[::1]:80/a:v1"),
        (f"oci://h/a@sha256:{'0' * 64}", f"oci://h/a@sha256:{'0' * 64}"),
    ],
)
def test_references_are_read(text, canonical):
    assert is_reference(text)
    assert str(read_reference(text)) == canonical


@pytest.mark.parametrize(
    "text",
    [
        "oci://",
        "oci://h",
        "oci://h/A",
        "oci://h/a:",
        "oci://h/a@sha256:12",
        "oci://user:secret@h/a:1",
        "oci://h/a:1?token=secret",
        "oci://h/../a",
        "https://h/a:1",
    ],
)
def test_what_is_no_reference_is_refused_and_not_repeated(text):
    with pytest.raises(UsageError) as caught:
        read_reference(text)
    assert "secret" not in str(caught.value)


def test_openssl_verifies_our_provenance(made, tmp_path):
    needs("openssl")
    store, lock = made
    said = digest.canonical_json(statement(lock, [r for r, _ in gather(store, lock)], {}))
    document = json.loads(wrap(said, [CI]))
    # By hand, as the specification of DSSE says, and not with our code.
    kind, payload = document["payloadType"], base64.b64decode(document["payload"])
    signed = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
    assert signed == encoding(said)
    der = bytes.fromhex("302a300506032b6570032100") + CI.public().data
    text = base64.b64encode(der).decode()
    (tmp_path / "key.pem").write_text(
        f"-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n"
    )
    (tmp_path / "sig").write_bytes(base64.b64decode(document["signatures"][0]["sig"]))
    for data, right in ((signed, True), (signed[:-1] + b" ", False)):
        (tmp_path / "data").write_bytes(data)
        words = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "key.pem", "-rawin"]
        words += ["-in", "data", "-sigfile", "sig"]
        ran = subprocess.run(words, cwd=tmp_path, capture_output=True)
        assert (ran.returncode == 0) is right


@pytest.mark.parametrize(
    "change",
    [
        {"payloadType": "text/plain"},
        {"payload": "*"},
        {"signatures": [{"keyid": "ci", "sig": "AA=="}]},
        {"signatures": [{"keyid": "ci", "sig": base64.b64encode(bytes(64)).decode()}] * 17},
    ],
)
def test_malformed_envelopes_are_refused(change):
    document = {**json.loads(wrap(b"{}", [CI])), **change}
    with pytest.raises(ValueError, match=r"\$"):
        unwrap(json.dumps(document).encode())


@pytest.mark.servers
def test_from_lock_to_seed_by_the_commands(made, host, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    def run(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main([*map(str, words)])
        said = capsys.readouterr()
        return int(caught.value.code or 0), said.out, said.err

    monkeypatch.setenv("JITCACHE_DIR", str(made[0].layout.root))
    lock = tmp_path / "lock.json"
    write_lock(lock, made[1])
    image = f"oci://{host}/kernels/kimi:gfx950"
    assert run("pack", lock, "--push", image, "-o", tmp_path / "p")[0] == 2
    assert run("pack", lock, "--push", f"oci://ci:secret@{host}/kernels/kimi")[0] == 2
    code, out, err = run("pack", lock, "--push", image, "--json")
    assert (code, json.loads(out)["signed"], "not signed" in err) == (0, False, True)
    monkeypatch.setenv("JITCACHE_SIGNING_KEY", f"ci:{base64.b64encode(CI.seed).decode()}")
    code, out, err = run("pack", lock, "--push", image, "--provenance", tmp_path / "dsse", "--json")
    assert (code, err) == (0, "")
    pinned = json.loads(out)["path"]
    assert pinned.startswith(f"oci://{host}/kernels/kimi@sha256:")
    monkeypatch.setenv("JITCACHE_DIR", str(tmp_path / "server"))
    code, _, err = run("unpack", pinned)
    assert (code, "the key 'ci' is not trusted here" in err) == (10, True)
    statement_file = tmp_path / "statement.json"
    assert run("unpack", pinned, "--provenance", statement_file)[0] == 10
    assert not statement_file.exists()
    monkeypatch.setenv("JITCACHE_TRUSTED_KEYS", str(CI.public()))
    code, out, err = run("unpack", pinned, "--provenance", statement_file)
    assert (code, "3 actions" in out) == (0, True), err
    assert statement_file.read_bytes() == unwrap((tmp_path / "dsse").read_bytes())[0]
    assert run("unpack", pinned, "--digest", "sha256:" + "0" * 64)[0] == 7
    assert run("unpack", tmp_path / "p", "--provenance", statement_file)[0] == 2
    assert run("unpack", f"oci://{host}/kernels/none")[0] == 1
    monkeypatch.setenv("JITCACHE_DIR", str(tmp_path / "another"))
    code, out, err = run("warm", "--manifest", "small", "--from", pinned)
    assert (code, "0 to build" in out) == (0, True), err
    monkeypatch.setenv("JITCACHE_DIR", str(tmp_path / "third"))
    code, out, err = run("warm", "--lock", lock, "--from", f"oci://{host}/kernels/none")
    assert (code, "source-failed" in err, "there is no image" in err) == (9, True, True)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
)


@given(st.text() | st.text(alphabet="oci:/@.-a1[]", max_size=30).map(lambda s: "oci://" + s))
def test_any_text_is_a_reference_or_refused(text):
    with contextlib.suppress(UsageError):
        found = read_reference(text)
        assert read_reference(str(found)) == found


@given(
    st.binary() | JSON.map(lambda v: json.dumps(v).encode()),
    st.sampled_from([unwrap, finished, subjects]),
)
def test_what_comes_from_a_registry_is_read_or_refused(data, read):
    with contextlib.suppress(ShapeError):
        read(data)


@pytest.mark.parametrize("when", ["0001-01-01T00:00:00", "x", "9999-12-31T23:59:59+14:00", ""])
def test_a_statement_with_an_odd_time_is_read_or_refused(made, when):
    store, lock = made
    said = statement(lock, [r for r, _ in gather(store, lock)], {})
    assert finished(json.dumps(said).encode()) == 1_790_000_000
    said["predicate"]["runDetails"]["metadata"]["finishedOn"] = when
    with contextlib.suppress(ShapeError):
        assert isinstance(finished(json.dumps(said).encode()), int)
