"""The emulator against the compiler: one C function, run on the emulator and on this machine.

What an instruction means is known to LLVM: it compiles the same functions for a GPU, where the
emulator runs them, and for the host, where they are called.
"""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from jitcache.emulator.launch import Pointer
from tests import emulator_help as help_

# Half a minute of a core; tests/test_emulator.py looks at what is special.
pytestmark = pytest.mark.slow

ARCHES = ("gfx942", "gfx950")
COUNT = 512

FUNCTIONS = {
    "add": "a + b * c",
    "sub": "a - (b ^ c)",
    "logic": "(a & b) | (~a & c) ^ (b | 0x55)",
    "shifts": "(a << (b & 31)) ^ (a >> (c & 31)) ^ (U)((int)a >> (b & 31))",
    "bitfield": "(a >> 5 & 0x7f) + (U)((int)(b << 9) >> 21)",
    "reverse": "__builtin_bitreverse32(a) ^ b",
    "bytes": "(a & 0xff00ff00u) | (b & 0x00ff00ffu)",
    "swap": "__builtin_bswap32(a) + c",
    "mulhigh": "(U)((UL)a * b >> 32) + (U)((long)(int)b * (int)c >> 32)",
    "mul64": "(U)(((UL)a * b + c) >> 17)",
    "add64": "(U)((((UL)a << 32 | b) + ((UL)c << 3)) >> 31)",
    "shift64": "(U)((((UL)a << 32 | b) << (c & 63)) >> 32)",
    "compare": "((int)a < (int)b ? c : a) + (a < b ? 3 : 5) + (a == c) + (a != b) * 7",
    "compare64": "((long)((UL)a << 32 | b) > (long)((UL)c << 32 | a)) * 9 + (((UL)a * b) > c)",
    "minmax": "((int)a < (int)b ? a : b) + (a > c ? a : c)",
    "fadd": "u(f(a) + f(b) - f(c))",
    "fmul": "u(f(a) * f(b))",
    "ffma": "u(__builtin_fmaf(f(a), f(b), f(c)))",
    "fdiv": "u(f(a) / f(b))",
    "frecip": "u(1.0f / f(a))",
    "fcompare": "(f(a) < f(b)) + 2 * (f(a) >= f(c)) + 4 * (f(b) == f(b)) + 8 * (f(a) != f(c))",
    "fminmax": "u(__builtin_fmaxf(__builtin_fminf(f(a), f(b)), f(c)))",
    "fnegabs": "u(-f(a) + __builtin_fabsf(f(b)))",
    "rint": "u(__builtin_rintf(f(a)))",
    "toint": "(U)(int)(f(a) > 2e9f ? 2e9f : f(a) > -2e9f ? f(a) : -2e9f)",
    "fromint": "u((float)(int)a) ^ u((float)b)",
    "ldexp": "u(__builtin_ldexpf(f(a), (int)(b & 15) - 8))",
    "collatz": "({ U n = a & 0x3ff, k = 0;"
    " while (n > 1) { n = n & 1 ? 3 * n + 1 : n / 2; k++; } k; })",
    "nested": "({ U s = b; for (U i = 0; i < (a & 7); i++) { if (s & 1) s += c; else s ^= i; "
    "if (s > 0xf0000000u) break; s = s * 5 + 1; } s; })",
    "divide": "a / ((b & 0xffff) | 1) + b % ((c & 0xff) | 1)",
}
"""Expressions of the unsigned numbers a, b and c."""

HEAD = """
typedef unsigned U; typedef unsigned long UL; typedef float F;
static F f(U x) { union { U u; F f; } v; v.u = x; return v.f; }
static U u(F x) { union { U u; F f; } v; v.f = x; return v.u; }
"""
KERNEL = """
__attribute__((amdgpu_kernel, amdgpu_flat_work_group_size(64, 256)))
void kernel_%(name)s(const U *a, const U *b, const U *c, U *out) {
  U i = __builtin_amdgcn_workgroup_id_x() * 256 + __builtin_amdgcn_workitem_id_x();
  out[i] = fn_%(name)s(a[i], b[i], c[i]);
}
__attribute__((amdgpu_kernel, amdgpu_flat_work_group_size(64, 64)))
void uniform_%(name)s(const U *a, const U *b, const U *c, U *out) {
  U i = __builtin_amdgcn_workgroup_id_x();
  out[i] = fn_%(name)s(a[i], b[i], c[i]);
}
"""
"""Once on different numbers in every lane, and once on the same in all: vector and scalar."""


def functions() -> str:
    return HEAD + "".join(
        f"U fn_{name}(U a, U b, U c) {{ return {text}; }}\n" for name, text in FUNCTIONS.items()
    )


def numbers() -> list[np.ndarray]:
    """Any bits, small numbers, and floats of every kind: large, tiny, whole, special."""
    random = np.random.default_rng(7)
    special = np.array([0.0, -0.0, 1.0, -1.5, np.inf, -np.inf, 3e38, -1e-38, 0.5, 2.5], np.float32)
    found = []
    for shift in range(3):
        bits = random.integers(0, 2**32, COUNT, dtype=np.uint32)
        near = (random.standard_normal(COUNT) * 100).astype(np.float32).view(np.uint32)
        small = random.integers(0, 40, COUNT, dtype=np.uint32)
        kind = (np.arange(COUNT) // 3 + shift * (np.arange(COUNT) // 64)) % 4
        words = np.choose(kind, [bits, near, small, np.resize(special, COUNT).view(np.uint32)])
        found.append(np.roll(words, shift * 5).astype(np.uint32))
    return found


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    place = tmp_path_factory.mktemp("host") / "host.so"
    help_.compile_c(functions(), place, "-shared", "-fPIC", "-ffp-contract=off")
    return ctypes.CDLL(str(place))


@pytest.fixture(scope="module", params=ARCHES)
def device(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp(request.param)
    source = functions() + "".join(KERNEL % {"name": name} for name in FUNCTIONS)
    code = help_.compile_c(source, directory / "device.co", *help_.DEVICE, f"-mcpu={request.param}")
    return request.param, code


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("kind", ["kernel", "uniform"])
def test_a_function_gives_what_it_gives_on_this_machine(device, host, name, kind):
    arch, code = device
    # A workgroup for each number takes longer.
    count, block = (COUNT, 256) if kind == "kernel" else (COUNT // 8, 64)
    a, b, c = (x[:count] for x in numbers())
    function = host[f"fn_{name}"]
    function.restype = ctypes.c_uint32
    expected = np.array([function(*map(int, abc)) for abc in zip(a, b, c, strict=True)], np.uint32)
    fields = [("a", a), ("b", b), ("c", c), ("out", np.zeros(count, np.uint32))]
    buffers = {f: Pointer(words.tobytes(), (8 * n,)) for n, (f, words) in enumerate(fields)}
    grid = (count // 256 if kind == "kernel" else count, 1, 1)
    settings = {"grid": grid, "block": block}
    ran = help_.run(code, f"{kind}_{name}", arch, bytes(32), buffers, **settings)
    found = np.frombuffer(ran["out"], np.uint32)
    both_nan = is_nan(found) & is_nan(expected) & name.startswith("f")
    wrong = np.flatnonzero((found != expected) & ~both_nan)
    assert not len(wrong), [
        tuple(hex(int(x[w])) for x in (a, b, c, found, expected)) for w in wrong[:4]
    ]


def is_nan(words: np.ndarray) -> np.ndarray:
    return np.isnan(words.view(np.float32))
