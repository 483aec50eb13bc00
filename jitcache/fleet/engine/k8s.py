"""Kubernetes: an Indexed Job and the plan beside it, as one manifest in JSON. Pure but for kubectl.

Field names and rules are those of the Job API (batch/v1): completion mode, failure policy and
the retries of each index, which a cluster has from version 1.33 on.
"""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from typing import Any

from jitcache.errors import ExitCode, InputError, ToolchainError, UsageError
from jitcache.fleet.engine.job import HOPELESS, RESTARTS, FleetJob
from jitcache.fleet.planfile import dump_plan, plan_id
from jitcache.fleet.shard import COUNT_VARIABLE

MOST_PLAN = 900 << 10
"""Bytes of a plan that a ConfigMap takes: 1 MiB is its limit."""

_PLAN_AT = "/plan"
_CACHE_AT = "/cache"
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Cluster:
    """What a pod needs to know.

    Attributes:
        image: has jitcache and the toolchain.
        secret: name of a Secret whose entries become variables (JITCACHE_REMOTES,
            JITCACHE_SIGNING_KEY, credentials); None: no such.
        namespace: None: kubectl's.
    """

    image: str
    secret: str | None = None
    namespace: str | None = None


def manifest(job: FleetJob, cluster: Cluster) -> dict[str, Any]:
    """A List of a ConfigMap with the plan and the Indexed Job.

    Raises:
        UsageError: the name can't be one, or the plan is too large for a ConfigMap.
    """
    if not _NAME.fullmatch(job.name):
        raise UsageError(
            f"{job.name!r} can't name a Kubernetes job",
            hint="--name takes up to 40 lower-case letters, digits and dashes",
        )
    plan = dump_plan(job.plan)
    if len(plan) > MOST_PLAN:
        raise UsageError(
            f"the plan has {len(plan)} bytes, more than a ConfigMap takes",
            hint="split the manifests into several plans",
        )
    name = f"{job.name}-{plan_id(job.plan)[7:19]}"
    metadata: dict[str, Any] = {"name": name, "labels": {"app.kubernetes.io/name": "jitcache"}}
    if cluster.namespace is not None:
        metadata["namespace"] = cluster.namespace
    return {
        "apiVersion": "v1",
        "kind": "List",
        "items": [
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": metadata,
                "immutable": True,
                "data": {"plan.json": plan.decode()},
            },
            {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "metadata": metadata,
                "spec": _job_spec(job, cluster, name),
            },
        ],
    }


def apply(value: dict[str, Any]) -> str:
    """Give the manifest to kubectl; what it says.

    Raises:
        ToolchainError: there is no kubectl here.
        InputError: the cluster refuses it.
    """
    try:
        done = subprocess.run(
            ["kubectl", "apply", "-f", "-"],
            input=json.dumps(value),
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise ToolchainError(
            "there is no kubectl on this machine",
            hint="--dry-run prints the manifest, which any client of the cluster takes",
        ) from None
    if done.returncode:
        raise InputError("kubectl refuses the job", details=tuple(done.stderr.splitlines()[:10]))
    return done.stdout.strip()


def _job_spec(job: FleetJob, cluster: Cluster, plan_name: str) -> dict[str, Any]:
    return {
        "completionMode": "Indexed",
        "completions": job.workers,
        "parallelism": job.workers,
        "backoffLimitPerIndex": RESTARTS,
        "podFailurePolicy": {
            "rules": [
                {
                    "action": "Ignore",
                    "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
                },
                _on_exit("FailJob", *HOPELESS),
                # What does not compile doesn't compile the second time, either.
                _on_exit("FailIndex", ExitCode.FAILED),
            ]
        },
        "ttlSecondsAfterFinished": 86400,
        "template": {"spec": _pod_spec(job, cluster, plan_name)},
    }


def _on_exit(action: str, *codes: int) -> dict[str, Any]:
    return {
        "action": action,
        "onExitCodes": {"containerName": "worker", "operator": "In", "values": sorted(codes)},
    }


def _pod_spec(job: FleetJob, cluster: Cluster, plan_name: str) -> dict[str, Any]:
    resources = {"cpu": str(job.cpus), "memory": f"{-(-job.memory >> 20)}Mi"}
    container: dict[str, Any] = {
        "name": "worker",
        "image": cluster.image,
        "command": list(job.words(f"{_PLAN_AT}/plan.json")),
        "env": [
            {"name": COUNT_VARIABLE, "value": str(job.workers)},
            {"name": "JITCACHE_DIR", "value": _CACHE_AT},
            {"name": "HOME", "value": "/tmp"},  # noqa: S108 -- the pod's own
        ],
        "resources": {"requests": resources, "limits": {"memory": resources["memory"]}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [
            {"name": "plan", "mountPath": _PLAN_AT, "readOnly": True},
            {"name": "cache", "mountPath": _CACHE_AT},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
        ],
    }
    if cluster.secret is not None:
        container["envFrom"] = [{"secretRef": {"name": cluster.secret}}]
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [
            {"name": "plan", "configMap": {"name": plan_name}},
            {"name": "cache", "emptyDir": {}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }
