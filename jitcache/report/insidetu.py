"""Collecting what the slowest translation units of a build spent their time on.

A trace that the build itself wrote (`-ftime-trace`) is read where it lies beside the object.
Else the recorded command is taken from ninja, the driver is asked for its passes, and each
is run once more into a scratch directory with a trace: nothing in the build directory
changes.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from jitcache.buildlog.compilecommand import (
    CompileCommand,
    NoCompile,
    parse_command,
    parse_pack,
    parse_passes,
    pass_target,
    retargeted,
    written,
)
from jitcache.buildlog.kernelnames import printable
from jitcache.buildlog.timetrace import MAX_BYTES, Trace, parse_trace
from jitcache.buildlog.tutime import Cost, TuTime, attribute
from jitcache.errors import InputError, JitcacheError
from jitcache.report.model import Edge, Report
from jitcache.report.source import BuildFiles

K = TypeVar("K")

WRITTEN = "written by the build"
AGAIN = "compiled again"

_LISTED = 200
_EXTRA_TRIES = 8
_CLOCK_S = 2.0
_ASKING_S = 60
_TRACES = "traces"


@dataclass(frozen=True, slots=True)
class UnitTime:
    """One translation unit.

    Attributes:
        output: its object, as in the report.
        label: its short name.
        source: `WRITTEN` or `AGAIN`.
        targets: what its passes compiled for; empty where the trace doesn't tell.
        time: the attribution.
        notes: what to know about the trace.
    """

    output: str
    label: str
    source: str
    targets: tuple[str, ...]
    time: TuTime
    notes: tuple[str, ...]


@dataclass(slots=True)
class InsideTus:
    """The slowest translation units of a build, slowest first.

    Attributes:
        units: those that a trace was got of.
        together: their sum.
        left_out: label and reason of commands that none was got of.
    """

    units: list[UnitTime] = field(default_factory=list)
    together: TuTime = field(default_factory=TuTime)
    left_out: list[tuple[str, str]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain values; the 200 most costly names of each kind, times in seconds."""
        return {
            "units": [
                {
                    "output": u.output,
                    "label": u.label,
                    "source": u.source,
                    "targets": list(u.targets),
                    **_time_json(u.time),
                    "notes": list(u.notes),
                }
                for u in self.units
            ],
            "together": _time_json(self.together),
            "left_out": [{"label": label, "reason": why} for label, why in self.left_out],
        }


def collect(
    build: BuildFiles, report: Report, count: int, *, say: Callable[[str], None]
) -> InsideTus:
    """Trace the `count` slowest translation units of a run.

    Args:
        build: the directory's files.
        report: the run; its commands are tried longest first.
        count: how many translation units; links and other commands don't count.
        say: told before each compile, for people.

    Raises:
        InputError: no trace could be got of any command; names the reasons.
    """
    found = InsideTus()
    for edge in report.edges:
        if len(found.units) == count or len(found.left_out) > _EXTRA_TRIES:
            break
        try:
            unit = _written(build.directory, edge) or _again(build, edge, say)
        except JitcacheError as e:
            unit = NoCompile(e.what)
        if isinstance(unit, NoCompile):
            found.left_out.append((edge.label, unit.reason))
            continue
        found.units.append(unit)
        found.together.add(unit.time)
    if not found.units:
        raise InputError(
            "no time trace could be got of any command",
            where=str(build.directory),
            details=tuple(f"{label}: {why}" for label, why in found.left_out[:3]),
            hint="traces need clang, and a build directory whose sources are still there",
        )
    return found


def costliest(costs: dict[K, Cost]) -> list[tuple[K, Cost]]:
    """By self time, most costly first; equal ones by name."""
    return sorted(costs.items(), key=lambda item: (-item[1].self_us, str(item[0])))


def _written(directory: Path, edge: Edge) -> UnitTime | None:
    """From the trace that this run wrote beside the object, if it did."""
    output = directory / edge.output
    try:
        trace = output.with_suffix(".json")
        made, kept = trace.stat(), output.stat()
    except (OSError, ValueError):
        return None  # no such file, or a name that no file can have
    # A trace is written at the end of a compile; an older one is of an earlier build.
    if made.st_mtime < kept.st_mtime - edge.duration_s - _CLOCK_S:
        return None
    try:
        parsed = _read(trace)
    except InputError:
        return None  # some other JSON
    return _unit(edge, WRITTEN, (), [parsed])


