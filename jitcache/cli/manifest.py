"""`jitcache manifest`: write a manifest from a model's configuration; list the shipped ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import click

from jitcache.cli import output
from jitcache.codegen import catalog
from jitcache.errors import InputError, StoreError, UsageError
from jitcache.manifest.hfconfig import ConfigDims, read_config
from jitcache.manifest.load import load_manifest, resolve, shipped_names
from jitcache.manifest.products import PRODUCTS
from jitcache.manifest.raw import QuantWord, WeightWord, decode


@click.group()
def command() -> None:
    """Write a manifest from a model's config.json, or list the shipped ones."""


@command.command("ls")
@output.json_option
def ls(as_json: bool) -> None:
    """List the manifests that come with jitcache."""
    found = [load_manifest(name) for name in shipped_names()]
    if as_json:
        output.emit_json(
            {"manifests": [{"name": m.name, "description": m.description} for m in found]}
        )
    else:
        output.out(output.table(("name", "description"), [(m.name, m.description) for m in found]))


@command.command("new")
@click.option("--from", "config", type=Path, required=True, help="A Hugging Face config.json.")
@click.option("--name", help="The manifest's name; the directory's when not given.")
@click.option("--tp", type=click.IntRange(min=1), default=1, help="Ranks that share each expert.")
@click.option("--ep", type=click.IntRange(min=1), default=1, help="Ranks that share the experts.")
@click.option(
    "--arch", type=click.Choice(catalog.ARCHES), multiple=True, help="Architecture (repeatable)."
)
@click.option(
    "--product", type=click.Choice(list(PRODUCTS)), multiple=True, help="GPU (repeatable)."
)
@click.option(
    "--quant", type=click.Choice(get_args(QuantWord)), help="Instead of the configuration's."
)
@click.option("--w", type=click.Choice(get_args(WeightWord)), help="Weight type, likewise.")
@click.option(
    "--fused-shared-experts", type=click.IntRange(min=0), default=0, help="Run as routed ones."
)
@click.option("-o", "--output", "path", type=Path, help="Write here instead of to stdout.")
@output.json_option
def new(
    config: Path,
    name: str | None,
    tp: int,
    ep: int,
    arch: tuple[str, ...],
    product: tuple[str, ...],
    quant: str | None,
    w: str | None,
    fused_shared_experts: int,
    path: Path | None,
    as_json: bool,
) -> None:
    """Write the manifest of a model as one rank of a deployment runs it."""
    if not arch and not product:
        raise UsageError("for which GPU?", hint="give --arch or --product")
    dims = read_config(config)
    if dims.quant is None and quant is None:
        raise UsageError(
            f"{config}: its quantization_config isn't one that maps to AITER's",
            hint="say it with --quant and --w",
        )
    weights = w if quant is not None else (w or dims.w)
    text = manifest_text(
        dims,
        name=name or config.resolve().parent.name or "model",
        quant=quant or str(dims.quant),
        w=weights,
        tp=tp,
        ep=ep,
        fused=fused_shared_experts,
        targets=[*(("arch", a) for a in arch), *(("product", p) for p in product)],
    )
    where = str(path or "the new manifest")
    resolve(decode(text, where), where=where, config=None)
    if path is not None:
        _write(path, text)
    if as_json:
        output.emit_json({"manifest": text, "path": None if path is None else str(path)})
    elif path is None:
        output.out(text.rstrip("\n"))
    else:
        output.say(f"wrote {path}")


def manifest_text(
    dims: ConfigDims,
    *,
    name: str,
    quant: str,
    w: str | None,
    tp: int,
    ep: int,
    fused: int,
    targets: list[tuple[str, str]],
) -> str:
    """The TOML text of a manifest."""
    keys: list[tuple[str, object]] = [
        ("model_dim", dims.model_dim),
        ("moe_intermediate", dims.moe_intermediate),
        ("experts", dims.experts),
        ("top_k", dims.top_k),
        ("quant", quant),
    ]
    keys += [("w", w)] if w is not None else []
    keys += [("out", dims.out or "b16"), ("act", dims.act), ("tp", tp)]
    keys += [("ep", ep)] if ep > 1 else []
    keys += [("fused_shared_experts", fused)] if fused else []
    lines = [
        f"name = {json.dumps(name)}",
        "",
        "# Dims: the model's config.json.",
        *(f"{key} = {json.dumps(value)}" for key, value in keys),
        "",
        f"targets = [{', '.join(f'{{ {k} = {json.dumps(v)} }}' for k, v in targets)}]",
    ]
    return "\n".join(lines) + "\n"


def _write(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as f:
            f.write(text)
    except FileExistsError:
        raise InputError("is there already", where=str(path), hint="remove it first") from None
    except OSError as e:
        raise StoreError(f"can't be written: {e.strerror or e}", where=str(path)) from None
