"""AITER's tuned MoE tables, and the lookup that `fused_moe` really does in them.

Source: AITER 9bab8388, aiter/fused_moe.py:746-755, 915-1122 and aiter/jit/core.py:195-345;
the extra `gfx` column is that of e4048607. What the lookup does, as opposed to what the
columns suggest: the act_type column never matches (an enum is compared with text), so the
first row of each key without it wins; only rows with an empty `_tag` are used, and
`flydsl_fallback` rows only when the row found names FlyDSL and FlyDSL isn't there.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from jitcache.codegen.catalog.family import ARCHES
from jitcache.errors import InputError

PADDED_TIERS = (32768, 131072)
"""Token counts from the first on are padded down to one of these."""

FALLBACK_TAG = "flydsl_fallback"

_KEY_INTS = ("cu_num", "token", "model_dim", "inter_dim", "expert", "topk")
_KEY_TEXTS = ("dtype", "q_dtype_a", "q_dtype_w", "q_type")
_KEY_FLAGS = ("use_g1u1", "doweight_stage1")
_NEEDED = (
    *_KEY_INTS,
    *_KEY_TEXTS,
    *_KEY_FLAGS,
    "act_type",
    "block_m",
    "kernelName1",
    "kernelName2",
)
_CU_ARCH = {80: "gfx942", 304: "gfx942", 256: "gfx950"}
"""The architecture of rows without a gfx column, as AITER e4048607 maps them."""


def padded_tokens(tokens: int) -> int:
    """The token count that AITER looks up and decides by: a power of two, or a tier."""
    if tokens < PADDED_TIERS[0]:
        return 1 if tokens <= 1 else 1 << (tokens - 1).bit_length()
    return max(tier for tier in PADDED_TIERS if tokens >= tier)


ALL_PADDED: tuple[int, ...] = (*(1 << i for i in range(15)), *PADDED_TIERS)
"""Every value that `padded_tokens` has."""


class Shape(msgspec.Struct, frozen=True):
    """What a row is looked up by, but for the token count. Texts are PyTorch's and AITER's."""

    arch: str
    cu_num: int
    model_dim: int
    inter_dim: int
    expert: int
    topk: int
    dtype: str
    q_dtype_a: str
    q_dtype_w: str
    q_type: str
    use_g1u1: bool
    doweight_stage1: bool


class Row(msgspec.Struct, frozen=True):
    """One row of a tuned table.

    Attributes:
        file: file name without directory.
        line: line in it.
        gfx: its gfx column, "" where the file has none.
        shape: its key; the architecture is "" where neither gfx nor cu_num tells it.
        token: padded token count.
        act: activation, lower case (`silu`); not part of the key.
        block_m: rows per block.
        ksplit: split of K in stage 1; 0 or 1 mean none.
        kernel1: stage 1 kernel.
        kernel2: stage 2 kernel.
        run_1stage: whether one kernel does both stages.
        tag: its `_tag` column.
    """

    file: str
    line: int
    gfx: str
    shape: Shape
    token: int
    act: str
    block_m: int
    ksplit: int
    kernel1: str
    kernel2: str
    run_1stage: bool
    tag: str

    @property
    def place(self) -> str:
        """`file:line`."""
        return f"{self.file}:{self.line}"

    @property
    def names_flydsl(self) -> bool:
        """Whether a stage is FlyDSL's."""
        return self.kernel1.startswith("flydsl_") or self.kernel2.startswith("flydsl_")


class Shadowed(msgspec.Struct, frozen=True):
    """A row that no lookup can find.

    Attributes:
        row: the row.
        winner: the earlier row of the same key; None where the row is left out altogether.
        why: one sentence without a final period.
    """

    row: Row
    winner: Row | None
    why: str


class Lookup(msgspec.Struct, frozen=True):
    """What a lookup found.

    Attributes:
        row: the row that decides; None: AITER's untuned rules do.
        why: how it came about, for people.
    """

    row: Row | None
    why: str


class TunedTable:
    """Rows in AITER's order, with its lookup.

    Attributes:
        rows: all rows.
        shadowed: those that can't be found.
    """

    def __init__(self, rows: Sequence[Row] = (), left_out: Sequence[Shadowed] = ()) -> None:
        self.rows = tuple(rows)
        shadowed = list(left_out)
        out = {id(s.row) for s in left_out}
        self._first: dict[tuple[Shape, int], Row] = {}
        self._fallback: dict[tuple[Shape, int], Row] = {}
        for row in self.rows:
            if id(row) in out:
                continue
            if row.tag not in ("", FALLBACK_TAG):
                shadowed.append(Shadowed(row, None, f"rows tagged {row.tag!r} are never used"))
                continue
            table = self._fallback if row.tag else self._first
            for shape in _keys(row):
                winner = table.setdefault((shape, row.token), row)
                if winner is not row:
                    shadowed.append(Shadowed(row, winner, _why_shadowed(row, winner)))
                    break
        self.shadowed = tuple(shadowed)

    def lookup(self, shape: Shape, token: int, *, flydsl: bool) -> Lookup:
        """The row that decides for a padded token count.

        Args:
            shape: key without the token count.
            token: padded token count (see `padded_tokens`).
            flydsl: whether FlyDSL is importable.
        """
        row, tier = self._first.get((shape, token)), token
        if row is None and token in PADDED_TIERS:
            for tier in reversed(PADDED_TIERS[: PADDED_TIERS.index(token)]):
                row = self._first.get((shape, tier))
                if row is not None:
                    break
        if row is None:
            return Lookup(None, "no tuned row")
        why = f"tuned row {row.place}" + (f" of {tier} tokens" if tier != token else "")
        if flydsl or not row.names_flydsl:
            return Lookup(row, why)
        instead = self._fallback.get((shape, token))
        if instead is None:
            return Lookup(None, f"{why} needs FlyDSL and has no fallback row")
        return Lookup(instead, f"fallback row {instead.place}, as row {row.place} needs FlyDSL")


