"""Reading AITER's CK2stages tables out of its Python sources: parsed, never executed. Pure.

Two files of `csrc/ck_gemm_moe_2stages_codegen` are read: the tiles and operation names of
`gemm_moe_ck2stages_common.py` and the dispatch texts of `gen_instances.py`. What isn't of
the known form is an error that names the place, so that a changed generator is looked at by
a person.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator

import msgspec

from jitcache.codegen.catalog.family import (
    ALWAYS,
    NEVER,
    Op,
    Row,
    When,
    multiple,
    not_multiple,
    over,
    up_to,
)
from jitcache.codegen.catalog.model import Tile
from jitcache.errors import InputError

COMMON = "gemm_moe_ck2stages_common.py"
GENERATOR = "gen_instances.py"


class SourceFamily(msgspec.Struct, frozen=True):
    """What AITER's sources say of a family.

    Attributes:
        tag: its tag.
        ops: operation names of stage 1 and 2.
        stage1: its stage 1 tiles, each with the condition under which it is dispatched.
        stage2: its stage 2 tiles.
    """

    tag: str
    ops: tuple[Op, Op]
    stage1: tuple[Row, ...]
    stage2: tuple[Row, ...]


class SourceTables(msgspec.Struct, frozen=True):
    """All families, and a digest of the code that chooses between them."""

    families: tuple[SourceFamily, ...]
    selection: str


def parse_tables(common: str, generator: str) -> SourceTables:
    """Read the texts of the two files.

    Raises:
        InputError: something doesn't have the known form.
    """
    tree, texts = _parse(common, COMMON), _parse(generator, GENERATOR)
    constants = _assignments(tree)
    lists = [_names(constants, f"gemm{s}_kernels_dict") for s in (1, 2)]
    chooser = [_function(tree, f"get_gemm{s}_kernels_list") for s in (1, 2)]
    ops = [_ops(f) for f in chooser]
    default = _default_op(tree)
    dispatch = _dispatch_texts(_assignments(texts))
    if set(lists[0]) != set(lists[1]) or set(lists[0]) != set(dispatch):
        raise InputError("the stages and the dispatch don't list the same tags", where=COMMON)
    families = []
    for tag in sorted(lists[0]):
        size = 2 if tag.startswith("a16") else 1
        rows = [
            _rows(_tiles(constants, lists[s][tag]), _picked(dispatch[tag][s], size, tag), tag)
            for s in (0, 1)
        ]
        families.append(
            SourceFamily(
                tag=tag,
                ops=(ops[0].get(tag, default), ops[1].get(tag, default)),
                stage1=rows[0],
                stage2=rows[1],
            )
        )
    return SourceTables(tuple(families), _selection(chooser))


def _parse(text: str, name: str) -> ast.Module:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError) as e:
        raise InputError(f"not Python: {e}", where=name) from None


def _assignments(tree: ast.Module) -> dict[str, ast.expr]:
    return {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }


def _names(constants: dict[str, ast.expr], name: str) -> dict[str, str]:
    """A dict of tag → name of a list."""
    node = constants.get(name)
    if not isinstance(node, ast.Dict):
        raise InputError(f"no table {name}", where=COMMON)
    return {
        str(k.value): v.id
        for k, v in zip(node.keys, node.values, strict=True)
        if isinstance(k, ast.Constant) and isinstance(v, ast.Name)
    }


def _tiles(constants: dict[str, ast.expr], name: str) -> list[Tile]:
    """The tiles of a list, in its order."""
    node = constants.get(name)
    if not isinstance(node, ast.Dict):
        raise InputError(f"no list {name}", where=COMMON)
    tiles = []
    for call in node.values:
        args = call.args if isinstance(call, ast.Call) else []
        numbers = [a.value for a in args if isinstance(a, ast.Constant)]
        if len(numbers) != 7 or not all(isinstance(n, int) for n in numbers):
            raise InputError(f"{name} has an entry without seven numbers", where=COMMON)
        tiles.append(Tile(*(int(str(n)) for n in numbers)))
    return tiles


def _function(tree: ast.Module, name: str) -> ast.FunctionDef:
    found = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name]
    if not found:
        raise InputError(f"no function {name}", where=COMMON)
    return found[0]


def _selection(functions: list[ast.FunctionDef]) -> str:
    """Digest of the chains of conditions that choose a tag."""
    text = "".join(ast.dump(node) for f in functions for node in f.body if isinstance(node, ast.If))
    return hashlib.sha256(text.encode()).hexdigest()


def _default_op(tree: ast.Module) -> Op:
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and node.target.id == "CDEElementOp"
            and isinstance(node.value, ast.Constant)
        ):
            return Op(str(node.value.value))
    raise InputError("no default for CDEElementOp", where=COMMON)


def _ops(function: ast.FunctionDef) -> dict[str, Op]:
    """Tag → operation, from the chain of `if tag == ...` in the function's loop."""
    loops = [n for n in function.body if isinstance(n, ast.For)]
    found: dict[str, Op] = {}
    nodes: list[ast.stmt] = list(loops[0].body) if loops else []
    while nodes:
        node = nodes.pop(0)
        if isinstance(node, ast.If):
            found.update(dict.fromkeys(_tags(node.test), _op(node.body)))
            nodes.extend(node.orelse)
    if not found:
        raise InputError(f"{function.name} names no operations", where=COMMON)
    return found


def _tags(test: ast.expr) -> list[str]:
    return [
        str(c.value)
        for n in ast.walk(test)
        if isinstance(n, ast.Compare) and isinstance(n.left, ast.Name) and n.left.id == "tag"
        for c in n.comparators
        if isinstance(c, ast.Constant)
    ]


