"""Choosing records by what people type: the beginning of a key, a name, a property."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from jitcache.errors import InputError
from jitcache.store.model import ActionRecord

_PREFIX = re.compile(r"(?:sha256:)?([0-9a-f]{4,64})")


def by_prefix(records: Iterable[ActionRecord], text: str) -> list[ActionRecord]:
    """Records whose key begins with some hex digits, with or without `sha256:`.

    Fewer than four digits select nothing: they would too easily name another record later.
    """
    match = _PREFIX.fullmatch(text)
    if match is None:
        return []
    return [r for r in records if r.key[7:].startswith(match[1])]


def by_name(records: Iterable[ActionRecord], text: str) -> list[ActionRecord]:
    """Records whose label holds the text, or that state it as a whole word of their own.

    The latter finds an instance's full name, which is a value in inputs or facts.
    """
    if not text:
        return []
    return [
        r
        for r in records
        if text in r.label or text in r.inputs.values() or text in r.facts.values()
    ]


def one_per_prefix(records: Sequence[ActionRecord], prefixes: Iterable[str]) -> list[ActionRecord]:
    """The record that each prefix names.

    Raises:
        InputError: a prefix names no record, or more than one.
    """
    chosen = []
    for prefix in prefixes:
        found = by_prefix(records, prefix)
        if len(found) == 1:
            chosen.append(found[0])
            continue
        if not found:
            raise InputError(
                "no stored action has a key that begins so",
                where=prefix,
                hint="`jitcache ls` shows keys; give at least their first four digits",
            )
        raise InputError(
            f"{len(found)} stored actions have a key that begins so",
            where=prefix,
            hint="give more digits of the one you mean",
            details=tuple(f"{r.key[7:27]}  {r.label}" for r in found[:8]),
        )
    return chosen
