"""From manifests' plans to a plan file: actions deduplicated over all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from jitcache.action.headers import listing
from jitcache.action.resolve import Resolved, Resolver
from jitcache.action.worklist import ModuleWork, worklist
from jitcache.build.durations import Durations, features_of
from jitcache.codegen.native import Recipe
from jitcache.digest import of_bytes
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
from jitcache.plan.model import Plan
from jitcache.plan.needs import Needs
from jitcache.store.store import Store
from jitcache.toolchain.model import Toolchain


@dataclass(slots=True)
class _Wanted:
    """An action while its needs are collected."""

    resolved: Resolved
    label: str
    arch: str
    needs: list[Need] = field(default_factory=list)


class Planner:
    """Makes a plan file.

    Args:
        store: supplies the memos of keys.
        toolchain_for: finds the toolchain of an architecture, and refuses kernels that it
            can't build.
        durations: what compiles have cost.
        salt: changes every key; "" usually.
    """

    def __init__(
        self,
        store: Store,
        toolchain_for: Callable[[str, Sequence[ModuleWork]], Toolchain],
        durations: Durations,
        salt: str = "",
    ) -> None:
        self._store = store
        self._toolchain_for = toolchain_for
        self._durations = durations
        self._salt = salt
        self._toolchains: dict[str, Toolchain] = {}
        self._resolvers: dict[str, Resolver] = {}
        self._wanted: dict[str, _Wanted] = {}
        self._keys: dict[tuple[str, str], str] = {}

    def make(self, plans: Sequence[Plan]) -> FleetPlan:
        """The plan file of some deployments.

        Raises:
            ToolchainError: a toolchain is missing, or headers can't be read.
            UnsupportedError: a toolchain's CK can't build a kernel.
        """
        deployments = tuple(self._deployment(i, p) for i, p in enumerate(plans))
        actions = [self._planned(key, w) for key, w in self._wanted.items()]
        return FleetPlan(
            salt=self._salt,
            toolchains={
                arch: PinnedToolchain(t.id, t.provider, t.hip_version)
                for arch, t in self._toolchains.items()
            },
            deployments=deployments,
            actions=tuple(sorted(actions, key=lambda a: (-a.cost_ms, a.key))),
        )

    def _deployment(self, index: int, plan: Plan) -> Deployment:
        arch = plan.target.arch
        modules = worklist(plan)
        needs = Needs(plan)
        if modules:
            toolchain = self._toolchain_for(arch, modules)
            self._toolchains[arch] = toolchain
            if arch not in self._resolvers:
                self._resolvers[arch] = Resolver(self._store, toolchain, arch, self._salt)
        return Deployment(
            manifest=plan.manifest,
            manifest_digest=plan.digest,
            arch=arch,
            cu_num=plan.target.cu_num,
            modules=tuple(self._module(index, needs, m, arch) for m in modules),
        )

    def _module(self, index: int, needs: Needs, work: ModuleWork, arch: str) -> PlannedModule:
        keys = {}
        for recipe, label in work.recipes():
            key = self._key(recipe, label, arch)
            keys[recipe.identity] = key
            # A host shim is needed wherever one of its module's kernels is.
            using = [k for k in work.kernels if k.recipe is recipe] or work.kernels
            rows = needs.of_kernels(work.name, [(k.instance.name, k.variant) for k in using])
            need = Need(
                deployment=index,
                module=work.name,
                layers=tuple(r.layer for r in rows),
                tokens=tuple(sorted({t for r in rows for t in r.tokens})),
            )
            self._wanted[key].needs.append(need)
        return planned_module(work, keys)

    def _key(self, recipe: Recipe, label: str, arch: str) -> str:
        known = self._keys.get((arch, recipe.identity))
        if known is None:
            resolved = self._resolvers[arch].resolve(recipe)
            known = self._keys[arch, recipe.identity] = resolved.key
            self._wanted.setdefault(known, _Wanted(resolved, label, arch))
        return known

    def _planned(self, key: str, wanted: _Wanted) -> PlannedAction:
        recipe = wanted.resolved.recipe
        toolchain = self._toolchains[wanted.arch]
        expected = self._durations.estimate(
            features_of(recipe, wanted.arch, toolchain.compiler_name)
        )
        return PlannedAction(
            key=key,
            label=f"{wanted.label} {wanted.arch}",
            kind=recipe.kind,
            arch=wanted.arch,
            source=of_bytes(recipe.render().encode()),
            headers=of_bytes(listing(wanted.resolved.headers)),
            cost_ms=round(expected.cost_s * 1000),
            memory=expected.memory,
            basis=expected.basis,
            needs=tuple(wanted.needs),
        )


def planned_module(work: ModuleWork, keys: dict[str, str]) -> PlannedModule:
    """A module as a plan file has it.

    Args:
        work: its translation units.
        keys: action keys by recipe identity.
    """
    instances: dict[str, PlannedInstance] = {}
    for kernel in work.kernels:
        variant = PlannedVariant(
            kernel.variant.hot_loop,
            kernel.variant.tail,
            kernel.variant.non_temporal,
            keys[kernel.recipe.identity],
        )
        name = kernel.instance.name
        before = instances[name].variants if name in instances else ()
        instances[name] = PlannedInstance(name, kernel.block_m, (*before, variant))
    return PlannedModule(work.name, keys[work.shim.identity], tuple(instances.values()))
