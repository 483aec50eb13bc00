"""What `jitcache generate` writes: from its request to directories of sources.

Two ways lead to the instances of a module: a manifest through its plan, or the options of
AITER's generator with a shape. Both end in the same rendering.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jitcache.action.worklist import worklist
from jitcache.aiter import blobdir, narrow
from jitcache.aiter import tree as aitertree
from jitcache.aiter.request import Request, able_archs, check, choose_arch, doubts, specs_of
from jitcache.codegen import aiter as dialect
from jitcache.codegen import catalog, native, stock
from jitcache.codegen.catalog import Arch, ModuleSpec
from jitcache.errors import UnsupportedError, UsageError
from jitcache.manifest.load import load_manifest
from jitcache.manifest.model import Manifest
from jitcache.plan.planner import Plan, plan
from jitcache.plan.tuned import Row, read_tuned, tuned_files_of

_AITER_FILES = (f"{dialect.INSTANCES}/*.cu", dialect.LOOKUP, *dialect.DISPATCH)
_NATIVE_FILES = ("*.hip",)


@dataclass(frozen=True, slots=True)
class Module:
    """One module that was written.

    Attributes:
        name: as AITER names it at run time.
        directory: where its sources are; several modules may share one.
        instances: what it holds.
        left_out: the module's other instances.
        files: number of files in the directory.
    """

    name: str
    directory: Path
    instances: tuple[str, ...]
    left_out: tuple[str, ...]
    files: int


@dataclass(frozen=True, slots=True)
class Result:
    """What was written.

    Attributes:
        dialect: `aiter` or `native`.
        arch: the architecture.
        commit: the AITER that the tree was found to be; None if none was given.
        modules: the modules.
        notes: what the reader should know.
    """

    dialect: str
    arch: Arch
    commit: str | None
    modules: tuple[Module, ...]
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """One line for people per directory."""
        found: dict[Path, list[Module]] = {}
        for module in self.modules:
            found.setdefault(module.directory, []).append(module)
        return [f"{place}: {_contents(modules)}" for place, modules in found.items()]

    def to_json(self) -> dict[str, Any]:
        """The form of `--json`."""
        return {
            "dialect": self.dialect,
            "arch": self.arch,
            "aiter": self.commit,
            "modules": [
                {
                    "name": m.name,
                    "directory": str(m.directory),
                    "files": m.files,
                    "instances": list(m.instances),
                    "left_out": list(m.left_out),
                }
                for m in self.modules
            ],
            "notes": list(self.notes),
        }


def run(request: Request, directory: Path) -> Result:
    """Write what a request asks for.

    Args:
        request: the command line.
        directory: where to write.

    Raises:
        JitcacheError: its subclasses, for all that can be wrong with the request, its files,
            the tree and the directory.
    """
    check(request)
    commit = None
    if request.tree is not None and request.dialect == "aiter":
        commit = aitertree.require(request.tree, catalog.AITER_COMMIT).commit
    tables = _tables(request)
    if request.manifest is None:
        arch = choose_arch(request.arch, os.environ, (), able_archs(request))
        modules = _from_options(request, tables, arch, directory)
        notes = doubts(request, arch)
    else:
        manifest = load_manifest(request.manifest)
        arch = choose_arch(request.arch, os.environ, [t.arch for t in manifest.targets])
        targets = [t for t in manifest.targets if t.arch == arch]
        files = [*(Path(t.path) for t in manifest.tuned), *tables]
        plans = [
            plan(
                manifest,
                target=t,
                tuned=read_tuned(files) if files else None,
                block_m=request.block_ms or None,
                scope=request.scope,
            )
            for t in targets
        ]
        modules = _from_plans(request, manifest, plans, arch, directory)
        notes = []
    if request.tree is None and request.dialect == "aiter":
        notes.append(
            f"for AITER {catalog.AITER_COMMIT}; --aiter DIR checks the one that compiles it, "
            "and adds what its tuned tables name"
        )
    return Result(request.dialect, arch, commit, tuple(modules), tuple(notes))


def _tables(request: Request) -> list[Path]:
    """The tuned tables: those that the AITER at hand looks up, then further ones."""
    of_tree = tuned_files_of(request.tree) if request.tree is not None else []
    return [*of_tree, *request.tuned]


def _from_options(
    request: Request, tables: Sequence[Path], arch: Arch, directory: Path
) -> list[Module]:
    """One directory with all modules that the options name, as AITER's generator does."""
    shape = narrow.Shape(request.inter_dims, request.block_ms, request.kernels)
    rows = [] if shape.whole else _tuned_rows(request, tables, arch)
    holdings = []
    for spec in specs_of(request):
        own = {i.name for i in catalog.instances(spec, arch)}
        tuned = {name for row in rows for name in (row.kernel1, row.kernel2)} & own
        kernels = (*request.kernels, *sorted(tuned))
        names = narrow.narrow(spec, arch, replace(shape, kernels=kernels))
        holdings.append(dialect.hold(spec, arch, names))
    return _write_blob(holdings, arch, _advice(request, holdings, arch), directory)


def _tuned_rows(request: Request, tables: Sequence[Path], arch: Arch) -> list[Row]:
    """Rows for the shape: which of them the lookup finds depends on more than is known here."""
    return [
        row
        for row in read_tuned(tables).rows
        if row.shape.arch in (arch, "")
        and (not request.inter_dims or row.shape.inter_dim in request.inter_dims)
        and (not request.block_ms or row.block_m in request.block_ms)
    ]


