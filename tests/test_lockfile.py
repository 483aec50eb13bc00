"""Lock files: one byte form, read back as written, and every malformation named by its path."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitcache import digest
from jitcache.errors import ExitCode, InputError, StoreError
from jitcache.jsonread import ShapeError, parse
from jitcache.lockfile import (
    Lock,
    LockedAction,
    LockedInstance,
    LockedModule,
    LockedVariant,
    dump_lock,
    load_lock,
    parse_lock,
    write_lock,
)
from jitcache.store.model import Output


def action(name: str, *outputs: str) -> LockedAction:
    return LockedAction(
        digest.of_bytes(name.encode()),
        tuple(
            Output(o, digest.of_bytes(f"{name} {o}".encode()), 100, 0o555 if o == "a.so" else 0o444)
            for o in outputs or ("kernel.co",)
        ),
    )


HOT = action("hot", "kernel.co", "kernel.json")
LOCK = Lock(
    manifest="kimi-k2.5-mxfp4-tp2",
    manifest_digest=digest.of_bytes(b"manifest"),
    arch="gfx950",
    cu_num=256,
    toolchain="llvm-22.1.8-hip5.2-ck0123-4567",
    provider="llvm",
    hip_version=(5, 2),
    modules=(
        LockedModule(
            name="module_moe_ck2stages_fp4x2",
            host=action("host", "a.so"),
            instances=(
                LockedInstance(
                    name="moe_ck2stages_gemm1_256x128x128x128",
                    stage=1,
                    block_m=128,
                    variants=(
                        LockedVariant(True, "even", None, "_ZN2ck1", HOT),
                        LockedVariant(True, "odd", None, "_ZN2ck2", HOT),
                        LockedVariant(False, "odd", True, "_ZN2ck3", action("cold")),
                    ),
                ),
            ),
        ),
    ),
)


def test_written_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "kimi.gfx950.lock.json"
    write_lock(path, LOCK)
    assert load_lock(path) == LOCK
    assert list(path.parent.iterdir()) == [path]


def test_the_byte_form_is_stable_and_easy_to_compare() -> None:
    data = dump_lock(LOCK)
    assert data == dump_lock(parse_lock(data, where="x"))
    assert data.endswith(b"}\n")
    text = data.decode()
    assert text.startswith(
        '{\n  "schema": 1,\n  "manifest": {\n    "name": "kimi-k2.5-mxfp4-tp2",\n'
    )
    other = dataclasses.replace(LOCK, cu_num=304)
    changed = [
        (a, b)
        for a, b in zip(text.splitlines(), dump_lock(other).decode().splitlines(), strict=True)
        if a != b
    ]
    assert changed == [('    "cu_num": 256', '    "cu_num": 304')]
    assert text.count('"non_temporal"') == 1, "left out where the family doesn't tell them apart"


def test_outputs_are_sorted_however_they_were_given() -> None:
    swapped = LockedAction(HOT.key, HOT.outputs[::-1])
    module = dataclasses.replace(LOCK.modules[0], host=swapped)
    data = dump_lock(dataclasses.replace(LOCK, modules=(module,)))
    assert parse_lock(data, where="x").modules[0].host == HOT


def test_actions_are_named_once() -> None:
    keys = [a.key for a in LOCK.actions()]
    assert keys == [digest.of_bytes(n) for n in (b"host", b"hot", b"cold")]


def changed(*path: str | int, to: Any) -> bytes:
    """The good lock with one value replaced; `...` removes it."""
    document = json.loads(dump_lock(LOCK))
    at = document
    for step in path[:-1]:
        at = at[step]
    if to is ...:
        del at[path[-1]]
    else:
        at[path[-1]] = to
    return json.dumps(document).encode()


VARIANT = ("modules", 0, "instances", 0, "variants", 0)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "$ is not JSON"),
        (b"\xff", "$ is not JSON"),
        (b"[" * 100_000, "$ is nested too deeply"),
        (b"[]", "$ must be an object, but is a list"),
        (b'{"schema": 1, "schema": 1}', "'schema' stands twice"),
        (b"{}", "$ lacks the key 'schema'"),
        (changed("schema", to=2), "$.schema is 2, but this jitcache reads version 1"),
        (changed("schema", to=True), "$.schema must be an integer, but is true or false"),
        (changed("extra", to=1), "$ has the unknown key 'extra' (known: schema, manifest"),
        (changed("target", to=...), "$ lacks the key 'target'"),
        (changed("manifest", "digest", to="abc"), "$.manifest.digest is not a digest"),
        (changed("target", "cu_num", to=0), "$.target.cu_num must be between 1 and"),
        (changed("target", "arch", to=None), "$.target.arch must be a string, but is null"),
        (changed("toolchain", "hip_version", to=[5]), "$.toolchain.hip_version must be [major"),
        (changed("toolchain", "hip_version", to=[5, 2.5]), "$.toolchain.hip_version[1] must be"),
        (changed("modules", 0, "name", to="\x1b[31m"), "$.modules[0].name holds control"),
        (changed("modules", 0, "host", to={}), "$.modules[0].host lacks the key 'action'"),
        (changed("modules", 0, "host", "outputs", to=[]), "outputs is empty"),
        (
            changed("modules", 0, "instances", 0, "stage", to=3),
            "$.modules[0].instances[0].stage must be between 1 and 2, but is 3",
        ),
        (changed(*VARIANT, "tail", to="none"), "variants[0].tail must be one of odd, even, full"),
        (changed(*VARIANT, "hot_loop", to=1), "variants[0].hot_loop must be true or false"),
        (changed(*VARIANT, "non_temporal", to=None), "non_temporal must be true or false"),
        (changed(*VARIANT, "outputs", 0, "name", to="../x"), "outputs[0].name is not a plain"),
        (changed(*VARIANT, "outputs", 0, "name", to="z"), "outputs must be sorted by name"),
        (changed(*VARIANT, "outputs", 0, "size", to=-1), "outputs[0].size must be between 0"),
        (changed(*VARIANT, "outputs", 0, "size", to=2**70), "outputs[0].size must be between"),
        (changed(*VARIANT, "outputs", 0, "mode", to="0777"), "outputs[0].mode must be one of"),
        (changed(*VARIANT, "kernel", to="k" * 5000), "kernel is longer than 4096"),
    ],
)
def test_what_is_malformed_is_named(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "x.lock.json"
    path.write_bytes(data)
    with pytest.raises(InputError) as e:
        load_lock(path)
    assert says in e.value.what
    assert e.value.where == str(path)
    assert e.value.exit_code == ExitCode.INPUT


def test_a_missing_or_unreadable_file(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(InputError, match="can't read the lock file"):
            load_lock(path)


def test_an_unwritable_place_keeps_the_old_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.lock.json"
    write_lock(path, LOCK)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StoreError, match="No space left"):
        write_lock(path, dataclasses.replace(LOCK, cu_num=304))
    assert load_lock(path) == LOCK
    assert list(tmp_path.iterdir()) == [path]


def spots(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    children = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [path, *(s for k, v in children for s in spots(v, (*path, k)))]


DOCUMENT = json.loads(dump_lock(LOCK))
JUNK: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just([]) | st.just({})
)


@given(where=st.sampled_from(spots(DOCUMENT)[1:]), junk=JUNK)
def test_junk_anywhere_is_refused_or_harmless(where: tuple[str | int, ...], junk: Any) -> None:
    document = copy.deepcopy(DOCUMENT)
    at = document
    for step in where[:-1]:
        at = at[step]
    at[where[-1]] = junk
    data = json.dumps(document).encode()
    with contextlib.suppress(InputError):
        lock = parse_lock(data, where="x")
        # What was accepted is a lock: it can be written, and is the same when read again.
        assert parse_lock(dump_lock(lock), where="y") == lock


@given(data=st.binary(max_size=60))
def test_bytes_that_are_not_a_lock_are_an_input_error(data: bytes) -> None:
    with pytest.raises(InputError):
        parse_lock(data, where="x")


def test_reader_paths_reach_through_lists_and_objects() -> None:
    items = parse(b'{"a": [{"b": 1}, {"b": "x"}]}')["a"].each()
    with pytest.raises(ShapeError) as e:
        [item["b"].integer() for item in items]
    assert e.value.path == "$.a[1].b"
    assert parse(b'{"a": {}}')["a"].object() == {}
