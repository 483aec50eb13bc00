"""From a plan file back to translation units, which have to be those that were planned."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jitcache import digest
from jitcache.action.actions import Action
from jitcache.action.headers import listing
from jitcache.action.resolve import Resolved, Resolver
from jitcache.action.worklist import ModuleWork, module_work
from jitcache.codegen import catalog
from jitcache.codegen.catalog import Instance, Variant
from jitcache.codegen.native import Recipe
from jitcache.errors import InputError, ToolchainError
from jitcache.fleet.model import Deployment, FleetPlan, PlannedAction, PlannedModule
from jitcache.store.store import Store
from jitcache.toolchain.model import Toolchain


def works_of(deployment: Deployment) -> tuple[ModuleWork, ...]:
    """The translation units of a deployment.

    Raises:
        InputError: this version's catalog doesn't know one of its modules or instances.
        UnsupportedError: it knows none of a module's kind.
    """
    return tuple(_work(module, deployment.arch) for module in deployment.modules)


def _work(module: PlannedModule, arch: str) -> ModuleWork:
    spec = catalog.parse_module_name(module.name)
    required = []
    for planned in module.instances:
        variants = [Variant(v.hot_loop, v.tail, v.non_temporal) for v in planned.variants]
        required.append((_instance(planned.name, spec, arch), planned.block_m, variants))
    return module_work(spec, required, arch)


def _instance(name: str, spec: catalog.ModuleSpec, arch: str) -> Instance:
    found = catalog.find(name, spec, arch)
    if found is None:
        raise InputError(
            f"the plan names an instance that this jitcache doesn't know for {arch}",
            where=name,
            hint="use the jitcache that made the plan",
        )
    return found


def keys_of(work: ModuleWork, module: PlannedModule) -> dict[str, str]:
    """The planned action keys of a module's translation units, by recipe identity."""
    planned = [v.action for i in module.instances for v in i.variants]
    keys = {k.recipe.identity: key for k, key in zip(work.kernels, planned, strict=True)}
    return keys | {work.shim.identity: module.host}


class Workshop:
    """Turns planned actions into ones that can be built here.

    Args:
        plan: the plan.
        store: supplies the memos of keys.
        find: the toolchain of an architecture.
    """

    def __init__(self, plan: FleetPlan, store: Store, find: Callable[[str], Toolchain]) -> None:
        self._plan = plan
        self._store = store
        self._find = find
        self._recipes: dict[str, Recipe] = {}
        self._tools: dict[str, tuple[Toolchain, Resolver]] = {}
        for deployment in plan.deployments:
            for module, work in zip(deployment.modules, works_of(deployment), strict=True):
                by_identity = {r.identity: r for r, _ in work.recipes()}
                for identity, key in keys_of(work, module).items():
                    self._recipes.setdefault(key, by_identity[identity])

    def tools(self, arch: str) -> tuple[Toolchain, Resolver]:
        """The toolchain of an architecture, which is the plan's, and its resolver.

        Raises:
            ToolchainError: there is none here, or it is another one.
        """
        known = self._tools.get(arch)
        if known is None:
            toolchain = self._find(arch)
            wanted = self._plan.toolchains[arch].id
            if toolchain.id != wanted:
                raise ToolchainError(
                    f"this machine's toolchain for {arch} is not the plan's, and results of two"
                    " toolchains are never mixed",
                    details=(f"plan: {wanted}", f"here: {toolchain.id}"),
                    hint="install the plan's toolchain here, or make a plan of its own for this"
                    " one with `jitcache plan -o`",
                )
            resolver = Resolver(self._store, toolchain, arch, self._plan.salt)
            known = self._tools[arch] = (toolchain, resolver)
        return known

    def action(self, planned: PlannedAction) -> Action:
        """What builds a planned action.

        Raises:
            ToolchainError: what would be built here has another key.
        """
        _, resolver = self.tools(planned.arch)
        resolved = resolver.resolve(self._recipes[planned.key])
        if resolved.key != planned.key:
            raise ToolchainError(
                "what this machine would build is not what was planned:"
                f" {_difference(resolved, planned)}",
                where=planned.label,
                details=(f"plan: {planned.key}", f"here: {resolved.key}"),
                hint="have the same jitcache, the same CK and the same headers on all machines,"
                " or make the plan again here",
            )
        return Action(resolved, planned.label.removesuffix(f" {planned.arch}"))

    def actions(self, planned: Sequence[PlannedAction]) -> list[Action]:
        """As `action`, for several; all are checked before any is built."""
        return [self.action(p) for p in planned]


def _difference(here: Resolved, planned: PlannedAction) -> str:
    if digest.of_bytes(here.recipe.render().encode()) != planned.source:
        return "its source differs (another version of jitcache)"
    if digest.of_bytes(listing(here.headers)) != planned.headers:
        return "headers that it reads differ (of CK, HIP or the system)"
    return "flags or parts of the toolchain differ"
