"""The slowest kernel of every family that a shipped manifest needs, against its stock unit.

For `bench_vs_stock --every-family`. A stock translation unit takes minutes, so each paired run
is appended to a record, and what the record has is not run again.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import stock

from jitcache.action.ckfeatures import missing
from jitcache.action.command import compile_command
from jitcache.action.worklist import KernelWork, worklist
from jitcache.build.durations import Durations, features_of
from jitcache.codegen import native
from jitcache.manifest.load import load_manifest
from jitcache.plan.planner import plan
from jitcache.toolchain.allocator import find_allocator, wished
from jitcache.toolchain.environment import clean_environment
from jitcache.toolchain.find import find_toolchain, path_of
from jitcache.toolchain.model import Toolchain

TOOLS = Path(__file__).parent
MANIFESTS = TOOLS.parent / "manifests"


@dataclass(frozen=True)
class Pair:
    """A kernel of ours and the stock unit that holds it.

    Attributes:
        manifest: one that needs it.
        arch: target.
        kernel: the kernel.
    """

    manifest: str
    arch: str
    kernel: KernelWork

    @property
    def name(self) -> str:
        """`a4w4 gfx950 gemm1 256x128x128x128 v3 hot-even`."""
        kernel = self.kernel
        family = native.header(kernel.instance)
        return f"{family} {self.arch} {kernel.instance.short} {kernel.variant}"


def measure(argv: list[str], cwd: Path, env: dict[str, str] | None = None) -> tuple[float, float]:
    """Wall and CPU seconds of a compile."""
    begin = time.monotonic()
    process = subprocess.Popen(argv, cwd=cwd, env=env)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - begin
    if status:
        raise SystemExit(f"failed: {' '.join(argv)}")
    return wall, usage.ru_utime + usage.ru_stime


def slowest_pairs() -> Iterator[Pair]:
    """By estimate, the slowest kernel of stage 1 per family and target; of stage 2 if slower."""
    known = Durations()
    found: dict[tuple[int, str, str], tuple[float, Pair]] = {}
    for file in sorted(MANIFESTS.glob("*.toml")):
        manifest = load_manifest(file.stem)
        for target in manifest.targets:
            toolchain = find_toolchain(target.arch)
            ck = path_of(toolchain, "ck", "")
            for module in worklist(plan(manifest, target=target)):
                for kernel in module.kernels:
                    if missing(ck, kernel.instance, kernel.variant) is not None:
                        continue
                    cost = known.estimate(features_of(kernel.recipe, target.arch, "")).cost_s
                    family = native.header(kernel.instance)
                    key = (kernel.instance.stage, family, target.arch)
                    if key not in found or cost > found[key][0]:
                        found[key] = (cost, Pair(manifest.name, target.arch, kernel))
    for (stage, family, arch), (cost, pair) in sorted(found.items(), key=lambda item: item[0]):
        if stage == 1 or (1, family, arch) not in found or cost > found[1, family, arch][0]:
            yield pair


def paired_run(pair: Pair, torch: Path) -> dict[str, object]:
    """Compile the stock unit and our kernel, one after the other, and compare their code."""
    toolchain = find_toolchain(pair.arch)
    csrc = stock.aiter_meta() / "csrc"
    with tempfile.TemporaryDirectory(prefix="jitcache-bench-") as directory:
        work = Path(directory)
        words = stock.generator_words(pair.kernel.instance.module)
        sources = stock.generate(csrc, work / "stock", pair.arch, words)
        source = stock.source_of(sources, pair.kernel.instance)
        theirs = work / "stock.o"
        argv = stock.command(toolchain, csrc, source, theirs, device_only=False, torch=torch)
        stock_wall, stock_cpu = measure(argv, work)
        recipe = pair.kernel.recipe
        (work / recipe.source_name).write_text(recipe.render())
        names = {"{source}": recipe.source_name, "{output}": "ours.co", "{depfile}": "d"}
        argv = [names.get(w, w) for w in compile_command(toolchain, "device").argv]
        our_wall, our_cpu = measure(argv, work, our_environment(toolchain, directory))
        unbundle(toolchain, theirs, work / "stock.co", pair.arch)
        identity = subprocess.run(
            [sys.executable, TOOLS / "identity", work / "ours.co", work / "stock.co"],
            capture_output=True,
            text=True,
            check=False,  # it says by its status whether they are the same
        )
    return {
        "name": pair.name,
        "manifest": pair.manifest,
        "stock": [round(stock_wall, 2), round(stock_cpu, 2)],
        "ours": [round(our_wall, 2), round(our_cpu, 2)],
        # Without the symbol; of a difference the first example, too.
        "identity": "; ".join(
            re.sub(r"\s*\(.*", "", line.strip()) for line in identity.stdout.splitlines()[:2]
        ),
        "same": identity.returncode == 0,
    }


def our_environment(toolchain: Toolchain, directory: str) -> dict[str, str]:
    """What `prebuild` runs compilers in: clean, and with an allocator where there is one."""
    allocator = find_allocator(wished(None, os.environ), toolchain.compiler)
    return clean_environment(os.environ, directory) | dict(allocator.env)


def unbundle(toolchain: Toolchain, obj: Path, output: Path, arch: str) -> None:
    """Take the code object out of a host object."""
    tools = Path(os.path.realpath(toolchain.compiler)).parent
    fat = obj.with_suffix(".fatbin")
    dump = f"--dump-section=.hip_fatbin={fat}"
    subprocess.run([tools / "llvm-objcopy", dump, obj, os.devnull], check=True)
    listed = subprocess.run(
        [tools / "clang-offload-bundler", "--list", "--type=o", f"--input={fat}"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    (target,) = [t for t in listed if t.endswith(arch)]
    subprocess.run(
        [
            tools / "clang-offload-bundler",
            *("--unbundle", "--type=o", f"--targets={target}"),
            *(f"--input={fat}", f"--output={output}"),
        ],
        check=True,
    )


def read_record(path: Path) -> list[dict[str, object]]:
    """The paired runs of a record."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line]


