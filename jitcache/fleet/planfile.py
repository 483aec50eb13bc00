"""Plan files: every action that a list of deployments needs, for workers anywhere.

A plan file is canonical JSON under its own digest, which names it: equal inputs give equal
bytes, and a worker works on nothing that was changed by hand. It holds no path and no source:
a worker renders the sources itself, and builds only if its action keys are those of the plan.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, cast

from jitcache import digest
from jitcache.errors import InputError
from jitcache.fleet.model import (
    Deployment,
    FleetPlan,
    Need,
    PinnedToolchain,
    PlannedAction,
    PlannedInstance,
    PlannedModule,
    PlannedVariant,
)
from jitcache.jsonread import Reader, ShapeError, parse

SCHEMA = 1
"""Version of the format; a reader refuses any other."""

_HINT = "plan files are written by `jitcache plan -o`; make it again instead of editing it"


def plan_id(plan: FleetPlan) -> str:
    """Digest of everything in a plan."""
    return digest.of_json(_content(plan))


def dump_plan(plan: FleetPlan) -> bytes:
    """The one byte form of a plan: one action per line, so that a change is a short diff."""
    content = _content(plan)
    lines = [f'{{"id": {json.dumps(digest.of_json(content))}']
    for name, value in content.items():
        if isinstance(value, list):
            items = ",\n".join(_line(item) for item in value)
            lines.append(f"{json.dumps(name)}: [\n{items}\n]" if value else f'"{name}": []')
        else:
            lines.append(f"{json.dumps(name)}: {_line(value)}")
    return (",\n".join(lines) + "}\n").encode()


def load_plan(path: Path) -> FleetPlan:
    """Read a plan file.

    Raises:
        InputError: it can't be read, was changed, or says something malformed.
    """
    try:
        data = path.read_bytes()
    except OSError as e:
        raise InputError(
            f"can't read the plan file ({e.strerror})", where=str(path), hint=_HINT
        ) from None
    return parse_plan(data, where=str(path))


def parse_plan(data: bytes, *, where: str) -> FleetPlan:
    """Read the bytes of a plan file.

    Args:
        data: the bytes.
        where: what to call them in errors.

    Raises:
        InputError: they were changed, or say something malformed, named by its JSON path.
    """
    try:
        r = parse(data)
        plan = _plan(r)
        if r["id"].digest() != plan_id(plan):
            raise r["id"].fail("is not the digest of the rest: the file was changed")
    except ShapeError as e:
        raise InputError(f"{e.path} {e.problem}", where=where, hint=_HINT) from None
    return plan


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _content(plan: FleetPlan) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "salt": plan.salt,
        "toolchains": {
            arch: {"id": t.id, "provider": t.provider, "hip_version": list(t.hip_version)}
            for arch, t in sorted(plan.toolchains.items())
        },
        "deployments": [_deployment_json(d) for d in plan.deployments],
        "actions": [_action_json(a) for a in plan.actions],
    }


def _deployment_json(deployment: Deployment) -> dict[str, Any]:
    return {
        "manifest": deployment.manifest,
        "digest": deployment.manifest_digest,
        "arch": deployment.arch,
        "cu_num": deployment.cu_num,
        "modules": [
            {
                "name": m.name,
                "host": m.host,
                "instances": [
                    {
                        "name": i.name,
                        "block_m": i.block_m,
                        "variants": [_variant_json(v) for v in i.variants],
                    }
                    for i in m.instances
                ],
            }
            for m in deployment.modules
        ],
    }


def _variant_json(variant: PlannedVariant) -> dict[str, Any]:
    told_apart = variant.non_temporal is not None
    return {
        "hot_loop": variant.hot_loop,
        "tail": variant.tail,
        **({"non_temporal": variant.non_temporal} if told_apart else {}),
        "action": variant.action,
    }


def _action_json(action: PlannedAction) -> dict[str, Any]:
    return {
        "key": action.key,
        "label": action.label,
        "kind": action.kind,
        "arch": action.arch,
        "source": action.source,
        "headers": action.headers,
        "cost_ms": action.cost_ms,
        "memory": action.memory,
        "basis": action.basis,
        "needs": [
            {
                "deployment": n.deployment,
                "module": n.module,
                "layers": list(n.layers),
                "tokens": list(n.tokens),
            }
            for n in action.needs
        ],
    }


def _plan(r: Reader) -> FleetPlan:
    schema = r["schema"]
    if schema.integer() != SCHEMA:
        raise schema.fail(
            f"is {schema.value}, but this jitcache reads version {SCHEMA} of the format"
        )
    r.only("id", "schema", "salt", "toolchains", "deployments", "actions")
    pinned = r["toolchains"]
    deployments = tuple(_deployment(d) for d in r["deployments"].each())
    plan = FleetPlan(
        salt=r["salt"].text(),
        toolchains={arch: _toolchain(pinned[arch]) for arch in pinned.object()},
        deployments=deployments,
        actions=tuple(_action(a, len(deployments)) for a in r["actions"].each()),
    )
    _check_whole(plan, r)
    return plan


def _check_whole(plan: FleetPlan, r: Reader) -> None:
    """Every deployment's action is listed, once, with a toolchain to build it."""
    keys = [a.key for a in plan.actions]
    if len(set(keys)) < len(keys):
        raise r["actions"].fail("lists an action twice")
    for arch in {a.arch for a in plan.actions} - set(plan.toolchains):
        raise r["toolchains"].fail(f"lacks the toolchain of {arch}")
    known = set(keys)
    for i, deployment in enumerate(plan.deployments):
        if not known.issuperset(deployment.keys()):
            raise ShapeError(f"$.deployments[{i}]", "names an action that is not listed")


