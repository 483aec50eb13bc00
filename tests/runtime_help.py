"""A store with small modules and the recording HIP library, for tests of the runtime.

The host shim is C of ours with the interface of csrc/jitcache/shim.h and easy rules: the
argument holds each field of the problem in a place of its own, so that a test can say which
bytes a launch must carry.
"""

from __future__ import annotations

import functools
import json
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from jitcache import digest
from jitcache.codegen.catalog import (
    Instance,
    ModuleSpec,
    Quant,
    dispatch,
    find,
    parse_module_name,
)
from jitcache.lockfile import (
    Lock,
    LockedAction,
    LockedInstance,
    LockedModule,
    LockedVariant,
    load_lock,
    write_lock,
)
from jitcache.store.model import ActionRecord, Output
from jitcache.store.store import Store
from tests.fake_clang import code_object

ROOT = Path(__file__).parent.parent
FP4 = ModuleSpec("fp4x2", "fp4x2", "b16", Quant.PER_1X32, "silu", 2, preshuffle=True)
KERNARG_BYTES = 104
POINTERS = (
    *("a", "a_scale", "b", "b_scale", "sorted_token_ids", "sorted_expert_ids"),
    *("num_valid_ids", "sorted_weights", "out"),
)

_SHIM = r"""
#include "jitcache/shim.h"
#include <stdio.h>
#include <string.h>
static const char* names[] = {@NAMES@};
static const int tile_m[] = {@M@}, step[] = {@K@};
#define COUNT ((int)(sizeof names / sizeof *names))
int32_t jitcache_shim_abi(void) { return @ABI@; }
int32_t jitcache_instance_count(void) { return COUNT; }
const char* jitcache_instance_name(int32_t i) { return names[i]; }
size_t jitcache_kernarg_size(int32_t i) { return i < COUNT ? 104 : 0; }
int32_t jitcache_prepare(int32_t i, const jitcache_problem* p, void* kernarg, size_t capacity,
                         jitcache_launch* launch, char* message, size_t size)
{
    if(capacity < 104) return JITCACHE_SMALL_BUFFER;
    if(p->k == 666) { snprintf(message, size, "a made-up exception"); return JITCACHE_INTERNAL; }
    if(p->k % step[i]) {
        snprintf(message, size, "K is not a multiple of the tile's K");
        return JITCACHE_UNSUPPORTED;
    }
    memset(launch, 0, sizeof *launch);
    launch->grid[0] = p->n / 128;
    launch->grid[1] = (p->sorted_size + tile_m[i] - 1) / tile_m[i];
    launch->grid[2] = 1;
    launch->block[0] = 256;
    launch->block[1] = launch->block[2] = 1;
    launch->kernarg_size = 104;
    launch->hot_loop = p->k / step[i] > 2;
    launch->tail_even = p->k / step[i] % 2 == 0;
    launch->non_temporal = p->non_temporal;
    launch->clear_bytes = p->splitk > 1 ? 4096 : 0;
    memcpy(kernarg, p, 9 * 8 + 7 * 4);
    memset((char*)kernarg + 100, 0, 4);
    return JITCACHE_OK;
}
"""


@functools.cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="jitcache-test-")


def _compile(name: str, source: Path, *flags: str) -> Path:
    made = Path(_scratch().name) / name
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-O1", *flags, str(source), "-o", str(made)], check=True
    )
    return made


@functools.cache
def recorder() -> Path:
    """The recording library; its soname is the real one's."""
    source = ROOT / "tests" / "recording_hip.c"
    flags = ("-Wall", "-Werror", "-pthread", "-Wl,-soname,libamdhip64.so.7")
    return _compile("libamdhip64.so.7", source, *flags)


@functools.cache
def shim_bytes(
    names: tuple[str, ...], m: tuple[int, ...], k: tuple[int, ...], abi: int = 1
) -> bytes:
    text = _SHIM.replace("@NAMES@", ", ".join(json.dumps(n) for n in names))
    text = text.replace("@M@", ", ".join(map(str, m))).replace("@K@", ", ".join(map(str, k)))
    source = Path(_scratch().name) / f"shim{abs(hash((names, abi)))}.c"
    source.write_text(text.replace("@ABI@", str(abi)))
    return _compile(f"{source.stem}.so", source, f"-I{ROOT / 'csrc'}").read_bytes()


def put(store: Store, name: str, data: bytes, *, target: str, mode: int = 0o444) -> LockedAction:
    """Store one action with one output."""
    inputs = {"test": name, "content": digest.of_bytes(data)}
    output = Output(name, digest.of_bytes(data), len(data), mode)
    key = digest.of_json(inputs)
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / name
        file.write_bytes(data)
        record = ActionRecord(key, inputs, (output,), target, "test", name, 1)
        store.put(record, {name: file})
    return LockedAction(key, (output,))


