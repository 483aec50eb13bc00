"""build.ninja, as the real ninja reads it."""

from __future__ import annotations

import dataclasses
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jitcache.build.action import (
    Action,
    action_of,
    actions_of,
    longest_first,
    reproduce_command,
)
from jitcache.build.ninjabin import find_ninja
from jitcache.build.ninjafile import edge_command, escape_path, escape_value, render
from jitcache.errors import ToolchainError
from jitcache.toolchain.environment import clean_environment
from tests.build_help import job, key

EDGE = Path("/x y/$edge.py")


def command_of(action: Action) -> list[str]:
    """What the shell gets to see, by the real ninja."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "build.ninja").write_text(render([action], python=sys.executable, edge=EDGE))
        done = subprocess.run(
            [find_ninja(), "-t", "commands"], cwd=directory, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return shlex.split(done.stdout)


def with_argv(*argv: str) -> Action:
    return action_of(dataclasses.replace(job("odd"), argv=argv))


@settings(max_examples=25)
@given(
    st.lists(
        st.text(st.characters(exclude_characters="\0\n\r", exclude_categories=["Cs"]), max_size=20),
        min_size=1,
        max_size=4,
    )
)
def test_every_word_reaches_the_compiler_as_it_is(words: list[str]) -> None:
    action = with_argv("cc", *words)
    got = command_of(action)
    assert got[got.index("--") + 1 :] == list(action.argv)


def test_words_that_would_mean_something_to_ninja_or_a_shell() -> None:
    words = [
        "$x",
        "${in}",
        "$$",
        "a b",
        "'",
        '"',
        "`id`",
        "$(id)",
        "\\",
        "#",
        "|",
        "&&",
        "*",
        "",
        " ",
    ]
    got = command_of(with_argv("cc", *words))
    assert got[got.index("--") + 2 :] == words


def test_placeholders_become_relative_paths_also_inside_words() -> None:
    action = with_argv("cc", "-o{output}", "{source}", "-MF", "{depfile}", "{other}", "{{source}}")
    place = f"actions/{key('odd')[7:23]}"
    assert action.argv == (
        "cc",
        f"-o{place}/kernel.co",
        f"{place}/tu.cu",
        "-MF",
        f"{place}/depfile.d",
        "{other}",
        f"{{{place}/tu.cu}}",
    )
    assert action.needs_depfile
    assert not with_argv("cc", "{source}").needs_depfile


def test_edges_stand_longest_first_and_unknown_before_all() -> None:
    jobs = [job("b", cost_s=2), job("a", cost_s=30), job("u"), job("c", cost_s=2)]
    assert [a.job.label for a in longest_first(actions_of(jobs))] == ["u", "a", "b", "c"]
    text = render(actions_of(jobs), python="python", edge=EDGE)
    labels = [line[10:] for line in text.splitlines() if line.startswith("  label = ")]
    assert labels == ["u", "a", "b", "c"]


def test_the_command_replaces_the_shell() -> None:
    assert edge_command(with_argv("cc"), "python", EDGE).startswith("exec python -I -S ")


def test_escapes() -> None:
    assert escape_path("a b:$c") == "a$ b$:$$c"
    assert escape_value("a b:$c") == "a b:$$c"
    assert escape_value("  x") == "$  x"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\nb", "a|b", "depfile.d", "tu.cu"])
def test_names_that_are_no_file_of_an_action_are_bugs(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        action_of(job("x", output_name=name))


def test_malformed_jobs_are_bugs() -> None:
    with pytest.raises(ValueError, match="can't stand"):
        with_argv("cc", "two\nlines")
    with pytest.raises(ValueError, match="no command"):
        with_argv()
    with pytest.raises(ValueError, match="not an action key"):
        action_of(dataclasses.replace(job("x"), key="sha256:xyz"))
    with pytest.raises(ValueError, match="share a key"):
        actions_of([job("x"), job("x")])
    with pytest.raises(ValueError, match="variable"):
        action_of(job("x", env=(("A B", "c"),)))


def test_environment_holds_nothing_that_changes_bytes() -> None:
    caller = {
        "PATH": "/bin",
        "HOME": "/h",
        "CPATH": "/evil",
        "CCC_OVERRIDE_OPTIONS": "#O0",
        "ROCM_PATH": "/r",
        "LD_PRELOAD": "x.so",
        "LANG": "de_DE",
    }
    assert clean_environment(caller, "/run/tmp") == {
        "PATH": "/bin",
        "HOME": "/h",
        "LANG": "C",
        "LC_ALL": "C",
        "TMPDIR": "/run/tmp",
    }


def test_reproduce_command_is_one_line_a_shell_understands() -> None:
    action = action_of(dataclasses.replace(job("x"), argv=("cc", "a b"), env=(("A", "1 2"),)))
    assert reproduce_command(action, "/run d") == (
        'cd \'/run d\' && env -i PATH="$PATH" HOME="$HOME" LANG=C LC_ALL=C '
        "TMPDIR=\"$PWD/tmp\" A='1 2' cc 'a b'"
    )


def test_ninja_of_the_variable_or_a_clear_refusal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = tmp_path / "my-ninja"
    fake.write_text("#!/bin/sh\n")
    monkeypatch.setenv("JITCACHE_NINJA", str(fake))
    with pytest.raises(ToolchainError, match="not a program"):
        find_ninja()
    fake.chmod(0o755)
    assert find_ninja() == fake
    monkeypatch.delenv("JITCACHE_NINJA")
    assert find_ninja().name == "ninja"


@pytest.mark.parametrize("version", [5, 7])
def test_the_file_alone_decides_the_order_of_independent_commands(
    tmp_path: Path, version: int
) -> None:
    """Durations in a log don't, in ninja 1.11 and 1.13, so a first build needs no seeded log."""
    (tmp_path / "build.ninja").write_text(
        "rule r\n  command = echo $out >> order\nbuild a: r\nbuild b: r\nbuild c: r\n"
    )
    times = {"a": 10, "b": 9000, "c": 500}
    lines = [f"0\t{ms}\t0\t{output}\t0\n" for output, ms in times.items()]
    (tmp_path / ".ninja_log").write_text(f"# ninja log v{version}\n{''.join(lines)}")
    subprocess.run([find_ninja(), "-j", "1"], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "order").read_text().split() == ["a", "b", "c"]


def test_a_first_build_starts_the_longest_expected_first(tmp_path: Path) -> None:
    costs = {"small": 1.0, "big": 9.0, "middle": 5.0}
    jobs = [
        dataclasses.replace(job(name), cost_s=cost, argv=("sh", "-c", f"echo {name} >> order"))
        for name, cost in costs.items()
    ]
    edge = tmp_path / "edge.py"
    # In place of the real one: runs what stands behind the dashes.
    edge.write_text("import subprocess, sys\nsubprocess.run(sys.argv[sys.argv.index('--') + 1:])\n")
    for action in actions_of(jobs):
        (tmp_path / action.source).parent.mkdir(parents=True)
        (tmp_path / action.source).touch()
    text = render(actions_of(jobs), python=sys.executable, edge=edge)
    (tmp_path / "build.ninja").write_text(text)
    subprocess.run([find_ninja(), "-j", "1"], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "order").read_text().split() == ["big", "middle", "small"]
