"""Sizes and durations as people type them."""

from __future__ import annotations

import re

import click

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kmgt])(i?b)?|b)?", re.IGNORECASE)
_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|h|d|w)")
_UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def parse_size(text: str) -> int | None:
    """Bytes: `800`, `500M`, `20GiB`, `1.5 G`; powers of 1024. None for anything else."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        return None
    power = "kmgt".index(match[2].lower()) + 1 if match[2] else 0
    return int(float(match[1]) * 1024**power)


def parse_age(text: str) -> float | None:
    """Seconds: `90s`, `30min`, `12h`, `30d`, `8w`. None for anything else."""
    match = _AGE.fullmatch(text.strip())
    return None if match is None else float(match[1]) * _UNITS[match[2]]


def size_callback(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | None:
    """Read a size option, or fail with what is allowed."""
    if value is None:
        return None
    size = parse_size(value)
    if size is None:
        raise click.BadParameter(f"{value!r} is not a size such as 500M or 20GiB")
    return size


def age_callback(_ctx: click.Context, _param: click.Parameter, value: str | None) -> float | None:
    """Read a duration option, or fail with what is allowed."""
    if value is None:
        return None
    age = parse_age(value)
    if age is None:
        raise click.BadParameter(f"{value!r} is not a duration such as 12h or 30d")
    return age
