"""What the emulator refuses, and what no compiler's own program shows of it."""

from __future__ import annotations

import itertools
import struct

import numpy as np
import pytest

from jitcache.emulator import access, launch, matrix, numbers, scalar, vector
from jitcache.emulator.memory import Device, Own
from jitcache.emulator.program import (
    FaultError,
    Instruction,
    Program,
    UnknownError,
    instructions,
)
from jitcache.emulator.wave import EXEC, LANES, VCC, Wave
from tests import emulator_help as help_

ALL = 2**64 - 1


def instruction(text: str, size: int = 4) -> Instruction:
    """What the disassembler writes in a line, without its address."""
    words = " ".join(["00000000"] * (size // 4))
    (found,) = instructions(f"\t{text} // 000000000100: {words}\n").values()
    return found


def wave(scratch: int = 0, lds: int = 0, memory: int = 1024) -> Wave:
    return Wave(Device(memory), Own(lds), scratch, 0, 0)


def program(listing: str, **settings) -> Program:
    code = instructions(listing)
    fixed = {
        "entry": min(code), "image": bytes(4096), "lds": 0, "scratch": 0,
        "user_registers": 2, "kernarg_register": 0, "workgroup": (True, True, True),
        "arch": "gfx950",
    }  # fmt: skip
    return Program(code=code, **{**fixed, **settings})


def floats(*values: float) -> np.ndarray:
    return np.resize(np.array(values, np.float32), LANES).view(np.uint32)


# ---- reading a listing


def test_a_line_is_taken_apart():
    line = "\tds_read2_b64 v[14:17], v1 offset0:48 offset1:64            // 000000003100: D8 00\n"
    (found,) = instructions(line).values()
    assert (found.name, found.operands) == ("ds_read2_b64", ("v[14:17]", "v1"))
    assert found.modifiers == {"offset0": 48, "offset1": 64}
    assert (found.address, found.size) == (0x3100, 8)
    found = instruction("buffer_load_dwordx4 v38, s[4:7], 0 offen lds")
    assert (found.operands, found.flags) == (("v38", "s[4:7]", "0"), {"offen", "lds"})
    found = instruction("v_pk_fma_f32 v[2:3], v[4:5], v[6:7], v[8:9] op_sel:[0,1,0]")
    assert found.bits("op_sel", (0, 0, 0)) == (0, 1, 0)
    assert found.bits("op_sel_hi", (1, 1, 1)) == (1, 1, 1)


def test_a_branch_knows_its_target():
    name = "kernel<x, y>"
    line = f"\ts_cbranch_scc1 1702     // 000000003134: BF8506A6 <{name}+0x1ad0>\n"
    found = instructions("\ts_nop 0      // 000000003100: BF800000\n" + line)[0x3134]
    assert found.target == 0x3100 + 0x1AD0


def test_a_listing_without_instructions_is_refused():
    with pytest.raises(UnknownError, match="a kernel without instructions"):
        instructions("file.co: file format elf64-amdgpu\n")


@pytest.mark.parametrize(
    "text",
    [
        "v_frobnicate_b32 v1, v2",
        "s_frobnicate_b32 s1, s2",
        "ds_frobnicate_b32 v1, v2",
        "ds_read_u16 v1, v2",
        "global_frobnicate_dword v1, v[2:3], off",
        "global_load_dwordx5 v[2:6], v[2:3], off",
        "buffer_store_dword v2, s[0:3], 0 offen lds",
        "s_load_dwordx3 s[0:2], s[2:3], 0x0",
        "v_mul_f32_e64 v1, v2, v3 clamp",
        "v_mul_f32_e64 v1, v2, v3 mul:2",
        "v_add_u32_e32 v1, v2, exotic",
        "global_atomic_add v1, v2, s[0:1]",
        "global_load_ushort v1, v[2:3], off",
        "buffer_load_dword v1, v2, s[0:3], 0 idxen",
        "scratch_load_dword v1, v2, off",
        "v_mfma_f32_4x4x4_16b_f16 a[0:3], v[0:1], v[2:3], 0",
        "v_mfma_f32_16x16x128_f8f6f4 v[0:3], v[4:9], v[10:15], 0 cbsz:2 blgp:2",
        "s_setreg_imm32_b32 hwreg(HW_REG_MODE, 0, 4), 3",
        "s_setreg_imm32_b32 hwreg(HW_REG_MODE, 2, 2), 3",
        "s_load_dword s0, s[2:3], s4",
    ],
)
def test_what_is_not_known_is_refused_by_name(text):
    one = program(f"\t{text} // 000000000100: 00000000\n\ts_endpgm // 000000000104: 00000000\n")
    with pytest.raises(UnknownError, match="the emulator doesn't know"):
        launch.launch(one, (1, 1, 1), (64, 1, 1), 0, b"", {})


# ---- registers, masks


def test_only_active_lanes_are_written():
    w = wave()
    w.v[1] = 5
    w.write(EXEC, 0b1010, 2)
    vector.step(instruction("v_mov_b32_e32 v1, 7"), "gfx950")(w)
    assert w.v[1, :5].tolist() == [5, 7, 5, 7, 5]
    # Of lanes that aren't active a comparison gives 0, true or not.
    vector.step(instruction("v_cmp_lt_u32_e32 vcc, 4, v1"), "gfx950")(w)
    assert w.read64(VCC) == 0b1010


@pytest.mark.parametrize(
    ("text", "expected"),
    [("v_sub_u32_e32 v3, v1, v2", 0xFFFFFFFB), ("v_subrev_u32_e32 v3, v1, v2", 5),
     ("v_lshlrev_b32_e32 v3, 4, v1", 0x70), ("v_lshrrev_b32_e32 v3, 1, v1", 3),
     ("v_ashrrev_i32_e64 v3, 1, v2", 6), ("v_lshl_add_u32 v3, v1, 4, v2", 0x7C),
     ("v_add_lshl_u32 v3, v1, v2, 1", 38), ("v_lshl_or_b32 v3, v1, 8, v2", 0x70C),
     ("v_and_or_b32 v3, v1, 3, v2", 15), ("v_or3_b32 v3, v1, v2, 16", 31),
     ("v_xad_u32 v3, v1, v2, 1", 12), ("v_bfe_i32 v3, v1, 1, 2", 0xFFFFFFFF),
     ("v_bfe_u32 v3, v1, 1, 2", 3), ("v_cndmask_b32_e32 v3, v1, v2, vcc", 12),
     ("v_cndmask_b32_e64 v3, v1, v2, s[2:3]", 7), ("v_alignbit_b32 v3, v1, v2, 4", 0x70000000)],
)  # fmt: skip
def test_the_order_of_operands(text, expected):
    w = wave()
    w.v[1], w.v[2] = 7, 12
    w.write(VCC, ALL, 2)
    w.write(2, 0, 2)
    vector.step(instruction(text), "gfx950")(w)
    assert int(w.v[3, 0]) == expected


def test_a_carry_goes_through_a_word_of_ones():
    w = wave()
    for register, value in enumerate((0xFFFFFFFF, 0xFFFFFFFF, 5, 1, 0, 0), start=10):
        w.write(register, value)
    for n, name in enumerate(("s_add_u32", "s_addc_u32", "s_addc_u32")):
        scalar.step(instruction(f"{name} s{20 + n}, s{10 + n}, s{13 + n}"))(w)
    assert (w.s[20:23], w.scc) == ([0, 0, 6], False)


def test_registers_that_nobody_wrote_are_no_numbers():
    w = wave()
    assert np.isnan(w.v.view(np.float32)).all()
    assert w.s[20] != 0


# ---- instructions that compilers rarely choose for C


@pytest.mark.parametrize(
    ("selector", "expected"),
    [(0x03020100, 0x44332211), (0x07060504, 0xDDCCBB99), (0x0C0C0105, 0x000022BB),
     (0x08090A0B, 0x0000FFFF), (0x0D0C0D0C, 0xFF00FF00)],
)  # fmt: skip
def test_bytes_are_permuted(selector, expected):
    w = wave()
    w.v[1], w.v[2], w.v[3] = 0xDDCCBB99, 0x44332211, selector
    vector.step(instruction("v_perm_b32 v4, v1, v2, v3"), "gfx950")(w)
    assert int(w.v[4, 0]) == expected


@pytest.mark.parametrize(
    ("table", "rule"),
    [(0x36, lambda a, b, c: (a | c) ^ b), (0xE8, lambda a, b, c: a & b | a & c | b & c),
     (0xCA, lambda a, b, c: a & b | ~a & c), (0x02, lambda a, b, c: ~a & ~b & c)],
)  # fmt: skip
def test_any_function_of_three_bits(table, rule):
    w = wave()
    a, b, c = 0xF0F0A5C3, 0xCCCC1234, 0xAAAA8F61
    w.v[1], w.v[2], w.v[3] = a, b, c
    vector.step(instruction(f"v_bitop3_b32 v4, v1, v2, v3 bitop3:{table:#x}"), "gfx950")(w)
    assert int(w.v[4, 0]) == rule(a, b, c) & 0xFFFFFFFF


def test_a_lane_is_read_and_written_active_or_not():
    w = wave()
    w.v[300] = np.arange(LANES)
    w.write(EXEC, 1, 2)
    w.write(5, 77)
    vector.step(instruction("v_writelane_b32 v1, s5, 9"), "gfx950")(w)
    vector.step(instruction("v_readlane_b32 s6, v1, 9"), "gfx950")(w)
    assert (w.s[6], int(w.v[1, 9]), w.v[1, 8] == 77) == (77, 77, False)
    vector.step(instruction("v_accvgpr_read_b32 v2, a44"), "gfx950")(w)
    vector.step(instruction("v_accvgpr_write_b32 a45, 3"), "gfx950")(w)
    assert (int(w.v[2, 0]), int(w.v[301, 0])) == (0, 3)


def test_int4_is_converted_to_sixteenths():
    w = wave()
    w.v[1] = np.arange(LANES) + 0x70
    vector.step(instruction("v_cvt_off_f32_i4_e32 v2, v1"), "gfx942")(w)
    signed = [n - 16 if n > 7 else n for n in range(16)] * 4
    assert (w.v[2].view(np.float32) * 16).tolist() == signed
    sdwa = "v_cvt_off_f32_i4_sdwa v2, v1 dst_sel:DWORD dst_unused:UNUSED_PAD src0_sel:BYTE_2"
    w.v[1] = 0x00F50000
    vector.step(instruction(sdwa, 8), "gfx942")(w)
    assert set(w.v[2].view(np.float32).tolist()) == {5 / 16}


def parts(to: str, unused: str, first: str, second: str) -> str:
    """Modifiers of SDWA."""
    return f"dst_sel:{to} dst_unused:UNUSED_{unused} src0_sel:{first} src1_sel:{second}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"v_or_b32_sdwa v3, v1, v2 {parts('WORD_1', 'PAD', 'BYTE_0', 'DWORD')}", 0x77FF0000),
        (f"v_or_b32_sdwa v3, v1, v2 {parts('BYTE_2', 'PRESERVE', 'BYTE_3', 'WORD_0')}", 0xABBBCDEF),
        (f"v_lshrrev_b32_sdwa v3, v4, v1 {parts('BYTE_1', 'PAD', 'DWORD', 'DWORD')}", 0x3300),
        (f"v_cndmask_b32_sdwa v3, v1, v2, vcc {parts('DWORD', 'PAD', 'DWORD', 'WORD_1')}", 0x6655),
        ("v_lshlrev_b16_e32 v3, 8, v1", 0x00004400),
        ("v_lshrrev_b16_e32 v3, 8, v1", 0x00000033),
    ],
)  # fmt: skip
def test_parts_of_registers(text, expected):
    w = wave()
    w.v[1], w.v[2], w.v[3], w.v[4] = 0x11223344, 0x665577BB, 0xABEFCDEF, 8
    w.write(VCC, ALL, 2)
    vector.step(instruction(text, 8), "gfx942")(w)
    assert hex(w.v[3, 0]) == hex(expected)


