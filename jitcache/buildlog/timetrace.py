"""Reading the trace that clang's `-ftime-trace` writes: what a compile spent its time on.

The format is Chrome's trace JSON, as LLVM's TimeProfiler.cpp writes it: complete events
(`X`) that nest, and since clang 18 files that were read as pairs of asynchronous events
(`b`, `e`), because an include may end amid a declaration. Events are written when they end,
so one that encloses others stands behind them. Times are whole microseconds. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from jitcache.errors import InputError

MAX_BYTES = 1 << 28
"""Largest trace that is read."""

MAX_EVENTS = 2_000_000
"""Most events that are kept of one trace; the rest is counted and left out."""

_MAX_US = 1 << 50
_MAX_TEXT = 4096
_SUMMARY = "Total "
_SOURCE = "Source"


class _Args(msgspec.Struct):
    detail: str = ""


class _Event(msgspec.Struct):
    ph: str
    name: str
    ts: float = -1.0
    dur: float = 0.0
    pid: int = 0
    tid: int = 0
    id: int | str = 0
    args: _Args = msgspec.field(default_factory=_Args)


class _File(msgspec.Struct):
    traceEvents: list[msgspec.Raw]  # noqa: N815 - the name is the format's


@dataclass(slots=True)
class Span:
    """Something that the compiler did for a while.

    Attributes:
        name: what: `InstantiateFunction`, `Optimizer`, ...
        detail: on what: a function, a template with its arguments, a file; or "".
        start_us: start.
        end_us: end, never after that of the span it is within.
        children: what it did meanwhile, by start; they don't overlap.
    """

    name: str
    detail: str
    start_us: int
    end_us: int
    children: list[Span] = field(default_factory=list)

    @property
    def total_us(self) -> int:
        """Time from start to end."""
        return self.end_us - self.start_us

    @property
    def self_us(self) -> int:
        """Time within it that none of its children took."""
        return self.total_us - sum(c.total_us for c in self.children)


@dataclass(slots=True)
class Trace:
    """One pass of the compiler.

    Attributes:
        spans: what it did, nested; the outermost ones by start.
        files: the files that it read, nested as they include one another.
        skipped: events that make no sense, by reason.
        cut: whether the end of the trace is missing.
    """

    spans: list[Span]
    files: list[Span]
    skipped: dict[str, int]
    cut: bool

    @property
    def total_us(self) -> int:
        """Time of all outermost spans."""
        return sum(s.total_us for s in self.spans)


def parse_trace(data: bytes, *, where: str = "", max_events: int = MAX_EVENTS) -> Trace:
    """Parse a trace; what makes no sense in it is left out and counted.

    Args:
        data: the file.
        where: its name, for messages.
        max_events: how many of the first events are read.

    Raises:
        InputError: it is no trace, or holds no event of a compiler.
    """
    raw, cut = _events(data, where)
    skipped: Counter[str] = Counter()
    if len(raw) > max_events:
        skipped["too many events"] = len(raw) - max_events
    threads: dict[tuple[int, int], list[Span]] = {}
    files: dict[tuple[int, int], list[Span]] = {}
    opened: dict[tuple[int, int, int | str], list[_Event]] = {}
    for item in raw[:max_events]:
        event = _decoded(item)
        if isinstance(event, str):
            skipped[event] += 1
            continue
        thread = (event.pid, event.tid)
        match event.ph:
            # The sums that clang adds are no spans: each is in a thread of its own.
            case "X" if not event.name.startswith(_SUMMARY):
                threads.setdefault(thread, []).append(_span(event, event.ts + event.dur))
                if event.name == _SOURCE:
                    files.setdefault(thread, []).append(_span(event, event.ts + event.dur))
            case "b" if event.name == _SOURCE:
                opened.setdefault((*thread, event.id), []).append(event)
            case "e" if event.name == _SOURCE:
                if begun := opened.get((*thread, event.id)):
                    begin = begun.pop()
                    files.setdefault(thread, []).append(_span(begin, max(event.ts, begin.ts)))
                else:
                    skipped["an end without a begin"] += 1
    if left := sum(map(len, opened.values())):
        skipped["a begin without an end"] = left
    if not threads:
        raise InputError(
            "a trace without any event of a compiler",
            where=where,
            hint="clang writes such traces with -ftime-trace",
        )
    return Trace(
        [s for spans in threads.values() for s in nested(spans)],
        [s for spans in files.values() for s in nested(spans)],
        dict(sorted(skipped.items())),
        cut,
    )


def nested(spans: Iterable[Span]) -> list[Span]:
    """Put each span into the smallest one that it begins in, and end it there at the latest.

    Microseconds are rounded, and files may end amid a declaration, so ends are cut: only so
    is the time of every moment counted once.

    Args:
        spans: without children, of one thread.

    Returns:
        The outermost ones, by start.
    """
    roots: list[Span] = []
    stack: list[Span] = []
    for span in sorted(spans, key=lambda s: (s.start_us, -s.end_us)):
        while stack and stack[-1].end_us <= span.start_us:
            stack.pop()
        if stack:
            span.end_us = min(span.end_us, stack[-1].end_us)
            stack[-1].children.append(span)
        else:
            roots.append(span)
        stack.append(span)
    return roots


def _events(data: bytes, where: str) -> tuple[list[msgspec.Raw], bool]:
    """The events undecoded, and whether the file is cut off."""
    if len(data) > MAX_BYTES:
        raise InputError(f"larger than {MAX_BYTES >> 20} MiB", where=where)
    try:
        return msgspec.json.decode(data, type=_File).traceEvents, False
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as e:
        problem = e
    # Cut off while it was written (a full disk, a killed compiler): close it behind the
    # last event that seems whole. A brace within a name can look like one, so try a few.
    at = len(data)
    for _ in range(8):
        at = data.rfind(b"},{", 0, at)
        if at < 0:
            break
        try:
            return msgspec.json.decode(data[: at + 1] + b"]}", type=_File).traceEvents, True
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            continue
    raise InputError(
        f"not a time trace: {problem}",
        where=where,
        hint="clang writes such traces with -ftime-trace",
    ) from problem


def _decoded(raw: msgspec.Raw) -> _Event | str:
    """An event, or why there is none."""
    try:
        event = msgspec.json.decode(raw, type=_Event)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return "not an event"
    if event.ph in "Xbe" and not (0 <= event.ts <= _MAX_US and 0 <= event.dur <= _MAX_US):
        return "impossible time"
    return event


def _span(event: _Event, end_us: float) -> Span:
    detail = event.args.detail[:_MAX_TEXT]
    return Span(event.name[:_MAX_TEXT], detail, round(event.ts), round(end_us))
