"""`jitcache doctor` on machines of files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jitcache.cli import doctor
from jitcache.cli.main import main
from jitcache.errors import ExitCode
from jitcache.toolchain.base import Request
from tests.fake_machine import FakeMachine

Doctor = Callable[..., tuple[int, str, str]]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    """A machine that the command searches instead of the real one."""
    fake = FakeMachine(tmp_path)
    monkeypatch.setenv("JITCACHE_DIR", str(fake.cache))
    monkeypatch.delenv("JITCACHE_NINJA", raising=False)

    def make(arch: str, *, provider: Any, ck: Path | None) -> Request:
        return fake.request(arch, provider=provider, ck=ck or fake.ck)

    monkeypatch.setattr(doctor, "make_request", make)
    return fake


@pytest.fixture
def call(machine: FakeMachine, capsys: pytest.CaptureFixture[str]) -> Doctor:
    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main(["doctor", *words])
        captured = capsys.readouterr()
        return int(caught.value.code or 0), captured.out, captured.err

    return run


def test_complete_machine_is_ready(machine: FakeMachine, call: Doctor) -> None:
    machine.llvm().rejected.write_text("--slp-threshold=-32")
    code, out, err = call()
    assert (code, err) == (ExitCode.OK, "")
    assert out.endswith("ready to build for gfx950\n")
    assert "provider llvm, for gfx950" in out
    assert "shortcuts through CK: not used: not proved with these CK headers (sha256:" in out
    assert "flags that this compiler does not know, left out: -mllvm --slp-threshold=-32" in out
    rows = {line.split()[1]: line.split() for line in out.splitlines() if line.startswith("found")}
    assert rows["clang"][2] == "22.1.8"
    assert len(rows["clang"][3]) == 12
    assert rows["ck"][-1] == str(machine.ck)


def test_json_says_the_same(machine: FakeMachine, call: Doctor) -> None:
    machine.llvm()
    code, out, err = call("--json", "--arch", "gfx942")
    assert (code, err) == (ExitCode.OK, "")
    value = json.loads(out)
    assert value["ok"] is True
    assert value["arch"] == "gfx942"
    assert value["toolchain"].startswith("llvm-22.1.8-hip5.2-ck")
    parts = {p["name"]: p for p in value["parts"]}
    assert {p["status"] for p in parts.values()} == {"found"}
    assert parts["device-libs"]["digest"].startswith("sha256:")
    assert value["store"]["path"] == str(machine.cache)
    assert value["store"]["free_bytes"] > 0
    assert value["machine"]["cores"] == os.cpu_count()
    assert value["ninja"]["status"] == "found"
    assert value["no_shortcuts"].endswith("or Some clang version 22.1.8 (vendor)")
    # The compiler of this machine is a script, which gets none.
    assert value["allocator"]["name"] is None
    assert "no program" in value["allocator"]["detail"]


def test_missing_part_is_told_with_the_next_step(machine: FakeMachine, call: Doctor) -> None:
    machine.llvm()
    (machine.root / "usr/bin/lld").unlink()
    code, out, err = call()
    assert code == ExitCode.TOOLCHAIN
    assert "missing lld: neither beside clang nor on PATH\n  next: " in out
    assert "ready" not in out
    assert "error: nothing can be built for gfx950 here" in err
    assert "hint: run tools/setup" in err
    code, out, err = call("--json")
    assert code == ExitCode.TOOLCHAIN
    value = json.loads(out)
    assert (value["ok"], value["toolchain"]) == (False, None)
    assert {p["name"]: p["status"] for p in value["parts"]}["lld"] == "missing"


def test_provider_and_ck_are_passed_on(machine: FakeMachine, call: Doctor, tmp_path: Path) -> None:
    machine.llvm()
    code, out, _ = call("--provider", "rocm")
    assert code == ExitCode.TOOLCHAIN
    assert "missing rocm: " in out
    code, out, _ = call("--ck", str(tmp_path / "nothing"))
    assert code == ExitCode.TOOLCHAIN
    assert "wrong ck: --ck names it" in out


@pytest.mark.parametrize("words", [("--arch", "gfx1100"), ("--provider", "cuda"), ("extra",)])
def test_bad_command_line(call: Doctor, words: tuple[str, ...]) -> None:
    code, out, err = call(*words)
    assert (code, out) == (ExitCode.USAGE, "")
    assert "Error" in err


def test_ninja_that_cannot_run_is_a_reason(
    machine: FakeMachine, call: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.llvm()
    monkeypatch.setenv("JITCACHE_NINJA", str(machine.base / "no-ninja"))
    code, out, err = call()
    assert code == ExitCode.TOOLCHAIN
    assert "problem: not a program that can be run" in out
    assert "JITCACHE_NINJA" in err
    broken = machine.write("broken-ninja", "#!/bin/sh\necho bad luck >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("JITCACHE_NINJA", str(broken))
    code, out, _ = call()
    assert code == ExitCode.TOOLCHAIN
    assert "does not run: bad luck" in out


def test_store_that_everybody_can_write_is_a_reason(machine: FakeMachine, call: Doctor) -> None:
    machine.llvm().cache.mkdir()
    machine.cache.chmod(0o777)
    code, out, _ = call()
    assert code == ExitCode.TOOLCHAIN
    assert "every user can write here" in out


def test_little_space_is_told(
    machine: FakeMachine, call: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.llvm()
    real = os.statvfs

    def little(path: Any) -> Any:
        st = list(real(path))
        st[4] = 300 * (1 << 20) // st[1]  # f_bavail, in units of f_frsize
        return os.statvfs_result(st)

    monkeypatch.setattr(os, "statvfs", little)
    code, out, _ = call()
    assert code == ExitCode.OK
    assert "note: only 300.0 MiB are free" in out


def test_packages_are_checked_against_our_own_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    versions = {"click": "8.1.8", "ninja": "1.10.0"}

    def version(name: str) -> str:
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    wanted = [
        "click>=8.1.8",
        "ninja>=1.11.1.2",
        "msgspec>=0.19",
        'torch>=2.5; extra == "torch"',
        'ruff>=0.11; extra == "dev"',
    ]
    monkeypatch.setattr(metadata, "requires", lambda name: wanted if name == "jitcache" else None)
    monkeypatch.setattr(metadata, "version", version)
    found = {p.name: (p.status, p.version, p.extra) for p in doctor.declared_packages()}
    assert found == {
        "click": ("found", "8.1.8", ""),
        "ninja": ("wrong", "1.10.0", ""),
        "msgspec": ("missing", "", ""),
        "torch": ("missing", "", "torch"),
    }


def test_missing_package_is_a_reason(
    machine: FakeMachine, call: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.llvm()
    packages = [
        doctor.Package("torch", ">=2.5", "torch", "", "missing"),
        doctor.Package("click", ">=8", "", "8.2.0", "found"),
    ]
    monkeypatch.setattr(doctor, "declared_packages", lambda: packages)
    code, out, _ = call()
    assert code == ExitCode.OK  # what only an extra needs is no reason
    assert "torch absent (extra torch)" in out
    packages.append(doctor.Package("msgspec", ">=0.19", "", "", "missing"))
    code, out, err = call()
    assert code == ExitCode.TOOLCHAIN
    assert "problem: the Python package msgspec is not installed, >=0.19 is needed" in out
    assert 'pip install "msgspec>=0.19"' in err


@pytest.mark.parametrize(
    ("version", "condition", "fits"),
    [
        ("8.1.8", ">=8.1.8", True),
        ("8.1.10", ">=8.1.8", True),
        ("8.1", ">=8.1.8", False),
        ("1.13.2.git.x", ">=1.11.1.2", True),
        ("3", "", True),
        ("0.18.9", ">=0.19,<2", False),
    ],
)
def test_lower_bounds(version: str, condition: str, fits: bool) -> None:
    assert doctor.satisfies(version, condition) is fits


def test_unknown_memory_is_not_a_number(
    machine: FakeMachine, call: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jitcache.build import capacity

    machine.llvm()
    monkeypatch.setattr(capacity, "read_machine", lambda: capacity.Machine(2.0, 1 << 60))
    assert "2 CPUs usable, an unknown amount of memory free" in call()[1]
    assert json.loads(call("--json")[1])["machine"]["memory_bytes"] is None


def test_gpus_of_the_kernel_driver(tmp_path: Path) -> None:
    nodes = tmp_path / "sys/class/kfd/kfd/topology/nodes"
    cards = {"0": (0, 0, 0), "2": (90402, 1216, 4), "10": (90500, 1024, 4), "11": (90010, 8, 0)}
    for name, (target, simds, per_cu) in cards.items():
        (nodes / name).mkdir(parents=True)
        text = f"simd_count {simds}\nsimd_per_cu {per_cu}\ngfx_target_version {target}\nname x\n"
        (nodes / name / "properties").write_text(text)
    (nodes / "12").mkdir()
    (nodes / "13").mkdir()
    (nodes / "13" / "properties").write_text("gfx_target_version garbage\n")
    assert doctor.find_gpus(tmp_path) == [
        {"node": "2", "arch": "gfx942", "compute_units": 304},
        {"node": "10", "arch": "gfx950", "compute_units": 256},
        {"node": "11", "arch": "gfx90a", "compute_units": 0},
    ]
    assert doctor.find_gpus(tmp_path / "nowhere") == []
