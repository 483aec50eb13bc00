"""Finding and reading the files behind a report: .ninja_log, build.ninja, events."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from jitcache.build.runplan import Facts, RunPlan, read_facts, read_plan
from jitcache.buildlog.graph import Graph, read_graph
from jitcache.buildlog.log import NinjaLog, read_log
from jitcache.errors import InputError

LOG = ".ninja_log"
GRAPH = "build.ninja"
EVENTS = "events.jsonl"

_LONGEST_EVENT = 1 << 16


@dataclass(frozen=True, slots=True)
class Cost:
    """What jitcache's own build measured for one command.

    Attributes:
        cpu_s: user + system seconds.
        peak_rss: largest resident set, in bytes.
    """

    cpu_s: float
    peak_rss: int


@dataclass(slots=True)
class BuildFiles:
    """The files of one build directory.

    Attributes:
        directory: where ninja ran.
        log: what it finished.
        graph: what depends on what; None without a usable build.ninja.
        costs: by output; empty for builds that aren't jitcache's.
        notes: sentences a reader of the report must know.
        plan: what the run is for; None for builds that aren't jitcache's.
        facts: of what that run published, by action key.
    """

    directory: Path
    log: NinjaLog
    graph: Graph | None
    costs: dict[str, Cost] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    plan: RunPlan | None = None
    facts: dict[str, Facts] = field(default_factory=dict)

    def size_of(self, output: str) -> int | None:
        """Bytes of an output that is still there."""
        try:
            return (self.directory / output).stat().st_size
        except (OSError, ValueError):
            return None


def default_build_dir() -> Path:
    """The newest run directory of the store that holds a log.

    Raises:
        InputError: there is none.
    """
    from jitcache.store.layout import Bucket, Layout, store_root

    runs = Layout(store_root()).bucket(Bucket.RUNS)
    try:
        # Run directories are named by the moment they were made.
        names = sorted((e.name for e in runs.iterdir() if not e.name.startswith(".")), reverse=True)
    except OSError:
        names = []
    for name in names:
        if (runs / name / LOG).is_file():
            return runs / name
    raise InputError(
        "no build to report on yet",
        where=str(runs),
        hint="run `jitcache prebuild`, or name a ninja build directory",
    )


def read_build(path: Path) -> BuildFiles:
    """Read a build directory (or the .ninja_log in one).

    A build.ninja that is missing or broken is no error: the report says so and does
    without.

    Raises:
        InputError: there is no readable log.
    """
    directory = path if path.is_dir() else path.parent
    notes: list[str] = []
    graph = None
    graph_file = directory / GRAPH
    if graph_file.is_file():
        try:
            graph = read_graph(graph_file)
        except InputError as e:
            notes.append(f"build.ninja can't be used: {str(e).splitlines()[0]}")
    else:
        notes.append("there is no build.ninja")
    log_file = path
    if path.is_dir() or path.name == GRAPH:
        log_file = directory / (graph.builddir if graph else "") / LOG
    log = read_log(log_file)
    notes += log.notes
    plan = read_plan(directory)
    facts = read_facts(directory) if plan else {}
    return BuildFiles(directory, log, graph, _costs(directory, graph), notes, plan, facts)


def _costs(directory: Path, graph: Graph | None) -> dict[str, Cost]:
    events = directory / EVENTS
    if graph is None or not events.is_file():
        return {}
    from jitcache.build.events import EdgeEnd, parse_line

    by_id: dict[str, Cost] = {}
    try:
        with events.open("rb") as f:
            for line in iter(lambda: f.readline(_LONGEST_EVENT), b""):
                event = parse_line(line)
                if isinstance(event, EdgeEnd):
                    by_id[event.id] = Cost(event.cpu_s, event.peak_rss)
    except OSError:
        return {}
    # An action's directory is named by the id that its events carry.
    return {
        output: by_id[place]
        for output in graph.producer
        if (place := output.rpartition("/")[0].rpartition("/")[2]) in by_id
    }
