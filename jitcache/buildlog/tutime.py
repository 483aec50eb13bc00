"""What a translation unit's compile time went into: phases, templates, headers, a flame. Pure.

Every microsecond of a trace is given to exactly one span, the innermost (*self time*), and
with it to one phase: the sum over phases, and the sum over all frames of the flame, is the
total. Headers are counted a second time, over the same clock: a file's self time is the
time in which it was the innermost one open.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from jitcache.buildlog.timetrace import Span, Trace

K = TypeVar("K")

Phase = Literal["front end", "instantiation", "IR generation", "optimiser", "back end", "other"]

PHASES: tuple[Phase, ...] = (
    "front end",
    "instantiation",
    "IR generation",
    "optimiser",
    "back end",
    "other",
)
"""In the order of a compile; `other` is the compiler's start and end."""

DEEPEST = 120
"""Levels of a flame that are kept; a recursive template can be nested far deeper."""

SMALLER = "(smaller)"
"""Name of the frame that stands for siblings too small to be kept."""

# Names as clang 22 emits them; what isn't named here belongs to what it is within.
_PHASE_OF: dict[str, Phase] = {
    "ExecuteCompiler": "other",
    "Frontend": "front end",
    "Source": "front end",
    "InstantiateClass": "instantiation",
    "InstantiateFunction": "instantiation",
    "PerformPendingInstantiations": "instantiation",
    "CodeGen Function": "IR generation",
    "Backend": "back end",
    "Optimizer": "optimiser",
    "CodeGenPasses": "back end",
}
_LEGACY = "RunPass"  # of the legacy pass manager; its detail names the pass
_TEMPLATES = ("InstantiateClass", "InstantiateFunction")
_PLACE = re.compile(r" at [^()]*/(?=[^/()]+\))")
_ANGLE = re.compile(r"operator\s*(?:<=>|<<=?|>>=?|<=|>=|->\*?|<|>)|->|[<>]")


@dataclass(slots=True)
class Cost:
    """What all spans of one name took.

    Attributes:
        count: how many there were.
        total_us: time from start to end; of recursive ones only the outermost.
        self_us: time in which none of their children ran.
    """

    count: int = 0
    total_us: int = 0
    self_us: int = 0

    def add(self, other: Cost) -> None:
        """Count another cost in."""
        self.count += other.count
        self.total_us += other.total_us
        self.self_us += other.self_us


@dataclass(slots=True)
class Frame:
    """A node of the flame: spans of the same name below the same parent, taken together."""

    name: str
    phase: Phase
    count: int = 0
    total_us: int = 0
    self_us: int = 0
    children: dict[str, Frame] = field(default_factory=dict)

    def add(self, other: Frame) -> None:
        """Count another frame in, with all below it."""
        stack = [(self, other)]
        while stack:
            mine, theirs = stack.pop()
            mine.count += theirs.count
            mine.total_us += theirs.total_us
            mine.self_us += theirs.self_us
            for key, child in theirs.children.items():
                stack.append((mine.children.setdefault(key, Frame(child.name, child.phase)), child))


@dataclass(slots=True)
class TuTime:
    """The attribution of one translation unit, or of several together.

    Attributes:
        total_us: time of all passes.
        phases: self time by phase; sums up to `total_us`.
        templates: by name without arguments.
        headers: by path; the file that is compiled is among them only where clang says so.
        activities: by phase and name of the span (LLVM's passes, for one).
        flame: root of the merged spans; its total is `total_us`.
    """

    total_us: int = 0
    phases: dict[Phase, int] = field(default_factory=lambda: dict.fromkeys(PHASES, 0))
    templates: dict[str, Cost] = field(default_factory=dict)
    headers: dict[str, Cost] = field(default_factory=dict)
    activities: dict[tuple[Phase, str], Cost] = field(default_factory=dict)
    flame: Frame = field(default_factory=lambda: Frame("all", "other"))

    def add(self, other: TuTime) -> None:
        """Count another one in."""
        self.total_us += other.total_us
        for phase, us in other.phases.items():
            self.phases[phase] += us
        for mine, theirs in (
            (self.templates, other.templates),
            (self.headers, other.headers),
        ):
            for name, cost in theirs.items():
                mine.setdefault(name, Cost()).add(cost)
        for key, cost in other.activities.items():
            self.activities.setdefault(key, Cost()).add(cost)
        self.flame.add(other.flame)


