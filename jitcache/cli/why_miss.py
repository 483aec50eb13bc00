"""`jitcache why-miss`: which input of an action differs from the nearest one."""

from __future__ import annotations

import json
from typing import Any

import click

from jitcache.cli import output
from jitcache.cli.storeview import age, open_store, short_key, split
from jitcache.errors import InputError, JitcacheError
from jitcache.store.explain import Difference, nearest
from jitcache.store.model import ActionRecord
from jitcache.store.select import by_name, by_prefix
from jitcache.store.store import Store


@click.command()
@click.argument("what", metavar="KEY_PREFIX|INSTANCE")
@output.json_option
def command(what: str, as_json: bool) -> None:
    """Show why an action had to be built although one like it was there.

    Compares the inputs of the newest action that fits with the nearest other action in the
    store: the exact header, flag or part of the toolchain that differs.
    """
    store = open_store()
    records, _ = split(store)
    found = by_prefix(records, what) or by_name(records, what)
    if not found:
        raise InputError(
            "no stored action has this key, instance name or label",
            where=what,
            hint="an action that was never built here has nothing to compare;"
            " `jitcache ls` lists what there is",
        )
    record = max(found, key=lambda r: (r.created, r.key))
    answer = nearest(record, records, lambda r: _headers(store, r))
    if as_json:
        output.emit_json(
            {
                "action": _brief(record),
                "nearest": None if answer is None else _brief(answer.record),
                "differences": [] if answer is None else [d._asdict() for d in answer.differences],
            }
        )
        return
    output.out(f"{short_key(record.key)}  {record.label}, built {age(record.created)} ago")
    if answer is None:
        output.out("is the only action in the store: there was nothing like it")
        return
    other = answer.record
    output.out(f"nearest: {short_key(other.key)}  {other.label}, built {age(other.created)} ago")
    for difference in answer.differences:
        output.out(_line(difference))


def _brief(record: ActionRecord) -> dict[str, Any]:
    return {"key": record.key, "label": record.label, "created": record.created}


def _line(d: Difference) -> str:
    title = f"{d.what} {d.name}".rstrip()
    if d.then is None:
        return f"  {title}: new" + ("" if d.now == d.name else f" ({_short(d.now)})")
    if d.now is None:
        return f"  {title}: gone" + ("" if d.then == d.name else f" (was {_short(d.then)})")
    return f"  {title}: was {_short(d.then)}, is {_short(d.now)}"


def _short(value: str | None) -> str:
    text = value or '""'
    return text[:19] if text.startswith("sha256:") else text


def _headers(store: Store, record: ActionRecord) -> dict[str, str] | None:
    """The header listing that `prebuild` stores beside the code object."""
    from jitcache.action.headers import HEADERS_OUTPUT

    for o in record.outputs:
        if o.name == HEADERS_OUTPUT:
            try:
                rows = json.loads(store.read(o.digest))
                return {str(name): str(digest) for name, digest in rows}
            except (JitcacheError, ValueError, TypeError):
                return None
    return None
