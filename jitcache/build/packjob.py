"""Compile several kernels with one front end, each to a code object of its own.

Like edge.py it is started with a bare interpreter and imports nothing of jitcache. Steps:

1. the front end writes the unoptimised bitcode of all kernels;
2. the array `jitcache_kernels` in it names their symbols, in the order of the outputs;
3. for each kernel, `opt` makes the other kernels internal and drops what only they use, which
   leaves what a front end of this kernel alone would have written;
4. the back end makes a code object of that.

Usage: `packjob.py JSON`, an object with `front` (the command), `bitcode` (what it writes),
`extract`, `nm`, `opt` (programs), `back` (the command; `@bitcode` and `@output` stand for
files) and `outputs` (in the order of the kernels; all lie in the directory of the first).
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import subprocess
import sys
from typing import Any

# codegen/templates/packed_tu.hip.j2
_ARRAY = "_ZL16jitcache_kernels"
_ARRAY_USER = "jitcache_kernel"

_PR_SET_PDEATHSIG = 1
_SYMBOL = re.compile(r"@([A-Za-z0-9_.$]+)")
_LIBC = ctypes.CDLL(None)


def _die_with_parent() -> None:
    """The compilers end with this process, by whatever way it ends."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def step(argv: list[str], *, read: bool = False) -> str:
    """Run one command; what it printed where that is asked for.

    Raises:
        SystemExit: it failed, with its status.
    """
    done = subprocess.run(
        argv,
        stdout=subprocess.PIPE if read else None,
        text=True,
        check=False,
        preexec_fn=_die_with_parent,
    )
    if done.returncode:
        status = done.returncode
        sys.stderr.write(f"error: {os.path.basename(argv[0])} ended with {status}\n")  # noqa: PTH119
        raise SystemExit(status if status > 0 else 128 - status)
    return done.stdout or ""


def kernels_of(listing: str) -> list[str]:
    """Symbols in the array's initialiser, from textual IR; empty where there is no array."""
    for line in listing.splitlines():
        if line.startswith(f"@{_ARRAY} ="):
            return _SYMBOL.findall(line.partition("=")[2])
    return []


def strong_symbols(listing: str) -> list[str]:
    """Defined symbols that a linker sees and may not drop, from `llvm-nm`."""
    found = []
    for line in listing.splitlines():
        words = line.split()
        if len(words) >= 2 and words[-2].isupper() and words[-2] not in "UWV":
            found.append(words[-1])
    return found


def main(spec: dict[str, Any]) -> int:
    """Run all steps."""
    step(spec["front"])
    whole, first = spec["bitcode"], spec["outputs"][0]
    outputs = [first, *(os.path.join(os.path.dirname(first), o) for o in spec["outputs"][1:])]  # noqa: PTH118, PTH120
    kernels = kernels_of(
        step([spec["extract"], f"--glob={_ARRAY}", "-S", whole, "-o", "-"], read=True)
    )
    if len(kernels) != len(outputs) or len(set(kernels)) != len(kernels):
        sys.stderr.write(f"error: {len(outputs)} kernels were wanted, the bitcode has {kernels}\n")
        return 1
    strong = strong_symbols(step([spec["nm"], "--defined-only", whole], read=True))
    keep = [s for s in strong if s not in kernels and s != _ARRAY_USER]
    for kernel, output in zip(kernels, outputs, strict=True):
        own = f"{output}.bc"
        public = ",".join([kernel, *keep])
        step(
            [
                spec["opt"],
                "-passes=internalize,globaldce",
                f"-internalize-public-api-list={public}",
                *(whole, "-o", own),
            ]
        )
        names = {"@bitcode": own, "@output": output}
        step([names.get(word, word) for word in spec["back"]])
        os.unlink(own)  # noqa: PTH108 - pathlib takes longer than the rest
    os.unlink(whole)  # noqa: PTH108
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
