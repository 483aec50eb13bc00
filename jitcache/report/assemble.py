"""Working out the report of a run. Pure.

`report_run` takes a recorded run, `report_cold` predicts a cold build from the newest
duration of every command.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from jitcache.buildlog.critical import (
    CriticalPath,
    blocking_chain,
    contradictions,
    critical_path,
    usage,
)
from jitcache.buildlog.kernelnames import short_names
from jitcache.buildlog.log import LogEntry, Run
from jitcache.buildlog.network import Network, guess, join
from jitcache.buildlog.schedule import Order, lower_bound, ninja_order, simulate, what_if
from jitcache.errors import InputError
from jitcache.report.dependencies import nodes
from jitcache.report.kernels import KernelTerms, bound, named_terms, planned_terms
from jitcache.report.model import (
    Bounds,
    ChainLink,
    Edge,
    Efficiency,
    Report,
    Saving,
    Wished,
)
from jitcache.report.source import BuildFiles
from jitcache.report.whatif import Wish, wished_durations

SIMULATED_JOBS = (1, 2, 4, 8, 16, 32, 64)
"""Numbers of jobs that are simulated, up to the one that reaches the longest chain."""

_WHAT_IFS = 3
_WORTH_A_WHAT_IF = 0.05


def report_run(
    build: BuildFiles,
    number: int,
    *,
    jobs: int | None = None,
    simulate_jobs: bool = True,
    wishes: tuple[Wish, ...] = (),
) -> Report:
    """Analyse one recorded run.

    Args:
        build: the directory's files.
        number: which run: 1 is the oldest, -1 the last.
        jobs: how many jobs the build had; the most seen at one time where not given.
        simulate_jobs: whether to simulate other numbers of jobs (the slowest part).
        wishes: durations that some commands should have, for `Report.what_if`.

    Raises:
        InputError: the log has no such run.
        UsageError: a wish fits no command.
    """
    run, index = _pick(build, number)
    network, notes = _network(build, run.entries)
    wrong = contradictions(network)
    if wrong:
        names = ", ".join(network.commands[i].output for i in wrong[:3])
        notes.append(
            f"{len(wrong)} commands started before their inputs were there ({names}): the log "
            "mixes runs, or build.ninja was written anew since"
        )
    began = None
    if run.began_ns is not None:
        began = datetime.fromtimestamp(run.began_ns / 1e9, UTC).isoformat(timespec="seconds")
    return _report(build, network, notes, jobs, simulate_jobs, wishes, run=index, began=began)


def report_cold(
    build: BuildFiles,
    *,
    jobs: int | None = None,
    simulate_jobs: bool = True,
    wishes: tuple[Wish, ...] = (),
) -> Report:
    """Predict a cold build: the newest duration of every command, all in one simulated run.

    Args:
        build: the directory's files.
        jobs: jobs of the predicted build; the most seen at one time where not given.
        simulate_jobs: whether to simulate other numbers of jobs, too.
        wishes: durations that some commands should have, for `Report.what_if`.

    Raises:
        InputError: there is no usable build.ninja, or no run.
        UsageError: a wish fits no command.
    """
    _pick(build, -1)
    if build.graph is None:
        raise InputError(
            "a cold build can't be predicted without its build.ninja",
            where=str(build.directory),
            hint="; ".join(build.notes) or None,
        )
    newest: dict[str, LogEntry] = {e.output: e for r in build.log.runs for e in r.entries}
    # Outputs of earlier graphs are no part of the next build.
    entries = [e for e in newest.values() if e.output in build.graph.producer]
    network = join(entries, build.graph)
    peak = max(usage(_network(build, r.entries)[0]).peak_jobs for r in build.log.runs[-1:])
    used = jobs or max(peak, 1)
    schedule = simulate(network, used, order=ninja_order(build.log.version))
    network.commands = [
        replace(c, start_ms=s, end_ms=s + c.duration_ms) if c.ran else c
        for c, s in zip(network.commands, schedule.start_ms, strict=True)
    ]
    notes = [
        *build.notes,
        *network.notes,
        f"predicted: the newest duration of every command, simulated with {used} jobs",
    ]
    return _report(build, network, notes, used, simulate_jobs, wishes, run=0, began=None)


def _pick(build: BuildFiles, number: int) -> tuple[Run, int]:
    runs = build.log.runs
    if not runs:
        raise InputError(
            "the log holds no finished command",
            where=str(build.directory),
            hint="failed and interrupted commands are not logged; build something first",
        )
    index = len(runs) + number if number < 0 else number - 1
    if number == 0 or not 0 <= index < len(runs):
        raise InputError(
            f"there is no run {number}",
            where=str(build.directory),
            hint=f"the log holds runs 1 to {len(runs)}",
        )
    return runs[index], index + 1


def _network(build: BuildFiles, entries: tuple[LogEntry, ...]) -> tuple[Network, list[str]]:
    notes = list(build.notes)
    if build.graph is not None:
        try:
            network = join(entries, build.graph)
        except InputError as e:
            notes.append(e.what)
        else:
            return network, notes + network.notes
    network = guess(entries)
    return network, notes + network.notes


def _report(
    build: BuildFiles,
    network: Network,
    notes: list[str],
    jobs: int | None,
    simulate_jobs: bool,
    wishes: tuple[Wish, ...],
    *,
    run: int,
    began: str | None,
) -> Report:
    path = critical_path(network)
    used = usage(network)
    count = jobs or max(used.peak_jobs, 1)
    if count < used.peak_jobs:
        notes.append(f"{used.peak_jobs} commands ran at one time, more than the {count} jobs given")
    labels = _labels(network)
    wall = network.wall_ms
    order = ninja_order(build.log.version)
    simulated: dict[int, float] = {}
    savings: list[Saving] = []
    if simulate_jobs and not network.guessed:
        for n in sorted({*SIMULATED_JOBS, count}):
            # Nothing beats the longest chain, so more jobs than reach it tell no more.
            if n == count or path.length_ms / 1000 not in simulated.values():
                simulated[n] = simulate(network, n, order=order).makespan_ms / 1000
        savings = _savings(network, path, labels, count, order)
    unfinished = 0
    if build.graph is not None and not network.guessed:
        done = {e.output for r in build.log.runs for e in r.entries}
        wanted = (build.graph.edges[i] for i in build.graph.needed())
        unfinished = sum(not e.phony and not done.intersection(e.outputs) for e in wanted)
    edges = _edges(network, path, labels, build)
    return Report(
        directory=str(build.directory),
        log_version=build.log.version,
        run=run,
        runs=len(build.log.runs),
        predicted=run == 0,
        guessed=network.guessed,
        began=began,
        wall_s=wall / 1000,
        critical_path_s=path.length_ms / 1000,
        critical_path=[network.commands[i].output for i in path.path],
        edges=edges,
        chain=[
            ChainLink(
                network.commands[k.index].output,
                labels[k.index],
                k.reason,
                k.gap_ms / 1000,
                network.commands[k.index].duration_ms / 1000,
            )
            for k in blocking_chain(network)
        ],
        efficiency=Efficiency(
            jobs=count,
            jobs_given=jobs is not None,
            peak_jobs=used.peak_jobs,
            busy_s=used.busy_ms / 1000,
            idle_s=max(0, count * wall - used.busy_ms) / 1000,
            efficiency=used.efficiency(count),
            average_jobs=used.busy_ms / wall if wall else 0.0,
            alone_s=used.alone_ms / 1000,
            nothing_s=used.nothing_ms / 1000,
        ),
        bounds=Bounds(
            infinite_jobs_s=path.length_ms / 1000,
            work_over_jobs_s=network.work_ms / count / 1000,
            lower_bound_s=lower_bound(network, count, path.length_ms) / 1000,
            simulated_s=simulated,
        ),
        savings=savings,
        what_if=_wished(network, wishes, labels, count, order) if wishes else None,
        unfinished=unfinished,
        graph=nodes(network),
        pools={name: n for name, n in network.pools.items() if n > 0},
        notes=notes,
        skipped_lines=dict(build.log.skipped),
        kernels=_kernels(build, edges, network, path),
    )


def _kernels(
    build: BuildFiles, edges: list[Edge], network: Network, path: CriticalPath
) -> KernelTerms | None:
    outputs = [e.output for e in edges]
    if build.plan is not None:
        terms = planned_terms(build.plan, build.facts, outputs)
    else:
        terms = named_terms(outputs, build.size_of)
    if terms is not None and not network.guessed:
        critical = [(e.output, e.label, e.duration_s) for e in edges if e.on_critical_path]
        terms.bound = bound(terms, critical, path.length_ms / 1000)
    return terms


def _labels(network: Network) -> dict[int, str]:
    ran = network.ran
    commands = [network.commands[i] for i in ran]
    names = short_names([(c.output, c.rule, c.label) for c in commands])
    return dict(zip(ran, names, strict=True))


def _edges(
    network: Network, path: CriticalPath, labels: dict[int, str], build: BuildFiles
) -> list[Edge]:
    critical = set(path.path)
    wall = network.wall_ms
    edges = []
    for i, label in labels.items():
        c = network.commands[i]
        cost = build.costs.get(c.output)
        edges.append(
            Edge(
                output=c.output,
                label=label,
                start_s=(c.start_ms or 0) / 1000,
                end_s=(c.end_ms or 0) / 1000,
                duration_s=c.duration_ms / 1000,
                share=c.duration_ms / wall if wall else 0.0,
                on_critical_path=i in critical,
                slack_s=path.slack_ms[i] / 1000,
                rule=c.rule,
                pool=c.pool,
                outputs=c.outputs,
                cpu_s=cost.cpu_s if cost else None,
                peak_rss=cost.peak_rss if cost else None,
            )
        )
    return sorted(edges, key=lambda e: (-e.duration_s, e.start_s, e.output))


def _savings(
    network: Network, path: CriticalPath, labels: dict[int, str], jobs: int, order: Order
) -> list[Saving]:
    longest = sorted(path.path, key=lambda i: -network.commands[i].duration_ms)[:_WHAT_IFS]
    savings = []
    for i in longest:
        c = network.commands[i]
        if c.duration_ms < path.length_ms * _WORTH_A_WHAT_IF:
            continue
        without = what_if(network, {i: 0}, jobs, order=order)
        half = what_if(network, {i: c.duration_ms // 2}, jobs, order=order)
        savings.append(
            Saving(
                c.output,
                labels[i],
                without.makespan_ms / 1000,
                half.makespan_ms / 1000,
                without.critical_path_ms / 1000,
            )
        )
    return savings


def _wished(
    network: Network, wishes: tuple[Wish, ...], labels: dict[int, str], jobs: int, order: Order
) -> Wished:
    if network.guessed:
        raise InputError(
            "what would be can't be simulated without knowing what waits for what",
            hint="--what-if needs a build.ninja that fits the run",
        )
    durations = wished_durations(network, wishes, labels)
    after = what_if(network, durations, jobs, order=order)
    return Wished(
        tuple(network.commands[i].output for i in sorted(durations)),
        simulate(network, jobs, order=order).makespan_ms / 1000,
        after.makespan_ms / 1000,
        after.critical_path_ms / 1000,
    )
