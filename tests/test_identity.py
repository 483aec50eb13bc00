"""The identity check: what it calls the same, and that it can say no."""

from __future__ import annotations

import pytest

from jitcache.identity import Blob, Different, Same, compare, parse_disassembly

LISTING = """
kernel.co:\tfile format elf64-amdgpu

Disassembly of section .text:

0000000000003000 <other>:
\ts_endpgm                                                   // 000000003000: BF810000

0000000000003100 <kernel>:
\ts_getpc_b64 s[0:1]                                         // 000000003100: BE801C00
\ts_add_u32 s0, s0, 0xffffee3c                               // 000000003104: 8000FF00 FFFFEE3C
\ts_addc_u32 s1, s1, lit(0xffffffff)                         // 00000000310C: 8201FF01 FFFFFFFF
\ts_load_dword s29, s[0:1], 0x0                              // 000000003114: C0020740 00000000
\tv_mfma_f32_16x16x128_f8f6f4 a[0:3], v[0:3], v[4:7], a[0:3] // 00000000311C: D3AD0000 04020900
\ts_cbranch_scc1 12                                          // 000000003124: BF85000C <kernel+0x58>
\ts_endpgm                                                   // 000000003128: BF810000
\ts_code_end                                                 // 00000000312C: BF9F0000
"""
# 0x3104 + 0xffffffffffffee3c = 0x1f40
CONSTANTS = [Blob(0x1F40, b"\x07\0\0\0")]
RESOURCES = {"vgprs": 256, "lds": 32768}


def kernel(text: str = LISTING):
    return parse_disassembly(text)["kernel"]


def moved(text: str = LISTING, by: int = 0x1000) -> str:
    """The same kernel at another address, with its constant where it was."""
    lines = []
    for line in text.splitlines():
        head, mark, tail = line.partition("// ")
        address, colon, rest = tail.partition(":")
        lines.append(f"{head}// {int(address, 16) + by:012X}{colon}{rest}" if mark else line)
    distance = (0x1F40 - (0x3104 + by)) & 0xFFFFFFFF
    return "\n".join(lines).replace("0xffffee3c", hex(distance))


def verdict(text: str, constants=None, resources=None):
    return compare(
        kernel(),
        CONSTANTS,
        RESOURCES,
        kernel(text),
        CONSTANTS if constants is None else constants,
        RESOURCES if resources is None else resources,
    )


def test_functions_end_where_the_next_begins():
    functions = parse_disassembly(LISTING)
    assert [len(functions[n]) for n in ("other", "kernel")] == [1, 8]
    assert functions["kernel"][1].size == 8


def test_a_kernel_is_the_same_as_itself():
    assert verdict(LISTING) == Same(instructions=7, constants=1)


def test_a_moved_kernel_is_the_same_because_its_constants_are():
    assert "0xffffde3c" in moved()
    assert verdict(moved()) == Same(instructions=7, constants=1)


def test_a_moved_kernel_whose_constant_differs_is_not():
    found = verdict(moved(), constants=[Blob(0x1F40, b"\x08\0\0\0")])
    assert isinstance(found, Different)
    assert "07000000" in found.differences[0]


def test_a_moved_kernel_that_points_nowhere_known_is_not():
    assert isinstance(verdict(moved(), constants=[]), Different)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("a[0:3], v[0:3]", "a[0:3], v[8:11]"),
        ("s_cbranch_scc1 12", "s_cbranch_scc1 13"),
        ("s_load_dword s29", "s_load_dword s30"),
        ("v_mfma_f32_16x16x128_f8f6f4", "v_mfma_f32_32x32x64_f8f6f4"),
    ],
)
def test_any_other_operand_counts(old, new):
    found = verdict(LISTING.replace(old, new))
    assert isinstance(found, Different)
    assert found.count == 1


def test_a_missing_instruction_counts():
    lines = [x for x in LISTING.splitlines() if "s_load_dword" not in x]
    assert isinstance(verdict("\n".join(lines)), Different)


def test_padding_after_the_end_does_not_count():
    lines = [x for x in LISTING.splitlines() if "s_code_end" not in x]
    assert verdict("\n".join(lines)) == Same(instructions=7, constants=1)


def test_resources_count():
    found = verdict(LISTING, resources={"vgprs": 255, "lds": 32768})
    assert found == Different(("vgprs: 256 | 255",), 1)


def test_nothing_is_not_the_same_as_nothing():
    assert isinstance(compare([], [], {}, [], [], {}), Different)
