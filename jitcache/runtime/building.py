"""Building what a serving process lacks, in a process of its own.

Imported only by a load or a call that may build: everything else needs no compiler.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from jitcache.codegen.catalog import Variant
from jitcache.errors import BuildError
from jitcache.lockfile import Lock, load_lock, write_lock
from jitcache.store.store import Store

_LINES = 5


def run(command: list[str], store: Store, why: str) -> dict[str, Any]:
    """Run a jitcache command on a store; its JSON.

    Args:
        command: the command with its arguments, which builds quietly.
        store: where results go.
        why: what is missing, as a sentence.

    Raises:
        BuildError: it failed; with the last lines that it said.
    """
    done = subprocess.run(
        [sys.executable, "-m", "jitcache", *command, "--quiet", "--json"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "JITCACHE_DIR": str(store.layout.root)},
    )
    if done.returncode != 0:
        raise BuildError(
            f"{why}; building it failed",
            where=f"jitcache {' '.join(command)}",
            details=tuple(done.stderr.strip().splitlines()[-_LINES:]),
        )
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def with_kernel(
    lock: Lock, module: str, instance: str, variant: Variant, store: Store, why: str
) -> Lock:
    """Have a further kernel built for a module; the lock with it.

    Args:
        lock: what the module was built with.
        module: AITER's name of the module.
        instance: AITER's name of the instance.
        variant: which of its kernels.
        store: where results go.
        why: what is missing, as a sentence.

    Raises:
        BuildError: it failed.
    """
    with tempfile.TemporaryDirectory(prefix="jitcache-") as place:
        path = Path(place, "lock.json")
        write_lock(path, lock)
        words = ["--module", module, "--kernel", f"{instance}:{variant}"]
        run(["widen", str(path), *words], store, why)
        return load_lock(path)
