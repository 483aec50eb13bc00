"""Data flows one way: no module imports one downstream of it, and start-up stays cheap."""

from __future__ import annotations

import ast
import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "jitcache"

# From upstream to downstream; a module may import what stands in its own row or above.
LAYERS = (
    ("errors", "digest", "_version", "jsonread", "text", "depfile", "userconfig", "__init__"),
    ("codegen.catalog",),
    ("manifest",),
    ("plan",),
    ("codegen",),
    ("store", "toolchain", "codeobject", "identity"),
    ("action",),
    ("aiter",),
    ("build", "buildlog"),
    ("report", "lockfile", "lockmaker", "sign", "remote"),
    ("outcome", "publication"),
    ("prebuild", "sweep", "widen", "pack", "prebuilt"),
    ("fleet",),
    ("runtime",),
    ("emulator",),
    ("capture", "selftest"),
    ("cli", "__main__", "codegen.gen_instances"),
)


def layer_of(module: str) -> int | None:
    name = module.removeprefix("jitcache").removeprefix(".") or "__init__"
    best = None
    for number, row in enumerate(LAYERS):
        for prefix in row:
            if (name == prefix or name.startswith(prefix + ".")) and (
                best is None or len(prefix) > best[0]
            ):
                best = (len(prefix), number)
    return best[1] if best else None


@functools.cache
def modules() -> list[tuple[str, Path]]:
    found = []
    # os.walk, because codegen/ is linked into the package and rglob doesn't follow links.
    paths = [
        Path(directory, file)
        for directory, _, files in os.walk(PACKAGE, followlinks=True)
        for file in files
        if file.endswith(".py")
    ]
    for path in sorted(paths):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        if "csrc" in parts or "manifests" in parts or "templates" in parts:
            continue
        found.append((".".join(parts).removesuffix(".__init__"), path))
    return found


def test_every_module_has_a_layer():
    unknown = [name for name, _ in modules() if layer_of(name) is None]
    assert unknown == []


@pytest.mark.parametrize(("name", "path"), modules(), ids=lambda v: v if isinstance(v, str) else "")
def test_a_module_imports_nothing_downstream(name, path):
    mine = layer_of(name)
    assert mine is not None
    names = {m for m, _ in modules()}
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package
            for _ in range(node.level - 1):
                base = base.rpartition(".")[0]
            stem = node.module or ""
            full = f"{base}.{stem}".rstrip(".") if node.level else stem
            deeper = [f"{full}.{a.name}" for a in node.names]
            imported = [d for d in deeper if d in names]
            if len(imported) < len(deeper):
                imported.append(full)
        else:
            continue
        for other in imported:
            if (name, other) == ("jitcache", "jitcache.runtime.load"):
                continue  # the front door: `jitcache.load` is imported when it is asked for
            if other.startswith("jitcache") and (theirs := layer_of(other)) is not None:
                assert theirs <= mine, f"{name} imports {other}, which is downstream"


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("jitcache", "json msgspec click jinja2 torch ninja"),
        ("jitcache.cli.main", "jinja2 msgspec torch rich zstandard elftools"),
        (
            "jitcache.cli.prebuild",
            "jinja2 torch elftools filelock subprocess asyncio cryptography jitcache.remote",
        ),
    ],
)
def test_start_up_imports_only_what_it_needs(module, unwanted):
    code = f"import sys, {module}; print([m for m in {unwanted.split()!r} if m in sys.modules])"
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )
    assert said.stdout.strip() == "[]"
