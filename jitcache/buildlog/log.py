"""Reading `.ninja_log`: what ninja finished, when, and in which run.

The file is a text header (`# ninja log v<N>`) and one line per output: start and end in
milliseconds since the run began, a time stamp in nanoseconds, the output, a hash of the
command, tab separated (ninja's src/build_log.cc). Three traits make it harder than that:

- several runs follow each other without a mark between them;
- *recompaction* keeps one line per output, in no order, so runs are mixed up;
- an edge with several outputs has one line for each.

Versions 6 and 7 stamp a line with the moment its command started (ninja 1.12 and newer), so
`stamp - start` is the moment the run began and tells runs apart in any order. Version 5
stamps the output's modification time, which `cp -p` makes meaningless; there a run ends
where the end times fall or an output comes again.

Logs come from crashed, concurrent and foreign builds, so a bad line is counted and left
out; only a file that is no ninja log at all is refused.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

from jitcache.errors import InputError

KNOWN_VERSIONS = (5, 6, 7)

MAX_LINE = 1 << 16
"""Longest line that is read, in bytes; paths end far below it."""

MAX_ENTRIES = 500_000
"""Entries kept of one log (the newest), which bounds memory to a few hundred MB."""

MAX_BYTES = 64 << 20
"""How much is read of the end of a larger log: about as much as `MAX_ENTRIES` take."""

_CHUNK = 1 << 20
_MAX_MS = 366 * 86_400_000
_SAME_RUN_MS = 250
_NS = 1_000_000
_TOO_LONG = "line longer than 64 KiB"
_HEADER = re.compile(rb"# ninja log v(\d{1,9})\s*")
_NUMBER = re.compile(rb"-?\d{1,19}")


class LogEntry(NamedTuple):
    r"""One line: an output that ninja finished.

    Attributes:
        output: path as ninja writes it; bytes that aren't UTF-8 are shown as `\xNN`.
        start_ms: start of its command, milliseconds since the run began.
        end_ms: end of its command, same clock.
        stamp_ns: version 6 and newer: when the command started; version 5: modification
            time of the output; nanoseconds since the epoch, 0 where unknown.
        command: hash of the command, as written.
    """

    output: str
    start_ms: int
    end_ms: int
    stamp_ns: int
    command: str


@dataclass(frozen=True, slots=True)
class Run:
    """One invocation of ninja that finished at least one command.

    Attributes:
        entries: in the order they finished.
        began_ns: when it began, nanoseconds since the epoch; None where the log can't tell.
        mixed: whether the entries may stem from several runs (a recompacted version 5 log).
    """

    entries: tuple[LogEntry, ...]
    began_ns: int | None
    mixed: bool = False


@dataclass(slots=True)
class NinjaLog:
    """A parsed log.

    Attributes:
        version: as the header states it; 0 where it is missing.
        runs: oldest first, none of them empty.
        skipped: why lines were left out, and how many for each reason.
        notes: sentences a reader of the report must know.
    """

    version: int
    runs: list[Run]
    skipped: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_log(path: Path, *, max_entries: int = MAX_ENTRIES, max_bytes: int = MAX_BYTES) -> NinjaLog:
    """Read a log file as a stream: memory and time are bounded whatever its size.

    Raises:
        InputError: it can't be read, or isn't a ninja log.
    """
    try:
        if not path.is_file():
            raise InputError(
                "no such log" if not path.exists() else "not a regular file",
                where=str(path),
                hint="name the directory in which ninja ran (it holds .ninja_log)",
            )
        with path.open("rb") as f:
            size = path.stat().st_size
            if size <= max_bytes:
                return parse_log(f, where=str(path), max_entries=max_entries)
            head = f.readline(_CHUNK)
            f.seek(size - max_bytes)
            f.readline(_CHUNK)
            log = parse_log(f, where=str(path), max_entries=max_entries, head=head)
            log.notes.append(f"the log is huge: only its last {max_bytes >> 10} KiB were read")
            return log
    except OSError as e:
        raise InputError(f"can't read the log: {e.strerror or e}", where=str(path)) from e


def parse_log(
    stream: BinaryIO, *, where: str, max_entries: int = MAX_ENTRIES, head: bytes = b""
) -> NinjaLog:
    """Parse a log from a binary stream.

    Args:
        stream: the log.
        where: its name, for messages.
        max_entries: how many of the newest entries are kept.
        head: what comes before the stream: the header of a log that is read from amid it.

    Raises:
        InputError: the stream holds no line of a ninja log, or one of a version older
            than 5 (ninja before 1.5), whose columns differ.
    """
    log = NinjaLog(0, [])
    skipped: Counter[str] = Counter()
    kept: deque[LogEntry | None] = deque(maxlen=max_entries)
    dropped = 0
    for number, line in enumerate(_lines(stream, head)):
        header = _HEADER.fullmatch(line) if isinstance(line, bytes) and line[:1] == b"#" else None
        if header is not None:
            # A header amid the file: logs were concatenated, so a run ends here.
            log.version = _checked_version(int(header[1]), where, log)
            kept.append(None)
            continue
        entry = _entry(line) if isinstance(line, bytes) else line
        if isinstance(entry, LogEntry):
            dropped += len(kept) == max_entries
            kept.append(entry)
        elif entry:
            skipped[entry] += 1
        if number == 0:
            log.notes.append("the log has no header: its beginning is lost")
    if log.version == 0 and not any(kept):
        raise InputError(
            "not a ninja log",
            where=where,
            hint="a log begins with '# ninja log v7' (or v5, v6)",
        )
    if dropped:
        log.notes.append(f"the log is huge: its {dropped} oldest entries were left out")
    log.skipped = dict(sorted(skipped.items()))
    log.runs = _split(kept, log)
    return log


def group_outputs(entries: Iterable[LogEntry]) -> list[tuple[LogEntry, ...]]:
    """Bring the lines of one command together: equal times and command hash.

    Only for logs without a graph: two commands with the same text and times can't be told
    apart here.
    """
    groups: dict[tuple[int, int, str], list[LogEntry]] = {}
    for e in entries:
        groups.setdefault((e.start_ms, e.end_ms, e.command), []).append(e)
    return [tuple(g) for g in groups.values()]


def _checked_version(version: int, where: str, log: NinjaLog) -> int:
    if version < KNOWN_VERSIONS[0]:
        raise InputError(
            f"ninja log version {version} is too old to read",
            where=where,
            hint="build with ninja 1.5 or newer: versions 5, 6 and 7 are read",
        )
    if version > KNOWN_VERSIONS[-1]:
        log.notes.append(
            f"log version {version} is newer than this reader knows; read as version 7"
        )
    return version


def _lines(stream: BinaryIO, rest: bytes) -> Iterator[bytes | str]:
    """Lines without their ends; why not, for a line that isn't read."""
    too_long = False
    while chunk := stream.read(_CHUNK):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield _TOO_LONG if too_long or len(line) > MAX_LINE else line
            too_long = False
        if len(rest) > MAX_LINE:
            too_long = True
            rest = b""
    if too_long:
        yield _TOO_LONG
    elif rest:
        # Cut while a line was written: whole up to its hash, or of no use.
        whole_line = rest.startswith(b"#") or isinstance(_entry(rest), LogEntry)
        yield rest if whole_line else "cut off at the end of the file"


