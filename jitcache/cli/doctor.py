"""`jitcache doctor`: what can be built here, what is missing, and what to do about it."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any, NamedTuple

import click

from jitcache.cli import output
from jitcache.errors import JitcacheError, ToolchainError
from jitcache.store.layout import Layout, store_root
from jitcache.toolchain.allocator import Allocator, find_allocator, wished
from jitcache.toolchain.base import ISA_VERSIONS, PartReport
from jitcache.toolchain.find import examine, make_request
from jitcache.toolchain.model import Toolchain

_LOW_SPACE = 512 << 20
"""Free bytes below which a build may well fail: a module's objects and their staging."""

_NO_LIMIT = 1 << 50
"""Bytes of memory that no machine has: nothing told how much there is (no /proc)."""

_KFD_NODES = "sys/class/kfd/kfd/topology/nodes"


class Package(NamedTuple):
    """A Python package that jitcache declares.

    Attributes:
        name: as on the package index.
        wanted: the version condition, e.g. `>=8.1.8`.
        extra: the extra that asks for it; "" where jitcache can't do without.
        version: the installed one, "" where there is none.
        status: `found`, `missing` or `wrong`.
    """

    name: str
    wanted: str
    extra: str
    version: str
    status: str


class Trouble(NamedTuple):
    """Something outside of the toolchain that the user should know.

    Attributes:
        what: what is the matter.
        next_step: what to do about it.
        fatal: whether nothing can be built because of it.
    """

    what: str
    next_step: str
    fatal: bool


@click.command()
@click.option(
    "--arch",
    type=click.Choice(list(ISA_VERSIONS)),
    default="gfx950",
    show_default=True,
    help="GPU architecture to build for.",
)
@click.option(
    "--provider",
    type=click.Choice(["rocm", "llvm"]),
    help="Toolchain to look at; ROCm's if it is installed, else llvm.",
)
@click.option(
    "--ck",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Composable Kernel or AITER checkout.",
)
@click.option("--strict", is_flag=True, help="Gate: is every kernel of --lock in place?")
@click.option(
    "--lock", "lock_path", type=Path, metavar="FILE", help="With --strict: the lock file."
)
@output.json_option
def command(
    arch: str,
    provider: str | None,
    ck: Path | None,
    strict: bool,
    lock_path: Path | None,
    as_json: bool,
) -> None:
    """Show what can be built here, and what is missing."""
    if strict or lock_path is not None:
        _gate(strict, lock_path, as_json=as_json)
        return
    request = make_request(arch, provider=provider, ck=ck)
    examination = examine(request)
    packages = declared_packages()
    ninja, troubles = _ninja()
    troubles += _package_troubles(packages)
    store, store_troubles = _store(store_root())
    troubles += store_troubles
    machine = _machine()
    gpus = find_gpus()
    allocator = _allocator(examination.toolchain)
    toolchain = examination.toolchain
    ready = toolchain is not None and not any(t.fatal for t in troubles)
    if as_json:
        output.emit_json(
            {
                "ok": ready,
                "arch": arch,
                "provider": examination.provider,
                "toolchain": toolchain.id if toolchain is not None else None,
                "parts": [_part_json(r) for r in examination.reports],
                "rejected_flags": list(toolchain.rejected_flags) if toolchain else [],
                "no_shortcuts": toolchain.no_shortcuts if toolchain else "",
                "allocator": allocator,
                "ninja": ninja,
                "packages": [p._asdict() for p in packages],
                "store": store,
                "machine": machine,
                "gpus": gpus,
                "troubles": [t._asdict() for t in troubles],
            }
        )
    else:
        _print_toolchain(examination.provider, arch, examination.reports)
        if toolchain is not None:
            output.out(f"toolchain id: {toolchain.id}")
            if toolchain.rejected_flags:
                rejected = ", ".join(toolchain.rejected_flags)
                output.out(f"flags that this compiler does not know, left out: {rejected}")
            reason = toolchain.no_shortcuts
            output.out(f"shortcuts through CK: {f'not used: {reason}' if reason else 'used'}")
        output.out()
        _print_rest(allocator, ninja, packages, store, machine, gpus)
        for t in troubles:
            output.out(f"{'problem' if t.fatal else 'note'}: {t.what}")
            output.out(f"  next: {t.next_step}")
    if ready:
        if not as_json:
            output.out(f"ready to build for {arch}")
        return
    bad = [r for r in examination.reports if r.status != "found"]
    steps = [r.next_step for r in bad if r.next_step] + [t.next_step for t in troubles if t.fatal]
    raise ToolchainError(f"nothing can be built for {arch} here", hint=steps[0] if steps else None)


