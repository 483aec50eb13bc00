"""What can go wrong where AITER looks for modules and builds them.

Places and names of locks and blobs: AITER 9bab8388, aiter/jit/core.py:305-316, 716, 745 and
850, aiter/jit/utils/cpp_extension.py:1184, aiter/jit/utils/file_baton.py.
"""

from __future__ import annotations

import ast
import os
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, cast

from jitcache.runtime import hip as hip_module
from jitcache.runtime.dropin import KNOWN_COUNTS, Finding, open_installed, status
from jitcache.runtime.hip import Hip
from jitcache.runtime.jitdir import MODULES, Place, aiter_package, can_write
from jitcache.runtime.module import Module
from jitcache.store.store import Store

MERGED_TABLES = Path("/tmp/aiter_configs")  # noqa: S108 - AITER's, the same for every user
"""Where AITER merges its tuned tables; its releases of 2025 merge them in the directory above."""

OLD_LOCK_S = 600
"""A lock that is older was left by a builder that was killed: none writes to it."""

_ELF_HEADER = 64


def doctor(place: Place, store: Store, arch: str | None = None) -> Iterator[Finding]:
    """What `status` says, and what else can go wrong.

    Args:
        place: where modules are, and where AITER looks and builds.
        store: where objects are.
        arch: this machine's GPU, where HIP finds none.
    """
    yield from status(place, store)
    yield from _calls()
    driver = hip_module.open_hip()
    count = driver.device_count() if isinstance(driver, Hip) else 0
    gpus = range(count if isinstance(count, int) else 0)
    for package, module in open_installed(place, store):
        if isinstance(module, Module):
            yield from _on_gpus(package, module, gpus)
    here = {arch} if arch else set()
    if isinstance(driver, Hip):
        here |= {driver.arch(device).partition(":")[0] for device in gpus}
    for directory in dict.fromkeys((place.imported, place.builds)):
        for path in sorted(directory.glob("*.so")):
            yield from _compiled(path, here)
    yield from _unwritable(place.builds)
    yield from _locks(place.builds)
    yield from _blobs(place)


def _calls() -> Iterator[Finding]:
    """Whether the installed AITER calls the stages with arguments that we know."""
    package = aiter_package()
    source = package / "ops" / "moe_op.py" if package else None
    if source is None or not source.exists():
        return
    for node in ast.walk(ast.parse(source.read_bytes())):
        if isinstance(node, ast.FunctionDef) and node.name in ("ck_moe_stage1", "ck_moe_stage2"):
            count = len(node.args.args)
            if count not in KNOWN_COUNTS:
                known = " or ".join(map(str, KNOWN_COUNTS))
                detail = f"{node.name} has {count} arguments; this jitcache knows {known}"
                yield Finding("skew", source, detail)


def _on_gpus(package: Path, module: Module, gpus: Iterable[int]) -> Iterator[Finding]:
    said: set[str] = set()
    for device in gpus:
        refusal = module.check(device)
        other = module.other_cu_num(device)
        if refusal is not None and refusal.detail not in said:
            said.add(refusal.detail)
            kind = cast("Literal['other-arch', 'other-rocm', 'old-rocm']", refusal.reason)
            yield Finding(kind, package, f"{refusal.what} {refusal.detail}")
        elif refusal is None and other is not None:
            yield Finding("other-cu-num", package, str(other))


def _compiled(path: Path, here: set[str]) -> Iterator[Finding]:
    """What is wrong with a shared object that AITER compiled."""
    data = path.read_bytes()
    if _cut_off(data):
        yield Finding("truncated", path, f"only {len(data)} bytes; remove it")
        return
    arches = {m.decode() for m in re.findall(rb"amdhsa--(gfx[0-9a-f]+)", data)}
    if arches and here - arches:
        lacking = ", ".join(sorted(here - arches))
        yield Finding("other-arch", path, f"holds {', '.join(sorted(arches))}, not {lacking}")


def _unwritable(builds: Path) -> Iterator[Finding]:
    if not can_write(builds):
        yield Finding("unwritable", builds, "AITER can't put what it compiles here")
    # Whoever ran AITER first on this machine owns them.
    for path in (MERGED_TABLES, *sorted(MERGED_TABLES.parent.glob("*tuned*.csv"))):
        if path.exists() and not os.access(path, os.W_OK):
            yield Finding("unwritable", path, "AITER can't merge its tuned tables here")


def _locks(builds: Path) -> Iterator[Finding]:
    places = (
        *builds.glob("build/lock_*"),
        *builds.glob("build/*/build/lock"),
        *MERGED_TABLES.glob("*.lock"),
    )
    for path in sorted(places):
        age = _age_s(path)
        if age > OLD_LOCK_S:
            detail = f"{age / 60:.0f} minutes old; AITER waits for it: remove it if nothing builds"
            yield Finding("stale-lock", path, detail)


def _blobs(place: Place) -> Iterator[Finding]:
    """Generated sources that no finished build belongs to.

    AITER never empties such a directory and compiles every file in it, so what an interrupted
    or larger build left is compiled by the next one, too.
    """
    for blob in sorted(place.builds.glob(f"build/{MODULES}*/blob")):
        name = blob.parent.name
        running = _age_s(place.builds / "build" / f"lock_{name}") <= OLD_LOCK_S
        if not running and not (place.builds / f"{name}.so").exists() and any(blob.iterdir()):
            detail = f"AITER's next build of {name} compiles all of it; remove {blob.parent}"
            yield Finding("orphan-blob", blob, detail)


def _age_s(path: Path) -> float:
    """Seconds since a file was written; endless if there is none."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return float("inf")


def _cut_off(data: bytes) -> bool:
    """Whether an ELF file ends before its section headers do."""
    if len(data) < _ELF_HEADER or data[:4] != b"\x7fELF":
        return True
    start = int.from_bytes(data[40:48], "little")
    size, count = (int.from_bytes(data[i : i + 2], "little") for i in (58, 60))
    return len(data) < start + size * count