def _entry(line: bytes) -> LogEntry | str:
    """An entry, or why there is none ("" for lines that mean nothing)."""
    line = line.removesuffix(b"\r")
    if not line or line.startswith(b"#"):
        return ""
    fields = line.split(b"\t")
    if len(fields) != 5:
        return f"{'fewer' if len(fields) < 5 else 'more'} than five columns"
    if not all(map(_NUMBER.fullmatch, fields[:3])) or not fields[3] or not fields[4]:
        return "times, output or hash unreadable"
    start, end, stamp = map(int, fields[:3])
    if start < 0 or end > _MAX_MS:
        return "impossible time"
    if end < start:
        return "ends before it starts"
    output = fields[3].decode("utf-8", "backslashreplace")
    return LogEntry(output, start, end, max(stamp, 0), fields[4].decode("ascii", "replace"))


def _split(kept: Iterable[LogEntry | None], log: NinjaLog) -> list[Run]:
    pieces, repeats = _pieces(kept)
    if not pieces:
        return []
    if log.version >= 6:
        runs = _by_stamp([e for p in pieces for e in p])
        # Stamps that are no starts (another tool's log) give about as many runs as lines.
        if len(runs) <= max(2 * len(pieces), sum(map(len, pieces)) / 4):
            if len(runs) < len(pieces):
                log.notes.append(
                    "the log's lines are out of order (recompacted, or two ninjas at once): "
                    "runs are told apart by their time stamps"
                )
            return runs
    # Without usable stamps a recompacted stretch shows only as many falls of the end time
    # among lines that never repeat an output: about every second line falls in random order.
    first_repeat = next((i for i, r in enumerate(repeats) if r), len(pieces))
    lines = sum(map(len, pieces[:first_repeat]))
    if first_repeat > 3 and first_repeat > lines / 4:
        mixed = sorted((e for p in pieces[:first_repeat] for e in p), key=_finished)
        log.notes.append(
            "the log was recompacted: its first run may mix several runs, one line per output"
        )
        return [
            Run(tuple(mixed), None, mixed=True),
            *(Run(tuple(p), _began(p)) for p in pieces[first_repeat:]),
        ]
    return [Run(tuple(p), _began(p)) for p in pieces]


