"""Compiles a blob directory against a stand-in for AITER's header, and calls it.

The stand-in (data/aiter_standin) has the interface that AITER's build gives a blob directory;
its kernels only say who they are. What runs is our text, compiled and linked for the host.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from jitcache.codegen.catalog import Instance, ModuleSpec, Stage

STANDIN = Path(__file__).parent / "data" / "aiter_standin"
COMPILER = next((c for c in ("g++", "clang++", "clang++-22") if shutil.which(c)), None)
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no host C++ compiler")

_SCALARS = {"i8": 1, "i4": 2, "f16": 3, "b16": 4, "f8": 5, "f32": 6, "fp4x2": 7}
"""Types as numbers of the stand-in's at::ScalarType."""


@dataclass(frozen=True)
class Call:
    """One call of AITER's entry point."""

    stage: Stage
    block_m: int
    inter_dim: int
    x: str
    w: str
    y: str
    act_op: int
    quant: int
    routed: bool
    shuffled: bool
    name: str = "-"

    def line(self) -> str:
        types = (_SCALARS[self.x], _SCALARS[self.w], _SCALARS[self.y])
        return " ".join(
            map(
                str,
                (
                    *(self.stage, self.block_m, self.inter_dim, *types),
                    *(self.act_op, self.quant, int(self.routed), int(self.shuffled), self.name),
                ),
            )
        )


def call(
    spec: ModuleSpec, stage: Stage, block_m: int, inter_dim: int = 1024, name: str = "-"
) -> Call:
    """The call that AITER makes for a module (fused_moe passes fp32 to a split-K stage 1)."""
    return Call(
        stage,
        block_m,
        inter_dim,
        spec.a,
        spec.b,
        "f32" if spec.splitk and stage == 1 else spec.c,
        int(spec.act == "silu") if stage == 1 else 0,
        spec.quant.number,
        spec.routed_weight_stage == stage,
        spec.preshuffle,
        name,
    )


def write(files: Mapping[str, str], directory: Path) -> None:
    for path, text in files.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text(text)


def build(
    files: Mapping[str, str], directory: Path, *, fp4: bool = True, link: bool = False
) -> Path:
    """Compile a blob's headers, and with `link` its instance files, to a program.

    With `link`, a kernel that a header names and no file instantiates is a link error.
    """
    write(files, directory)
    flags = ["-std=c++17", "-O0", f"-I{STANDIN}", f"-I{directory}"]
    flags += ["-D__Float4_e2m1fn_x2"] if fp4 else []
    program = directory / "calls"
    calls = str(STANDIN / "calls.cc")
    if not link:
        compile_(["-DSTANDIN_WITHOUT_INSTANCES", *flags, calls, "-o", str(program)])
        return program
    sources = sorted((directory / "instances").iterdir())
    compile_([*flags, calls, "-x", "c++", *map(str, sources), "-o", str(program)])
    return program


def compile_(args: Sequence[str]) -> None:
    assert COMPILER is not None
    done = subprocess.run([COMPILER, *args], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def run(program: Path, calls: Iterable[Call]) -> list[str]:
    """The answers to calls: a kernel's description, or `error ` and the message."""
    text = "".join(f"{c.line()}\n" for c in calls)
    done = subprocess.run([str(program)], input=text, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def described(i: Instance, header: str = "any") -> str:
    """What the stand-in's kernel says of itself, if it is this instance."""
    m, t = i.module, i.tile
    blockscale = "blkscale" in i.family
    out = "F32" if m.splitk and i.stage == 1 and blockscale else m.c.upper()
    words = [
        *(i.stage, header, m.a.upper(), m.b.upper(), "I32" if m.a == "i8" else "F32", out, i.op),
        *(f"v{t.pipeline}", t.block_size, t.m, t.n, t.k, t.m_waves, t.n_waves, 0),
        *(int(m.quant.word == "per_tensor"), int(i.mul_routed_weight)),
        int(i.stage == 1 and m.act == "silu"),
    ]
    return " ".join(map(str, words))
