"""`jitcache generate`: sources for AITER's build, or our own, on disk.

The options are those of AITER's generator, so that its build can call this one in its place,
and those that narrow a module to what a deployment dispatches.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from jitcache.cli.output import emit_json, json_option, say
from jitcache.errors import UsageError

A_WORDS = ("f8", "i8", "f16", "b16", "fp4x2")
B_WORDS = ("f8", "i8", "f16", "b16", "i4", "fp4x2")
QUANT_WORDS = ("per_tensor", "per_token", "per_128x128", "per_1x128", "per_1x32", "no")
_SEVERAL = {"-a", "--a_dtype", "-b", "--b_dtype"}


class _StockCommand(click.Command):
    """A command whose `-a` and `-b` take several words after one flag, as argparse's do."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat the flag before each further word, which is how click takes several."""
        expanded: list[str] = []
        flag, words = "", 0
        for arg in args:
            if arg in _SEVERAL:
                flag, words = arg, 0
            elif flag and arg in B_WORDS:
                words += 1
                if words > 1:
                    expanded.append(flag)
            else:
                flag = ""
            expanded.append(arg)
        return super().parse_args(ctx, expanded)


def _numbers(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> tuple[int, ...]:
    """Positive whole numbers: comma-separated, of all occurrences of an option, each once."""
    found: dict[int, None] = {}
    for word in (w for value in values for w in value.split(",")):
        if not (word.isascii() and word.isdigit() and 0 < int(word[:10]) < 2**31):
            raise click.BadParameter(f"{word!r} is not a positive whole number", ctx, param)
        found[int(word)] = None
    return tuple(found)


@click.command(
    "generate",
    cls=_StockCommand,
    short_help="Write a pruned AITER blob directory or native sources.",
)
@click.argument("manifest", metavar="[MANIFEST]", required=False)
@click.option("--manifest", "named_manifest", metavar="MANIFEST", help="Same as the argument.")
@click.option(
    "--dialect",
    type=click.Choice(["aiter", "native"]),
    default="aiter",
    show_default=True,
    help="AITER's blob directory, or one source per kernel variant and a host shim.",
)
@click.option(
    "-w",
    "--working_path",
    "--working-path",
    "directory",
    type=click.Path(path_type=Path),
    default="./",
    show_default=True,
    help="Where to write. What an earlier run wrote there is replaced.",
)
@click.option(
    "--arch",
    help="gfx942 or gfx950. Default: the one in GPU_ARCHS, of the manifest, or that can run it.",
)
@click.option(
    "-b",
    "--b_dtype",
    "weights",
    type=click.Choice(B_WORDS),
    multiple=True,
    help="Weight type, or several. Default: the manifest's modules; without one, everything.",
)
@click.option(
    "-a",
    "--a_dtype",
    "activations",
    type=click.Choice(A_WORDS),
    multiple=True,
    help="Activation type: accepted, but derived from the weight type, as AITER does.",
)
@click.option(
    "-c",
    "--c_dtype",
    "output",
    type=click.Choice(["f16", "b16"]),
    default="b16",
    show_default=True,
    help="Output type.",
)
@click.option(
    "-q",
    "--quant_type",
    "quant",
    type=click.Choice(QUANT_WORDS),
    default="per_tensor",
    show_default=True,
    help="Quantisation; per_128x128 means per_1x128.",
)
@click.option(
    "-act",
    "--activation",
    "act",
    type=click.Choice(["silu", "gelu"]),
    default="silu",
    show_default=True,
    help="Activation.",
)
@click.option(
    "-m",
    "--mul_routed_weight_stage",
    "stage",
    type=click.Choice(["1", "2"]),
    default="2",
    show_default=True,
    help="Stage that multiplies by the routed weight.",
)
@click.option("-p", "--preshuffle", is_flag=True, help="Shuffled weights; matters for fp4x2.")
@click.option("--issplitk", "splitk", is_flag=True, help="Split K in stage 1; for per_1x128.")
@click.option(
    "--inter-dim",
    "inter_dims",
    metavar="N[,N...]",
    multiple=True,
    callback=_numbers,
    help="Hold only what AITER's heuristic picks for this (local) inter_dim.",
)
@click.option(
    "--block-m",
    "block_ms",
    metavar="N[,N...]",
    multiple=True,
    callback=_numbers,
    help="Hold only these block heights. Default: all that AITER's host code picks.",
)
@click.option(
    "--tuned",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A further tuned_fmoe CSV, whose kernels for the shape are held, too.",
)
@click.option(
    "--kernel",
    "kernels",
    metavar="NAME",
    multiple=True,
    help="Also hold this instance, by its full name.",
)
@click.option(
    "--scope",
    type=click.Choice(["reachable", "inter-dim", "module"]),
    help="What of a manifest to hold; the manifest's scope when not given.",
)
@click.option(
    "--aiter",
    "tree",
    type=click.Path(path_type=Path),
    help="AITER checkout or install that this is for: refused if its generator isn't the known "
    "one; kernels that its tuned tables name for the shape are held.",
)
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    manifest: str | None,
    named_manifest: str | None,
    directory: Path,
    as_json: bool,
    **options: Any,
) -> None:
    """Write the sources of one module, or of all modules of a manifest.

    Takes the command line of AITER's generator and writes what that writes: instances, the
    lookup header, two dispatch headers. Narrowed by a manifest or by --inter-dim and
    --block-m, they hold only what can be dispatched; a call for anything else fails with a
    message that says what to add.
    """
    from jitcache.aiter import generation
    from jitcache.aiter import request as genrequest

    if manifest and named_manifest:
        raise UsageError("the manifest is given twice", where="--manifest")
    given = {
        name
        for name in options
        if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    }
    request = genrequest.Request(
        manifest=manifest or named_manifest,
        given=frozenset(given),
        **options,
    )
    result = generation.run(request, directory)
    for note in result.notes:
        say(f"note: {note}")
    if as_json:
        emit_json(result.to_json())
        return
    for line in result.lines():
        say(line)
