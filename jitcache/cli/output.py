"""What commands print: people read stderr and plain tables, machines read JSON on stdout."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from jitcache.text import seconds, size, table

__all__ = [
    "emit_json",
    "is_live",
    "json_option",
    "out",
    "say",
    "seconds",
    "size",
    "style",
    "table",
]

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