def _advice(request: Request, holdings: Sequence[dialect.Holding], arch: Arch) -> dialect.Advice:
    """What the error messages of a module made from options advise."""
    if not any(h.left_out for h in holdings):
        return dialect.Advice(shape="", kernel="")
    heights = sorted({i.tile.m for h in holdings for i in h.kept})
    dims = "".join(f"{d}," for d in request.inter_dims)
    words = [
        *("jitcache generate", *stock.flags([h.spec for h in holdings]), "--arch", arch),
        *(["--aiter", "AITER"] if request.tree is not None else []),
        *(word for path in request.tuned for word in ("--tuned", _plain(path.name))),
        *(word for name in request.kernels for word in ("--kernel", name)),
    ]
    base = " ".join(words)
    listed = ",".join(map(str, heights))
    return dialect.Advice(
        shape=f"To add the shape, generate and build again: {base} "
        f"--inter-dim {dims}{{inter_dim}} --block-m {listed},{{block_m}} -w DIR",
        kernel=f"To add the kernel, generate and build again: {base} "
        f"{f'--inter-dim {dims[:-1]} ' if dims else ''}--block-m {listed} --kernel NAME -w DIR",
    )


def _from_plans(
    request: Request, manifest: Manifest, plans: Sequence[Plan], arch: Arch, directory: Path
) -> list[Module]:
    """A directory for each module of a manifest; the given one if there is one module."""
    chosen = _chosen(request, plans, arch)
    several = len(chosen) > 1
    name = _plain(manifest.name)
    advice = dialect.Advice(
        shape="To add block_m={block_m}, inter_dim={inter_dim}: widen the manifest "
        f"{name}, generate and build again",
        kernel="To add it: name the tuned table that asks for it in the manifest "
        f"{name}, generate and build again",
    )
    written: list[Module] = []
    for spec, names in chosen.items():
        place = directory / spec.name if several else directory
        holding = dialect.hold(spec, arch, names)
        if request.dialect == "native":
            written.append(_write_native(holding, plans, place))
        else:
            written += _write_blob([holding], arch, advice, place)
    return written


def _chosen(
    request: Request, plans: Sequence[Plan], arch: Arch
) -> dict[ModuleSpec, frozenset[str]]:
    """The modules to write, with the names of the instances that any of the plans requires."""
    found: dict[ModuleSpec, frozenset[str]] = {}
    for module in (m for p in plans for m in p.modules if m.instances):
        names = frozenset(r.instance.name for r in module.instances)
        found[module.spec] = found.get(module.spec, frozenset()) | names
    if not found:
        raise UnsupportedError(
            "the manifest needs no CK2stages kernel",
            where=f"{request.manifest}, {arch}",
            hint="`jitcache plan` says why",
        )
    if not request.weights:
        return found
    asked = [_content(spec) for spec in specs_of(request)]
    chosen = {spec: names for spec, names in found.items() if _content(spec) in asked}
    if not chosen:
        raise UsageError(
            f"the manifest doesn't need {specs_of(request)[0].name}",
            where=str(request.manifest),
            details=tuple(f"it needs {spec.name}" for spec in found),
        )
    return chosen


def _content(spec: ModuleSpec) -> tuple[object, ...]:
    """What decides a module's content: two of AITER's names may stand for the same one."""
    shuffled = spec.preshuffle if spec.b == "fp4x2" else None
    return spec.b, spec.c, spec.quant, spec.act, spec.routed_weight_stage, shuffled, spec.splitk


def _write_blob(
    holdings: Sequence[dialect.Holding], arch: Arch, advice: dialect.Advice, directory: Path
) -> list[Module]:
    files = dialect.blob(holdings, arch, advice)
    blobdir.publish(files, directory, ours=_AITER_FILES)
    return [_module(h, directory, len(files)) for h in holdings]


def _write_native(holding: dialect.Holding, plans: Iterable[Plan], directory: Path) -> Module:
    kernels = [
        kernel.recipe
        for plan in plans
        for work in worklist(plan)
        if work.name == holding.spec.name
        for kernel in work.kernels
    ]
    # One shim for what any of the targets needs.
    shim = native.shim_recipe(holding.spec, holding.kept)
    files = {recipe.source_name: recipe.render() for recipe in (*kernels, shim)}
    blobdir.publish(files, directory, ours=_NATIVE_FILES)
    return _module(holding, directory, len(files))


def _module(holding: dialect.Holding, directory: Path, files: int) -> Module:
    return Module(
        name=holding.spec.name,
        directory=directory,
        instances=tuple(i.name for i in holding.kept),
        left_out=tuple(i.name for i in holding.left_out),
        files=files,
    )


def _contents(modules: Sequence[Module]) -> str:
    # Modules that share a directory share instances, too.
    held = {name for m in modules for name in m.instances}
    every = held | {name for m in modules for name in m.left_out}
    what = modules[0].name if len(modules) == 1 else f"{len(modules)} modules"
    return f"{what}, {len(held)} of {len(every)} instances"


def _plain(text: str) -> str:
    """A file's name for a C++ string with placeholders: it may hold anything."""
    return "".join(c if c.isascii() and c.isprintable() and c not in "{}" else "?" for c in text)