@pytest.mark.parametrize(
    ("modifiers", "low", "high"),
    [("", 3 + 20, 5 + 40), (" op_sel_hi:[1,0]", 3 + 20, 5 + 20), (" op_sel:[0,1]", 3 + 40, 5 + 40),
     (" op_sel:[1,0] op_sel_hi:[0,1]", 5 + 20, 3 + 40), (" neg_lo:[1,0]", -3 + 20, 5 + 40),
     (" neg_hi:[0,1]", 3 + 20, 5 - 40)],
)  # fmt: skip
def test_a_packed_instruction_takes_the_halves_that_it_names(modifiers, low, high):
    w = wave()
    for register, value in ((2, 3), (3, 5), (4, 20), (5, 40)):
        w.v[register] = floats(value)
    step = vector.step(instruction(f"v_pk_add_f32 v[2:3], v[2:3], v[4:5]{modifiers}"), "gfx950")
    step(w)
    assert (w.v[2].view(np.float32)[0], w.v[3].view(np.float32)[0]) == (low, high)


def test_overlapping_pairs_are_moved_at_once():
    for text in (
        "v_mov_b64_e32 v[3:4], v[2:3]",
        "v_pk_mov_b32 v[3:4], v[2:3], v[2:3] op_sel:[0,1]",
    ):
        w = wave()
        w.v[2], w.v[3] = 11, 22
        vector.step(instruction(text), "gfx950")(w)
        assert (int(w.v[3, 0]), int(w.v[4, 0])) == (11, 22), text


