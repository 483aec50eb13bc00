"""`jitcache replay`: run a captured launch again, and compare its result."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import click

from jitcache.cli import output
from jitcache.errors import JitcacheError
from jitcache.runtime import capsule
from jitcache.runtime.hip import require_hip

_FORMATS = {"float32": "<f", "float16": "<e"}


@click.command()
@click.argument("file", type=Path)
@click.option("--describe", "only_describe", is_flag=True, help="Only say what the capsule holds.")
@click.option("--device", type=int, default=0, show_default=True, help="Device index.")
@click.option("--tolerance", type=float, default=0.02, show_default=True, help="Relative error.")
@click.option("-o", "--output", "out_path", type=Path, help="Write the result's bytes here.")
@output.json_option
def command(
    file: Path,
    only_describe: bool,
    device: int,
    tolerance: float,
    out_path: Path | None,
    as_json: bool,
) -> None:
    """Run the launch of a capsule FILE on a GPU, and compare with the result it expects."""
    found = capsule.read(file)
    if not as_json:
        output.out(capsule.describe(found))
    if only_describe:
        if as_json:
            output.emit_json({"instance": found.instance, "arch": found.arch})
        return
    after = capsule.replay(found, require_hip(), device)
    if out_path is not None:
        out_path.write_bytes(after["out"])
    buffer = next(b for b in found.buffers if b.field == "out")
    error = None if buffer.expected is None else worst(after["out"], buffer.expected, buffer.dtype)
    if as_json:
        output.emit_json({"instance": found.instance, "arch": found.arch, "error": error})
    elif error is None:
        output.out("ran; the capsule doesn't say what the result should be")
    else:
        output.out(f"largest error {error:.6f} of the largest expected value")
    if error is not None and not error <= tolerance:
        raise JitcacheError(
            f"the result is wrong: error {error:.6f} is more than {tolerance}", where=str(file)
        )


def worst(found: bytes, expected: bytes, dtype: str) -> float:
    """The largest difference, relative to the largest expected magnitude."""
    pairs = zip(_values(found, dtype), _values(expected, dtype), strict=True)
    difference = largest = 0.0
    for one, other in pairs:
        if one != one:
            return float("inf")
        difference = max(difference, abs(one - other))
        largest = max(largest, abs(other))
    return difference / largest if largest else difference


def _values(data: bytes, dtype: str) -> Iterator[float]:
    if dtype == "bfloat16":
        # A bfloat16 is the upper half of a float32.
        wide = b"".join(b"\0\0" + data[i : i + 2] for i in range(0, len(data), 2))
        return (v for (v,) in struct.iter_unpack("<f", wide))
    return (v for (v,) in struct.iter_unpack(_FORMATS[dtype], data))