def _gate(strict: bool, lock_path: Path | None, *, as_json: bool) -> None:
    from jitcache.cli.storeview import open_store, say_notices
    from jitcache.cli.warm import readiness_json
    from jitcache.errors import UnsupportedError, UsageError
    from jitcache.lockfile import load_lock
    from jitcache.pack.warm import readiness

    if lock_path is None or not strict:
        raise UsageError(
            "--strict and --lock belong together", hint="jitcache doctor --strict --lock FILE"
        )
    lock = load_lock(lock_path)
    store = open_store()
    state = readiness(lock, store)
    gpus = sorted({g["arch"] for g in find_gpus()})
    say_notices(store)
    if as_json:
        output.emit_json(readiness_json(lock, state) | {"gpus": gpus})
    else:
        output.out(f"{lock.manifest} for {lock.arch}: {state}")
    state.require(lock)
    if gpus and lock.arch not in gpus:
        raise UnsupportedError(
            f"the lock is for {lock.arch}, but this machine has {', '.join(gpus)}",
            where=str(lock_path),
            hint="use the lock that `jitcache prebuild` wrote for this architecture",
        )


def declared_packages() -> list[Package]:
    """The packages that jitcache's own metadata asks for, development tools left out."""
    from importlib import metadata

    try:
        wanted = metadata.requires("jitcache") or []
    except metadata.PackageNotFoundError:
        return []
    packages = []
    for line in wanted:
        found = re.match(r"([A-Za-z0-9._-]+)\s*([^;]*)", line)
        extra = re.search(r"""extra\s*==\s*["']([^"']+)""", line)
        if found is None or (extra is not None and extra[1] == "dev"):
            continue
        try:
            version = metadata.version(found[1])
        except metadata.PackageNotFoundError:
            version = ""
        condition = found[2].strip()
        fits = satisfies(version, condition)
        status = "missing" if not version else "found" if fits else "wrong"
        packages.append(Package(found[1], condition, extra[1] if extra else "", version, status))
    return packages


def satisfies(version: str, condition: str) -> bool:
    """Whether a version meets the lower bound of a condition (`>=1.2,<2` is read as `>=1.2`)."""
    least = re.search(r">=\s*([\d.]+)", condition)
    return least is None or _numbers(version) >= _numbers(least[1])


def gfx_name(target: int) -> str:
    """The architecture that the kernel driver calls by a number: 90402 is `gfx942`."""
    major, rest = divmod(target, 10_000)
    minor, step = divmod(rest, 100)
    return f"gfx{major}{minor:x}{step:x}"


def find_gpus(root: Path = Path("/")) -> list[dict[str, Any]]:
    """AMD GPUs that the kernel driver knows: node number, architecture, compute units."""
    found = []
    for node in sorted((root / _KFD_NODES).glob("*"), key=lambda p: _numbers(p.name)):
        try:
            text = (node / "properties").read_text(errors="replace")
        except OSError:
            continue
        values = dict(line.split(None, 1) for line in text.splitlines() if " " in line)
        try:
            target = int(values.get("gfx_target_version", "0"))
            simds = int(values.get("simd_count", "0"))
            per_cu = int(values.get("simd_per_cu", "0"))
        except ValueError:
            continue
        if target:  # CPUs are nodes, too
            units = simds // per_cu if per_cu else 0
            found.append({"node": node.name, "arch": gfx_name(target), "compute_units": units})
    return found


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", text))


def _part_json(report: PartReport) -> dict[str, Any]:
    path = None if report.path is None else str(report.path)
    return {**report._asdict(), "path": path}


def _ninja() -> tuple[dict[str, Any], list[Trouble]]:
    from jitcache.build.ninjabin import find_ninja
    from jitcache.toolchain.base import run

    try:
        path = find_ninja()
    except JitcacheError as e:
        missing = {"status": "missing", "path": None, "version": ""}
        return missing, [Trouble(str(e.what), e.hint or "pip install ninja", True)]
    asked = run([str(path), "--version"], os.environ)
    if asked.status != 0:
        wrong = {"status": "wrong", "path": str(path), "version": ""}
        what = f"{path} does not run: {asked.err.strip() or asked.status}"
        return wrong, [Trouble(what, "pip install --force-reinstall ninja", True)]
    return {"status": "found", "path": str(path), "version": asked.out.strip()}, []


