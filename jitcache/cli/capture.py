"""`jitcache capture`: sample launches of every family, with the expected result, as capsules."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jitcache.capture.choice import MODULES, STEPS, Choice, choose
from jitcache.cli import output
from jitcache.cli.building import SALT_VARIABLE, Show, fetch_from_remotes
from jitcache.codegen.catalog import ARCHES
from jitcache.errors import StoreError, UnsupportedError
from jitcache.store.store import Store
from jitcache.toolchain.allocator import find_allocator, wished

if TYPE_CHECKING:
    from jitcache.capture.sample import Sample

INDEX = "index.json"
"""What lists the capsules of a directory."""


@click.command()
@click.option(
    "-o", "--output", "directory", type=Path, required=True, help="Directory to write to."
)
@click.option(
    "--family",
    "families",
    type=click.Choice(sorted(MODULES)),
    multiple=True,
    help="Only this family (repeatable).",
)
@click.option(
    "--arch",
    "arches",
    type=click.Choice(ARCHES),
    multiple=True,
    help="Only this architecture (repeatable).",
)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    default=STEPS,
    show_default=True,
    help="Loop steps along K; they decide which kernel runs.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Other values.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@output.json_option
def command(
    directory: Path,
    families: tuple[str, ...],
    arches: tuple[str, ...],
    steps: int,
    seed: int,
    quiet: bool,
    as_json: bool,
) -> None:
    """Write capsules of one stage 1 and one stage 2 launch of every family.

    Their buffers hold random inputs in AITER's layouts, and the result that is expected.
    """
    choices = choose(families, arches, steps=steps)
    if importlib.util.find_spec("torch") is None:
        raise UnsupportedError(
            "inputs and expected results are made with torch, which is not installed",
            hint="pip install 'jitcache[torch]' (a build for the CPU will do)",
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise StoreError(f"can't be made ({e.strerror})", where=str(directory)) from None
    store = Store.of_user()
    written = []
    for arch in sorted({c.arch for c in choices}):
        written += _of_arch(
            store, arch, [c for c in choices if c.arch == arch], directory, seed, quiet
        )
    store.stat_memo.save()
    store.save_counters()
    _finish(written, directory, as_json=as_json)


def _of_arch(
    store: Store, arch: str, choices: list[Choice], directory: Path, seed: int, quiet: bool
) -> list[Sample]:
    from jitcache.capture.build import build, work_of
    from jitcache.capture.sample import write_samples

    show = Show(quiet=quiet)
    try:
        locks = build(
            store,
            arch,
            {c.family: work_of(c) for c in choices},
            salt=os.environ.get(SALT_VARIABLE, ""),
            compiler_env=lambda compiler: find_allocator(wished(None, os.environ), compiler).env,
            on_start=show.start,
            on_event=show.event,
            fetch=fetch_from_remotes(store, {arch, "host"}),
        )
    finally:
        show.close()
    return [
        sample
        for choice in choices
        for sample in write_samples(choice, locks[choice.family], store, directory, seed=seed)
    ]


def _finish(written: list[Sample], directory: Path, *, as_json: bool) -> None:
    from jitcache.store.durable import replace_file

    listed: dict[str, Any] = {"schema": 1, "capsules": [s.to_json() for s in written]}
    replace_file(directory / INDEX, json.dumps(listed, indent=2).encode() + b"\n")
    if as_json:
        output.emit_json(listed)
        return
    rows = [
        [
            s.file.name,
            s.launch.instance.short,
            str(s.launch.variant),
            output.size(s.file.stat().st_size),
        ]
        for s in written
    ]
    output.out(output.table(["capsule", "instance", "kernel", "size"], rows))
