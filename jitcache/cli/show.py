"""`jitcache show`: one stored action, its inputs, outputs and history."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from jitcache.cli import output
from jitcache.cli.storeview import action_json, age, open_store, say_notices, split
from jitcache.errors import InputError
from jitcache.store.model import ActionRecord, Hit
from jitcache.store.quarantine import incidents_of
from jitcache.store.select import by_name, by_prefix
from jitcache.store.store import Store

_LONGEST = 8
_RESOURCES = (
    *("vgprs", "agprs", "sgprs", "vgpr_spills", "sgpr_spills"),
    *("lds", "scratch", "kernarg_size", "workgroup"),
)
"""What a kernel takes, as `jitcache.codeobject` names it."""

_SYMBOL = 60
"""Characters of a symbol that are shown; CK's have hundreds."""


@click.command()
@click.argument("what", metavar="KEY_PREFIX|INSTANCE")
@click.option("--inputs", "all_inputs", is_flag=True, help="Print every input and symbol in full.")
@output.json_option
def command(what: str, all_inputs: bool, as_json: bool) -> None:
    """Show stored actions: inputs, outputs, and what happened to them.

    WHAT is the beginning of a key (four digits or more), a whole instance name, or a part of
    a label; every action that it fits is shown.
    """
    store = open_store()
    records, _ = split(store)
    found = by_prefix(records, what) or by_name(records, what)
    if not found:
        raise InputError(
            "no stored action has this key, instance name or label",
            where=what,
            hint=f"`jitcache ls` lists the {len(records)} actions of {store.layout.root}",
        )
    if as_json:
        output.emit_json({"actions": [_json(store, r) for r in found]})
    else:
        output.out("\n\n".join(_text(store, r, all_inputs) for r in found))
    say_notices(store)


def _json(store: Store, record: ActionRecord) -> dict[str, Any]:
    return {
        **action_json(store, record),
        "state": _state(store, record),
        "inputs": record.inputs,
        "facts": record.facts,
        "incidents": [str(p) for p in incidents_of(store.layout, record.key)],
    }


def _state(store: Store, record: ActionRecord) -> str:
    found = store.lookup(record.key)
    return "whole" if isinstance(found, Hit) else f"{found.reason}: {found.detail}"


def _text(store: Store, record: ActionRecord, all_inputs: bool) -> str:
    created = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(record.created))
    used = age(store.last_used(record))
    lines = [
        record.label,
        f"  key        {record.key}",
        f"  target     {record.target}",
        f"  toolchain  {record.toolchain}",
        f"  created    {created}, last used {used} ago",
        f"  state      {_state(store, record)}",
        "outputs",
    ]
    for o in record.outputs:
        lines.append(f"  {o.name}  {output.size(o.size)}  {o.digest}")
        lines.append(f"    {store.blob_path(o.digest)}")
    kernels = record.facts.get("kernels")
    if isinstance(kernels, list) and all(isinstance(k, dict) for k in kernels) and kernels:
        rows = [
            [*(str(k.get(c, "-")) for c in _RESOURCES), _symbol(str(k.get("symbol")), all_inputs)]
            for k in kernels
        ]
        right = "r" * len(_RESOURCES) + "l"
        lines += ["kernels", output.table((*_RESOURCES, "symbol"), rows, right=right)]
    facts = {n: v for n, v in record.facts.items() if n != "kernels"}
    for title, values in (("facts", facts), ("inputs", record.inputs)):
        if values:
            lines.append(title)
            lines += [f"  {name}: {_value(v, all_inputs)}" for name, v in sorted(values.items())]
    history = incidents_of(store.layout, record.key)
    if history:
        lines.append("incidents")
        lines += [f"  {path}" for path in history]
    return "\n".join(lines)


def _symbol(symbol: str, whole: bool) -> str:
    return symbol if whole or len(symbol) <= _SYMBOL else symbol[: _SYMBOL - 3] + "..."


def _value(value: Any, whole: bool) -> str:
    if isinstance(value, str) and ("\n" not in value or whole):
        return value
    if isinstance(value, list | dict) and len(value) > _LONGEST and not whole:
        return f"{len(value)} entries (--inputs shows them)"
    if isinstance(value, str):
        return f"{len(value)} characters (--inputs shows them)"
    return json.dumps(value, ensure_ascii=False, indent=2 if whole else None)