def _toolchain(r: Reader) -> PinnedToolchain:
    r.only("id", "provider", "hip_version")
    hip = [part.integer() for part in r["hip_version"].each()]
    if len(hip) != 2:
        raise r["hip_version"].fail("must be [major, minor]")
    return PinnedToolchain(r["id"].text(), r["provider"].text(), (hip[0], hip[1]))


def _deployment(r: Reader) -> Deployment:
    r.only("manifest", "digest", "arch", "cu_num", "modules")
    return Deployment(
        manifest=r["manifest"].file_name(),
        manifest_digest=r["digest"].digest(),
        arch=r["arch"].file_name(),
        cu_num=r["cu_num"].integer(1),
        modules=tuple(_module(m) for m in r["modules"].each()),
    )


def _module(r: Reader) -> PlannedModule:
    r.only("name", "host", "instances")
    return PlannedModule(
        name=r["name"].text(),
        host=r["host"].digest(),
        instances=tuple(_instance(i) for i in r["instances"].each()),
    )


def _instance(r: Reader) -> PlannedInstance:
    r.only("name", "block_m", "variants")
    return PlannedInstance(
        name=r["name"].text(),
        block_m=r["block_m"].integer(1),
        variants=tuple(_variant(v) for v in r["variants"].each()),
    )


def _variant(r: Reader) -> PlannedVariant:
    r.only("hot_loop", "tail", "action", optional=("non_temporal",))
    return PlannedVariant(
        hot_loop=r["hot_loop"].boolean(),
        tail=cast("Literal['odd', 'even', 'full']", r["tail"].one_of("odd", "even", "full")),
        non_temporal=r["non_temporal"].boolean() if r.has("non_temporal") else None,
        action=r["action"].digest(),
    )


def _action(r: Reader, deployments: int) -> PlannedAction:
    r.only(
        *("key", "label", "kind", "arch", "source", "headers"),
        *("cost_ms", "memory", "basis", "needs"),
    )
    return PlannedAction(
        key=r["key"].digest(),
        label=r["label"].text(),
        kind=r["kind"].one_of("device", "host-shim"),
        arch=r["arch"].text(),
        source=r["source"].digest(),
        headers=r["headers"].digest(),
        cost_ms=r["cost_ms"].integer(),
        memory=r["memory"].integer(),
        basis=r["basis"].text(),
        needs=tuple(_need(n, deployments) for n in r["needs"].each()),
    )


def _need(r: Reader, deployments: int) -> Need:
    r.only("deployment", "module", "layers", "tokens")
    return Need(
        deployment=r["deployment"].integer(0, max(0, deployments - 1)),
        module=r["module"].text(),
        layers=tuple(n.text() for n in r["layers"].each()),
        tokens=tuple(t.integer(1) for t in r["tokens"].each()),
    )
