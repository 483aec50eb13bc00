"""Front end and back end apart: which flags go where, and the same bytes as one compile."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitcache import digest
from jitcache.action.split import (
    back_argv,
    find_bitcode_tools,
    front_command,
    mllvm_options,
    without_mllvm,
)
from jitcache.sweep.flagset import FlagSet, with_flags
from jitcache.toolchain.environment import clean_environment
from tests.compile_help import Alone, cheapest, installed
from tests.fake_toolchain import add_bitcode_tools, make_toolchain

flags = st.lists(
    st.one_of(
        st.sampled_from([("-O3",), ("-fno-x",)]),
        st.sampled_from(["--a=1", "-b"]).map(lambda option: ("-mllvm", option)),
    )
).map(lambda parts: tuple(word for part in parts for word in part))


@given(flags)
def test_every_flag_goes_to_one_half(words) -> None:
    options = mllvm_options(words)
    assert len(without_mllvm(words)) + 2 * len(options) == len(words)
    assert "-mllvm" not in without_mllvm(words)
    assert not {*without_mllvm(words)} & {"--a=1", "-b"}
    assert {*options} <= {"--a=1", "-b"}


def test_back_end_flags_are_not_in_the_front_ends_command(tmp_path) -> None:
    toolchain = make_toolchain(tmp_path)
    other = replace(toolchain, device_flags=("-mllvm", "-other"))
    assert front_command(toolchain) == front_command(other)
    assert "-disable-llvm-passes" in front_command(toolchain).flags
    assert "-mllvm" not in front_command(toolchain).argv
    words = back_argv(other, "gfx942")
    assert words[words.index("-other") - 1] == "-mllvm"
    assert "-mcpu=gfx942" in words


def test_the_programs_must_all_be_there(tmp_path) -> None:
    toolchain = make_toolchain(tmp_path)
    assert find_bitcode_tools(toolchain.compiler) is None
    add_bitcode_tools(tmp_path)
    found = find_bitcode_tools(toolchain.compiler)
    assert found is not None
    assert found.opt == tmp_path / "opt"
    (tmp_path / "llvm-nm").unlink()
    assert find_bitcode_tools(toolchain.compiler) is None


@pytest.mark.compile
def test_two_halves_give_the_bytes_of_one_compile(tmp_path: Path, alone: Alone) -> None:
    toolchain, recipe = installed("gfx950"), cheapest()
    (tmp_path / recipe.source_name).write_text(recipe.render())
    changed = with_flags(toolchain, FlagSet(("-enable-misched=0",)))

    def run(argv: tuple[str, ...], output: str) -> str:
        names = {
            "{source}": recipe.source_name,
            "{output}": output,
            "@output": output,
            "@bitcode": "kernel.bc",
        }
        done = subprocess.run(
            [names.get(w, w) for w in argv],
            cwd=tmp_path,
            env=clean_environment(os.environ, str(tmp_path)),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[:2000]
        return digest.of_file(tmp_path / output)

    run(front_command(toolchain).argv, "kernel.bc")
    halves = [run(back_argv(each, "gfx950"), "halves.co") for each in (toolchain, changed)]
    assert halves == [alone.digest(each, recipe) for each in (toolchain, changed)]
    assert halves[0] != halves[1]