def _op(body: list[ast.stmt]) -> Op:
    (node,) = body
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
        return Op(str(node.value.value))
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name):
        special, plain = _op(node.body).plain, _op(node.orelse).plain
        if node.test.id == "splitk":
            return Op(plain, splitk=special)
        if node.test.id == "MulRoutedWeight":
            return Op(plain, routed=special)
    raise InputError("an operation is chosen in a way that isn't known", where=COMMON)


def _dispatch_texts(constants: dict[str, ast.expr]) -> dict[str, tuple[str, str]]:
    node = constants.get("heuristic_dispatch_dict")
    if not isinstance(node, ast.Dict):
        raise InputError("no heuristic_dispatch_dict", where=GENERATOR)
    found = {}
    for key, value in zip(node.keys, node.values, strict=True):
        names = value.elts if isinstance(value, ast.List) else []
        texts = [constants.get(n.id) for n in names if isinstance(n, ast.Name)]
        plain = [str(t.value) for t in texts if isinstance(t, ast.Constant)]
        if not isinstance(key, ast.Constant) or len(plain) != 2:
            raise InputError(
                "heuristic_dispatch_dict has an entry without two texts", where=GENERATOR
            )
        found[str(key.value)] = plain[0], plain[1]
    return found


def _rows(tiles: list[Tile], picked: dict[Tile, When], tag: str) -> tuple[Row, ...]:
    lost = [str(t) for t in picked if t not in tiles]
    if lost:
        raise InputError(f"{tag} dispatches to {', '.join(lost)}, which it lacks", where=GENERATOR)
    return tuple(Row(tile, picked.get(tile, NEVER)) for tile in tiles)


_TOKEN = re.compile(
    r"(?P<if>if\s*\((?P<cond>(?:[^()]|\([^()]*\))*)\))|(?P<else>else\b)|(?P<open>\{)|(?P<close>\})"
    r"|(?P<ret>return ck_moe_stage[12]_gemm<(?P<args>.*?)>;)|(?P<check>TORCH_CHECK\(.*?\);)",
    re.DOTALL,
)
_Path = tuple[tuple[str, bool], ...]


def _picked(text: str, size: int, tag: str) -> dict[Tile, When]:
    """Tile → condition, from a dispatch text."""
    tokens = list(
        _TOKEN.finditer(re.sub(r"(?m)^#.*$", "", text).replace("{{", "{").replace("}}", "}"))
    )
    found: dict[Tile, set[When]] = {}
    for path, args in _returns(tokens):
        tile = _tile(args, size, tag)
        heights = [int(c.split()[-1]) for c, yes in path if c.startswith("block_m ==") and yes]
        if heights != [tile.m]:
            raise InputError(f"{tag} picks {tile} for block_m {heights}", where=GENERATOR)
        rest = [(c, yes) for c, yes in path if c.startswith("inter_dim")]
        if len(rest) > 1:
            raise InputError(f"{tag} picks {tile} under several conditions", where=GENERATOR)
        found.setdefault(tile, set()).add(_when(*rest[0]) if rest else ALWAYS)
    return {tile: _joined(whens, tile, tag) for tile, whens in found.items()}


def _returns(tokens: list[re.Match[str]]) -> Iterator[tuple[_Path, str]]:
    """Every `return` with the conditions that lead to it."""
    position = 0

    def statement(path: _Path) -> Iterator[tuple[_Path, str]]:
        nonlocal position
        if position >= len(tokens):
            raise InputError("a dispatch text ends too early", where=GENERATOR)
        token = tokens[position]
        position += 1
        if token["ret"]:
            yield path, token["args"]
        elif token["open"]:
            while position < len(tokens) and not tokens[position]["close"]:
                yield from statement(path)
            position += 1
        elif token["if"]:
            condition = " ".join(token["cond"].split())
            yield from statement((*path, (condition, True)))
            if position < len(tokens) and tokens[position]["else"]:
                position += 1
                yield from statement((*path, (condition, False)))

    while position < len(tokens):
        yield from statement(())


def _tile(args: str, size: int, tag: str) -> Tile:
    """The tile of a kernel's template arguments."""
    parts = [a.strip() for a in args.split(",")]
    if len(parts) < 12:
        raise InputError(f"{tag} has a kernel with {len(parts)} arguments", where=GENERATOR)
    version, threads, m, n, depth, m_waves, n_waves = parts[5:12]
    quotient = re.fullmatch(r"(\d+)\s*/\s*sizeof\(\{A0DataType\}\)", depth)
    try:
        k = int(quotient[1]) // size if quotient else int(depth)
        return Tile(
            int(threads), int(m), int(n), k, int(m_waves), int(n_waves), int(version.lstrip("V"))
        )
    except ValueError:
        raise InputError(f"{tag} has a kernel <{args}>", where=GENERATOR) from None


def _when(condition: str, holds: bool) -> When:
    if found := re.fullmatch(r"inter_dim <= (\d+)", condition):
        return up_to(int(found[1])) if holds else over(int(found[1]))
    if found := re.fullmatch(r"inter_dim % (\d+) == 0", condition):
        return multiple(int(found[1])) if holds else not_multiple(int(found[1]))
    raise InputError(f"the condition {condition!r} isn't known", where=GENERATOR)


def _joined(whens: set[When], tile: Tile, tag: str) -> When:
    """One condition for a tile that stands at several places."""
    if len(whens) == 1:
        return next(iter(whens))
    opposites = {"<=": ">", ">": "<=", "%": "!%", "!%": "%"}
    one, *others = whens
    if ALWAYS in whens or others == [When(opposites[one.rule], one.value)]:
        return ALWAYS
    raise InputError(f"{tag} picks {tile} under several conditions", where=GENERATOR)
