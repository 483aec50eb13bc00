"""What blocks a build and what would help, in words, for the head of the page. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from jitcache.report.model import Report
from jitcache.report.text import path_text, shortened
from jitcache.text import seconds

_MOST = 4
_BOUND = 0.9
"""From this share of the wall time on, a bound is what blocks the build."""
_WORTH = 0.02


@dataclass(frozen=True, slots=True)
class Help:
    """Something that would shorten the build.

    Attributes:
        what: what to change.
        wall_s: simulated wall time with it.
        saves_s: how much that is shorter than the simulation without it.
    """

    what: str
    wall_s: float
    saves_s: float


@dataclass(frozen=True, slots=True)
class Advice:
    """The head of the page.

    Attributes:
        blocker: what bounds the wall time: a few words.
        because: one sentence of figures for it.
        helps: largest saving first; empty where nothing simulated saves 2 %.
    """

    blocker: str
    because: str
    helps: tuple[Help, ...]


def advise(report: Report) -> Advice:
    """Tell what blocks the build: a chain of commands, the number of jobs, or idle jobs."""
    e, path = report.efficiency, seconds(report.critical_path_s)
    wall = report.wall_s or 1.0
    chain = f"{'probably ' if report.guessed else ''}the longest chain takes {path}"
    use = f"{e.jobs} jobs were busy {e.efficiency * 100:.0f} % of the time"
    if not report.edges:
        blocker, because = "Nothing", "no command took any time"
    elif report.critical_path_s >= wall * _BOUND:
        path_edges = [x for x in report.edges if x.on_critical_path]
        first = max(path_edges, key=lambda x: x.duration_s, default=None)
        share = first.duration_s / wall if first else 0.0
        blocker = shortened(first.label) if first and share >= 0.5 else "A chain of commands"
        because = f"the critical path: {path_text(report)}"
        if len(path_edges) == 1:
            because = f"it alone is the critical path: no number of jobs beats {path}"
    elif report.bounds.work_over_jobs_s >= wall * _BOUND:
        blocker = "The number of jobs" if e.jobs > 1 else "A single job"
        because = f"{use} with {seconds(e.busy_s)} of work; {chain}"
    else:
        blocker = "Idle jobs"
        because = f"{use}, {seconds(e.idle_s)} idle; {chain}"
    return Advice(blocker, because[:1].upper() + because[1:] + ".", _helps(report))


def _helps(report: Report) -> tuple[Help, ...]:
    simulated = report.bounds.simulated_s
    jobs = report.efficiency.jobs
    now = simulated.get(jobs)
    if now is None:
        return ()
    found = [Help(f"{n} jobs instead of {jobs}", s, now - s) for n, s in simulated.items()]
    for s in report.savings:
        name = shortened(s.label)
        found.append(Help(f"{name} twice as fast", s.half_s, now - s.half_s))
        if s.without_s < s.half_s:
            found.append(Help(f"Without {name}", s.without_s, now - s.without_s))
    worth = [h for h in found if h.saves_s >= report.wall_s * _WORTH]
    worth.sort(key=lambda h: -h.saves_s)
    return tuple(worth[:_MOST])
