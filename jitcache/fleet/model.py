"""What a plan file says: deployments, and the actions that they need."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class PinnedToolchain:
    """The toolchain of an architecture, which every worker must have.

    Attributes:
        id: its id.
        provider: `rocm` or `llvm`.
        hip_version: (major, minor) of the HIP headers.
    """

    id: str
    provider: str
    hip_version: tuple[int, int]


@dataclass(frozen=True, slots=True)
class PlannedVariant:
    """A device kernel of a deployment.

    Attributes:
        hot_loop: whether the main K loop runs.
        tail: `odd`, `even` or `full`.
        non_temporal: non-temporal weight loads; None where the family doesn't tell them apart.
        action: key of the action that builds it.
    """

    hot_loop: bool
    tail: Literal["odd", "even", "full"]
    non_temporal: bool | None
    action: str


@dataclass(frozen=True, slots=True)
class PlannedInstance:
    """An instance of a module: its AITER name, its block height and its kernels."""

    name: str
    block_m: int
    variants: tuple[PlannedVariant, ...]


@dataclass(frozen=True, slots=True)
class PlannedModule:
    """A module of a deployment: its AITER name, its host shim's action and its instances."""

    name: str
    host: str
    instances: tuple[PlannedInstance, ...]


@dataclass(frozen=True, slots=True)
class Deployment:
    """One manifest on one target: what becomes one lock file.

    Attributes:
        manifest: the manifest's name.
        manifest_digest: digest of its content.
        arch: GPU architecture.
        cu_num: compute units.
        modules: in the order of the plan.
    """

    manifest: str
    manifest_digest: str
    arch: str
    cu_num: int
    modules: tuple[PlannedModule, ...]

    @property
    def name(self) -> str:
        """For people and file names: `kimi-k2.5-mxfp4-tp2.gfx950`."""
        return f"{self.manifest}.{self.arch}"

    def keys(self) -> Iterator[str]:
        """The key of every action it needs; some may come twice."""
        for module in self.modules:
            for instance in module.instances:
                yield from (v.action for v in instance.variants)
            yield module.host


@dataclass(frozen=True, slots=True)
class Need:
    """Who needs an action.

    Attributes:
        deployment: index of the deployment in the plan.
        module: name of the module.
        layers: layers of the manifest whose calls reach it, by name.
        tokens: the token counts of the plan's rows that run it; empty for an action that no
            listed row runs (the scope `inter-dim` and `module` plan more than the rows).
    """

    deployment: int
    module: str
    layers: tuple[str, ...]
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PlannedAction:
    """One action, once, however many deployments need it.

    Attributes:
        key: action key.
        label: for people.
        kind: `device` or `host-shim`.
        arch: architecture whose toolchain builds it.
        source: digest of the translation unit's text.
        headers: digest of the listing of the headers it reads.
        cost_ms: expected CPU milliseconds.
        memory: expected peak RSS in bytes.
        basis: where that comes from (`jitcache.build.durations.Estimate`).
        needs: who needs it.
    """

    key: str
    label: str
    kind: str
    arch: str
    source: str
    headers: str
    cost_ms: int
    memory: int
    basis: str
    needs: tuple[Need, ...]


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """A plan file.

    Attributes:
        salt: the salt of all keys.
        toolchains: by architecture.
        deployments: in the order they were asked for.
        actions: longest first, then by key.
    """

    salt: str
    toolchains: dict[str, PinnedToolchain]
    deployments: tuple[Deployment, ...]
    actions: tuple[PlannedAction, ...]