def _package_troubles(packages: list[Package]) -> list[Trouble]:
    if not packages:
        note = "jitcache is not installed: its Python packages can't be checked"
        return [Trouble(note, "pip install . (or tools/setup) in the checkout", False)]
    troubles = []
    for p in packages:
        if not p.extra and p.status != "found":
            have = f"is {p.version}" if p.version else "is not installed"
            troubles.append(
                Trouble(
                    f"the Python package {p.name} {have}, {p.wanted or 'any'} is needed",
                    f'pip install "{p.name}{p.wanted}"',
                    True,
                )
            )
    return troubles


def _store(root: Path) -> tuple[dict[str, Any], list[Trouble]]:
    from jitcache.store.health import problems

    troubles = []
    listed = []
    for p in problems(Layout(root)):
        # Reading is all that some users of a store do, but a build must add to it.
        troubles.append(Trouble(f"{p.where}: {p.detail}", p.hint, p.fatal or p.kind == "read-only"))
        listed.append({"kind": p.kind, "fatal": p.fatal, "where": p.where, "detail": p.detail})
    place = root
    while not place.exists():
        place = place.parent
    try:
        st = os.statvfs(place)
        free = st.f_bavail * st.f_frsize
    except OSError as e:
        troubles.append(Trouble(f"{place}: {e.strerror}", "set JITCACHE_DIR elsewhere", True))
        free = 0
    else:
        if free < _LOW_SPACE:
            troubles.append(
                Trouble(
                    f"only {output.size(free)} are free for the store at {root}",
                    "free some space, `jitcache rm` old results, or set JITCACHE_DIR elsewhere",
                    free < _LOW_SPACE // 64,
                )
            )
    return {"path": str(root), "free_bytes": free, "problems": listed}, troubles


def _machine() -> dict[str, Any]:
    from jitcache.build.capacity import read_machine

    machine = read_machine()
    return {
        "cores": os.cpu_count() or 1,
        "cpus": machine.cpus,
        "memory_bytes": machine.memory if machine.memory < _NO_LIMIT else None,
        "python": platform.python_version(),
    }


def _print_toolchain(provider: str, arch: str, reports: tuple[PartReport, ...]) -> None:
    output.out(f"provider {provider}, for {arch}")
    rows = [(r.status, r.name, r.version, r.digest[7:19], str(r.path or "")) for r in reports]
    output.out(output.table(("status", "part", "version", "digest", "where"), rows))
    for r in reports:
        if r.status != "found":
            output.out(f"{r.status} {r.name}: {r.detail}")
            output.out(f"  next: {r.next_step or 'see the part above'}")


def _allocator(toolchain: Toolchain | None) -> dict[str, Any]:
    """What the compiler allocates memory with."""
    if toolchain is None:
        return {"name": None, "path": None, "detail": "needs a toolchain first"}
    found = find_allocator(wished(None, os.environ), toolchain.compiler)
    if isinstance(found, Allocator):
        return {"name": found.name, "path": str(found.path), "detail": "preloaded into compilers"}
    return {"name": None, "path": None, "detail": f"the C library's: {found.reason}"}


def _print_rest(
    allocator: dict[str, Any],
    ninja: dict[str, Any],
    packages: list[Package],
    store: dict[str, Any],
    machine: dict[str, Any],
    gpus: list[dict[str, Any]],
) -> None:
    optional = "; ".join(
        f"{p.name} {p.version or 'absent'} (extra {p.extra})" for p in packages if p.extra
    )
    needed = ", ".join(f"{p.name} {p.version or p.status}" for p in packages if not p.extra)
    cards = ", ".join(f"{g['arch']} ({g['compute_units']} CUs)" for g in gpus)
    known = machine["memory_bytes"] is not None
    memory = output.size(machine["memory_bytes"]) if known else "an unknown amount"
    rows = [
        (
            "allocator",
            " ".join(allocator[k] for k in ("name", "path", "detail") if allocator[k]),
        ),
        ("ninja", f"{ninja['status']} {ninja['version']} {ninja['path'] or ''}".strip()),
        ("python", f"{machine['python']}; {needed or 'packages unknown'}"),
        ("optional", optional or "none"),
        ("store", f"{store['path']}, {output.size(store['free_bytes'])} free"),
        (
            "machine",
            f"{machine['cores']} cores, {machine['cpus']:g} CPUs usable, {memory} of memory free",
        ),
        ("GPUs", cards or "none seen (not needed to build)"),
    ]
    for name, text in rows:
        output.out(f"{name:<10} {text}")
