"""Turn the events of edges into outcomes, each reported the moment it is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from jitcache import depfile
from jitcache.build import failure
from jitcache.build.action import Action, reproduce_command
from jitcache.build.events import EdgeEnd, EdgeEvent, EdgeStart
from jitcache.build.model import (
    Compiled,
    CompileFailed,
    EdgeUsage,
    Event,
    Failed,
    Finished,
    NotRun,
    Outcome,
    Started,
)
from jitcache.errors import BuildError, StoreError

_STORAGE_ERRORS = (
    "No space left on device",
    "Disk quota exceeded",
    "Read-only file system",
    "Permission denied",
)


class Collector:
    """Turns edge events into outcomes and calls back.

    Attributes:
        stopped: whether the run was ended from outside.
        cpu_s: CPU seconds of all compilers so far.
    """

    def __init__(
        self,
        actions: Sequence[Action],
        directory: Path,
        begin: float,
        jobs: int,
        on_event: Callable[[Event], None],
    ) -> None:
        self.stopped = False
        self.cpu_s = 0.0
        self._actions = {action.id: action for action in actions}
        self._directory = directory
        self._begin = begin
        self._jobs = jobs
        self._on_event = on_event
        self._started: dict[str, float] = {}
        self._outcomes: dict[str, Compiled | CompileFailed] = {}

    def take(self, event: EdgeEvent) -> None:
        """One event of the file; ones of unknown or already ended actions change nothing."""
        action = self._actions.get(event.id)
        if action is None or event.id in self._outcomes:
            return
        if isinstance(event, EdgeStart):
            if event.id not in self._started:
                self._started[event.id] = event.at - self._begin
                self._on_event(Started(action.job, event.at - self._begin))
            return
        if self.stopped and not event.good:
            return  # we killed it
        usage = event.usage(self._begin)
        self.cpu_s += usage.cpu_s
        if event.full:
            self._outcomes[event.id] = self._failure(action, event.status, usage)
            raise self._no_room(failure.first_error(self._diagnostics(action)))
        outcome = self._good(action, usage) if event.good else self._bad(action, event, usage)
        self._outcomes[event.id] = outcome
        if isinstance(outcome, Compiled):
            self._on_event(Finished(outcome))
        else:
            self._on_event(Failed(outcome))

    def _good(self, action: Action, usage: EdgeUsage) -> Compiled | CompileFailed:
        headers: tuple[str, ...] = ()
        if action.needs_depfile:
            try:
                found = depfile.parse((self._directory / action.depfile).read_bytes())
            except (OSError, depfile.DepfileError) as e:
                return self._failure(action, 0, usage, f"unreadable dependency file: {e}")
            headers = depfile.resolve(
                tuple(name for name in found if name != action.source), str(self._directory)
            )
        output = self._directory / action.output
        return Compiled(action.job, output, tuple(Path(h) for h in headers), usage)

    def _bad(self, action: Action, event: EdgeEnd, usage: EdgeUsage) -> CompileFailed:
        if event.missing is not None:
            name = (action.output, action.depfile)[min(event.missing, 1)]
            text = f"the compiler ended well, but {name} is missing or empty"
            return self._failure(action, event.status, usage, text)
        return self._failure(action, event.status, usage)

    def _failure(
        self, action: Action, status: int, usage: EdgeUsage | None, text: str | None = None
    ) -> CompileFailed:
        if text is None:
            peak = 0 if usage is None else usage.peak_rss
            said = self._diagnostics(action)
            text = failure.reason(status, said, peak_rss=peak, jobs=self._jobs)
        return CompileFailed(
            job=action.job,
            first_error=text,
            log=self._directory / action.diagnostics,
            command=reproduce_command(action, str(self._directory)),
            exit_status=status,
            usage=usage,
        )

    def _diagnostics(self, action: Action) -> bytes:
        return failure.read_diagnostics(self._directory / action.diagnostics)

    def _no_room(self, said: str) -> StoreError:
        return StoreError(
            f"the disk is full: {said}",
            where=str(self._directory),
            hint="free some space, or set JITCACHE_DIR to a larger file system",
        )

    def judge(self, code: int, said: str) -> None:
        """Once ninja has ended by itself: edges that vanished, and errors of its own.

        Raises:
            StoreError: something could not be written.
            BuildError: ninja failed, and no compiler did.
        """
        if code == 0 and len(self._outcomes) == len(self._actions):
            return
        storage = [
            line
            for line in said.splitlines()
            if line.startswith("edge: ")
            or (line.startswith("ninja: ") and any(e in line for e in _STORAGE_ERRORS))
        ]
        vanished = [i for i in self._started if i not in self._outcomes]
        failed = any(isinstance(o, CompileFailed) for o in self._outcomes.values())
        if storage:
            raise StoreError(
                "the build could not write its files",
                where=str(self._directory),
                hint="free some space, or set JITCACHE_DIR to a writable directory",
                details=tuple(storage[:3]),
            )
        if code < 0:
            raise BuildError(
                f"ninja was killed by signal {-code}",
                where=str(self._directory),
                hint="start the command again: what was finished is not built twice",
            )
        for ident in vanished:
            action = self._actions[ident]
            lost = self._failure(action, -9, None)
            self._outcomes[ident] = lost
            self._on_event(Failed(lost))
        if not failed and not vanished:
            raise BuildError(
                f"ninja ended with status {code} and no compiler failed",
                where=str(self._directory),
                hint="run ninja there by hand to see more",
                details=_last_lines(said),
            )

    def outcomes(self) -> list[Outcome]:
        """One per job, in the order of the jobs."""
        return [
            self._outcomes.get(action.id) or NotRun(action.job) for action in self._actions.values()
        ]


def _last_lines(said: str) -> tuple[str, ...]:
    return tuple(line for line in said.splitlines() if line.strip())[-5:]
