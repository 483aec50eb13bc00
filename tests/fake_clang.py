"""A compiler for tests of prebuild: reads `#include "..."` lines, writes what clang would.

`fake_clang.py [words]`, run as a script through a toolchain made by fake_toolchain. Its output
depends on everything a real compiler's would: source, headers, flags; device outputs are
well-formed code objects. Each compile (not each scan) appends a line to FAKE_LOG's file,
named by a `-DFAKE_LOG=` flag. Other flags: `-DFAKE_SLEEP=seconds`, `-DFAKE_FAIL=word` (fail if
the source contains the word). With `-emit-llvm` it writes "bitcode", a line per kernel, which
fake_bitcode.py takes apart; with `-x ir` it makes a code object of that.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import struct
import sys
import time
from pathlib import Path


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
    kernel, flags = Path(argv[-1]).read_text().splitlines()[0].split(" ", 1)
    arch = next(w.partition("=")[2] for w in argv if w.startswith("-mcpu="))
    extra = [v for o, v in itertools.pairwise(argv) if o == "-mllvm"]
    if "-unknown" in extra:
        print("clang (LLVM option parsing): Unknown command line argument", file=sys.stderr)
        return 1
    whole = hashlib.sha256(repr((kernel, flags, extra)).encode()).digest() * 40
    Path(argv[argv.index("-o") + 1]).write_bytes(code_object(kernel, arch, whole))
    return 0


def main(argv: list[str]) -> int:
    if "ir" in argv:
        return back_end(argv)
    includes, defines, depfile, output, target = [], {}, "", "", ""
    words = iter(argv)
    source = argv[-1]
    for word in words:
        if word in ("-I", "-isystem"):
            includes.append(Path(next(words)))
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
    text = Path(source).read_text()
    seen: dict[Path, str] = {}
    waiting = [Path(source)]
    while waiting:
        for name in re.findall(r'#include "([^"]+)"', waiting.pop().read_text()):
            found = next((d / name for d in includes if (d / name).is_file()), None)
            if found is None:
                print(f"{source}:1:10: fatal error: '{name}' file not found", file=sys.stderr)
                return 1
            if found not in seen:
                seen[found] = found.read_text()
                waiting.append(found)
    if depfile:
        Path(depfile).write_text(f"{output}: " + " \\\n  ".join([source, *map(str, seen)]) + "\n")
    if "-E" in argv:
        return 0
    with Path(defines["FAKE_LOG"]).open("a") as log:
        log.write(f"{Path(source).name}\n")
    time.sleep(float(defines.get("FAKE_SLEEP", "0")))
    if defines.get("FAKE_FAIL") and defines["FAKE_FAIL"] in text:
        print(f"{source}:7:1: error: no matching function for call to 'fake'", file=sys.stderr)
        return 1
    flags = [w for w in argv if w.startswith(("-O", "-mllvm", "-DCODE"))]
    if "-emit-llvm" in argv:
        kernel = r"jitcache::Instance<([^>]*)>;\s*JITCACHE_KERNEL_V\d\(Instance\d*, ([^)]*)\)"
        said = [" ".join(found) for found in re.findall(kernel, text)]
        names = ["_Z" + hashlib.sha256(k.encode()).hexdigest()[:16] for k in said]
        Path(output).write_text("".join(f"{name} {flags}\n" for name in names))
        return 0
    whole = hashlib.sha256(repr((text, sorted(seen.values()), flags)).encode()).digest() * 40
    if "--cuda-device-only" in argv:
        symbol = "_Z" + hashlib.sha256(text.encode()).hexdigest()[:16]
        whole = code_object(symbol, target, whole)
    Path(output).write_bytes(whole)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
