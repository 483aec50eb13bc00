"""Lock files: what a manifest resolved to, so that a machine without compiler can fetch it.

`prebuild` writes one per manifest and architecture; `warm`, the runtime and the drop-in read
it (docs/design.md, D5). The file is versioned JSON in one canonical layout: equal locks give
equal bytes, and a changed kernel is a changed line in a diff.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from jitcache.errors import InputError
from jitcache.jsonread import Reader, ShapeError, parse
from jitcache.store.model import ActionRecord, Output
from jitcache.store.records import output_json, read_outputs

if TYPE_CHECKING:
    # Only a word: importing the catalog would cost a serving process more than its lock does.
    from jitcache.codegen.catalog.model import Tail

SCHEMA = 1
"""Version of the format; a reader refuses any other."""


@dataclass(frozen=True, slots=True)
class LockedAction:
    """An action and what it gave.

    Attributes:
        key: action key.
        outputs: what is served of its outputs, sorted by name.
    """

    key: str
    outputs: tuple[Output, ...]

    def given_by(self, record: ActionRecord) -> bool:
        """Whether a record is of this action and has these outputs.

        It may have more: what only explains a build isn't locked.
        """
        return record.key == self.key and set(self.outputs) <= set(record.outputs)


@dataclass(frozen=True, slots=True)
class LockedVariant:
    """One device kernel.

    Attributes:
        hot_loop: whether the main K loop runs.
        tail: `odd` or `even`: parity of the number of loop steps; `full` where the
            pipeline ignores it.
        non_temporal: non-temporal weight loads; None where the family doesn't tell them apart.
        kernel: mangled symbol of the kernel in the code object.
        action: the action whose code object holds it; variants may share one.
    """

    hot_loop: bool
    tail: Tail
    non_temporal: bool | None
    kernel: str
    action: LockedAction


@dataclass(frozen=True, slots=True)
class LockedInstance:
    """One instance of a module.

    Attributes:
        name: AITER's name of the instance.
        stage: 1 or 2.
        block_m: rows of its block.
        variants: the variants that were built.
    """

    name: str
    stage: Literal[1, 2]
    block_m: int
    variants: tuple[LockedVariant, ...]


@dataclass(frozen=True, slots=True)
class LockedModule:
    """One module: its host shim and its instances.

    Attributes:
        name: AITER's name of the module.
        host: the action of the host shim.
        instances: the instances that were built.
    """

    name: str
    host: LockedAction
    instances: tuple[LockedInstance, ...]


@dataclass(frozen=True, slots=True)
class Lock:
    """A resolved manifest.

    Attributes:
        manifest: name of the manifest.
        manifest_digest: digest of the manifest's content.
        arch: GPU architecture, e.g. `gfx950`.
        cu_num: compute units of the GPU.
        toolchain: toolchain id.
        provider: `rocm` or `llvm`.
        hip_version: (major, minor) of the HIP headers; the major number is ROCm's too.
        modules: in the order of the plan.
    """

    manifest: str
    manifest_digest: str
    arch: str
    cu_num: int
    toolchain: str
    provider: str
    hip_version: tuple[int, int]
    modules: tuple[LockedModule, ...]

    def actions(self) -> Iterator[LockedAction]:
        """Every action once: what has to be in a store before the lock can be served."""
        seen: set[str] = set()
        for module in self.modules:
            of_variants = (v.action for i in module.instances for v in i.variants)
            for action in (module.host, *of_variants):
                if action.key not in seen:
                    seen.add(action.key)
                    yield action


def dump_lock(lock: Lock) -> bytes:
    """The one byte form of a lock: keys in a fixed order, one value per line, final newline."""
    document = {
        "schema": SCHEMA,
        "manifest": {"name": lock.manifest, "digest": lock.manifest_digest},
        "target": {"arch": lock.arch, "cu_num": lock.cu_num},
        "toolchain": {
            "id": lock.toolchain,
            "provider": lock.provider,
            "hip_version": list(lock.hip_version),
        },
        "modules": [
            {
                "name": module.name,
                "host": _action_json(module.host),
                "instances": [
                    {
                        "name": instance.name,
                        "stage": instance.stage,
                        "block_m": instance.block_m,
                        "variants": [_variant_json(v) for v in instance.variants],
                    }
                    for instance in module.instances
                ],
            }
            for module in lock.modules
        ],
    }
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def write_lock(path: Path, lock: Lock) -> None:
    """Write a lock file; a reader sees the old one or the new one, never a part.

    Raises:
        StoreError: it can't be written.
    """
    from jitcache.store.durable import replace_file

    replace_file(path, dump_lock(lock))


def load_lock(path: Path) -> Lock:
    """Read a lock file.

    Raises:
        InputError: it can't be read, or says something malformed (named by its JSON path).
    """
    try:
        data = path.read_bytes()
    except OSError as e:
        raise InputError(
            f"can't read the lock file ({e.strerror})",
            where=str(path),
            hint="`jitcache prebuild` writes lock files; give the path it printed",
        ) from None
    return parse_lock(data, where=str(path))


def parse_lock(data: bytes, *, where: str) -> Lock:
    """Read the bytes of a lock file.

    Args:
        data: the bytes.
        where: what to call them in errors.

    Raises:
        InputError: they say something malformed, named by its JSON path.
    """
    try:
        return _lock(parse(data))
    except ShapeError as e:
        raise InputError(
            f"{e.path} {e.problem}",
            where=where,
            hint="lock files are written by `jitcache prebuild`; build it again"
            " instead of editing it",
        ) from None


def _action_json(action: LockedAction) -> dict[str, Any]:
    return {
        "action": action.key,
        "outputs": [output_json(o) for o in sorted(action.outputs, key=lambda o: o.name)],
    }


def _variant_json(variant: LockedVariant) -> dict[str, Any]:
    told_apart = variant.non_temporal is not None
    return {
        "hot_loop": variant.hot_loop,
        "tail": variant.tail,
        **({"non_temporal": variant.non_temporal} if told_apart else {}),
        "kernel": variant.kernel,
        **_action_json(variant.action),
    }


def _lock(r: Reader) -> Lock:
    schema = r["schema"]
    if schema.integer() != SCHEMA:
        raise schema.fail(
            f"is {schema.value}, but this jitcache reads version {SCHEMA} of the format"
        )
    r.only("schema", "manifest", "target", "toolchain", "modules")
    manifest = r["manifest"].only("name", "digest")
    target = r["target"].only("arch", "cu_num")
    toolchain = r["toolchain"].only("id", "provider", "hip_version")
    hip = [part.integer() for part in toolchain["hip_version"].each()]
    if len(hip) != 2:
        raise toolchain["hip_version"].fail("must be [major, minor]")
    return Lock(
        manifest=manifest["name"].text(),
        manifest_digest=manifest["digest"].digest(),
        arch=target["arch"].text(),
        cu_num=target["cu_num"].integer(1),
        toolchain=toolchain["id"].text(),
        provider=toolchain["provider"].text(),
        hip_version=(hip[0], hip[1]),
        modules=tuple(_module(m) for m in r["modules"].each()),
    )


def _module(r: Reader) -> LockedModule:
    r.only("name", "host", "instances")
    return LockedModule(
        name=r["name"].text(),
        host=_action(r["host"].only("action", "outputs")),
        instances=tuple(_instance(i) for i in r["instances"].each()),
    )


def _instance(r: Reader) -> LockedInstance:
    r.only("name", "stage", "block_m", "variants")
    return LockedInstance(
        name=r["name"].text(),
        stage=cast("Literal[1, 2]", r["stage"].integer(1, 2)),
        block_m=r["block_m"].integer(1),
        variants=tuple(_variant(v) for v in r["variants"].each()),
    )


def _variant(r: Reader) -> LockedVariant:
    r.only("hot_loop", "tail", "kernel", "action", "outputs", optional=("non_temporal",))
    return LockedVariant(
        hot_loop=r["hot_loop"].boolean(),
        tail=cast("Tail", r["tail"].one_of("odd", "even", "full")),
        non_temporal=r["non_temporal"].boolean() if r.has("non_temporal") else None,
        kernel=r["kernel"].text(),
        action=_action(r),
    )


def _action(r: Reader) -> LockedAction:
    return LockedAction(key=r["action"].digest(), outputs=read_outputs(r["outputs"]))
