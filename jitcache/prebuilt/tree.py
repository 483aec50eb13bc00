"""A directory of code objects, as AITER ships one below `hsa/`.

AITER 9bab8388 keeps its assembled kernels as `hsa/<arch>/<family>/.../*.co`. Beside some of
them lie CSV tables whose rows give a kernel's symbol (`knl_name`), its file relative to the
table (`co_name` or `knl_file`), and the columns by which AITER's host code chooses it.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jitcache.errors import InputError

SUFFIXES = (".co", ".hsaco")
FILE_COLUMNS = ("co_name", "knl_file")
SYMBOL_COLUMN = "knl_name"
_ARCH = re.compile(r"gfx[0-9a-f]{3,5}")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table.

    Attributes:
        table: path of the CSV below the imported directory.
        symbol: the kernel's symbol.
        keys: the columns by which it is chosen, as text.
    """

    table: str
    symbol: str
    keys: dict[str, str]


@dataclass(frozen=True, slots=True)
class BadTable:
    """A table, or a row of one, that can't be used.

    Attributes:
        where: path of the CSV, with the line where it is one row.
        why: one sentence.
    """

    where: str
    why: str


def files(root: Path) -> list[Path]:
    """Every code object below a directory, sorted; links are not followed.

    Raises:
        InputError: the directory can't be read.
    """
    return sorted(p for p in _walk(root) if p.name.endswith(SUFFIXES))


def expected_arch(relative: Path) -> str | None:
    """The architecture that a path states: its deepest directory with an architecture's name."""
    stated = [part for part in relative.parts[:-1] if _ARCH.fullmatch(part)]
    return stated[-1] if stated else None


def tables(root: Path) -> tuple[dict[Path, list[Row]], list[BadTable]]:
    """Rows of every table below a directory, by the code object that they name.

    Raises:
        InputError: the directory can't be read.
    """
    rows: dict[Path, list[Row]] = {}
    bad: list[BadTable] = []
    for path in sorted(p for p in _walk(root) if p.suffix == ".csv"):
        where = str(path.relative_to(root))
        try:
            with path.open(newline="", encoding="utf-8") as f:
                reader = csv.reader(f)
                head = [name.strip() for name in next(reader, [])]
                column = next((c for c in FILE_COLUMNS if c in head), None)
                if column is None or SYMBOL_COLUMN not in head:
                    bad.append(BadTable(where, "has no columns for a file and a symbol"))
                    continue
                for cells in reader:
                    if not any(cells):
                        continue
                    if len(cells) != len(head):
                        line = f"{where}:{reader.line_num}"
                        bad.append(BadTable(line, f"has {len(cells)} cells, not {len(head)}"))
                        continue
                    row = {name: cell.strip() for name, cell in zip(head, cells, strict=True)}
                    symbol, name = row.pop(SYMBOL_COLUMN), row.pop(column)
                    target = _below(root, path.parent, name)
                    if target is None:
                        line = f"{where}:{reader.line_num}"
                        bad.append(BadTable(line, f"names no file that was imported: {name!r}"))
                    else:
                        rows.setdefault(target, []).append(Row(where, symbol, row))
        except (OSError, UnicodeDecodeError, csv.Error) as e:
            bad.append(BadTable(where, f"can't be read ({e})"))
    return rows, bad


def _below(root: Path, directory: Path, name: str) -> Path | None:
    path = Path(os.path.normpath(directory / name))
    inside = path.is_relative_to(root) and name.endswith(SUFFIXES)
    return path if inside and path.is_file() and not path.is_symlink() else None


def _walk(root: Path) -> Iterator[Path]:
    def refuse(e: OSError) -> None:
        raise InputError(f"can't be read ({e.strerror})", where=str(e.filename)) from None

    for directory, _, names in os.walk(root, onerror=refuse):
        for name in names:
            path = Path(directory, name)
            if path.is_file() and not path.is_symlink():
                yield path
