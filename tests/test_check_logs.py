"""tools/check_logs on a CMake project of three files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOOL = ROOT / "tools" / "check_logs"
NEEDED = ("cmake", "cc")

pytestmark = [
    pytest.mark.compile,
    pytest.mark.skipif(not all(map(shutil.which, NEEDED)), reason="CMake or cc is not installed"),
]


def check(tmp_path: Path, ninja: str = "") -> subprocess.CompletedProcess[str]:
    source = tmp_path / "project"
    source.mkdir()
    (source / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.10)\nproject(small C)\n"
        "add_library(part STATIC part.c other.c)\n"
        "add_executable(whole main.c)\ntarget_link_libraries(whole part)\n"
    )
    for name in ("part", "other"):
        (source / f"{name}.c").write_text(f"int {name}(int x) {{ return x; }}\n")
    (source / "main.c").write_text("int main(void) { return 0; }\n")
    argv = [sys.executable, str(TOOL), str(source), "--json"]
    return subprocess.run(
        [*argv, *(["--ninja", ninja] if ninja else [])],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_every_build_agrees_with_the_independent_figures(tmp_path: Path) -> None:
    done = check(tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [r["build"] for r in rows] == [
        *("cold -j2", "one source touched", "cold -j1", "interrupted", "resumed"),
    ]
    assert all(r["equal"] for r in rows)
    assert rows[0]["commands"] == 5
    assert rows[1]["commands"] == 3
    assert 2 <= rows[3]["commands"] < 5
    assert rows[3]["commands"] + rows[4]["commands"] == 5
    assert rows[2]["path_ms"] < rows[2]["wall_ms"]
    assert rows[2]["simulated_ratio"] == pytest.approx(1, abs=0.1)


def test_a_difference_is_told(tmp_path: Path) -> None:
    """A ninja whose graph lacks all arrows: the independent path is too short."""
    from jitcache.build.ninjabin import find_ninja

    ninja = tmp_path / "ninja"
    real = find_ninja()
    ninja.write_text(
        f'#!/bin/sh\ncase "$*" in\n*graph*) "{real}" "$@" | sed "/-> /d" ;;\n'
        f'*) exec "{real}" "$@" ;;\nesac\n'
    )
    ninja.chmod(0o755)
    done = check(tmp_path, str(ninja))
    assert done.returncode == 1, done.stderr
    cold = [r["equal"] for r in json.loads(done.stdout) if r["build"].startswith("cold")]
    assert cold == [False, False]
