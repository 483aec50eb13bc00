from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitcache import codeobject
from jitcache.errors import InputError
from tests.elf_help import code_object, kernel


def test_reads_what_the_metadata_says():
    found = codeobject.read(code_object(target="amdgcn-amd-amdhsa--gfx942:sramecc+:xnack-"))
    assert found.arch == "gfx942"
    assert found.features == ("sramecc+", "xnack-")
    (only,) = found.kernels
    assert only.symbol == "_Z6kernelv"
    assert (only.kernarg_size, only.vgprs, only.vgpr_spills, only.lds) == (200, 256, 46, 32768)


def test_leaves_out_helper_kernels_without_arguments():
    flush = kernel("_ZN2ckL12flush_icacheEv", **{".kernarg_segment_size": 0})
    found = codeobject.read(code_object([flush, kernel("_Z4mainv")]))
    assert [k.symbol for k in found.kernels] == ["_Z4mainv"]


def test_reads_a_file(tmp_path):
    path = tmp_path / "k.co"
    path.write_bytes(code_object())
    assert codeobject.read(path).arch == "gfx950"


def test_a_missing_file_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="can't be read"):
        codeobject.read(tmp_path / "absent.co")


def test_host_code_is_refused_by_name():
    with pytest.raises(InputError, match="not an AMD GPU"):
        codeobject.read(code_object(machine=62))


def test_metadata_without_kernels_is_malformed():
    with pytest.raises(InputError, match="malformed AMDGPU metadata"):
        codeobject.read(code_object(note=b"\x81\xa1a\x01"))


@given(st.integers(0, 400), st.integers(0, 255))
def test_a_changed_byte_is_an_error_or_still_a_code_object(at, value):
    data = bytearray(code_object())
    data[at % len(data)] = value
    try:
        assert isinstance(codeobject.read(bytes(data)), codeobject.CodeObject)
    except InputError:
        pass


@given(st.binary(max_size=300))
def test_garbage_is_an_input_error(data):
    with pytest.raises(InputError):
        codeobject.read(data)


@given(st.integers(0, 390))
def test_a_truncated_file_is_an_input_error(length):
    data = code_object()
    with pytest.raises(InputError):
        codeobject.read(data[: min(length, len(data) - 1)])
