"""A compiler for tests of prebuild: reads `#include "..."` lines, writes what clang would.

`main`, run by the scripts that fake_toolchain makes. Its output
depends on everything a real compiler's would: source, headers, flags; device outputs are
well-formed code objects. Each compile (not each scan) appends a line to FAKE_LOG's file,
named by a `-DFAKE_LOG=` flag. Other flags: `-DFAKE_SLEEP=seconds`, `-DFAKE_FAIL=word` (fail if
the source contains the word). With `-emit-llvm` it writes "bitcode", a line per kernel, which
fake_bitcode.py takes apart; with `-x ir` it makes a code object of that.
"""

from __future__ import annotations

import itertools
import os
import struct
import sys
import time

# Hundreds of these run in the tests: pathlib, re and OpenSSL would take longer than the rest.
from _blake2 import blake2b


def digest(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=32).digest()


def symbol_of(text: str) -> str:
    """The name of a kernel, by what it is made from."""
    return "_Z" + digest(text).hex()[:16]


def read(path: str) -> str:
    with open(path, encoding="utf-8") as file:  # noqa: PTH123
        return file.read()


def write(path: str, data: bytes) -> None:
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(data)


def included(text: str) -> list[str]:
    """Names between the quotes of `#include "..."`, wherever it stands."""
    return [part.partition('"')[0] for part in text.split('#include "')[1:]]


def packed(value: object) -> bytes:
    """MessagePack of the few kinds that metadata has (no msgspec: this runs with -I -S)."""
    if isinstance(value, str):
        data = value.encode()
        return b"\xda" + struct.pack(">H", len(data)) + data
    if isinstance(value, int):
        return b"\xce" + struct.pack(">I", value)
    if isinstance(value, list):
        return b"\xdc" + struct.pack(">H", len(value)) + b"".join(map(packed, value))
    assert isinstance(value, dict)
    pairs = b"".join(packed(k) + packed(v) for k, v in value.items())
    return b"\xde" + struct.pack(">H", len(value)) + pairs


def code_object(symbol: str, arch: str, payload: bytes) -> bytes:
    numbers = ("kernarg_segment_size", "vgpr_count", "sgpr_count", "group_segment_fixed_size")
    more = ("private_segment_fixed_size", "max_flat_workgroup_size")
    kernel: dict[str, object] = {f".{name}": 64 for name in (*numbers, *more)}
    kernel[".symbol"] = f"{symbol}.kd"
    note = packed({"amdhsa.target": f"amdgcn-amd-amdhsa--{arch}", "amdhsa.kernels": [kernel]})
    note_data = struct.pack("<III", 7, len(note), 32) + b"AMDGPU\0\0" + note
    note_data += b"\0" * (-len(note_data) % 4)
    strings = b"\0.note\0.shstrtab\0"
    at = 64 + len(note_data)
    table_at = at + len(strings) + len(payload)
    ident = b"\x7fELF" + bytes([2, 1, 1, 64, 4]) + b"\0" * 7
    head = struct.pack("<HHIQQQIHHHHHH", 3, 224, 1, 0, 0, table_at, 0, 64, 0, 0, 64, 3, 2)

    def section(name: int, kind: int, offset: int, size: int) -> bytes:
        return struct.pack("<IIQQQQIIQQ", name, kind, 0, 0, offset, size, 0, 0, 4, 0)

    table = bytes(64) + section(1, 7, 64, len(note_data)) + section(7, 3, at, len(strings))
    return ident + head + note_data + strings + payload + table


def back_end(argv: list[str]) -> int:
    """A code object with the bytes that a compile of the kernel alone gives."""
    kernel, flags = read(argv[-1]).splitlines()[0].split(" ", 1)
    arch = next(w.partition("=")[2] for w in argv if w.startswith("-mcpu="))
    extra = [v for o, v in itertools.pairwise(argv) if o == "-mllvm"]
    if "-unknown" in extra:
        print("clang (LLVM option parsing): Unknown command line argument", file=sys.stderr)
        return 1
    whole = digest(repr((kernel, flags, extra))) * 40
    write(argv[argv.index("-o") + 1], code_object(kernel, arch, whole))
    return 0


def main(_path: str, argv: list[str]) -> int:
    if "ir" in argv:
        return back_end(argv)
    includes, defines, depfile, output, target = [], {}, "", "", ""
    words = iter(argv)
    source = argv[-1]
    for word in words:
        if word in ("-I", "-isystem"):
            includes.append(next(words))
        elif word.startswith("-D"):
            name, _, value = word[2:].partition("=")
            defines[name] = value
        elif word == "-dependency-file":
            next(words)  # -Xclang
            depfile = next(words)
        elif word == "-o":
            output = next(words)
        elif word.startswith("--offload-arch="):
            target = word.partition("=")[2]
    text = read(source)
    seen: dict[str, str] = {}
    waiting = [text]
    while waiting:
        for name in included(waiting.pop()):
            paths = (f"{d}/{name}" for d in includes)
            found = next(filter(os.path.isfile, paths), None)
            if found is None:
                print(f"{source}:1:10: fatal error: '{name}' file not found", file=sys.stderr)
                return 1
            if found not in seen:
                seen[found] = read(found)
                waiting.append(seen[found])
    if depfile:
        write(depfile, (f"{output}: " + " \\\n  ".join([source, *seen]) + "\n").encode())
    if "-E" in argv:
        return 0
    with open(defines["FAKE_LOG"], "a", encoding="utf-8") as log:  # noqa: PTH123
        log.write(f"{source.rpartition('/')[2]}\n")
    time.sleep(float(defines.get("FAKE_SLEEP", "0")))
    if defines.get("FAKE_FAIL") and defines["FAKE_FAIL"] in text:
        print(f"{source}:7:1: error: no matching function for call to 'fake'", file=sys.stderr)
        return 1
    flags = [w for w in argv if w.startswith(("-O", "-mllvm", "-DCODE"))]
    if "-emit-llvm" in argv:
        import re

        kernel = r"jitcache::Instance<([^>]*)>;\s*JITCACHE_KERNEL_V\d\(Instance\d*, ([^)]*)\)"
        said = [" ".join(found) for found in re.findall(kernel, text)]
        names = [symbol_of(k) for k in said]
        write(output, "".join(f"{name} {flags}\n" for name in names).encode())
        return 0
    whole = digest(repr((text, sorted(seen.values()), flags))) * 40
    if "--cuda-device-only" in argv:
        symbol = symbol_of(text)
        whole = code_object(symbol, target, whole)
    write(output, whole)
    return 0
