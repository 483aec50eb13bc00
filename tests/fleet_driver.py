"""The `jitcache` command with a fake toolchain: `python -m tests.fleet_driver PLACE WORD...`.

`FLEET_SLEEP`, `FLEET_FAIL` and `FLEET_COMPILER` steer the fake compiler of this process,
`FLEET_CLOCK` sets its clock wrong by so many seconds.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from jitcache.toolchain.model import Toolchain
from tests.fake_toolchain import make_toolchain


def install(place: Path) -> None:
    """Let the commands find the fake toolchain."""
    from jitcache.cli import planfile, worker

    def find(arch: str, **_: object) -> Toolchain:
        return make_toolchain(
            place,
            sleep=float(os.environ.get("FLEET_SLEEP", "0")),
            fail=os.environ.get("FLEET_FAIL", ""),
            compiler=os.environ.get("FLEET_COMPILER", "compiler-1"),
            arch=arch,
        )

    planfile.find_toolchain = find
    planfile.require = lambda *_: None
    worker.find_toolchain = find


if __name__ == "__main__":
    from jitcache.cli.main import main

    right, wrong = time.time, float(os.environ.get("FLEET_CLOCK", "0"))
    time.time = lambda: right() + wrong
    install(Path(sys.argv[1]))
    main(sys.argv[2:])
