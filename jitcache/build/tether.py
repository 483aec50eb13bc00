"""Become another program that dies with the process that started us.

`python -I -S tether.py PARENT COMMAND...` asks the kernel for SIGKILL when its parent dies
(kept over exec), checks that PARENT still is its parent, tells the program's children its
process id (`edge.py` needs it for the same check), and becomes COMMAND. A little program
rather than a hook between fork and exec: those are unsafe in a process with threads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

BUILDER = "JITCACHE_BUILDER_PID"


def main(args: list[str]) -> None:
    """Tie, check, exec; returns only where PARENT has gone already."""
    ctypes.CDLL(None).prctl(1, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != int(args[0]):
        return
    env = dict(os.environ)
    env[BUILDER] = str(os.getpid())
    os.execve(args[1], args[1:], env)  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[1:])
