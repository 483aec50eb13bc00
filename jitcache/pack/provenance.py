"""What was built from what, by which toolchain: an in-toto Statement with SLSA's predicate.

Pure. Sources: in-toto attestation framework, statement v1; SLSA provenance v1. Who built it
isn't known here, so `builder.id` names this program and its version; a signer adds who.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import Any

from jitcache._version import __version__
from jitcache.jsonread import parse
from jitcache.lockfile import Lock
from jitcache.store.model import ActionRecord

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:jitcache:prebuild:v1"


def statement(lock: Lock, records: Iterable[ActionRecord], packs: dict[str, str]) -> dict[str, Any]:
    """The statement of a pack.

    Args:
        lock: what was packed.
        records: the records of its actions, in any order.
        packs: digest of each file that holds them, by its name.
    """
    known = sorted(records, key=lambda r: r.key)
    subjects = [(name, packs[name]) for name in sorted(packs)]
    subjects += [(f"{r.label}/{o.name}", o.digest) for r in known for o in r.outputs]
    parts = {
        (name, digest)
        for r in known
        for name, digest in r.inputs.get("parts", {}).items()
        if isinstance(digest, str)
    }
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": _digest(d)} for name, d in subjects],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "manifest": {"name": lock.manifest, "digest": _digest(lock.manifest_digest)},
                    "target": {"arch": lock.arch, "cu_num": lock.cu_num},
                },
                "internalParameters": {
                    "toolchain": lock.toolchain,
                    "actions": [
                        {
                            "label": r.label,
                            "key": r.key,
                            "target": r.target,
                            "flags": r.inputs.get("flags", []),
                        }
                        for r in known
                    ],
                },
                "resolvedDependencies": [
                    {"name": name, "digest": _digest(d)} for name, d in sorted(parts)
                ],
            },
            "runDetails": {
                "builder": {"id": f"urn:jitcache:{__version__}"},
                "metadata": {"finishedOn": _time(max((r.created for r in known), default=0))},
            },
        },
    }


def finished(payload: bytes) -> int:
    """When the last action of a statement was built, in seconds since the epoch.

    Raises:
        ShapeError: it is not a statement of ours.
    """
    r = parse(payload)
    r["_type"].one_of(STATEMENT_TYPE)
    r["predicateType"].one_of(PREDICATE_TYPE)
    said = r["predicate"]["runDetails"]["metadata"]["finishedOn"]
    try:
        return int(datetime.datetime.fromisoformat(said.text()).timestamp())
    except (ValueError, OverflowError):
        raise said.fail("is not a time") from None


def subjects(payload: bytes) -> set[str]:
    """The digests that a statement speaks of.

    Raises:
        ShapeError: it is not a statement of ours.
    """
    return {f"sha256:{s['digest']['sha256'].text()}" for s in parse(payload)["subject"].each()}


def _time(seconds: int) -> str:
    when = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return when.isoformat(timespec="seconds").replace("+00:00", "Z")


def _digest(text: str) -> dict[str, str]:
    algorithm, _, hexes = text.partition(":")
    return {algorithm: hexes}
