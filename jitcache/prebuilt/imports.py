"""Taking code objects into the store, and finding them there.

Each file is an action of kind `import`. Its key covers the content, the name below the
imported directory and the architecture: equal files are one blob, and the same tree
imported twice is the same actions. What tables say of a file is a part of the key, too,
since it is what a lookup answers from.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jitcache import codeobject, digest
from jitcache.errors import InputError
from jitcache.prebuilt.tree import BadTable, Row, expected_arch, files, tables
from jitcache.store.model import ActionRecord, Hit, Output
from jitcache.store.store import Store

KIND = "import"
TOOLCHAIN = "import"


@dataclass(frozen=True, slots=True)
class Refused:
    """A file that was not imported.

    Attributes:
        name: below the imported directory.
        why: one sentence.
    """

    name: str
    why: str


@dataclass(slots=True)
class Imported:
    """What became of a directory.

    Attributes:
        keys: of every action that the store holds for it now.
        new: how many of them it did not hold before.
        size: bytes of distinct contents.
        contents: number of distinct contents.
        by_row: actions that a table's row names.
        rows: rows of tables that name an imported file.
        refused: files that were not imported.
        bad_tables: tables and rows that were not used.
    """

    keys: list[str] = field(default_factory=list)
    new: int = 0
    size: int = 0
    contents: int = 0
    by_row: int = 0
    rows: int = 0
    refused: list[Refused] = field(default_factory=list)
    bad_tables: list[BadTable] = field(default_factory=list)


def import_tree(root: Path, store: Store, *, arch: str | None = None) -> Imported:
    """Import every code object below a directory.

    A file whose own architecture is another than its directory's, or than `arch`, is
    refused, and so is one that a table gives a symbol that it doesn't hold.

    Raises:
        InputError: the directory can't be read or holds no code object.
        StoreError: the store can't be written.
    """
    found = files(root)
    if not found:
        raise InputError(
            "holds no .co or .hsaco file",
            where=str(root),
            hint="give a directory of code objects, such as an AITER checkout's hsa/",
        )
    rows, bad = tables(root)
    result = Imported(bad_tables=bad)
    sizes: dict[str, int] = {}
    for path in found:
        made = describe(path, path.relative_to(root), rows.get(path, []), arch)
        if isinstance(made, Refused):
            result.refused.append(made)
            continue
        if not isinstance(store.lookup(made.key), Hit):
            store.put(made, {made.outputs[0].name: path})
            result.new += 1
        result.keys.append(made.key)
        result.rows += len(rows.get(path, []))
        result.by_row += path in rows
        sizes[made.outputs[0].digest] = made.outputs[0].size
    result.size, result.contents = sum(sizes.values()), len(sizes)
    return result


def describe(
    path: Path, relative: Path, rows: Iterable[Row], arch: str | None
) -> ActionRecord | Refused:
    """The record of one file, or why it can't be imported."""
    name = str(relative)
    try:
        data = path.read_bytes()
        facts = codeobject.read(data)
    except OSError as e:
        return Refused(name, f"can't be read ({e.strerror})")
    except InputError as e:
        return Refused(name, e.what)
    for wanted in (expected_arch(relative), arch):
        if wanted is not None and facts.arch != wanted:
            return Refused(name, f"is for {facts.arch}, not {wanted}")
    listed = [{"table": r.table, "symbol": r.symbol, "keys": r.keys} for r in rows]
    symbols = {k.symbol for k in facts.kernels}
    for row in listed:
        if row["symbol"] not in symbols:
            return Refused(name, f"holds no kernel {row['symbol']}, which {row['table']} names")
    content = digest.of_bytes(data)
    inputs: dict[str, Any] = {
        "schema": 1,
        "kind": KIND,
        "name": name,
        "content": content,
        "target": facts.arch,
        "rows": listed,
    }
    return ActionRecord(
        key=digest.of_json(inputs),
        inputs=inputs,
        outputs=(Output(relative.name, content, len(data)),),
        target=facts.arch,
        toolchain=TOOLCHAIN,
        label=name,
        created=int(time.time()),
        facts={"features": list(facts.features), "kernels": [k.to_json() for k in facts.kernels]},
    )


@dataclass(frozen=True, slots=True)
class Match:
    """An imported kernel that a lookup found.

    Attributes:
        record: the action.
        table: the table whose row fits.
        symbol: the kernel.
        keys: the whole row, without file and symbol.
    """

    record: ActionRecord
    table: str
    symbol: str
    keys: dict[str, str]


def find(
    records: Iterable[ActionRecord],
    keys: Mapping[str, str],
    *,
    arch: str | None = None,
    table: str | None = None,
) -> list[Match]:
    """Imported kernels whose rows have all these values in these columns.

    Args:
        records: of a store.
        keys: column to value; `knl_name` may be one of them.
        arch: only this architecture.
        table: only tables whose path holds this.
    """
    found = []
    for record in records:
        if record.inputs.get("kind") != KIND or arch not in (None, record.target):
            continue
        for row in record.inputs.get("rows", []):
            if table is not None and table not in row["table"]:
                continue
            have = {**row["keys"], "knl_name": row["symbol"]}
            if all(have.get(column) == value for column, value in keys.items()):
                found.append(Match(record, row["table"], row["symbol"], row["keys"]))
    return sorted(found, key=lambda m: (m.record.label, m.table, sorted(m.keys.items())))
