"""The byte form of action records: what is stored, hashed and signed."""

from __future__ import annotations

import json
from typing import Any

from jitcache import digest
from jitcache.jsonread import Reader, ShapeError
from jitcache.store.model import ActionRecord, Output
from jitcache.store.sealed import SealError, seal, unseal

SCHEMA = 1
"""Version of the record; a reader refuses any other."""


def canonical(record: ActionRecord) -> bytes:
    """Canonical JSON of a record: what its seal, and every signature, is computed over.

    Raises:
        TypeError: `inputs` or `facts` hold something without a canonical form.
    """
    return digest.canonical_json(
        {
            "schema": SCHEMA,
            "key": record.key,
            "inputs": record.inputs,
            "outputs": [output_json(o) for o in record.outputs],
            "target": record.target,
            "toolchain": record.toolchain,
            "label": record.label,
            "created": record.created,
            "facts": record.facts,
        }
    )


def encode(record: ActionRecord) -> bytes:
    """The content of a record's file."""
    return seal(canonical(record))


def decode(data: bytes) -> ActionRecord:
    """Read the content of a record's file.

    Raises:
        ShapeError: it is damaged or says something that no record says.
    """
    try:
        content = unseal(data)
        r = Reader(json.loads(content), "$")
    except SealError as e:
        raise ShapeError("$", str(e)) from None
    except (ValueError, RecursionError) as e:
        raise ShapeError("$", f"is not JSON ({e})") from None
    schema = r["schema"]
    if schema.integer() != SCHEMA:
        raise schema.fail(f"is {schema.value}, but this jitcache reads version {SCHEMA}")
    r.only(
        *("schema", "key", "inputs", "outputs", "target"),
        *("toolchain", "label", "created", "facts"),
    )
    return ActionRecord(
        key=r["key"].digest(),
        inputs=r["inputs"].object(),
        outputs=read_outputs(r["outputs"]),
        target=r["target"].text(),
        toolchain=r["toolchain"].text(),
        label=r["label"].text(),
        created=r["created"].integer(),
        facts=r["facts"].object(),
    )


def problem(record: ActionRecord) -> str | None:
    """What makes a record unfit to be stored, or None.

    The costly part of a record's check: that its key is the digest of its inputs.
    """
    try:
        data = encode(record)
        if decode(data) != record:
            return "the record changes when it is written and read again"
        if digest.of_json(record.inputs) != record.key:
            return "the key is not the digest of the inputs"
    except TypeError as e:
        return f"the record has no canonical form: {e}"
    except ShapeError as e:
        return f"{e.path} {e.problem}"
    return None


def same_outputs(one: ActionRecord, other: ActionRecord) -> bool:
    """Whether two records of one key gave the same bytes."""
    return one.outputs == other.outputs


def output_json(output: Output) -> dict[str, Any]:
    """One output, as records and lock files both write it; the mode in octal, as `ls` does."""
    return {
        "name": output.name,
        "digest": output.digest,
        "size": output.size,
        "mode": f"{output.mode:04o}",
    }


def read_outputs(r: Reader) -> tuple[Output, ...]:
    """Read a list of outputs: at least one, sorted by name, each name once.

    Raises:
        ShapeError: it is something else.
    """
    outputs = tuple(
        Output(
            name=o["name"].file_name(),
            digest=o["digest"].digest(),
            size=o["size"].integer(),
            mode=int(o["mode"].one_of("0444", "0555"), 8),
        )
        for o in (item.only("name", "digest", "size", "mode") for item in r.each())
    )
    if not outputs:
        raise r.fail("is empty: an action has at least one output")
    names = [o.name for o in outputs]
    if names != sorted(set(names)):
        raise r.fail("must be sorted by name, each name once")
    return outputs
