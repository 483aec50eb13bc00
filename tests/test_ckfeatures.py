"""What a CK can build is told from its headers."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitcache.action.ckfeatures import missing, require, template_parameters
from jitcache.codegen.catalog import ModuleSpec, Quant, Variant
from jitcache.codegen.catalog.select import instances
from jitcache.errors import UnsupportedError

OLDER = "bool IsInputGemm = true, bool MulRoutedWeight = false, typename LDSTypeB = ComputeTypeB"
NEWER = (
    "bool IsInputGemm = true, bool IsSplitK = false, bool MulRoutedWeight = false,\n"
    "typename LDSTypeB = ComputeTypeB, bool NonTemporalLoadB = false"
)


def header(parameters: str, struct: str = "DeviceMoeGemmBlockScale") -> str:
    return (
        "#pragma once\n// struct DeviceMoeGemmBlockScale : not this one\n"
        "template <typename T> struct Other {};\n"
        f"template <typename ALayout, // layout, of A\n {parameters}>\n"
        f"struct {struct}\n    : public Base<ALayout, 1>\n{{\n}};\n"
        f"template <typename T> using Alias = {struct}<T>;\n"
    )


def ck(place: Path, text: str, name: str = "device_moe_gemm_blockscale.hpp") -> Path:
    folder = place / "ck" / "tensor_operation" / "gpu" / "device" / "impl"
    folder.mkdir(parents=True)
    (folder / name).write_text(text)
    return place


def blockscale(*, splitk: bool = False, stage: int = 1, type_: str = "f8"):
    spec = ModuleSpec(type_, type_, "b16", Quant.PER_1X128, "silu", 2, True, splitk)
    return next(i for i in instances(spec, "gfx942") if i.stage == stage)


PLAIN = Variant(hot_loop=True, tail="even", non_temporal=False)
PAST_CACHE = Variant(hot_loop=True, tail="even", non_temporal=True)


def test_template_parameters_are_named_in_order():
    assert template_parameters(header(OLDER), "DeviceMoeGemmBlockScale") == (
        *("ALayout", "IsInputGemm", "MulRoutedWeight", "LDSTypeB"),
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "struct DeviceMoeGemmBlockScale;",
        "struct DeviceMoeGemmBlockScale {};",
        "template <typename T> struct DeviceMoeGemmBlockScaleX {};",
        "// template <typename T> struct DeviceMoeGemmBlockScale {};",
        "template <typename T> int f(); struct DeviceMoeGemmBlockScale {};",
    ],
)
def test_a_header_without_the_class_template_has_no_parameters(text):
    assert template_parameters(text, "DeviceMoeGemmBlockScale") is None


@given(st.text(alphabet="template<>, struct X:{}=/*\n", max_size=80))
def test_any_text_is_read(text):
    found = template_parameters(text, "X")
    assert found is None or all(name.isidentifier() for name in found)


@pytest.mark.parametrize(
    ("parameters", "splitk", "stage", "variant", "lack"),
    [
        (OLDER, False, 1, PLAIN, None),
        (OLDER, False, 2, PLAIN, None),
        (OLDER, False, 1, PAST_CACHE, "no template parameter NonTemporalLoadB"),
        (OLDER, False, 1, None, None),
        (OLDER, True, 1, PLAIN, "no template parameter IsSplitK"),
        (OLDER, True, 1, None, "no template parameter IsSplitK"),
        (OLDER, True, 2, PLAIN, None),
        (NEWER, False, 1, PAST_CACHE, None),
        (NEWER, True, 1, PAST_CACHE, None),
        (NEWER.replace(", bool NonTemporalLoadB = false", ""), False, 2, PLAIN, "but not NonT"),
        (NEWER.replace("bool IsSplitK = false,", ""), False, 2, PLAIN, "but not IsSplitK"),
    ],
)
def test_what_the_blockscale_operation_lacks(tmp_path, parameters, splitk, stage, variant, lack):
    include = ck(tmp_path, header(parameters))
    said = missing(include, blockscale(splitk=splitk, stage=stage), variant)
    assert said is None if lack is None else lack in said


@pytest.mark.parametrize("parameters", [OLDER, NEWER])
def test_no_form_of_the_blockscale_operation_takes_int8(tmp_path, parameters):
    include = ck(tmp_path, header(parameters))
    assert "int8" in missing(include, blockscale(type_="i8"), PLAIN)


def test_other_operations_need_their_header_and_nothing_more(tmp_path):
    spec = ModuleSpec("b16", "b16", "b16", Quant.NO, "silu", 2, True)
    instance = instances(spec, "gfx942")[0]
    said = missing(tmp_path / "none", instance)
    assert said == "it has no operation DeviceMoeGemm in device_moe_gemm.hpp"
    text = header("int N", "DeviceMoeGemm")
    assert missing(ck(tmp_path / "some", text, "device_moe_gemm.hpp"), instance) is None


def test_a_refusal_names_ck_the_family_and_the_feature(tmp_path):
    include = ck(tmp_path, header(OLDER))
    require(include, "1a2b3c", [(blockscale(), PLAIN)])
    with pytest.raises(UnsupportedError) as caught:
        require(include, "1a2b3c", [(blockscale(), PLAIN), (blockscale(), PAST_CACHE)])
    assert "CK 1a2b3c" in caught.value.what
    (detail,) = caught.value.details
    assert "a8w8blkscale" in detail
    assert "NonTemporalLoadB" in detail
    assert "--ck" in (caught.value.hint or "")
