"""How commands open the store and show what is in it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from jitcache.cli import output
from jitcache.store.model import ActionRecord, DamagedRecord
from jitcache.store.store import Store


def open_store() -> Store:
    """The user's store; what is wrong with its directory is said first.

    Only what makes it useless or unsafe is said here; `doctor` says the rest.
    """
    store = Store.of_user()
    for problem in store.problems():
        if problem.fatal:
            output.say(f"warning: {problem.where}: {problem.detail}\n  hint: {problem.hint}")
    return store


def say_notices(store: Store) -> None:
    """Tell what the store dealt with meanwhile."""
    for notice in store.notices:
        output.say(f"{notice.kind}: {notice.where}: {notice.detail}")


def split(store: Store) -> tuple[list[ActionRecord], list[DamagedRecord]]:
    """All records, and apart from them the damaged ones."""
    good: list[ActionRecord] = []
    bad: list[DamagedRecord] = []
    for record in store.records():
        if isinstance(record, ActionRecord):
            good.append(record)
        else:
            bad.append(record)
    return good, bad


def short_key(key: str) -> str:
    """As much of a key as people need to see."""
    return key[7:19]


def size_of(records: Iterable[ActionRecord]) -> int:
    """Bytes of the outputs of records; what several share counts once."""
    return sum({o.digest: o.size for r in records for o in r.outputs}.values())


def age(since: float | None, *, now: float | None = None) -> str:
    """How long ago, in one unit: `12 s`, `5 min`, `3 h`, `12 d`."""
    if since is None:
        return "-"
    passed = max(0.0, (time.time() if now is None else now) - since)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if passed >= 2 * length:
            return f"{passed // length:.0f} {unit}"
    return f"{passed:.0f} s"


def action_json(store: Store, record: ActionRecord) -> dict[str, Any]:
    """What every command says of an action in JSON."""
    used = store.last_used(record)
    return {
        "key": record.key,
        "label": record.label,
        "target": record.target,
        "toolchain": record.toolchain,
        "size": size_of([record]),
        "created": record.created,
        "last_used": None if used is None else int(used),
        "outputs": [
            {
                "name": o.name,
                "digest": o.digest,
                "size": o.size,
                "path": str(store.blob_path(o.digest)),
            }
            for o in record.outputs
        ],
    }