@pytest.mark.parametrize("arch", ["gfx942", "gfx950"])
def test_fp8_is_rounded_to_nearest_even_in_either_half(arch):
    table = numbers.FP8[arch]
    finite = np.sort(table[np.isfinite(table) & (table >= 0)])
    w = wave()
    for low, high in itertools.pairwise(finite):
        middle = (low + high) / 2
        near = [low, high, np.nextafter(middle, 0), np.nextafter(middle, 1e9), middle]
        w.v[1], w.v[2] = floats(*near), floats(*(-np.array(near)))
        w.v[3] = 0xABCD1234
        vector.step(instruction("v_cvt_pk_fp8_f32 v3, v1, v2 op_sel:[0,0,1]"), arch)(w)
        assert {int(x) & 0xFFFF for x in w.v[3]} == {0x1234}
        codes = [int(x) >> 16 for x in w.v[3, :5]]
        values = [float(table[c & 255]) for c in codes]
        as_f32 = [float(np.float32(n)) for n in near]
        assert values[:2] == [low, high]
        for got, wanted in zip(values[2:], as_f32[2:], strict=True):
            assert abs(got - wanted) == min(abs(wanted - low), abs(wanted - high))
        if as_f32[4] == middle:
            assert codes[4] & 1 == 0
        assert [float(table[c >> 8]) for c in codes] == [-v for v in values]


