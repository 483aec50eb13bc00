"""Reading build.ninja: which output needs which input.

Only what the report asks for is kept: the edges with their rule and pool, and the depth of
pools. The syntax is ninja's (doc/manual.asciidoc, "Ninja file reference"): rules,
build statements, scopes, `$` escapes, continuation lines, include and subninja. Paths in
include and subninja are relative to the directory in which ninja runs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from jitcache.errors import InputError

MAX_FILE = 1 << 30
"""Largest build.ninja that is read, in bytes."""

MAX_DEPTH = 64
"""How deep files may include one another."""

_ESCAPE = re.compile(r"\$(?:([$ :|^])|\{([a-zA-Z0-9_.-]+)\}|([a-zA-Z0-9_-]+)|(.?))")
_NAME = re.compile(r"[a-zA-Z0-9_.-]+")
_TOKEN = re.compile(r" +|\|\||\|@|\||:|(?:\$.|[^$ |:])+", re.DOTALL)
_MAX_VALUE = 1 << 22


@dataclass(frozen=True, slots=True)
class GraphEdge:
    """One build statement.

    Attributes:
        outputs: explicit ones first, then implicit ones.
        inputs: explicit and implicit.
        order_only: inputs that must exist, but don't make the outputs out of date.
        rule: name of its rule; `phony` runs nothing.
        pool: name of its pool, "" for none.
        label: what its own `label` binding says (jitcache writes one), "" for none.
    """

    outputs: tuple[str, ...]
    inputs: tuple[str, ...]
    order_only: tuple[str, ...]
    rule: str
    pool: str
    label: str = ""

    @property
    def phony(self) -> bool:
        """Whether it only gives other files a name."""
        return self.rule == "phony"


@dataclass(slots=True)
class Graph:
    """A build graph.

    Attributes:
        edges: in the order of the file.
        producer: index of the edge that makes a file, by path.
        pools: how many commands of a pool may run at once, by name.
        builddir: where `.ninja_log` is, relative to the build directory; "" for there.
        defaults: what its `default` statements name.
        notes: sentences a reader of the report must know.
    """

    edges: list[GraphEdge] = field(default_factory=list)
    producer: dict[str, int] = field(default_factory=dict)
    pools: dict[str, int] = field(default_factory=lambda: {"console": 1})
    builddir: str = ""
    defaults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def needed(self) -> set[int]:
        """Indices of the edges that ninja runs where no target is named."""
        if not self.defaults:
            return set(range(len(self.edges)))
        stack = [self.producer[name] for name in self.defaults if name in self.producer]
        found = set(stack)
        while stack:
            edge = self.edges[stack.pop()]
            for name in (*edge.inputs, *edge.order_only):
                index = self.producer.get(name)
                if index is not None and index not in found:
                    found.add(index)
                    stack.append(index)
        return found


def read_graph(path: Path) -> Graph:
    """Read a build.ninja and what it includes.

    Raises:
        InputError: a file can't be read, or isn't a ninja file.
    """

    def load(name: str, where: str) -> str:
        file = path if where == "" else path.parent / name
        try:
            if not file.is_file():
                raise InputError(
                    "no such file" if not file.exists() else "not a regular file",
                    where=where or str(file),
                )
            if file.stat().st_size > MAX_FILE:
                raise InputError("larger than 1 GiB", where=where or str(file))
            return file.read_bytes().decode("utf-8", "backslashreplace")
        except (OSError, ValueError) as e:
            raise InputError(f"can't read {name!r}: {e}", where=where or str(file)) from e

    return parse_graph(load, name=path.name)


def parse_graph(load: Callable[[str, str], str], *, name: str = "build.ninja") -> Graph:
    """Parse a graph from texts that `load(name, where)` gives; `where` is "" for the first.

    Raises:
        InputError: a statement is malformed; names file and line.
    """
    parser = _Parser(load)
    parser.file(name, "", _Scope(None), 0)
    graph = parser.graph
    graph.builddir = parser.builddir
    if parser.dyndeps:
        graph.notes.append(
            f"{parser.dyndeps} edges find further inputs while the build runs (dyndep): "
            "those dependencies are not known here"
        )
    return graph


def canonical(path: str) -> str:
    """A path as ninja writes it into its log: without `.`, `..` and double slashes."""
    if "//" not in path and "./" not in path and not path.endswith(("/", "/.", "/..")):
        return path
    parts: list[str] = []
    for part in path.split("/"):
        if part in ("", "."):
            continue
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        elif part != ".." or not path.startswith("/"):
            parts.append(part)
    return ("/" if path.startswith("/") else "") + "/".join(parts) or "."


class _Scope:
    """Variables and rules of a file; a subninja file sees those of its parent."""

    __slots__ = ("parent", "rules", "values")

    def __init__(self, parent: _Scope | None) -> None:
        self.parent = parent
        self.values: dict[str, str] = {}
        self.rules: dict[str, dict[str, str]] = {}

    def value(self, name: str) -> str:
        scope: _Scope | None = self
        while scope is not None:
            if name in scope.values:
                return scope.values[name]
            scope = scope.parent
        return ""

    def rule(self, name: str) -> dict[str, str] | None:
        scope: _Scope | None = self
        while scope is not None:
            if name in scope.rules:
                return scope.rules[name]
            scope = scope.parent
        return None


class _Parser:
    def __init__(self, load: Callable[[str, str], str]) -> None:
        self.load = load
        self.graph = Graph()
        self.builddir = ""
        self.dyndeps = 0
        self.where = ""

    def error(self, what: str) -> InputError:
        return InputError(what, where=self.where)

    def file(self, name: str, where: str, scope: _Scope, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise self.error(f"files include one another more than {MAX_DEPTH} deep")
        lines = _statements(self.load(name, where))
        pending: tuple[int, str] | None = next(lines, None)
        while pending is not None:
            number, text = pending
            self.where = f"{name}:{number}"
            block: list[str] = []
            while (pending := next(lines, None)) is not None and pending[1][:1] == " ":
                block.append(pending[1])
            self.statement(text, block, scope, depth)
        if depth == 0:
            self.builddir = scope.value("builddir")

    def statement(self, text: str, block: list[str], scope: _Scope, depth: int) -> None:
        if text[:1] == " ":
            raise self.error("indented line without a statement above it")
        word, _, rest = text.partition(" ")
        rest = rest.lstrip(" ")
        name = rest.rstrip(" ")
        if word == "build":
            self.build(rest, block, scope)
        elif word in ("rule", "pool") and _NAME.fullmatch(name):
            bindings = dict(self.binding(line) for line in block)
            if word == "rule":
                scope.rules[name] = bindings
            else:
                depth_text = self.expand(bindings.get("depth", ""), scope.value)
                if not re.fullmatch(r"\d{1,9}", depth_text):
                    raise self.error(f"pool {name!r} has no depth")
                self.graph.pools[name] = int(depth_text)
        elif word in ("include", "subninja") and "=" not in rest[:2] and rest:
            path = self.expand(rest, scope.value)
            inner = scope if word == "include" else _Scope(scope)
            here = self.where
            self.file(path, here, inner, depth + 1)
            self.where = here
        elif word == "default" and not rest.startswith("="):
            names = [t for t in _TOKEN.findall(rest) if t[0] != " "]
            self.graph.defaults += [canonical(self.expand(t, scope.value)) for t in names]
        elif block:
            raise self.error("indented lines below a statement that takes none")
        else:
            key, value = self.binding(text)
            scope.values[key] = self.expand(value, scope.value)

    def binding(self, line: str) -> tuple[str, str]:
        key, equals, value = line.partition("=")
        key = key.strip(" ")
        if not equals or not _NAME.fullmatch(key):
            raise self.error(f"expected 'name = value', found {line.strip()[:60]!r}")
        return key, value.lstrip(" ")

    def build(self, text: str, block: list[str], scope: _Scope) -> None:
        own: dict[str, str] = {}
        for line in block:
            key, value = self.binding(line)
            own[key] = self.expand(value, scope.value)

        def lookup(name: str) -> str:
            return own[name] if name in own else scope.value(name)

        outs, ins = self.sides(text)
        if not outs.get("") or not ins.get(""):
            raise self.error("expected 'build outputs: rule inputs'")
        rule_name, *explicit = ins[""]
        rule = {} if rule_name == "phony" else scope.rule(rule_name)
        if rule is None:
            raise self.error(f"unknown rule {rule_name!r}")

        def paths(tokens: list[str]) -> tuple[str, ...]:
            found = tuple(canonical(self.expand(t, lookup) if "$" in t else t) for t in tokens)
            if not all(found):
                raise self.error("a path is empty")
            return found

        pool = own.get("pool")
        if pool is None:
            pool = self.expand(rule.get("pool", ""), lookup)
        self.dyndeps += bool(own.get("dyndep") or rule.get("dyndep"))
        edge = GraphEdge(
            paths(outs[""] + outs.get("|", [])),
            paths(explicit + ins.get("|", [])),
            paths(ins.get("||", [])),
            rule_name,
            pool,
            own.get("label", ""),
        )
        index = len(self.graph.edges)
        self.graph.edges.append(edge)
        for output in edge.outputs:
            self.graph.producer.setdefault(output, index)

    def sides(self, text: str) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        """Unexpanded paths before and after the colon, by the sign that leads their group."""
        left: dict[str, list[str]] = {"": []}
        right: dict[str, list[str]] | None = None
        group = left[""]
        for token in _TOKEN.findall(text):
            match token[0]:
                case " ":
                    continue
                case ":" if right is None:
                    right = {"": []}
                    group = right[""]
                case "|":
                    group = (left if right is None else right).setdefault(token, [])
                case _:
                    group.append(token)
        if right is None:
            raise self.error("a build statement without a colon")
        return left, right

    def expand(self, text: str, lookup: Callable[[str], str]) -> str:
        """Replace `$` escapes and variables.

        A rule's variables are looked up where they are used, so a value can't refer to
        itself here and one pass is enough.
        """
        if "$" not in text:
            return text

        grown = len(text)

        def one(m: re.Match[str]) -> str:
            nonlocal grown
            literal, braced, bare, other = m.groups()
            if literal is not None:
                return "\n" if literal == "^" else str(literal)
            if other is not None:
                raise self.error(f"bad $ escape: ${other}")
            value = lookup(braced or bare)
            grown += len(value)
            if grown > _MAX_VALUE:
                raise self.error("a value grows beyond 4 MiB")
            return value

        return _ESCAPE.sub(one, text)


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Logical lines with their number: continuations joined, comments and blanks left out."""
    parts: list[str] = []
    first = 0
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.removesuffix("\r")
        if parts:
            line = line.lstrip(" ")
        else:
            first = number
            if not line or line.lstrip(" ")[:1] in ("", "#"):
                continue
        if line.endswith("$") and (len(line) - len(line.rstrip("$"))) % 2:
            parts.append(line[:-1])
            continue
        yield first, "".join([*parts, line])
        parts = []
    if parts:
        yield first, "".join(parts)
