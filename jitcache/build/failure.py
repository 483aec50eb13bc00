"""Say why a compiler call failed: its first error line, or what killed it."""

from __future__ import annotations

import re
import signal
from pathlib import Path

from jitcache.build.model import CompileFailed, NotRun, RunResult
from jitcache.errors import BuildError

_ERROR = re.compile(rb"(?:^|[\s:])(?:fatal |internal compiler )?error:|LLVM ERROR|undefined symbol")
_KILLED_CHILD = re.compile(rb"unable to execute command: Killed|\bKilled\b.*signal")
_ANSI = re.compile(rb"\x1b\[[0-9;]*[A-Za-z]")
_READ = 1 << 20
_LONGEST = 400

NO_DIAGNOSTICS = "the compiler said nothing"


def first_error(diagnostics: bytes) -> str:
    """The first line that names an error, else the first line, else `NO_DIAGNOSTICS`."""
    lines = [_ANSI.sub(b"", line).strip() for line in diagnostics.split(b"\n")]
    chosen = next((line for line in lines if _ERROR.search(line)), None)
    if chosen is None:
        chosen = next((line for line in lines if line), b"")
    text = chosen.decode(errors="replace")
    printable = "".join(c if c.isprintable() else " " for c in text)
    if len(printable) > _LONGEST:
        printable = printable[: _LONGEST - 3] + "..."
    return printable or NO_DIAGNOSTICS


def read_diagnostics(path: Path) -> bytes:
    """The first mebibyte of what the compiler said; nothing where there is no file."""
    try:
        with path.open("rb") as f:
            return f.read(_READ)
    except OSError:
        return b""


def reason(status: int, diagnostics: bytes, *, peak_rss: int, jobs: int) -> str:
    """Why a compiler with a bad exit status failed, in one line.

    Args:
        status: exit status, negative for a signal.
        diagnostics: what it said.
        peak_rss: bytes; 0 where unknown.
        jobs: parallelism of the run, for the advice.
    """
    if was_killed(status, diagnostics):
        peak = f": peak RSS {peak_rss / 2**30:.2f} GiB" if peak_rss else ""
        advice = f", try --jobs {max(1, jobs // 2)}" if jobs > 1 else ", with one job already"
        return f"killed, probably out of memory{peak}{advice}"
    said = first_error(diagnostics)
    if status < 0:
        ended = f"killed by {_signal_name(-status)}"
    elif 128 < status < 128 + signal.NSIG:
        ended = f"exit status {status} ({_signal_name(status - 128)})"
    else:
        ended = f"exit status {status}"
    if said == NO_DIAGNOSTICS:
        return f"{ended}, {NO_DIAGNOSTICS}"
    return said if status > 0 and status <= 128 else f"{ended}: {said}"


def was_killed(status: int, diagnostics: bytes) -> bool:
    """Whether the compiler, or one the driver had started, got a SIGKILL.

    Nobody but the kernel's memory killer sends one in a build.
    """
    if status in {-signal.SIGKILL, 128 + signal.SIGKILL}:
        return True
    return status != 0 and _KILLED_CHILD.search(diagnostics) is not None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def explain(failed: CompileFailed) -> tuple[str, ...]:
    """A failed TU for people: what, why, where its log is, how to see it again."""
    return (
        f"{failed.job.label}: {failed.first_error}",
        f"  log: {failed.log}",
        f"  reproduce: {failed.command}",
    )


def build_error(result: RunResult) -> BuildError | None:
    """The error that a run ends with; None where everything was compiled."""
    failed = [o for o in result.outcomes if isinstance(o, CompileFailed)]
    skipped = sum(isinstance(o, NotRun) for o in result.outcomes)
    if not failed and not skipped:
        return None
    what = f"{len(failed)} of {len(result.outcomes)} translation units failed to compile"
    if skipped:
        what += f", {skipped} were not started"
    return BuildError(
        what,
        where=str(result.directory),
        hint="--keep-going builds everything else first" if skipped else None,
        details=tuple(line for one in failed for line in explain(one)),
    )
