"""The store against a simple model of it, through random histories."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from jitcache.jsonread import ShapeError
from jitcache.store.model import ActionRecord, Hit, Miss
from jitcache.store.records import decode, encode
from jitcache.store.store import Store
from tests.store_help import age_all, make, memory_dir, overwrite

NAMES = st.sampled_from(["a", "b", "c"])
# Few distinct contents, so that actions share blobs.
CONTENTS = st.dictionaries(
    st.sampled_from(["kernel.co", "shim.so"]),
    st.sampled_from([b"", b"x", b"y" * 5000]),
    min_size=1,
)


class StoreMachine(RuleBasedStateMachine):
    """Keeps for each key the record that a lookup must give, or nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.scope = contextlib.ExitStack()
        self.dir = self.scope.enter_context(memory_dir())
        self.root = self.dir / "store"
        self.store = Store(self.root, hit_policy="full")
        self.first: dict[str, ActionRecord] = {}
        self.unusable: set[str] = set()
        """Keys whose record or blobs we damaged and nobody has mended."""

    def teardown(self) -> None:
        self.scope.close()

    @rule(name=NAMES, contents=CONTENTS)
    def put(self, name: str, contents: dict[str, bytes]) -> None:
        record, files = make(self.dir / "src", name, contents)
        got = self.store.put(record, files)
        known = self.first.get(record.key)
        if known is not None and record.key not in self.unusable:
            assert got == known, "the first record stays"
        else:
            assert got.outputs == record.outputs
        self.first[record.key] = got
        # What was written anew mends every record that shares it.
        self.recheck()

    @rule(name=NAMES)
    def remove(self, name: str) -> None:
        key = make(self.dir / "src", name)[0].key
        report = self.store.remove([key])
        assert (key in report.records) or (key in report.absent)
        if key in self.first and key not in self.unusable:
            assert report.records == (key,)
        self.first.pop(key, None)
        self.unusable.discard(key)

    @rule()
    def time_passes(self) -> None:
        age_all(self.store)

    @rule(name=NAMES, garbage=st.sampled_from([b"", b"{}", b"garbage"]))
    def damage_record(self, name: str, garbage: bytes) -> None:
        key = make(self.dir / "src", name)[0].key
        path = self.store.layout.record(key)
        if path.exists():
            overwrite(path, garbage)
            self.unusable.add(key)

    @rule(name=NAMES, how=st.sampled_from(["cut", "flip", "lose"]))
    def damage_blob(self, name: str, how: str) -> None:
        key = make(self.dir / "src", name)[0].key
        if key not in self.first or key in self.unusable:
            return
        output = self.first[key].outputs[0]
        path = self.store.blob_path(output.digest)
        if how == "lose":
            path.unlink()
        else:
            overwrite(path, b"z" * (output.size if how == "flip" and output.size else 1))
        for other, record in self.first.items():
            if output.digest in {o.digest for o in record.outputs}:
                self.unusable.add(other)

    @rule()
    def verify(self) -> None:
        report = self.store.verify()
        again = self.store.verify()
        assert again.damage == ()
        assert again.records == report.records
        assert again.records == len(self.first) - len(self.unusable & set(self.first))

    def recheck(self) -> None:
        for key in list(self.unusable):
            if isinstance(Store(self.root, hit_policy="full").lookup(key), Hit):
                self.unusable.discard(key)

    @invariant()
    def lookups_agree_with_the_model(self) -> None:
        for name in ("a", "b", "c"):
            key = make(self.dir / "src", name)[0].key
            found = self.store.lookup(key)
            if key in self.first and key not in self.unusable:
                assert isinstance(found, Hit), found
                assert found.record == self.first[key]
                for output in found.record.outputs:
                    assert self.store.read(output.digest) == found.paths[output.name].read_bytes()
            else:
                assert isinstance(found, Miss)


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(inputs=st.dictionaries(st.text(max_size=8), VALUES, max_size=5), facts=VALUES)
def test_any_record_survives_writing_and_reading(
    tmp_path_factory: pytest.TempPathFactory, inputs: dict[str, object], facts: object
) -> None:
    import dataclasses

    from jitcache import digest

    base = make(Path(tempfile.gettempdir()), "one", {})[0]
    record = dataclasses.replace(
        base,
        key=digest.of_json(inputs),
        inputs=inputs,
        outputs=make(tmp_path_factory.getbasetemp(), "one")[0].outputs,
        facts={"x": facts},
    )
    assert decode(encode(record)) == record


@given(data=st.binary(max_size=300))
def test_no_bytes_but_a_record_are_read_as_one(data: bytes) -> None:
    with pytest.raises(ShapeError):
        decode(data)


@given(where=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_any_flipped_bit_of_a_record_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, where: int, bit: int
) -> None:
    data = bytearray(encode(make(tmp_path_factory.getbasetemp(), "one")[0]))
    data[where % len(data)] ^= 1 << bit
    with pytest.raises(ShapeError):
        decode(bytes(data))
