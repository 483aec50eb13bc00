"""Samples against CK itself: its descriptors of weights, and a pair of capsules for real."""

from __future__ import annotations

import re
import subprocess

import numpy as np
import pytest

from jitcache.capture.choice import MODULES, choose
from jitcache.codegen.catalog import instances, weight_pack
from tests import capsule_decoder as decoder
from tests.test_csrc import ck_include, toolchain
from tests.test_kernargs import CASES, POINTERS, build_program

CHOICES = {f"{c.family}-{c.arch}": c for c in choose()}


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("capture")


def indices(program, index: int, rows: int, k: int) -> np.ndarray:
    """Where CK looks for each stored element of the weights of an instance."""
    question = " ".join(map(str, (index, *("0x0" for _ in POINTERS), 1, 1, 1, rows, k)))
    answer = subprocess.run([program], input=question, capture_output=True, text=True, check=True)
    return np.array(answer.stdout.split(), int).reshape(rows, k)


@pytest.mark.compile
@pytest.mark.parametrize("name", CHOICES)
def test_weights_lie_where_cks_descriptors_look_for_them(name, work):
    choice = CHOICES[name]
    tools = toolchain(work, choice.arch)
    listed = tuple(launch.instance for launch in choice.launches)
    flags = ("-DCK_LAYOUT", *(("-DCK_GFX950",) if choice.arch == "gfx950" else ()))
    program = build_program(tools, CASES[choice.family][1], listed, work / name, *flags)
    packed = 2 if choice.spec.b == "fp4x2" else 1
    for index, launch in enumerate(choice.launches):
        rows, k = launch.n, launch.k // packed
        if choice.spec.preshuffle:
            words = decoder.NAME.search(launch.instance.name).groupdict()
            ours = decoder.lanes_of_b(rows, k, decoder.pack_of(words) // packed)
        else:
            ours = np.arange(rows * k).reshape(rows, k)
        assert np.array_equal(indices(program, index, rows, k), ours)


@pytest.mark.compile
def test_tiles_that_load_half_as_much_do_not_fit_aiters_shuffle(work):
    # Why they are not among the samples, as docs/capture.md says.
    every = instances(MODULES["a8w8"], "gfx942")
    program = build_program(toolchain(work, "gfx942"), "plain", every, work / "half", "-DCK_LAYOUT")
    for index, instance in enumerate(every):
        found = indices(program, index, instance.tile.n, 256)
        pack = weight_pack(instance, "gfx942")
        assert np.array_equal(found, decoder.lanes_of_b(instance.tile.n, 256, pack))
    assert sum(weight_pack(i, "gfx942") == 8 for i in every) == 7


SHUFFLE = r"""
#include <cstdint>
#include <cstdio>
#include <vector>
namespace ck { using e8m0_bexp_t = int32_t; }
@CK@
int main()
{
    const int rows = @ROWS@, columns = @COLUMNS@;
    std::vector<int32_t> from(rows * columns), to(rows * columns, -1);
    for(int i = 0; i < rows * columns; i++) from[i] = i;
    preShuffleScaleBuffer<true>(from.data(), to.data(), rows, columns);
    for(int32_t index : to) std::printf("%d ", index);
}
"""


@pytest.mark.compile
def test_scales_lie_where_cks_example_puts_them(work):
    example = "example/67_gemm_microscaling/gemm_mx_common.hpp"
    source = ck_include(toolchain(work, "gfx950")).parent / example
    if not source.exists():
        pytest.skip("this CK has no examples")
    found = re.search(
        r"template <bool KLast>\nvoid preShuffleScale.*?\n}\n", source.read_text(), re.DOTALL
    )
    rows, columns = 96, 24
    text = SHUFFLE.replace("@CK@", found[0]).replace("@ROWS@", str(rows))
    program = work / "scales"
    program.with_suffix(".cpp").write_text(text.replace("@COLUMNS@", str(columns)))
    subprocess.run(["c++", "-o", program, program.with_suffix(".cpp")], check=True)
    said = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    theirs = np.array(said.split(), int)
    ours = np.empty(rows * columns, int)
    ours[decoder.lanes_of_scales(rows, columns)] = np.arange(rows * columns).reshape(rows, columns)
    assert np.array_equal(theirs, ours)
