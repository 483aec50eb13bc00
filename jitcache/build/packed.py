"""The compile job of several kernels that share one front end."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from jitcache import digest
from jitcache.action.split import BitcodeTools, back_argv, find_bitcode_tools, front_command
from jitcache.build.model import Compiled, CompileJob
from jitcache.build.packing import Unit, plan_packs
from jitcache.codegen.native import Recipe, packed_recipe
from jitcache.toolchain.model import Toolchain

_PACKJOB = Path(__file__).with_name("packjob.py")


def pack_jobs(
    alone: Sequence[tuple[CompileJob, Recipe]],
    toolchain: Toolchain,
    arch: str,
    jobs_for: Callable[[Sequence[int]], int],
) -> list[tuple[CompileJob, list[CompileJob]]]:
    """The jobs to run, each with the jobs that it does: itself, or several packed ones.

    Args:
        alone: one job for each kernel or host shim, with what it is made from.
        toolchain: compiler and flags; without LLVM's programs beside it nothing is packed.
        arch: target.
        jobs_for: how many compilers may run at once, given the memory of each.
    """
    tools = find_bitcode_tools(toolchain.compiler)
    if tools is None:
        return [(job, [job]) for job, _ in alone]
    recipes = {job.key: recipe for job, recipe in alone}
    jobs = {job.key: job for job, _ in alone}
    units = [
        Unit(
            job.key,
            recipe.context["header"] if recipe.kind == "device" else "",
            recipe.context.get("parameters", recipe.stem),
            job.cost_s or 0.0,
            job.memory or 0,
        )
        for job, recipe in alone
    ]
    found = []
    for pack in plan_packs(units, jobs_for):
        keys = [u.key for u in pack.units]
        members = [jobs[k] for k in keys]
        job = members[0]
        if len(members) > 1:
            made = _packed_job(members, [recipes[k] for k in keys], toolchain, arch, tools)
            job = replace(made, cost_s=pack.cost_s, memory=pack.memory)
        found.append((job, members))
    return found


def _packed_job(
    jobs: Sequence[CompileJob],
    recipes: Sequence[Recipe],
    toolchain: Toolchain,
    arch: str,
    tools: BitcodeTools,
) -> CompileJob:
    """One job that does what these jobs do, with the same bytes in each output."""
    packed = packed_recipe(recipes)
    bitcode = "{output}.whole"
    front = [bitcode if word == "{output}" else word for word in front_command(toolchain).argv]
    # The other outputs lie beside the first, whose path is filled in when the run is laid out.
    outputs = ["{output}", *(_output_name(i, job) for i, job in enumerate(jobs) if i)]
    spec = {
        "front": front,
        "bitcode": bitcode,
        "extract": str(tools.extract),
        "nm": str(tools.nm),
        "opt": str(tools.opt),
        "back": back_argv(toolchain, arch),
        "outputs": outputs,
    }
    return replace(
        jobs[0],
        key=digest.of_json([job.key for job in jobs]),
        label=" + ".join(job.label for job in jobs),
        source_name=packed.source_name,
        source=packed.render(),
        argv=(sys.executable, "-I", "-S", str(_PACKJOB), json.dumps(spec)),
    )


def unpacked(compiled: Compiled, jobs: Sequence[CompileJob]) -> list[Compiled]:
    """What each job of a packed one came to, with its share of what was measured."""
    usage = compiled.usage
    whole = sum(job.cost_s or 1.0 for job in jobs)
    results = []
    for index, job in enumerate(jobs):
        share = (job.cost_s or 1.0) / whole
        results.append(
            Compiled(
                job=job,
                output=compiled.output.with_name(_output_name(index, job)),
                headers=compiled.headers,
                usage=replace(usage, wall_s=usage.wall_s * share, cpu_s=usage.cpu_s * share),
            )
        )
    return results


def _output_name(index: int, job: CompileJob) -> str:
    # Kernels of two modules may have one file name.
    return f"{index}-{job.output_name}" if index else job.output_name