def _again(build: BuildFiles, edge: Edge, say: Callable[[str], None]) -> UnitTime | NoCompile:
    command = _command(build, edge)
    if isinstance(command, NoCompile):
        return command
    pack = parse_pack(command.argv)
    with tempfile.TemporaryDirectory(prefix="jitcache-trace-") as scratch:
        env = _environment(command, scratch)
        where = build.directory / command.directory
        said = _run((*(pack.front if pack else command.argv), "-###"), where, env, _ASKING_S)
        passes = parse_passes(said.stderr)
        if not passes:
            return NoCompile(_error(said) or "its command is no compile by clang")
        targets = tuple(pass_target(p) for p in passes)
        say(f"tracing {printable(edge.label)} for {', '.join(targets)}, {edge.duration_s:.0f} s")
        calls = [
            retargeted(argv, scratch, f"{scratch}/{_TRACES}/{number}.json")
            for number, argv in enumerate(passes)
        ]
        if pack:
            calls.append(pack.behind(written(calls[-1]), scratch, f"{scratch}/{_TRACES}"))
        traces = Path(scratch, _TRACES)
        traces.mkdir()
        for call in calls:
            ran = _run(call, where, env)
            if ran.returncode != 0:
                return NoCompile(f"compiling it again failed: {_error(ran) or 'no message'}")
        found = [_read(file) for file in sorted(traces.iterdir())]
    return _unit(edge, AGAIN, targets, found)


def _error(said: subprocess.CompletedProcess[str]) -> str:
    """The first error of a compiler, "" for none."""
    found = next((line for line in said.stderr.splitlines() if "error:" in line), "")
    return printable(found.strip())[:200]


def _command(build: BuildFiles, edge: Edge) -> CompileCommand | NoCompile:
    if build.graph is None or edge.output not in build.graph.producer:
        return NoCompile("build.ninja doesn't tell its command")
    from jitcache.build.ninjabin import find_ninja

    # Of all tools only this one prints a command as the shell would get it; it reads
    # build.ninja and writes nothing.
    asked = (str(find_ninja()), "-t", "commands", "-s", edge.output)
    said = _run(asked, build.directory, dict(os.environ), timeout=_ASKING_S)
    if said.returncode != 0:
        return NoCompile(f"ninja can't tell its command: {printable(said.stderr.strip())[:200]}")
    return parse_command(said.stdout.strip())


def _environment(command: CompileCommand, scratch: str) -> dict[str, str]:
    base = dict(os.environ)
    if command.own:
        from jitcache.toolchain.environment import clean_environment

        base = clean_environment(os.environ, scratch)
    return {**base, "LC_ALL": "C", **dict(command.env)}


def _run(
    argv: tuple[str, ...], where: Path, env: dict[str, str], timeout: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program of the build.

    Raises:
        InputError: it can't be started, or doesn't answer.
    """
    try:
        return subprocess.run(
            argv,
            cwd=where,
            env=env,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=timeout,
        )
    except (OSError, ValueError) as e:
        why = getattr(e, "strerror", None) or e
        raise InputError(f"can't run {printable(argv[0])}: {why}", where=str(where)) from e
    except subprocess.TimeoutExpired as e:
        raise InputError(f"{argv[0]} doesn't answer", where=str(where)) from e


def _read(path: Path) -> Trace:
    """Parse a trace file of bounded size.

    Raises:
        InputError: it can't be read, or is no trace.
    """
    try:
        if not path.is_file():
            raise InputError("the compiler wrote no time trace", where=str(path))
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"larger than {MAX_BYTES >> 20} MiB", where=str(path))
        data = path.read_bytes()
    except OSError as e:
        raise InputError(f"can't be read: {e.strerror or e}", where=str(path)) from e
    return parse_trace(data, where=str(path))


def _unit(edge: Edge, source: str, targets: tuple[str, ...], traces: list[Trace]) -> UnitTime:
    notes = [f"{n} events left out: {why}" for t in traces for why, n in t.skipped.items()]
    if any(t.cut for t in traces):
        notes.append("the trace is cut off: times are those of what is left")
    return UnitTime(edge.output, edge.label, source, targets, attribute(traces), tuple(notes))


def _time_json(time: TuTime) -> dict[str, Any]:
    return {
        "total_s": time.total_us / 1e6,
        "phases": {phase: us / 1e6 for phase, us in time.phases.items()},
        "templates": [_cost_json(name, c) for name, c in costliest(time.templates)[:_LISTED]],
        "headers": [_cost_json(name, c) for name, c in costliest(time.headers)[:_LISTED]],
        "activities": [
            {"phase": phase, **_cost_json(name, c)}
            for (phase, name), c in costliest(time.activities)[:_LISTED]
        ],
    }


def _cost_json(name: str, cost: Cost) -> dict[str, Any]:
    return {
        "name": name,
        "count": cost.count,
        "total_s": cost.total_us / 1e6,
        "self_s": cost.self_us / 1e6,
    }
