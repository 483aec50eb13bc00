"""LLVM's programs for the "bitcode" of fake_clang.py: `llvm-extract`, `llvm-nm`, `opt` and
`llvm-objdump`, whichever the path it is called by ends in.
"""

from __future__ import annotations

from tests.fake_clang import read, write


def main(path: str, argv: list[str]) -> int:
    program = path.rpartition("/")[2]
    if program == "llvm-nm":
        print("---------------- T _ZN2ck5s_nopEv\n---------------- W _Zweak\n         U _Zelse")
        return 0
    if program == "llvm-extract":
        whole = next(w for w in argv if not w.startswith("-"))
        kernels = [line.split()[0] for line in read(whole).splitlines()]
        listed = ", ".join(f"ptr @{k}" for k in kernels)
        print(f"target x\n@_ZL16jitcache_kernels = constant [9 x ptr] [{listed}], align 8")
        return 0
    if program == "llvm-objdump":
        import re
        from pathlib import Path

        data = Path(argv[-1]).read_bytes()
        symbol = re.search(rb"_Z[0-9a-f]{16}", data)
        assert symbol is not None
        print(f"\n0000000000001000 <{symbol[0].decode()}>:")
        lines = ["s_waitcnt vmcnt(0)"] * (data[-1] % 7) + ["v_mfma_f32 v0", "s_endpgm", "s_nop 0"]
        for at, text in enumerate(lines):
            print(f"\t{text}    // {4 * at:012X}: BF800000")
        return 0
    whole, output = argv[-3], argv[-1]
    option = "-internalize-public-api-list="
    kept = next(w.removeprefix(option) for w in argv if w.startswith(option)).split(",")
    assert kept[1:] == ["_ZN2ck5s_nopEv"], kept
    lines = [x for x in read(whole).splitlines() if x.split()[0] == kept[0]]
    write(output, ("\n".join(lines) + "\n").encode())
    return 0
