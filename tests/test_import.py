"""Importing code objects that somebody else built, and finding them by their tables."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import msgspec
import pytest

from jitcache import codeobject
from jitcache.cli.main import main
from jitcache.errors import InputError
from jitcache.prebuilt.imports import find, import_tree
from jitcache.store.model import Hit
from jitcache.store.store import Store
from tests.elf_help import code_object, kernel
from tests.store_help import memory_dir


@pytest.fixture
def store():
    with memory_dir() as directory:
        yield Store(directory / "store")


def put(path: Path, symbol: str, arch: str = "gfx942", **more: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    made = code_object([kernel(symbol, **more)], target=f"amdgcn-amd-amdhsa--{arch}")
    path.write_bytes(made)


def tree(root: Path) -> Path:
    put(root / "gfx942" / "pa" / "a.co", "_Za")
    put(root / "gfx942" / "pa" / "b.co", "_Zb")
    put(root / "gfx942" / "copy" / "a.co", "_Za")
    put(root / "gfx950" / "pa" / "a.hsaco", "_Za", "gfx950")
    (root / "gfx942" / "pa" / "pa.csv").write_text(
        "qType,Gqa,knl_name,knl_file\nbf16,16,_Za,a.co\nfp8,16,_Zb,b.co\n"
    )
    (root / "gfx950" / "pa" / "pa.csv").write_text("knl_name,tile,co_name\n_Za,64,a.hsaco\n")
    return root


def test_a_tree_is_stored_once_and_found_by_its_tables(tmp_path, store):
    got = import_tree(tree(tmp_path), store)
    assert (len(got.keys), got.new, got.contents, got.by_row) == (4, 4, 3, 3)
    assert got.refused == got.bad_tables == []
    again = import_tree(tmp_path, store)
    assert (again.keys, again.new) == (got.keys, 0)
    records = list(store.records())
    (found,) = find(records, {"qType": "fp8", "Gqa": "16"})
    assert (found.symbol, found.record.label) == ("_Zb", "gfx942/pa/b.co")
    hit = store.lookup(found.record.key)
    assert isinstance(hit, Hit)
    assert hit.paths["b.co"].read_bytes() == (tmp_path / "gfx942/pa/b.co").read_bytes()
    assert len(find(records, {"Gqa": "16"})) == 2
    assert [m.record.target for m in find(records, {"knl_name": "_Za"}, arch="gfx950")] == [
        "gfx950"
    ]
    assert find(records, {"Gqa": "8"}) == []
    assert find(records, {"Gqa": "16"}, table="mla") == []


def test_facts_of_each_kernel_are_kept(tmp_path, store):
    put(tmp_path / "a.co", "_Za", **{".vgpr_count": 77})
    (key,) = import_tree(tmp_path, store).keys
    hit = store.lookup(key)
    assert isinstance(hit, Hit)
    assert hit.record.facts["kernels"][0]["vgprs"] == 77


def test_another_architecture_than_the_directory_or_the_user_says_is_refused(tmp_path, store):
    tree(tmp_path)
    put(tmp_path / "gfx942" / "wrong.co", "_Zw", "gfx950")
    got = import_tree(tmp_path, store, arch="gfx942")
    assert {(r.name, r.why) for r in got.refused} == {
        ("gfx942/wrong.co", "is for gfx950, not gfx942"),
        ("gfx950/pa/a.hsaco", "is for gfx950, not gfx942"),
    }
    assert len(got.keys) == 3


def test_what_is_no_code_object_or_lacks_its_kernel_is_refused(tmp_path, store):
    tree(tmp_path)
    (tmp_path / "bad.co").write_bytes(b"\x7fELF")
    put(tmp_path / "gfx942" / "pa" / "b.co", "_Zother")
    got = import_tree(tmp_path, store)
    assert [r.name for r in got.refused] == ["bad.co", "gfx942/pa/b.co"]
    assert "holds no kernel _Zb" in got.refused[1].why


def test_rows_that_lead_outside_or_nowhere_are_told_and_not_followed(tmp_path, store):
    root = tmp_path / "root"
    put(tmp_path / "out.co", "_Zout")
    put(root / "a.co", "_Za")
    (root / "link.co").symlink_to(tmp_path / "out.co")
    (root / "t.csv").write_text(
        "knl_name,co_name\n_Zout,../out.co\n_Zout,link.co\n_Zx,none.co\n_Za,a.co,more\n_Za,a.co\n"
    )
    (root / "u.csv").write_text("a,b\n1,2\n")
    got = import_tree(root, store)
    assert len(got.keys) == 1
    assert [b.where for b in got.bad_tables] == [
        "t.csv:2",
        "t.csv:3",
        "t.csv:4",
        "t.csv:5",
        "u.csv",
    ]
    assert got.rows == 1


def test_an_empty_or_missing_directory_is_an_input_error(tmp_path, store):
    for place in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError):
            import_tree(place, store)


@pytest.mark.parametrize(
    ("flags", "arch", "features"),
    [
        (0x54C, "gfx942", ()),
        (0x54F, "gfx950", ()),
        (0xE4C, "gfx942", ("sramecc+", "xnack-")),
        (0x33F, "gfx90a", ("xnack+",)),
    ],
)
def test_without_a_target_the_header_says_the_architecture(flags, arch, features):
    note = msgspec.msgpack.encode({"amdhsa.kernels": [kernel()]})
    data = bytearray(code_object(note=note))
    struct.pack_into("<I", data, 48, flags)
    found = codeobject.read(bytes(data))
    assert (found.arch, found.features) == (arch, features)
    struct.pack_into("<I", data, 48, 0x5FF)
    with pytest.raises(InputError):
        codeobject.read(bytes(data))


def run(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in args])
    return int(ended.value.code or 0), capsys.readouterr().out


def test_import_find_and_show_as_commands(tmp_path, store, capsys, monkeypatch):
    monkeypatch.setenv("JITCACHE_DIR", str(store.layout.root))
    tree(tmp_path)
    code, out = run(capsys, "import", tmp_path, "--json")
    assert (code, json.loads(out)["imported"]) == (0, 4)
    code, out = run(capsys, "find", "qType=fp8", "--json")
    assert code == 0
    assert json.loads(out)["kernels"][0]["symbol"] == "_Zb"
    code, out = run(capsys, "show", "gfx942/pa/b.co")
    assert code == 0
    assert [line.split() for line in out.splitlines() if line.endswith(" _Zb")] == [
        ["256", "0", "54", "46", "0", "32768", "188", "200", "256", "_Zb"]
    ]
    put(tmp_path / "long.co", "_Z" + "x" * 300, "gfx950")
    assert run(capsys, "import", tmp_path)[0] == 0
    assert f"_Z{'x' * 55}...\n" in run(capsys, "show", "long.co")[1]
    assert f"_Z{'x' * 300}\n" in run(capsys, "show", "--inputs", "long.co")[1]
    assert run(capsys, "find", "qType=int8")[0] == 3
    assert run(capsys, "find", "qType")[0] == 2
    (tmp_path / "bad.co").write_bytes(b"no")
    assert run(capsys, "import", tmp_path)[0] == 1
