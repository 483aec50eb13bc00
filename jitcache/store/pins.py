"""Pins: named lists of actions that `gc` keeps, whatever their age.

A pin is made from a lock file, so that what a deployment needs stays even where nobody has
started it for months. Pins protect from `gc`, not from `rm`.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from jitcache import digest
from jitcache.errors import InputError
from jitcache.jsonread import Reader, ShapeError
from jitcache.store import durable
from jitcache.store.layout import Bucket, Layout
from jitcache.store.sealed import SealError, seal, unseal

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Pin(NamedTuple):
    """One pin.

    Attributes:
        name: file name without ending.
        keys: the pinned actions.
        created: seconds since the epoch.
    """

    name: str
    keys: frozenset[str]
    created: int


class DamagedPin(NamedTuple):
    """A pin that can't be read: what it protects is unknown."""

    path: Path
    detail: str


def pin(layout: Layout, name: str, keys: Iterable[str]) -> Pin:
    """Pin actions, replacing an earlier pin of that name.

    Raises:
        InputError: the name is not a plain word.
        StoreError: it can't be written.
    """
    made = Pin(name, frozenset(keys), int(time.time()))
    content = {"schema": 1, "keys": sorted(made.keys), "created": made.created}
    durable.replace_file(_file(layout, name), seal(digest.canonical_json(content)))
    return made


def unpin(layout: Layout, name: str) -> bool:
    """Remove a pin.

    Returns:
        Whether there was one.

    Raises:
        InputError: the name is not a plain word.
        StoreError: it can't be removed.
    """
    path = _file(layout, name)
    with durable.explained("remove the pin", path):
        try:
            path.unlink()
        except FileNotFoundError:
            return False
    return True


def pins(layout: Layout) -> list[Pin | DamagedPin]:
    """All pins, by name.

    Raises:
        StoreError: the directory can't be read.
    """
    bucket = layout.bucket(Bucket.PINS)
    with durable.explained("list the pins", bucket):
        try:
            files = sorted(p for p in bucket.iterdir() if p.suffix == ".json")
        except FileNotFoundError:
            return []
    return [_read(path) for path in files]


def _read(path: Path) -> Pin | DamagedPin:
    try:
        r = Reader(json.loads(unseal(path.read_bytes())), "$").only("schema", "keys", "created")
        r["schema"].integer(1, 1)
        keys = frozenset(item.digest() for item in r["keys"].each())
        return Pin(path.stem, keys, r["created"].integer())
    except OSError as e:
        return DamagedPin(path, f"can't be read ({e.strerror})")
    except (SealError, ShapeError, ValueError, RecursionError) as e:
        return DamagedPin(path, str(e))


def _file(layout: Layout, name: str) -> Path:
    if not _NAME.fullmatch(name):
        raise InputError(
            "a pin's name has only letters, digits, dots, dashes and underscores",
            where=repr(name),
            hint="for example the manifest's name and the architecture: kimi.gfx950",
        )
    return layout.bucket(Bucket.PINS) / f"{name}.json"
