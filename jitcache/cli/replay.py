"""`jitcache replay`: run a captured launch again, and compare its result."""

from __future__ import annotations

import math
from pathlib import Path

import click

from jitcache.cli import output
from jitcache.emulator import replay as emulator
from jitcache.errors import JitcacheError
from jitcache.runtime import capsule
from jitcache.runtime.compare import worst
from jitcache.runtime.hip import require_hip

_TOLERANCE = 0.02


@click.command()
@click.argument("file", type=Path)
@click.option("--describe", "only_describe", is_flag=True, help="Only say what the capsule holds.")
@click.option("--emulate", is_flag=True, help="On an emulator instead of a GPU.")
@click.option("--device", type=int, default=0, show_default=True, help="Device index.")
@click.option(
    "--tolerance",
    type=float,
    help=f"Largest relative error; the capsule's own when not given, or else {_TOLERANCE}.",
)
@click.option("-o", "--output", "out_path", type=Path, help="Write the result's bytes here.")
@output.json_option
def command(
    file: Path,
    only_describe: bool,
    emulate: bool,
    device: int,
    tolerance: float | None,
    out_path: Path | None,
    as_json: bool,
) -> None:
    """Run the launch of a capsule FILE again, and compare with the result it expects.

    Runs it on a GPU, or with --emulate on the CPU, from its machine code.
    """
    found = capsule.read(file)
    if not as_json:
        output.out(capsule.describe(found))
    if only_describe:
        if as_json:
            output.emit_json({"instance": found.instance, "arch": found.arch})
        return
    if emulate:
        after = emulator.replay(found, emulator.require_emulator())
    else:
        after = capsule.replay(found, require_hip(), device)
    if out_path is not None:
        out_path.write_bytes(after["out"])
    buffer = found.out
    if tolerance is None:
        tolerance = _TOLERANCE if buffer.tolerance is None else buffer.tolerance
    error = None if buffer.expected is None else worst(after["out"], buffer.expected, buffer.dtype)
    right = None if error is None else error <= tolerance
    if as_json:
        # JSON has no infinity, which stands for a result that isn't a number.
        number = error if error is not None and math.isfinite(error) else None
        output.emit_json(
            {"instance": found.instance, "arch": found.arch, "error": number, "right": right}
        )
    elif error is None:
        output.out("ran; the capsule doesn't say what the result should be")
    else:
        output.out(f"largest error {error:.6f} of the largest expected value")
    if right is False:
        raise JitcacheError(
            f"the result is wrong: error {error:.6f} is more than {tolerance}", where=str(file)
        )