def _pieces(kept: Iterable[LogEntry | None]) -> tuple[list[list[LogEntry]], list[bool]]:
    """Cut where the end time falls, an output comes again or a header stands.

    The second list tells for each piece whether it holds an output that an earlier one held.
    """
    pieces: list[list[LogEntry]] = []
    repeats: list[bool] = []
    before: set[str] = set()
    here: set[str] = set()
    fresh = True
    for e in kept:
        if e is None:
            fresh = True
            continue
        if fresh or e.end_ms < pieces[-1][-1].end_ms or e.output in here:
            before |= here
            here = set()
            pieces.append([])
            repeats.append(False)
            fresh = False
        pieces[-1].append(e)
        here.add(e.output)
        repeats[-1] = repeats[-1] or e.output in before
    return pieces, repeats


def _finished(e: LogEntry) -> tuple[int, int]:
    return e.end_ms, e.start_ms


def _origin(e: LogEntry) -> int:
    """When the run of this entry began, if its stamp is the start of its command."""
    return e.stamp_ns - e.start_ms * _NS


def _began(piece: list[LogEntry]) -> int | None:
    stamps = [e.stamp_ns - e.end_ms * _NS for e in piece if e.stamp_ns]
    # An output can't be older than its command unless it was copied with its times, nor
    # much younger: the median is not moved by a few copies.
    return sorted(stamps)[len(stamps) // 2] if stamps else None


def _by_stamp(entries: list[LogEntry]) -> list[Run]:
    """Group by the moment the run began, for stamps that tell when a command started."""
    clusters: list[list[LogEntry]] = []
    newest = 0
    for e in sorted(_all_stamped(entries), key=_origin):
        if not clusters or _origin(e) - newest > _SAME_RUN_MS * _NS:
            clusters.append([])
        newest = _origin(e)
        clusters[-1].append(e)
    runs: list[list[LogEntry]] = []
    for cluster in clusters:
        for part in _without_repeats(cluster):
            if runs and _written_within(part, runs[-1]):
                runs[-1].extend(part)
            else:
                runs.append(part)
    return [Run(tuple(sorted(r, key=_finished)), _origin(r[0])) for r in runs]


def _all_stamped(entries: list[LogEntry]) -> Iterator[LogEntry]:
    """Give lines without a stamp the run of the line before them."""
    origin = next((_origin(e) for e in entries if e.stamp_ns), 0)
    for e in entries:
        if e.stamp_ns:
            origin = _origin(e)
            yield e
        else:
            yield e._replace(stamp_ns=origin + e.start_ms * _NS)


def _without_repeats(cluster: list[LogEntry]) -> list[list[LogEntry]]:
    """Runs that began within a quarter of a second: cut where an output comes again."""
    parts: list[list[LogEntry]] = [[]]
    seen: set[str] = set()
    for e in cluster:
        if e.output in seen:
            parts.append([])
            seen = set()
        seen.add(e.output)
        parts[-1].append(e)
    return parts


def _written_within(part: list[LogEntry], run: list[LogEntry]) -> bool:
    """Whether `part`, which seems to begin later, are restat edges of `run`.

    The stamp of a restat edge is the time of its output, somewhere within its command, so
    its run seems to have begun later by up to its duration.
    """
    began = _origin(run[0])
    if any(_origin(e) - (e.end_ms - e.start_ms + _SAME_RUN_MS) * _NS > began for e in part):
        return False
    after = _origin(part[0]) - began >= max(e.end_ms for e in run) * _NS
    at_start = min(e.start_ms for e in part) <= _SAME_RUN_MS
    outputs = {e.output for e in run}
    return not (after and at_start) and not any(e.output in outputs for e in part)