def run(record: Path, only: str, repeat: int, most: int | None, torch: Path) -> None:
    """Do the paired runs that a record lacks: every pair once, then every pair again.

    Args:
        record: JSON lines, one per paired run.
        only: part of the names of the pairs to run; "" for all.
        repeat: how many of each pair.
        most: at most so many now.
        torch: torch's headers.
    """
    pairs = [p for p in slowest_pairs() if only in p.name]
    for wanted in range(1, repeat + 1):
        for pair in pairs:
            done = sum(1 for r in read_record(record) if r["name"] == pair.name)
            if done >= wanted:
                continue
            if most is not None:
                if most == 0:
                    return
                most -= 1
            line = json.dumps(paired_run(pair, torch))
            with record.open("a") as f:
                f.write(line + "\n")


def table(record: Path) -> list[tuple[str, ...]]:
    """Rows of medians: kernel, runs, stock and our wall and CPU, ratios, identity."""
    by_name: dict[str, list[dict[str, object]]] = {}
    for line in read_record(record):
        by_name.setdefault(str(line["name"]), []).append(line)
    rows = []
    for name, lines in by_name.items():
        numbers = [
            statistics.median(line[side][i] for line in lines)  # type: ignore[index]
            for side in ("stock", "ours")
            for i in (0, 1)
        ]
        ratios = [
            statistics.median(line["stock"][i] / line["ours"][i] for line in lines)  # type: ignore[index]
            for i in (0, 1)
        ]
        same = all(line["same"] for line in lines)
        rows.append(
            (
                name,
                str(len(lines)),
                *(f"{n:.1f}" for n in numbers),
                *(f"{r:.2f}" for r in ratios),
                next(str(x["identity"]) for x in lines if x["same"] == same),
            )
        )
    return rows
