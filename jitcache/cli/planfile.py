"""`jitcache plan -o`: the work of all workers, in one file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from jitcache.action.ckfeatures import require
from jitcache.action.worklist import ModuleWork
from jitcache.build.durations import load
from jitcache.cli import output
from jitcache.cli.building import SALT_VARIABLE
from jitcache.errors import InputError
from jitcache.fleet.planfile import dump_plan, plan_id
from jitcache.fleet.planning import Planner
from jitcache.plan.model import Plan
from jitcache.store.durable import replace_file
from jitcache.store.layout import Bucket
from jitcache.store.store import Store
from jitcache.toolchain.find import find_toolchain, path_of
from jitcache.toolchain.model import Toolchain


def write_plan(
    plans: Sequence[Plan], path: Path, *, provider: str | None, ck: Path | None, as_json: bool
) -> None:
    """Compute all action keys, and write the plan file.

    Raises:
        InputError: two deployments would write the same lock file.
        ToolchainError: a toolchain is missing.
        UnsupportedError: its CK can't build a kernel.
        StoreError: the file can't be written.
    """
    store = Store.of_user()

    def toolchain_for(arch: str, modules: Sequence[ModuleWork]) -> Toolchain:
        toolchain = find_toolchain(
            arch,
            provider=provider,
            ck=ck,
            cache_dir=store.layout.root,
            stat_memo=store.stat_memo,
        )
        kernels = [(k.instance, k.variant) for m in modules for k in m.kernels]
        require(path_of(toolchain, "ck", ""), toolchain.ck_commit, kernels)
        return toolchain

    durations = load(store.layout.bucket(Bucket.DURATIONS))
    planner = Planner(store, toolchain_for, durations, os.environ.get(SALT_VARIABLE, ""))
    made = planner.make(plans)
    store.stat_memo.save()
    names = [d.name for d in made.deployments]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise InputError(
            "two deployments of one plan would have the same lock file",
            details=tuple(twice),
            hint="name each manifest once, and for each architecture one number of compute units",
        )
    replace_file(path, dump_plan(made))
    needed = sum(len(a.needs) for a in made.actions)
    costs = [a.cost_ms for a in made.actions]
    if as_json:
        output.emit_json(
            {
                "plan": plan_id(made),
                "file": str(path),
                "deployments": len(made.deployments),
                "actions": len(made.actions),
                "needed": needed,
                "cost_ms": sum(costs),
                "longest_ms": max(costs, default=0),
                "toolchains": {arch: t.id for arch, t in sorted(made.toolchains.items())},
            }
        )
        return
    output.out(
        f"{path}: {len(made.actions)} actions ({needed} before those that deployments share) of"
        f" {len(made.deployments)} deployments, {output.seconds(sum(costs) / 1000)} of CPU"
        f" expected, {output.seconds(max(costs, default=0) / 1000)} the longest"
    )
    for arch, toolchain in sorted(made.toolchains.items()):
        output.out(f"{arch}: {toolchain.id}")
    output.out(f"plan: {plan_id(made)}")