def make_lock(
    store: Store,
    *,
    spec: ModuleSpec = FP4,
    arch: str = "gfx950",
    block_ms: tuple[int, ...] = (64, 128),
    inter_dim: int = 1024,
    variants: tuple[tuple[bool, str], ...] = ((True, "even"),),
    manifest: str = "test-manifest",
    provider: str = "rocm",
    abi: int = 1,
) -> Path:
    """Store a module of heuristic instances for these block_m, and write its lock file."""
    chosen = [dispatch(spec, arch, s, m, inter_dim) for s in (1, 2) for m in block_ms]
    instances = tuple(
        LockedInstance(
            i.name, i.stage, i.tile.m, tuple(_variant(store, i, arch, *v) for v in variants)
        )
        for i in chosen
    )
    host = _host(store, spec, chosen, abi)
    lock = Lock(
        manifest=manifest,
        manifest_digest=digest.of_bytes(manifest.encode()),
        arch=arch,
        cu_num=256,
        toolchain="test",
        provider=provider,
        hip_version=(7, 1),
        modules=(LockedModule(spec.name, host, instances),),
    )
    directory = store.layout.root / "locks-v1"
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{manifest}.{arch}.lock.json"
    write_lock(path, lock)
    return path


def _variant(store: Store, instance: Instance, arch: str, hot: bool, tail: str) -> LockedVariant:
    stage, block_m = instance.stage, instance.tile.m
    symbol = f"_Zkernel{stage}_{block_m}_{'hot' if hot else 'cold'}_{tail}_"
    data = code_object(symbol, arch, os.urandom(8) * 8)
    action = put(store, f"gemm{stage}_{block_m}_{int(hot)}_{tail}.co", data, target=arch)
    return LockedVariant(hot, tail, None, symbol, action)


def _host(
    store: Store, spec: ModuleSpec, instances: Sequence[Instance], abi: int = 1
) -> LockedAction:
    packed = 2 if spec.a == "fp4x2" else 1
    names = tuple(i.name for i in instances)
    heights = tuple(i.tile.m for i in instances)
    shim = shim_bytes(names, heights, tuple(i.tile.k * packed for i in instances), abi)
    return put(store, f"{spec.name}.so", shim, target="host", mode=0o555)


def widen(path: Path, kernel: str, store: Store) -> None:
    """What `jitcache widen` does to a lock of one module, with kernels of ours."""
    lock = load_lock(path)
    (module,) = lock.modules
    name, _, word = kernel.rpartition(":")
    hot, tail = word.split("-")[:2]
    spec = parse_module_name(module.name)
    held = {i.name: i for i in module.instances}
    instance = find(name, spec, lock.arch)
    known = held.get(name) or LockedInstance(name, instance.stage, instance.tile.m, ())
    added = _variant(store, instance, lock.arch, hot == "hot", tail)
    held[name] = replace(known, variants=(*known.variants, added))
    host = _host(store, spec, [find(n, spec, lock.arch) for n in held])
    wider = LockedModule(module.name, host, tuple(held.values()))
    write_lock(path, replace(lock, modules=(wider,)))


def builder(place: Path) -> Path:
    """A program for `sys.executable` that stands for jitcache and its compiler.

    It writes its arguments to `place/asked`, takes `place/wait` seconds, and fails where
    `place/fail` is.
    """
    code = (
        "import sys; from pathlib import Path; from jitcache.store.store import Store;"
        " from tests import runtime_help as h;"
        " h.widen(Path(sys.argv[4]), sys.argv[8], Store.of_user())"
    )
    script = place / "builder"
    script.write_text(
        f"""#!/bin/sh
echo "$@" >> {place}/asked
if [ -e {place}/fail ]; then echo error: no compiler >&2; exit 4; fi
if [ -e {place}/wait ]; then sleep "$(cat {place}/wait)"; fi
PYTHONPATH={ROOT} {sys.executable} -c '{code}' "$@" && echo '{{"built": 2}}'
"""
    )
    script.chmod(0o755)
    return script


def expected_kernarg(problem: dict[str, int]) -> bytes:
    """What the test's shim writes for a problem."""
    numbers = ("tokens", "topk", "sorted_size", "n", "k", "splitk", "non_temporal")
    pointers = struct.pack("<9Q", *(problem.get(n) or 0 for n in POINTERS))
    return pointers + struct.pack("<7i", *(problem[n] for n in numbers)) + bytes(4)


def python(code: str, *, env: dict[str, str] | None = None, executable: str = sys.executable):
    """Run a script in a fresh process with the recording library; its output."""
    return subprocess.run(
        [executable, "-c", code],
        env={**os.environ, "JITCACHE_HIP_LIBRARY": str(recorder()), **(env or {})},
        capture_output=True,
        text=True,
        cwd=ROOT,
    )


def calls(log: Path, kind: str = "") -> list[dict]:
    """What the recording library wrote down."""
    if not log.exists():
        return []
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return [line for line in lines if kind in ("", line["call"])]