def attribute(traces: Iterable[Trace]) -> TuTime:
    """Attribute the passes of one translation unit (host, device targets) together."""
    found = TuTime()
    for trace in traces:
        found.total_us += trace.total_us
        _spans(trace.spans, found)
        _files(trace.files, found)
    found.flame.count = 1
    found.flame.total_us = found.total_us
    return found


def template_name(detail: str) -> str:
    """A function or class without template arguments and parameters.

    `applier<1>::f(int)` gives `applier::f`. Of the place of a lambda only the file's name stays.
    """
    detail = _PLACE.sub(" at ", detail)
    parts: list[str] = []
    depth = at = 0
    for m in _ANGLE.finditer(detail):
        if m[0] == "<":
            if depth == 0:
                parts.append(detail[at : m.start()])
            depth += 1
        elif m[0] == ">" and depth > 0:
            depth -= 1
            at = m.end()
    if depth == 0:
        parts.append(detail[at:])
    return _without_parameters("".join(parts)).strip() or detail


def _without_parameters(name: str) -> str:
    """Leave out what stands in parentheses, but for `operator()` and `(lambda ...)`."""
    parts: list[str] = []
    at = 0
    while (start := name.find("(", at)) >= 0:
        depth, end = 1, start + 1
        while end < len(name) and depth:
            depth += (name[end] == "(") - (name[end] == ")")
            end += 1
        named = start == 0 or name[start - 1] == ":" or name.endswith("operator", 0, start)
        parts += [name[at:start], name[start:end] if named else ""]
        at = end
    return "".join([*parts, name[at:]])


def pruned(frame: Frame, smallest_us: int) -> Frame:
    """A copy in which frames below `smallest_us` are one `SMALLER` frame per parent.

    So are those more than `DEEPEST` levels down. Totals stay: what is left out is counted in
    that frame as its own time.
    """
    copy = Frame(frame.name, frame.phase, frame.count, frame.total_us, frame.self_us)
    stack = [(frame, copy, 0)]
    while stack:
        source, target, depth = stack.pop()
        small = Frame(SMALLER, source.phase)
        for key, child in source.children.items():
            if child.total_us >= smallest_us and depth < DEEPEST:
                kept = Frame(child.name, child.phase, child.count, child.total_us, child.self_us)
                target.children[key] = kept
                stack.append((child, kept, depth + 1))
            else:
                small.count += child.count
                small.total_us += child.total_us
                small.self_us += child.total_us
        if small.total_us:
            target.children[SMALLER] = small
    return copy


def _spans(roots: list[Span], found: TuTime) -> None:
    """Walk all spans: phases, templates, activities and the flame."""
    parsed = False
    # (span, its frame's parent, phase around it, names and templates open above it)
    nothing: frozenset[str] = frozenset()
    stack: list[tuple[Span, Frame, Phase, frozenset[str]]] = [
        (root, found.flame, "other", nothing) for root in reversed(roots)
    ]
    while stack:
        span, parent, around, above = stack.pop()
        phase = _PHASE_OF.get(span.name, around)
        if span.name == "Frontend":
            # The second one is BackendConsumer::HandleTranslationUnit, which emits what
            # was deferred.
            phase = "IR generation" if parsed else phase
            parsed = True
        found.phases[phase] += span.self_us
        what = template_name(span.detail) if span.detail else ""
        doing = span.detail if span.name == _LEGACY and span.detail else span.name
        _count(found.activities, (phase, doing), doing in above, span)
        if span.name in _TEMPLATES and what:
            _count(found.templates, what, what in above, span)
            above |= {what}
        above |= {doing}
        name = f"{span.name}: {what}" if what else span.name
        frame = parent.children.setdefault(f"{phase}\n{name}", Frame(name, phase))
        frame.count += 1
        frame.total_us += span.total_us
        frame.self_us += span.self_us
        stack.extend((child, frame, phase, above) for child in reversed(span.children))


def _files(roots: list[Span], found: TuTime) -> None:
    stack: list[tuple[Span, frozenset[str]]] = [(r, frozenset()) for r in roots]
    while stack:
        span, above = stack.pop()
        path = posixpath.normpath(span.detail) if span.detail else "(unnamed)"
        _count(found.headers, path, path in above, span)
        inner = above | {path}
        stack.extend((child, inner) for child in span.children)


def _count(costs: dict[K, Cost], key: K, again: bool, span: Span) -> None:
    """Count a span in; one within another of the same key adds nothing to its total."""
    cost = costs.setdefault(key, Cost())
    cost.count += 1
    cost.total_us += 0 if again else span.total_us
    cost.self_us += span.self_us