def _keys(row: Row) -> tuple[Shape, ...]:
    """The keys a row is found under: one, or one per architecture if it names none."""
    if row.shape.arch:
        return (row.shape,)
    return tuple(msgspec.structs.replace(row.shape, arch=arch) for arch in ARCHES)


def _why_shadowed(row: Row, winner: Row) -> str:
    if row.act != winner.act:
        return (
            f"the lookup ignores act_type: {winner.place} ({winner.act}) comes first "
            f"and decides for {row.act}, too"
        )
    return f"{winner.place} has the same key and comes first"


def read_tuned(files: Iterable[Path]) -> TunedTable:
    """Read tuned tables in AITER's merge order (first row of a key wins).

    Raises:
        InputError: a file can't be read or isn't a tuned table.
    """
    tables = []
    for path in files:
        try:
            text = path.read_text(encoding="utf-8-sig")
        except OSError as e:
            raise InputError(f"can't be read: {e.strerror or e}", where=str(path)) from None
        except ValueError:
            raise InputError("can't be read: not UTF-8 text", where=str(path)) from None
        tables.append(parse_tuned(text, path.name))
    return merge(tables)


def tuned_files_of(checkout: Path) -> list[Path]:
    """The tuned tables of an AITER checkout or install, in the order AITER merges them.

    AITER takes `model_configs` in the order of the directory; names are sorted here.

    Raises:
        InputError: there is none.
    """
    for root in (checkout / "aiter" / "configs", checkout / "configs"):
        main = root / "tuned_fmoe.csv"
        if main.is_file():
            models = sorted((root / "model_configs").glob("*tuned_fmoe*.csv"))
            return [main, *(p for p in models if "untuned" not in p.name)]
    raise InputError(
        "not an AITER checkout: it has no aiter/configs/tuned_fmoe.csv", where=str(checkout)
    )


class ParsedFile(msgspec.Struct, frozen=True):
    """One file's rows.

    Attributes:
        rows: in the file's order.
        has_tag: whether it has a `_tag` column.
    """

    rows: tuple[Row, ...]
    has_tag: bool


def merge(files: Sequence[ParsedFile]) -> TunedTable:
    """Put files together as AITER does, which drops some rows.

    AITER fills a column that only other files have with 0, and a `_tag` of 0 isn't empty.
    """
    any_tag = any(f.has_tag for f in files)
    left_out = [
        Shadowed(row, None, "its file has no _tag column while another merged file has one")
        for f in files
        if any_tag and not f.has_tag
        for row in f.rows
    ]
    return TunedTable([row for f in files for row in f.rows], left_out)


def parse_tuned(text: str, name: str) -> ParsedFile:
    """Read the text of a tuned table.

    Args:
        text: the file's content.
        name: the file's name, for rows and errors.

    Raises:
        InputError: a column is missing, or a row has a value that isn't of its kind.
    """
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        header = next(reader, [])
        missing = [c for c in _NEEDED if c not in header]
        if missing:
            raise InputError(f"not a tuned MoE table: no column {', '.join(missing)}", where=name)
        columns = {c: i for i, c in enumerate(header)}
        rows = []
        for cells in reader:
            if not cells:
                continue
            where = f"{name}:{reader.line_num}"
            if len(cells) > len(header):
                raise InputError(f"{len(cells)} cells under {len(header)} columns", where=where)
            missing_cells = [""] * (len(header) - len(cells))  # as pandas reads them
            rows.append(_row(cells + missing_cells, columns, name, reader.line_num))
    except csv.Error as e:
        raise InputError(f"not CSV: {e}", where=f"{name}:{reader.line_num}") from None
    return ParsedFile(tuple(rows), "_tag" in columns)


def _row(cells: list[str], columns: dict[str, int], name: str, line: int) -> Row:
    def text(column: str) -> str:
        return cells[columns[column]] if column in columns else ""

    def integer(column: str) -> int:
        cell = text(column)
        try:
            return int(cell)
        except ValueError:
            pass
        try:
            value = float(cell or ("0" if column in ("ksplit", "run_1stage") else "x"))
            if value == int(value):
                return int(value)
        except (ValueError, OverflowError):
            pass
        raise InputError(f"{column} is {cell!r}, not an integer", where=f"{name}:{line}")

    def flag(column: str) -> bool:
        cell = text(column)
        return cell == "True" or (cell != "False" and integer(column) != 0)

    cu_num, gfx = integer("cu_num"), text("gfx")
    return Row(
        file=name,
        line=line,
        gfx=gfx,
        shape=Shape(
            arch=gfx or _CU_ARCH.get(cu_num, ""),
            cu_num=cu_num,
            model_dim=integer("model_dim"),
            inter_dim=integer("inter_dim"),
            expert=integer("expert"),
            topk=integer("topk"),
            dtype=text("dtype"),
            q_dtype_a=text("q_dtype_a"),
            q_dtype_w=text("q_dtype_w"),
            q_type=text("q_type"),
            use_g1u1=flag("use_g1u1"),
            doweight_stage1=flag("doweight_stage1"),
        ),
        token=integer("token"),
        act=text("act_type").rpartition(".")[2].lower(),
        block_m=integer("block_m"),
        ksplit=integer("ksplit"),
        kernel1=text("kernelName1"),
        kernel2=text("kernelName2"),
        run_1stage=flag("run_1stage"),
        tag=text("_tag"),
    )
