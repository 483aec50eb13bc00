"""`jitcache durations`: what compiles have cost."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jitcache.cli.output import emit_json, json_option, out, seconds, size, table
from jitcache.errors import InputError, StoreError

if TYPE_CHECKING:
    from jitcache.build.durations import Durations, Sample

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.group("durations", short_help="Show, export or merge what compiles have cost.")
def command() -> None:
    """Show, export or merge what compiles have cost: the database in the store."""


@command.command("show")
@click.option("--family", help="Only this family: a4w4.")
@json_option
def show(family: str | None, as_json: bool) -> None:
    """What each measured translation unit costs: median CPU time, largest memory."""
    known = _load()
    units: dict[object, list[Sample]] = {}
    for sample in known:
        if family in (None, sample.features.family):
            units.setdefault(sample.features, []).append(sample)
    rows = sorted(
        (
            (samples[0].features, known.estimate(samples[0].features), samples)
            for samples in units.values()
        ),
        key=lambda row: -row[1].cost_s,
    )
    if as_json:
        emit_json(
            [
                {
                    **asdict(f),
                    "samples": len(samples),
                    "cost_s": e.cost_s,
                    "peak_rss": e.memory,
                    "newest": max(s.at for s in samples),
                }
                for f, e, samples in rows
            ]
        )
        return
    if not rows:
        out("nothing measured yet")
        return
    out(
        table(
            ["unit", "family", "kernels", "target", "compiler", "samples", "cpu", "memory", "last"],
            [
                [
                    f"gemm{f.stage} {f.block_size}x{f.m}x{f.n}x{f.k}" if f.stage else "host shim",
                    f.family,
                    str(f.kernels),
                    f.arch,
                    f.compiler,
                    str(len(samples)),
                    seconds(e.cost_s),
                    size(e.memory),
                    time.strftime("%Y-%m-%d", time.gmtime(max(s.at for s in samples))),
                ]
                for f, e, samples in rows
            ],
            right="llrllrrrl",
        )
    )


@command.command("export")
@click.argument("file", type=_FILE, required=False)
def export(file: Path | None) -> None:
    """Write all samples as JSON, to FILE or stdout; the same database gives the same bytes."""
    text = json.dumps(_load().to_json(), indent=1) + "\n"
    if file is None:
        out(text.rstrip("\n"))
        return
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as e:
        raise StoreError(f"can't be written: {e.strerror or e}", where=str(file)) from e


@command.command("merge")
@click.argument("files", type=_FILE, nargs=-1, required=True, metavar="FILE...")
@json_option
def merge(files: tuple[Path, ...], as_json: bool) -> None:
    """Take the samples of other machines' exports in; doing it twice changes nothing."""
    from jitcache.build import durations

    known = _load()
    before = set(known)
    # All files are read before anything is written.
    for file in files:
        known.merge(_read(file))
    fresh = [s for s in known if s not in before]
    if fresh:
        durations.add(_directory(), fresh)
    if as_json:
        emit_json({"added": len(fresh), "samples": len(set(known))})
    else:
        out(f"{len(fresh)} samples taken in; {len(set(known))} in all")


def _directory() -> Path:
    from jitcache.store.layout import Bucket, Layout, store_root

    return Layout(store_root()).bucket(Bucket.DURATIONS)


def _load() -> Durations:
    from jitcache.build.durations import load

    return load(_directory())


def _samples(value: object) -> list[Sample]:
    from jitcache.build.durations import from_json

    if not isinstance(value, list):
        raise TypeError("not a list of samples")
    return [from_json(v) for v in value]


def _read(file: Path) -> list[Sample]:
    try:
        return _samples(json.loads(file.read_bytes()))
    except OSError as e:
        raise InputError(f"can't be read: {e.strerror or e}", where=str(file)) from e
    except (ValueError, TypeError, RecursionError) as e:
        raise InputError(
            f"not an export of durations: {e}",
            where=str(file),
            hint="`jitcache durations export FILE` writes one",
        ) from e
