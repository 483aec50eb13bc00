"""The commands that look at the store: ls, show, verify, rm."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jitcache.cli.main import main
from jitcache.cli.storeview import age
from jitcache.errors import ExitCode
from jitcache.store.layout import Bucket
from jitcache.store.model import ActionRecord
from jitcache.store.store import Store
from tests.store_help import age_all, make, overwrite, stored

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("JITCACHE_DIR", str(tmp_path / "store"))
    return Store(tmp_path / "store")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], store: Store) -> Run:
    def call(*args: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as e:
            main(list(args))
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return int(e.value.code or 0), captured.out, captured.err

    return call


@pytest.fixture
def three(store: Store, tmp_path: Path) -> list[ActionRecord]:
    made = [
        make(tmp_path / "src", "one", {"kernel.co": b"shared"}),
        make(tmp_path / "src", "two", {"kernel.co": b"shared", "x": b"own"}, target="gfx942"),
        make(tmp_path / "src", "three", {"kernel.co": b"third"}, toolchain="rocm-7"),
    ]
    records = [store.put(r, f) for r, f in made]
    age_all(store)
    return records


def js(result: tuple[int, str, str]) -> Any:
    code, out, _ = result
    assert code == 0
    return json.loads(out)


class TestLs:
    def test_an_empty_store_is_empty_and_stays_absent(self, run: Run, store: Store) -> None:
        code, out, err = run("ls")
        assert (code, err) == (0, "")
        assert out == f"0 actions, 0 B, in {store.layout.root}\n"
        assert not store.layout.root.exists()

    def test_lists_actions_and_totals(self, run: Run, three: list[ActionRecord]) -> None:
        code, out, _ = run("ls")
        lines = out.splitlines()
        assert code == 0
        assert lines[0].split() == ["KEY", "ACTION", "TARGET", "TOOLCHAIN", "SIZE", "AGE", "USED"]
        assert [line.split()[2] for line in lines[1:4]] == ["two", "one", "three"]
        assert three[2].key[7:19] in lines[3]
        assert lines[-1].startswith("3 actions, 14 B, in "), "the shared blob counts once"

    def test_json(self, run: Run, three: list[ActionRecord], store: Store) -> None:
        value = js(run("ls", "--json"))
        assert value["total"] == {"actions": 3, "bytes": 14}
        assert value["damaged"] == []
        two = next(a for a in value["actions"] if a["target"] == "gfx942")
        assert (two["key"], two["size"], two["label"]) == (three[1].key, 9, "gemm two")
        assert [o["name"] for o in two["outputs"]] == ["kernel.co", "x"]
        assert Path(two["outputs"][1]["path"]).read_bytes() == b"own"

    def test_damaged_records_are_told_and_do_no_harm(
        self, run: Run, three: list[ActionRecord], store: Store
    ) -> None:
        overwrite(store.layout.record(three[0].key), b"garbage")
        code, out, err = run("ls")
        assert code == 0
        assert "2 actions" in out
        assert "damaged: " in err
        assert "jitcache verify" in err
        assert store.layout.record(three[0].key).exists(), "ls only looks"

    def test_a_world_writable_store_is_warned_about(self, run: Run, store: Store) -> None:
        store.layout.root.mkdir()
        store.layout.root.chmod(0o777)
        code, _, err = run("ls")
        assert code == 0
        assert "every user can write here" in err

    def test_a_file_as_store(self, run: Run, store: Store) -> None:
        store.layout.root.write_text("")
        code, _, err = run("ls")
        assert code == ExitCode.STORE
        assert "error: " in err
        assert "hint: " in err


class TestShow:
    @pytest.mark.parametrize("what", ["key", "bare", "short", "label", "instance"])
    def test_finds_by_key_label_or_instance(
        self, run: Run, three: list[ActionRecord], what: str
    ) -> None:
        key = three[2].key
        text = {
            "key": key,
            "bare": key[7:],
            "short": key[7:13],
            "label": "gemm three",
            "instance": "three",
        }[what]
        (action,) = js(run("show", text, "--json"))["actions"]
        assert action["key"] == key
        assert action["state"] == "whole"
        assert action["inputs"] == three[2].inputs
        assert action["facts"] == {"vgprs": 128}

    def test_several_matches_are_all_shown(self, run: Run, three: list[ActionRecord]) -> None:
        assert len(js(run("show", "gemm", "--json"))["actions"]) == 3
        code, out, _ = run("show", "gemm")
        assert code == 0
        assert out.count("\noutputs\n") == 3

    def test_text(self, run: Run, store: Store, tmp_path: Path) -> None:
        record, files = make(tmp_path / "src")
        record.facts["headers"] = [f"h{n}" for n in range(20)]
        store.put(record, files)
        code, out, _ = run("show", "one")
        assert code == 0
        for part in (record.key, "gfx950", "llvm-22", "2026-09-21 ", "vgprs: 128", "kernel.co"):
            assert part in out
        assert "headers: 20 entries (--inputs shows them)" in out
        assert '"h19"' in run("show", "one", "--inputs")[1]

    def test_state_and_incidents(
        self, run: Run, three: list[ActionRecord], store: Store, tmp_path: Path
    ) -> None:
        other, files = make(tmp_path / "src", "three", {"kernel.co": b"divergent"})
        store.put(other, files)
        store.blob_path(three[2].outputs[0].digest).unlink()
        (action,) = js(run("show", "three", "--json"))["actions"]
        assert action["state"].startswith("blob-missing: ")
        assert len(action["incidents"]) == 1
        assert "divergent" in action["incidents"][0]

    def test_nothing_found(self, run: Run, three: list[ActionRecord]) -> None:
        code, out, err = run("show", "gemm9")
        assert (code, out) == (ExitCode.INPUT, "")
        assert "gemm9" in err
        assert "lists the 3 actions" in err


class TestVerify:
    def test_a_whole_store(self, run: Run, three: list[ActionRecord]) -> None:
        code, out, err = run("verify")
        assert (code, err) == (0, "")
        assert "3 records and 3 blobs (14 B) are as they should be" in out

    def test_damage_is_moved_and_exits_with_7_once(
        self, run: Run, three: list[ActionRecord], store: Store
    ) -> None:
        overwrite(store.blob_path(three[2].outputs[0].digest), b"thirD")
        code, out, _ = run("verify", "--no-quarantine")
        assert code == 7
        assert "left in place" in out
        code, out, err = run("verify")
        assert code == 7
        assert "blob-damaged: cas-v1/" in out
        assert str(store.layout.bucket(Bucket.QUARANTINE)) in out
        assert "2 stored objects are damaged" in err
        assert run("verify")[0] == 0

    def test_json(self, run: Run, three: list[ActionRecord], store: Store) -> None:
        overwrite(store.layout.record(three[2].key), b"")
        code, out, _ = run("verify", "--json")
        assert code == 7
        value = json.loads(out)
        assert (value["records"], value["blobs"], value["unreferenced"]) == (2, 3, 1)
        assert [d["kind"] for d in value["damage"]] == ["record-damaged"]
        assert Path(value["damage"][0]["quarantined"]).is_dir()


class TestRm:
    def test_by_key(self, run: Run, three: list[ActionRecord], store: Store) -> None:
        code, out, _ = run("rm", three[1].key[7:17], three[2].key)
        assert code == 0
        assert "gemm two" in out
        assert "removed 2 actions and 2 blobs" in out
        assert [r.key for r in store.records()] == [three[0].key]  # type: ignore[union-attr]

    @pytest.mark.parametrize(
        ("options", "left"),
        [
            (["--target", "gfx942"], {"one", "three"}),
            (["--toolchain", "rocm-7"], {"one", "two"}),
            (["--toolchain", "llvm-22", "--target", "gfx950"], {"two", "three"}),
            (["--all"], set()),
        ],
    )
    def test_by_property(
        self, run: Run, three: list[ActionRecord], options: list[str], left: set[str]
    ) -> None:
        assert run("rm", *options)[0] == 0
        labels = {a["label"] for a in js(run("ls", "--json"))["actions"]}
        assert labels == {f"gemm {n}" for n in left}
        assert run("verify")[0] == 0

    def test_dry_run(self, run: Run, three: list[ActionRecord]) -> None:
        dry = js(run("rm", "--all", "--dry-run", "--json"))
        assert len(js(run("ls", "--json"))["actions"]) == 3
        real = js(run("rm", "--all", "--json"))
        assert {**dry, "dry_run": False} == real
        assert sorted(real["removed"]) == sorted(r.key for r in three)
        assert (real["blobs"], real["kept_recent"]) == (3, 0)

    def test_all_takes_damaged_records_too(
        self, run: Run, three: list[ActionRecord], store: Store
    ) -> None:
        overwrite(store.layout.record(three[0].key), b"garbage")
        code, out, _ = run("rm", "--all")
        assert code == 0
        assert "(damaged record)" in out
        assert list(store.records()) == []

    def test_recent_blobs_are_said_to_stay(self, run: Run, store: Store, tmp_path: Path) -> None:
        stored(store, tmp_path / "src")
        code, out, _ = run("rm", "--all")
        assert code == 0
        assert "1 unreferenced blobs were used in the last 5 minutes" in out

    @pytest.mark.parametrize(
        "args",
        [(), ("abcd", "--all"), ("--all", "--target", "gfx950"), ("abcd", "--toolchain", "x")],
    )
    def test_one_way_of_saying_what(self, run: Run, args: tuple[str, ...]) -> None:
        code, _, err = run("rm", *args)
        assert code == ExitCode.USAGE
        assert "in one way" in err

    def test_unknown_short_and_ambiguous_prefixes(
        self, run: Run, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from jitcache.store import select

        records = [stored(store, tmp_path / "src", n) for n in ("one", "two")]
        for bad in ("00000000", "abc", "not-hex", ""):
            code, _, err = run("rm", bad)
            assert code == ExitCode.INPUT
            assert "no stored action" in err
        monkeypatch.setattr(select, "by_prefix", lambda *_: records)
        code, _, err = run("rm", "abcd")
        assert code == ExitCode.INPUT
        assert "2 stored actions" in err
        assert "gemm one" in err
        assert len(list(store.records())) == 2


@pytest.mark.parametrize(
    ("passed", "text"),
    [(0, "0 s"), (119, "119 s"), (121, "2 min"), (7300, "2 h"), (3 * 86400, "3 d"), (-5, "0 s")],
)
def test_ages(passed: float, text: str) -> None:
    assert age(1000.0, now=1000.0 + passed) == text
    assert age(None) == "-"


@pytest.mark.parametrize("command", ["ls", "show", "verify", "rm"])
def test_every_option_is_documented(command: str, run: Run) -> None:
    page = (Path(__file__).parent.parent / "docs" / f"{command}.md").read_text()
    headings = [line[3:] for line in page.splitlines() if line.startswith("## ")]
    assert headings == ["Usage", "What it does", "Examples", "Options", "See also"]
    _, text, _ = run(command, "--help")
    options = {w for w in text.split() if w.startswith("--")} - {"--help", "--toolchain/--target"}
    for option in options:
        assert option.strip(",.") in page, option