def test_number_formats_are_those_of_their_papers():
    assert numbers.FP4[:8].tolist() == [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    assert (numbers.FP4[8:] == -numbers.FP4[:8]).all()
    fn, fnuz = numbers.FP8["gfx950"], numbers.FP8["gfx942"]
    assert (np.nanmax(fn), np.nanmax(fnuz)) == (448, 240)
    assert (np.isnan(fn).sum(), np.isnan(fnuz).sum(), np.isnan(fnuz[0x80])) == (2, 1, True)
    assert (fn[1], fnuz[1]) == (2.0**-9, 2.0**-10)
    assert (numbers.E8M0[127], numbers.E8M0[0], numbers.E8M0[254]) == (1, 2.0**-127, 2.0**127)
    ties = np.array([1 + 2**-8, 1 + 3 * 2**-8, np.inf, -0.0, 3.4e38], np.float32)
    assert numbers.to_bf16(ties).tolist() == [0x3F80, 0x3F82, 0x7F80, 0x8000, 0x7F80]


# ---- matrices


def naive(a, b, c, scale_a=None, scale_b=None):
    """Rows of A times columns of B, element by element."""
    rows, depth = a.shape
    found = np.zeros((rows, b.shape[1]))
    for i, j in itertools.product(range(rows), range(b.shape[1])):
        total = float(c[i, j])
        for k in range(depth):
            factor = 1.0 if scale_a is None else scale_a[i, k // 32] * scale_b[j, k // 32]
            total += float(a[i, k]) * float(b[k, j]) * factor
        found[i, j] = total
    return found


@pytest.mark.parametrize(
    ("name", "size", "depth", "bits", "modifiers"),
    [
        ("v_mfma_f32_16x16x16_bf16", 16, 16, 16, ""),
        ("v_mfma_f32_16x16x32_bf16", 16, 32, 16, ""),
        ("v_mfma_f32_16x16x16_f16", 16, 16, 16, ""),
        ("v_mfma_i32_16x16x32_i8", 16, 32, 8, ""),
        ("v_mfma_i32_16x16x64_i8", 16, 64, 8, ""),
        ("v_mfma_f32_16x16x32_fp8_fp8", 16, 32, 8, ""),
        ("v_mfma_f32_16x16x128_f8f6f4", 16, 128, 8, ""),
        ("v_mfma_f32_16x16x128_f8f6f4", 16, 128, 4, " cbsz:4 blgp:4"),
        ("v_mfma_f32_32x32x8_bf16", 32, 8, 16, ""),
        ("v_mfma_f32_32x32x16_fp8_fp8", 32, 16, 8, ""),
    ],
)
def test_matrices_lie_in_lanes_as_the_guide_has_it(name, size, depth, bits, modifiers):
    random = np.random.default_rng(3)
    tables = {4: numbers.FP4, 8: numbers.FP8["gfx950"]}
    codes = random.integers(0, 2**bits, (2, size, depth), dtype=np.uint32)
    number = np.int32 if "i32" in name else np.float32
    if bits == 16:
        there, back = (
            (numbers.to_bf16, numbers.bf16) if "bf16" in name else (numbers.to_f16, numbers.f16)
        )
        codes = there(random.standard_normal((2, size, depth)).astype(np.float32))
        values = back(codes).astype(np.float64)
    elif number is np.int32:
        values = np.where(codes > 127, codes.astype(np.int64) - 256, codes)
    else:
        codes = np.where(np.isnan(tables[bits][codes]), 0, codes)
        values = tables[bits][codes]
    c = (random.standard_normal((size, size)) * 50).astype(number)
    each = size * depth // LANES
    words = each * bits // 32
    held = size * size // LANES
    w = wave()
    for lane in range(LANES):
        row, group = lane % size, lane // size
        for operand, register in ((0, 0), (1, 16)):
            for n in range(each):
                code = int(codes[operand, row, group * each + n])
                place = register + n * bits // 32
                old = int(w.v[place, lane]) if n * bits % 32 else 0
                w.v[place, lane] = old | code << n * bits % 32
        for n in range(held):
            w.v[32 + n, lane] = c[row_of(n, lane, size), lane % size].view(np.uint32)
    text = f"{name} v[48:{47 + held}], v[0:{words - 1}], v[16:{15 + words}], v[32:{31 + held}]"
    matrix.step(instruction(text + modifiers), "gfx950")(w)
    expected = naive(values[0], values[1].T, c)
    for lane in range(LANES):
        for n in range(held):
            got = float(w.v[48 + n, lane : lane + 1].view(number)[0])
            assert got == pytest.approx(expected[row_of(n, lane, size), lane % size], rel=1e-6)


def row_of(n: int, lane: int, size: int) -> int:
    """Row of D in a lane's nth register: groups of four rows go round the lanes."""
    return n // 4 * 4 * (LANES // size) + lane // size * 4 + n % 4


def test_scales_are_the_bytes_that_the_instruction_names():
    random = np.random.default_rng(5)
    codes = random.integers(0, 16, (2, 16, 128), dtype=np.uint32)
    scales = random.integers(120, 134, (2, 16, 4), dtype=np.uint32)
    w = wave()
    for lane in range(LANES):
        row, group = lane % 16, lane // 16
        for operand, register in ((0, 0), (1, 8)):
            for word in range(4):
                eight = codes[operand, row, group * 32 + word * 8 :][:8]
                w.v[register + word, lane] = sum(int(x) << 4 * n for n, x in enumerate(eight))
        # Byte 2 for A, byte 1 for B; the others are wrong.
        w.v[20, lane] = 0x7F007F7F | int(scales[0, row, group]) << 16
        w.v[21, lane] = 0x7F7F007F | int(scales[1, row, group]) << 8
    text = "v_mfma_scale_f32_16x16x128_f8f6f4 v[24:27], v[0:3], v[8:11], 0, v20, v21"
    step = instruction(f"{text} op_sel:[0,1,0] op_sel_hi:[1,0,0] cbsz:4 blgp:4", 16)
    matrix.step(step, "gfx950")(w)
    a, b = numbers.FP4[codes]
    expected = naive(a, b.T, np.zeros((16, 16)), *(2.0 ** (scales - 127.0)))
    for lane, n in itertools.product(range(LANES), range(4)):
        got = float(w.v[24 + n, lane : lane + 1].view(np.float32)[0])
        assert got == pytest.approx(expected[row_of(n, lane, 16), lane % 16], rel=1e-6)


# ---- memory


def descriptor(w: Wave, address: int, size: int) -> None:
    for n, word in enumerate((address & 0xFFFFFFFF, address >> 32, size, 0x00027000)):
        w.write(4 + n, word)


def test_a_buffer_gives_zero_behind_its_range_and_drops_what_is_stored_there():
    w = wave()
    address = w.device.allocate(struct.pack("<64I", *range(100, 164)))
    descriptor(w, address, 40)
    w.v[1] = np.arange(LANES) * 4
    access.step(instruction("buffer_load_dwordx2 v[2:3], v1, s[4:7], 0 offen"))(w)
    assert w.v[2, :12].tolist() == [*range(100, 110), 0, 0]
    assert w.v[3, :12].tolist() == [*range(101, 110), 0, 0, 0]
    w.v[1, 60:] = 0x80000000
    w.v[5] = 7
    access.step(instruction("buffer_store_dword v5, v1, s[4:7], 0 offen offset:8"))(w)
    found = struct.unpack("<64I", w.device.read(address, 256))
    assert found == (100, 101, *(7,) * 8, *range(110, 164))


def test_a_buffer_with_a_stride_is_not_known():
    w = wave()
    descriptor(w, 0, 40)
    w.write(5, 4 << 16)
    w.v[1] = 0
    with pytest.raises(UnknownError, match="stride"):
        access.step(instruction("buffer_load_dword v2, v1, s[4:7], 0 offen"))(w)


def test_a_buffer_can_be_loaded_straight_into_lds():
    w = wave(lds=2048)
    address = w.device.allocate(struct.pack("<256I", *range(256)))
    descriptor(w, address, 1000)
    w.v[1] = np.arange(LANES) * 16
    w.write(124, 512)
    access.step(instruction("buffer_load_dwordx4 v1, s[4:7], 0 offen lds"))(w)
    assert w.lds.words[128:384].tolist() == [*range(250), *[0] * 6]


@pytest.mark.parametrize(
    ("offset", "message"),
    [(-4, "isn't allocated"), (64, "isn't allocated"), (2, "not aligned"), (2**40, "isn't alloc")],
)
def test_an_address_that_nobody_has_is_a_fault(offset, message):
    w = wave()
    address = w.device.allocate(bytes(64)) + offset
    w.v[2], w.v[3] = address & 0xFFFFFFFF, address >> 32
    load = access.step(instruction("global_load_dword v1, v[2:3], off"))
    with pytest.raises(FaultError, match=message):
        load(w)
    w.write(EXEC, 0, 2)
    load(w)


def test_a_fault_behind_lds_and_scratch():
    w = wave(scratch=16, lds=64)
    w.v[1] = 60
    access.step(instruction("ds_read_b32 v2, v1"))(w)
    with pytest.raises(FaultError):
        access.step(instruction("ds_read_b64 v[2:3], v1"))(w)
    with pytest.raises(FaultError, match="scratch"):
        access.step(instruction("scratch_store_dwordx2 off, v[2:3], off offset:12"))(w)


@pytest.mark.parametrize(("stride", "scale"), [("", 1), ("st64", 64)])
def test_two_accesses_to_lds_in_one(stride, scale):
    w = wave(lds=4096)
    w.v[1] = np.arange(LANES) * 4
    w.v[2], w.v[3] = np.arange(LANES), np.arange(LANES) + 1000
    write = f"ds_write2{stride}_b32 v1, v2, v3 offset0:1 offset1:3"
    access.step(instruction(write))(w)
    first = 1 * scale
    # Lanes write in order: where two meet, what the second access wrote stays.
    assert w.lds.words[first] == 0
    assert w.lds.words[3 * scale] == 1000
    access.step(instruction(f"ds_read2{stride}_b32 v[4:5], v1 offset0:3 offset1:1"))(w)
    assert w.v[4, 0] == 1000
    assert int(w.v[5, 0]) == int(w.lds.words[first])


def test_an_lds_address_is_a_sum_of_32_bits():
    w = wave(lds=256)
    w.lds.words[:] = np.arange(64)
    w.v[1] = np.arange(LANES, dtype=np.uint32) * 4 - np.uint32(16)
    w.write(EXEC, 0xFF, 2)
    access.step(instruction("ds_read_b32 v2, v1 offset:32"))(w)
    assert w.v[2, :8].tolist() == list(range(4, 12))
    with pytest.raises(FaultError, match="0xfffffff0 isn't allocated"):
        access.step(instruction("ds_read_b32 v2, v1"))(w)


def test_pairs_of_words_are_counted_in_pairs():
    w = wave(lds=4096)
    w.lds.words[:] = np.arange(1024)
    w.v[1] = 8
    access.step(instruction("ds_read2_b64 v[2:5], v1 offset0:1 offset1:4"))(w)
    assert w.v[2:6, 0].tolist() == [4, 5, 10, 11]
    access.step(instruction("ds_read2st64_b64 v[2:5], v1 offset1:1"))(w)
    assert w.v[2:6, 0].tolist() == [2, 3, 130, 131]


def test_scratch_is_each_lanes_own():
    w = wave(scratch=32)
    w.v[2], w.v[3] = np.arange(LANES), np.arange(LANES) + 100
    access.step(instruction("scratch_store_dwordx2 off, v[2:3], off offset:8"))(w)
    access.step(instruction("scratch_load_dword v4, off, off offset:12"))(w)
    assert w.v[4].tolist() == (np.arange(LANES) + 100).tolist()


@pytest.mark.parametrize(
    ("name", "large", "one", "three"),
    [("bf16", 0x4380, 0x3F80, 0x4040), ("f16", 0x6800, 0x3C00, 0x4200)],
)
def test_an_atomic_in_a_buffer_stays_in_its_range(name, large, one, three):
    w = wave()
    address = w.device.allocate(struct.pack("<HH", large, 0) * 2)
    descriptor(w, address, 4)
    w.v[1], w.v[2] = np.arange(LANES) % 2 * 4, one << 16 | one
    w.write(EXEC, 0b111111, 2)
    step = instruction(f"buffer_atomic_pk_add_{name} v2, v1, s[4:7], 0 offen")
    access.step(step)(w)
    assert struct.unpack("<4H", w.device.read(address, 8)) == (large, three, large, 0)


@pytest.mark.parametrize(
    ("name", "large", "one", "three"),
    [("bf16", 0x4380, 0x3F80, 0x4040), ("f16", 0x6800, 0x3C00, 0x4200)],
)
def test_an_atomic_rounds_after_every_lane(name, large, one, three):
    w = wave()
    # 256 and 2048: 257 is no bfloat16, and 2049 no float16.
    address = w.device.allocate(struct.pack("<HH", large, 0))
    w.v[2], w.v[3] = address & 0xFFFFFFFF, address >> 32
    w.v[1] = one << 16 | one
    w.write(EXEC, 0b111, 2)
    access.step(instruction(f"global_atomic_pk_add_{name} v[2:3], v1, off"))(w)
    # Each 1 is lost beside the large number, and all are kept beside 0.
    assert struct.unpack("<HH", w.device.read(address, 4)) == (large, three)


# ---- launches


def test_a_wave_that_never_ends_is_a_fault(monkeypatch):
    monkeypatch.setattr(launch, "_MOST", 1000)
    listing = (
        "\ts_nop 0 // 000000000100: 00000000\n\ts_branch 65534 // 000000000104: 00000000 <k+0x0>\n"
    )
    with pytest.raises(FaultError, match="still running after 1000 instructions"):
        launch.launch(program(listing), (1, 1, 1), (64, 1, 1), 0, b"", {})


def test_a_program_that_runs_off_its_end_is_a_fault():
    one = program("\ts_nop 0 // 000000000100: 00000000\n")
    with pytest.raises(FaultError, match="no instruction at 0x104"):
        launch.launch(one, (1, 1, 1), (64, 1, 1), 0, b"", {})


SOURCE = """
typedef unsigned U;
#define K __attribute__((amdgpu_kernel, amdgpu_flat_work_group_size(256, 256)))
#define L __attribute__((address_space(3)))
K void where(U *out) {
  U x = __builtin_amdgcn_workgroup_id_x(), y = __builtin_amdgcn_workgroup_id_y();
  U z = __builtin_amdgcn_workgroup_id_z(), t = __builtin_amdgcn_workitem_id_x();
  out[((z * 3 + y) * 2 + x) * 256 + t] = x | y << 4 | z << 8 | t << 12;
}
static L __attribute__((loader_uninitialized)) U shared[256];
K void reverse(const U *in, U *out) {
  U t = __builtin_amdgcn_workitem_id_x();
  shared[t] = in[t];
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
  __builtin_amdgcn_s_barrier();
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
  out[t] = shared[255 - t];
}
K void first(const U *in, U *out) {
  U t = __builtin_amdgcn_workitem_id_x();
  if (t % 64 >= 3) out[t] = __builtin_amdgcn_readfirstlane(in[t]);
}
K void behind(const U *in, U *out) { out[in[0]] = 1; }
"""


@pytest.fixture(scope="module", params=["gfx942", "gfx950"])
def device(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp("device")
    options = (*help_.DEVICE, f"-mcpu={request.param}")
    return help_.compile_c(SOURCE, directory / "x.co", *options), request.param


def go(device, symbol, out_words, given=(), grid=(1, 1, 1)):
    code, arch = device
    data = np.array(given, np.uint32).tobytes()
    buffers = {"out": launch.Pointer(bytes(4 * out_words), (8 if given else 0,))}
    if given:
        buffers["in"] = launch.Pointer(data, (0,))
    ran = help_.run(code, symbol, arch, bytes(16), buffers, grid=grid, block=256)
    return np.frombuffer(ran["out"], np.uint32).tolist()


def test_every_work_item_knows_where_it_is(device):
    found = go(device, "where", 2 * 3 * 2 * 256, grid=(2, 3, 2))
    places = itertools.product(range(2), range(3), range(2), range(256))
    assert found == [x | y << 4 | z << 8 | t << 12 for z, y, x, t in places]


def test_waves_meet_at_barriers_and_share_lds(device):
    given = list(range(5000, 5256))
    assert go(device, "reverse", 256, given) == given[::-1]


def test_the_first_active_lane_is_read(device):
    given = list(range(1000, 1256))
    found = go(device, "first", 256, given)
    assert found == [0 if t % 64 < 3 else 1000 + t // 64 * 64 + 3 for t in range(256)]


def test_a_store_behind_a_buffer_is_a_fault(device):
    go(device, "behind", 256, [255] * 256)
    with pytest.raises(FaultError, match="isn't allocated"):
        go(device, "behind", 256, [256] * 256)


def test_a_kernel_that_is_not_there_is_said(device):
    with pytest.raises(UnknownError):
        go(device, "nothing", 1)
