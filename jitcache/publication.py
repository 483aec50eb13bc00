"""Putting a finished compile into the store, with what is known of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from jitcache import digest
from jitcache.action.headers import HEADERS_OUTPUT, HeaderSet, listing
from jitcache.store.durable import explained
from jitcache.store.model import ActionRecord, Output
from jitcache.store.store import Store

if TYPE_CHECKING:
    from jitcache.build.model import Compiled


def publish(
    store: Store,
    compiled: Compiled,
    *,
    inputs: dict[str, Any],
    headers: HeaderSet,
    target: str,
    toolchain: str,
    instance: str = "",
    mode: int = 0o444,
) -> ActionRecord:
    """Publish what a job wrote under the job's key; the copy in the run directory goes.

    Args:
        store: where it is put.
        compiled: the job and its output.
        inputs: what its key is the digest of.
        headers: what it has read.
        target: architecture of its output, or `host`.
        toolchain: id of what compiled it.
        instance: of a code object, whose kernels; "" for any other output.
        mode: permission bits of the output.

    Raises:
        StoreError: the store can't be written.
    """
    header_file = compiled.output.with_name(HEADERS_OUTPUT)
    with explained("keep what a compile has read", header_file):
        header_file.write_bytes(listing(headers))
    name = compiled.job.output_name
    files = {name: compiled.output, HEADERS_OUTPUT: header_file}
    record = ActionRecord(
        key=compiled.job.key,
        inputs=inputs,
        outputs=tuple(
            Output(n, digest.of_file(path), path.stat().st_size, mode if n == name else 0o444)
            for n, path in sorted(files.items())
        ),
        target=target,
        toolchain=toolchain,
        label=compiled.job.label,
        created=int(time.time()),
        facts=_facts(compiled, instance),
    )
    published = store.put(record, files)
    # What was published needs no second copy on the disk.
    compiled.output.unlink(missing_ok=True)
    header_file.unlink(missing_ok=True)
    return published


def _facts(compiled: Compiled, instance: str) -> dict[str, Any]:
    usage = compiled.usage
    facts: dict[str, Any] = {
        "cpu_ms": round(usage.cpu_s * 1000),
        "wall_ms": round(usage.wall_s * 1000),
        "peak_rss": usage.peak_rss,
    }
    if instance:
        from jitcache import codeobject

        facts["instance"] = instance
        facts["kernels"] = [k.to_json() for k in codeobject.read(compiled.output).kernels]
    return facts
