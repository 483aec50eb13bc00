"""Prebuild with the fake compiler, as a process of its own: to be killed, or run many times.

`python -m tests.prebuild_driver PLACE STORE SLEEP [JOBS]`; prints built, hits and the digests.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from jitcache.action.actions import actions_of
from jitcache.action.resolve import Resolver
from jitcache.action.worklist import ModuleWork, worklist
from jitcache.prebuild import Prebuilder
from jitcache.store.store import Store
from tests.fake_toolchain import make_toolchain


def work(name: str = "kimi-k2.5-mxfp4-tp2") -> tuple[ModuleWork, ...]:
    """The work list of a shipped manifest."""
    from jitcache.manifest.load import load_manifest
    from jitcache.plan.planner import plan

    manifest = load_manifest(name)
    return worklist(plan(manifest, target=manifest.targets[0]))


def main(place: str, store: str, sleep: str, jobs: str = "2") -> None:
    toolchain = make_toolchain(Path(place), sleep=float(sleep))
    opened = Store(Path(store))
    resolver = Resolver(opened, toolchain, "gfx950")
    actions = actions_of(work(), resolver)
    built = Prebuilder(opened, toolchain, "gfx950", resolver, jobs=int(jobs)).build(
        list({a.key: a for a in actions.values()}.values())
    )
    opened.stat_memo.save()
    outputs = {r.key: [o.digest for o in r.outputs] for r in built.records.values()}
    print(
        json.dumps(
            {
                "built": built.built,
                "hits": built.hits,
                "failed": [f.to_json() for f in built.failed],
                "outputs": dict(sorted(outputs.items())),
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
