"""The commands that look after the store: gc, pin, stats, why-miss."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from jitcache import digest
from jitcache.action.headers import HEADERS_OUTPUT, listing
from jitcache.cli import main as main_module
from jitcache.cli.main import main
from jitcache.cli.quantities import parse_age, parse_size
from jitcache.errors import ExitCode
from jitcache.lockfile import Lock, LockedAction, LockedModule, write_lock
from jitcache.store.layout import Bucket
from jitcache.store.memo import MemoHeader
from jitcache.store.model import ActionRecord, Output
from jitcache.store.store import Store
from tests.store_help import age_all, make, overwrite, stored
from tests.test_cli_store import Run

COMMANDS = {"gc": "gc", "pin": "pin", "stats": "stats", "why-miss": "why_miss"}
WEEKS = 50 * 86400


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("JITCACHE_DIR", str(tmp_path / "store"))
    return Store(tmp_path / "store")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], store: Store, monkeypatch: pytest.MonkeyPatch) -> Run:
    for name, module in COMMANDS.items():
        monkeypatch.setitem(main_module._COMMANDS, name, (module, ""))

    def call(*args: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as e:
            main(list(args))
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return int(e.value.code or 0), captured.out, captured.err

    return call


def js(result: tuple[int, str, str]) -> Any:
    code, out, _ = result
    assert code == 0, result
    return json.loads(out)


def lock_of(path: Path, *records: ActionRecord) -> str:
    modules = tuple(
        LockedModule(f"m{n}", LockedAction(r.key, r.outputs), ()) for n, r in enumerate(records)
    )
    write_lock(
        path, Lock("kimi", digest.of_bytes(b""), "gfx950", 256, "t", "llvm", (5, 2), modules)
    )
    return str(path)


class TestGc:
    def test_by_age_with_a_kept_lock(self, run: Run, store: Store, tmp_path: Path) -> None:
        keep, gone = (stored(store, tmp_path / "src", n) for n in ("keep", "gone"))
        age_all(store, WEEKS)
        lock = lock_of(tmp_path / "x.lock.json", keep)
        dry = js(run("gc", "--max-age", "6w", "--keep", lock, "--dry-run", "--json"))
        real = js(run("gc", "--max-age", "6w", "--keep", lock, "--json"))
        assert {**dry, "dry_run": False} == real
        assert (real["removed"], real["blobs"]) == ([gone.key], 1)
        assert real["kept_pinned"] == [keep.key]
        assert [r.key for r in store.records()] == [keep.key]  # type: ignore[union-attr]
        code, out, _ = run("gc", "--max-age", "8w")
        assert (code, out[:31]) == (0, "removed 0 actions and 0 blobs, ")

    def test_by_size_of_the_environment(
        self, run: Run, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stored(store, tmp_path / "src")
        age_all(store, WEEKS)
        monkeypatch.setenv("JITCACHE_MAX_SIZE", "10 MiB")
        assert js(run("gc", "--json"))["removed"] == []
        monkeypatch.setenv("JITCACHE_MAX_SIZE", "10")
        assert len(js(run("gc", "--json"))["removed"]) == 1
        monkeypatch.setenv("JITCACHE_MAX_SIZE", "much")
        code, _, err = run("gc")
        assert code == ExitCode.INPUT
        assert "JITCACHE_MAX_SIZE" in err

    def test_by_property(self, run: Run, store: Store, tmp_path: Path) -> None:
        for n, target in (("a", "gfx942"), ("b", "gfx950")):
            record, files = make(tmp_path / "src", n, target=target)
            store.put(record, files)
        age_all(store, WEEKS)
        assert len(js(run("gc", "--arch", "gfx942", "--json"))["removed"]) == 1
        assert [a["target"] for a in js(run("ls", "--json"))["actions"]] == ["gfx950"]

    def test_a_limit_out_of_reach_is_a_warning(
        self, run: Run, store: Store, tmp_path: Path
    ) -> None:
        stored(store, tmp_path / "src")
        code, out, err = run("gc", "--max-size", "1k")
        assert code == 0
        assert "kept 1 actions that are in use" in out or "0 actions" in out
        code, out, err = run("gc", "--max-size", "0")
        assert "kept 1 actions that are in use" in out
        assert "still larger than the limit" in err

    @pytest.mark.parametrize("args", [("--max-size", "many"), ("--max-age", "3")])
    def test_bad_quantities(self, run: Run, args: tuple[str, str]) -> None:
        code, _, err = run("gc", *args)
        assert code == ExitCode.USAGE
        assert "such as" in err


class TestPin:
    def test_pin_list_remove(self, run: Run, store: Store, tmp_path: Path) -> None:
        record = stored(store, tmp_path / "src")
        age_all(store, WEEKS)
        assert run("pin")[1] == "no pins\n"
        lock = lock_of(tmp_path / "x.lock.json", record)
        value = js(run("pin", lock, "--json"))
        assert [(p["name"], p["actions"]) for p in value["pins"]] == [("kimi.gfx950", 1)]
        run("pin", lock, "--name", "other")
        assert js(run("gc", "--max-size", "0", "--json"))["kept_pinned"] == [record.key]
        assert [p["name"] for p in js(run("pin", "--remove", "other", "--json"))["pins"]] == [
            "kimi.gfx950"
        ]
        assert run("pin", "--remove", "kimi.gfx950")[0] == 0
        assert len(js(run("gc", "--max-size", "0", "--json"))["removed"]) == 1

    def test_misuse(self, run: Run, store: Store, tmp_path: Path) -> None:
        assert run("pin", "--remove", "x", "--name", "y")[0] == ExitCode.USAGE
        assert run("pin", "--name", "y")[0] == ExitCode.USAGE
        assert run("pin", "--remove", "x")[0] == ExitCode.INPUT
        assert run("pin", str(tmp_path / "absent"))[0] == ExitCode.INPUT
        bad = tmp_path / "bad.lock.json"
        bad.write_text("{}")
        assert run("pin", str(bad))[0] == ExitCode.INPUT

    def test_a_damaged_pin_is_told(self, run: Run, store: Store, tmp_path: Path) -> None:
        lock = lock_of(tmp_path / "x.lock.json", stored(store, tmp_path / "src"))
        run("pin", lock)
        overwrite(store.layout.bucket(Bucket.PINS) / "kimi.gfx950.json", b"")
        code, out, err = run("pin")
        assert (code, out) == (0, "no pins\n")
        assert "damaged: " in err


class TestStats:
    def test_counts(self, run: Run, store: Store, tmp_path: Path) -> None:
        assert "0 lookups\n" in run("stats")[1]
        record, files = make(tmp_path / "src")
        store.put(dataclasses.replace(record, facts={"cpu_ms": 24_100}), files)
        store.lookup(record.key)
        store.lookup(digest.of_bytes(b""))
        store.save_counters()
        code, out, _ = run("stats")
        assert code == 0
        for line in (
            "2 lookups, 50.0 % hits",
            "hits, local: 1",
            "misses, absent: 1",
            "11 B served",
            "24.1 s of compiling saved",
            "1 actions stored, 11 B",
        ):
            assert line in out
        value = js(run("stats", "--since", "1d", "--json"))
        assert (value["lookups"], value["saved_ms"]) == (2, 24_100)
        assert run("stats", "--since", "soon")[0] == ExitCode.USAGE


class TestWhyMiss:
    def action(
        self, store: Store, src: Path, created: int, flags: list[str], headers: dict[str, str]
    ) -> ActionRecord:
        rows = listing(tuple(MemoHeader(n, "/x", d) for n, d in headers.items()))
        base, files = make(src, f"a{created}", {"kernel.co": b"x", HEADERS_OUTPUT: rows})
        inputs = {"flags": flags, "headers": digest.of_bytes(rows)}
        record = dataclasses.replace(
            base, key=digest.of_json(inputs), inputs=inputs, created=created, label="gemm1"
        )
        return store.put(record, files)

    def test_names_the_header_and_the_flag(self, run: Run, store: Store, tmp_path: Path) -> None:
        src = tmp_path / "src"
        old = self.action(store, src, 1, ["-O3"], {"ck/ck.hpp": "sha256:1", "hip/x.h": "sha256:2"})
        new = self.action(
            store, src, 2, ["-O3", "-g"], {"ck/ck.hpp": "sha256:9", "hip/x.h": "sha256:2"}
        )
        code, out, _ = run("why-miss", "gemm1")
        assert code == 0
        assert out.splitlines()[0].startswith(new.key[7:19])
        assert f"nearest: {old.key[7:19]}" in out
        assert "  flags -g: new\n" in out
        assert "  header ck/ck.hpp: was sha256:1, is sha256:9\n" in out
        assert "hip/x.h" not in out
        value = js(run("why-miss", new.key, "--json"))
        assert value["nearest"]["key"] == old.key
        assert {"what": "flags", "name": "-g", "then": None, "now": "-g"} in value["differences"]

    def test_a_lost_listing_still_says_headers(
        self, run: Run, store: Store, tmp_path: Path
    ) -> None:
        src = tmp_path / "src"
        old = self.action(store, src, 1, ["-O3"], {"ck/ck.hpp": "sha256:1"})
        self.action(store, src, 2, ["-O3"], {"ck/ck.hpp": "sha256:9"})
        output: Output = next(o for o in old.outputs if o.name == HEADERS_OUTPUT)
        store.blob_path(output.digest).unlink()
        code, out, _ = run("why-miss", "gemm1")
        assert code == 0
        assert "  headers: was sha256:" in out

    def test_nothing_to_compare(self, run: Run, store: Store, tmp_path: Path) -> None:
        code, _, err = run("why-miss", "gemm1")
        assert code == ExitCode.INPUT
        assert "never built here" in err
        self.action(store, tmp_path / "src", 1, ["-O3"], {})
        code, out, _ = run("why-miss", "gemm1")
        assert code == 0
        assert "nothing like it" in out
        assert js(run("why-miss", "gemm1", "--json"))["nearest"] is None


@pytest.mark.parametrize(
    ("text", "size"),
    [
        *[("0", 0), ("800", 800), ("800B", 800), ("1k", 1024), ("1.5 G", 3 << 29)],
        *[("20GiB", 20 << 30), ("2mb", 2 << 20)],
        *[("-1", None), ("", None), ("GiB", None), ("1 2", None), ("1x", None)],
    ],
)
def test_sizes(text: str, size: int | None) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "age"),
    [
        *[("90s", 90), ("30min", 1800), ("1.5h", 5400), ("2d", 172800), ("1w", 604800)],
        *[("3", None), ("-3d", None), ("", None), ("3 years", None)],
    ],
)
def test_ages(text: str, age: float | None) -> None:
    assert parse_age(text) == age


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_option_is_documented(command: str, run: Run) -> None:
    page = (Path(__file__).parent.parent / "docs" / f"{command}.md").read_text()
    headings = [line[3:] for line in page.splitlines() if line.startswith("## ")]
    assert headings == ["Usage", "What it does", "Examples", "Options", "See also"]
    options = {w.strip(",.") for w in run(command, "--help")[1].split() if w.startswith("--")}
    for option in options - {"--help"}:
        assert option in page, option
