"""What commands print: people read stderr and plain tables, machines read JSON on stdout."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def json_option(f: F) -> F:
    """The `--json` flag that every command has."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON value on stdout.")(
        f
    )


def emit_json(value: Any) -> None:
    """Print one JSON value on stdout, keys in the order given."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def say(text: str = "") -> None:
    """A line for people, on stderr."""
    sys.stderr.write(text + "\n")


def out(text: str = "") -> None:
    """A line of the result itself, on stdout."""
    sys.stdout.write(text + "\n")


def is_live(stream: Any = None) -> bool:
    """Whether to redraw progress: a terminal that isn't dumb."""
    stream = stream or sys.stderr
    return bool(stream.isatty()) and os.environ.get("TERM", "") != "dumb"


def style(text: str, *, stream: Any = None, **kwargs: Any) -> str:
    """Colour where the stream is a terminal and NO_COLOR is unset; meaning never rests on it."""
    stream = stream or sys.stdout
    if os.environ.get("NO_COLOR") or not stream.isatty():
        return text
    return click.style(text, **kwargs)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: str = "") -> str:
    """A plain table: columns padded, those whose letter in `right` is `r` aligned right.

    Args:
        header: column titles.
        rows: cells, already formatted.
        right: one letter per column, `l` or `r`; missing letters mean `l`.
    """
    align = right.ljust(len(header), "l")
    widths = [max(len(r[i]) for r in (header, *rows)) for i in range(len(header))]
    lines = []
    for row in (header, *rows):
        cells = [
            c.rjust(w) if a == "r" else c.ljust(w)
            for c, w, a in zip(row, widths, align, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def seconds(value: float) -> str:
    """A duration as people write it: `0.45 s`, `54.3 s`, `2 min 05 s`."""
    if value < 10:
        return f"{value:.2f} s"
    if value < 120:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s"


def size(value: int) -> str:
    """A byte count as people write it: `812 B`, `59.3 KiB`, `1.2 GiB`."""
    amount = float(value)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if amount < 1024 or unit == "TiB":
            return f"{value} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    raise AssertionError
