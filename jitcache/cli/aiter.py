"""`jitcache aiter`: let an unmodified AITER import what was built."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from jitcache.cli import output
from jitcache.errors import ExitCode
from jitcache.runtime import aiterdoctor, dropin
from jitcache.runtime.dropin import Finding
from jitcache.runtime.jitdir import Place, find_place
from jitcache.store.layout import Bucket
from jitcache.store.store import Store

_GOOD = frozenset({"installed", "shadowed"})

directory_option = click.option(
    "--jit-dir", type=Path, help="AITER's directory; AITER_JIT_DIR or AITER's own by default."
)


@click.group()
def command() -> None:
    """Install built modules where AITER's own loader finds them."""


@command.command()
@click.argument("lock")
@directory_option
@output.json_option
def install(lock: str, jit_dir: Path | None, as_json: bool) -> None:
    """Install the modules of LOCK: a lock file, or `<manifest>.<arch>`."""
    store = Store.of_user()
    path = Path(lock)
    if not lock.endswith(".json"):
        path = store.layout.bucket(Bucket.LOCKS) / f"{lock}.lock.json"
    made = dropin.install(path, _place(jit_dir), store)
    _say_paths("installed", made, as_json=as_json)


@command.command()
@directory_option
@output.json_option
def uninstall(jit_dir: Path | None, as_json: bool) -> None:
    """Remove what `install` wrote, and nothing else."""
    removed = dropin.uninstall(_place(jit_dir))
    _say_paths("removed", removed, as_json=as_json)


@command.command()
@directory_option
@output.json_option
def status(jit_dir: Path | None, as_json: bool) -> None:
    """List the installed modules, and whether they load."""
    _say(dropin.status(_place(jit_dir), Store.of_user()), as_json=as_json)


@command.command()
@directory_option
@click.option("--arch", help="This machine's GPU, where HIP finds none.")
@output.json_option
def doctor(jit_dir: Path | None, arch: str | None, as_json: bool) -> None:
    """Look for what makes AITER hang, crash, or compile although it need not."""
    found = aiterdoctor.doctor(_place(jit_dir), Store.of_user(), arch)
    _say(found, as_json=as_json)


def _place(jit_dir: Path | None) -> Place:
    return find_place() if jit_dir is None else Place.of(jit_dir)


def _say_paths(word: str, paths: Iterable[Path], *, as_json: bool) -> None:
    found = [str(p) for p in paths]
    if as_json:
        output.emit_json({word: found})
    else:
        output.out("\n".join(f"{word} {p}" for p in found) or f"nothing {word}")


def _say(findings: Iterable[Finding], *, as_json: bool) -> None:
    found = list(findings)
    if as_json:
        output.emit_json([{"kind": f.kind, "path": str(f.path), "detail": f.detail} for f in found])
    else:
        output.out("\n".join(f"{f.kind}: {f.path}: {f.detail}" for f in found) or "nothing found")
    if any(f.kind not in _GOOD for f in found):
        click.get_current_context().exit(int(ExitCode.FAILED))
