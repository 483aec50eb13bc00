"""A compiler for tests of the build engine: does what its words say, one after another.

`stub.py SOURCE OUTPUT DEPFILE [word=value]...`; run as a script by the tests, never imported
by it. Words: `sleep=S`, `fail=STATUS`, `say=TEXT`, `kill=SIGNAL`, `grab=MIB`, `deaf=1`
(ignore SIGTERM and SIGINT), `child=S` (a grandchild sleeps that long), `empty=1`,
`nodep=1`, `baddep=1`, `header=PATH`, `environ=1`,
`fill=1` (write until the disk is full).
"""

# It starts dozens of times in a test run: nothing that takes long to import.
# ruff: noqa: PTH123, SIM115

from __future__ import annotations

import os
import signal
import sys
import time


def main(source: str, output: str, depfile: str, words: list[str]) -> int:
    headers = [source]
    said = open(source, encoding="utf-8").read()
    for word in words:
        name, _, value = word.partition("=")
        if name == "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        elif name == "sleep":
            time.sleep(float(value))
        elif name == "child":
            # A driver that starts its front end and waits for it.
            pid = os.fork()
            if pid == 0:
                time.sleep(float(value))
                os._exit(0)
            os.waitpid(pid, 0)
        elif name == "say":
            print(value, flush=True)
        elif name == "grab":
            block = bytearray(int(value) << 20)
            block[::4096] = b"x" * len(block[::4096])
        elif name == "kill":
            os.kill(os.getpid(), int(value))
        elif name == "fail":
            return int(value)
        elif name == "header":
            headers.append(value)
        elif name == "environ":
            said += "".join(f"{k}={v}\n" for k, v in sorted(os.environ.items()))
        elif name == "fill":
            with open(output, "wb") as f:
                while True:
                    f.write(b"x" * 65536)
    if "nodep=1" not in words:
        with open(depfile, "w", encoding="utf-8") as f:
            names = " \\\n  ".join(h.replace(" ", "\\ ") for h in headers)
            f.write("nonsense" if "baddep=1" in words else f"{output}: {names}\n")
    with open(output, "w", encoding="utf-8") as f:
        f.write("" if "empty=1" in words else said)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:4], sys.argv[4:]))
    except OSError as e:
        sys.exit(f"stub: error: {e.strerror}")
