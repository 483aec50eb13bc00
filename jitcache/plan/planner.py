"""The planner: from a manifest to the kernels it needs, with a reason for each. Pure.

Required are the instances that AITER's heuristic picks and those that a tuned row names
and the real lookup can find, each with the device kernels that the layer's K runs.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from jitcache.codegen import catalog
from jitcache.codegen.catalog import Instance, ModuleSpec, Stage, Variant
from jitcache.errors import InputError, UnsupportedError
from jitcache.manifest.load import manifest_digest
from jitcache.manifest.model import Layer, Manifest, Target
from jitcache.manifest.raw import ScopeWord
from jitcache.plan import words as planwords
from jitcache.plan.backend import Decision, StageChoice, decide, stage_dims
from jitcache.plan.hostrules import host_block_ms
from jitcache.plan.model import (
    STAGES,
    ModulePlan,
    Plan,
    Pruned,
    PrunedVariant,
    RequiredInstance,
    RequiredVariant,
    StageRow,
    TokenRow,
)
from jitcache.plan.tuned import ALL_PADDED, TunedTable, padded_tokens

__all__ = ["Plan", "plan"]


def plan(
    manifest: Manifest,
    *,
    target: Target,
    tuned: TunedTable | None = None,
    block_m: Sequence[int] | None = None,
    scope: ScopeWord | None = None,
    tokens: Sequence[int] | None = None,
) -> Plan:
    """Compute the required set of a deployment on one GPU.

    Args:
        manifest: the deployment.
        target: the GPU; need not be one of the manifest's.
        tuned: tuned tables, in AITER's order; none if not given.
        block_m: block heights to build for, instead of the manifest's.
        scope: instead of the manifest's.
        tokens: token counts, instead of the manifest's.

    Raises:
        UnsupportedError: a stage needs CK and no kernel supports its shape, types or target.
        InputError: scope `reachable` without token counts, or nothing is left of a stage
            after narrowing to `block_m`.
    """
    catalog.check_arch(target.arch)
    planner = _Planner(
        manifest,
        target,
        tuned or TunedTable(),
        frozenset(manifest.block_m if block_m is None else block_m),
        scope or manifest.scope,
        tuple(manifest.tokens if tokens is None else sorted(set(tokens))),
    )
    for layer in manifest.layers:
        planner.add(layer)
    return planner.result()


class _Use(msgspec.Struct):
    """A layer's use of one stage of a module.

    Attributes:
        layer: the layer.
        loads: (block_m, non-temporal) of its untuned calls.
        splits: its ksplit values.
        problems: calls that raise: why → token counts.
    """

    layer: Layer
    loads: set[tuple[int, bool]] = msgspec.field(default_factory=set)
    splits: set[int] = msgspec.field(default_factory=set)
    problems: dict[str, list[int]] = msgspec.field(default_factory=dict)


class _Need(msgspec.Struct):
    """Why an instance is required.

    Attributes:
        counts: reason → token counts it holds for (none: for all).
        variants: device kernel → the K that runs it.
    """

    counts: dict[str, list[int]] = msgspec.field(default_factory=dict)
    variants: dict[Variant, dict[str, None]] = msgspec.field(default_factory=dict)

    def because(self, reason: str, *counts: int) -> None:
        self.counts.setdefault(reason, []).extend(counts)


class _Planner:
    """Collects, layer by layer, what is needed of which module."""

    def __init__(
        self,
        manifest: Manifest,
        target: Target,
        tuned: TunedTable,
        block_m: frozenset[int],
        scope: ScopeWord,
        tokens: tuple[int, ...],
    ) -> None:
        if scope == "reachable" and not tokens:
            raise InputError(
                "scope reachable needs token counts",
                where=manifest.source,
                hint="list them under [tokens] or give --tokens",
            )
        self.manifest = manifest
        self.target = target
        self.tuned = tuned
        self.block_m = block_m
        self.scope = scope
        self.shown = tokens or ALL_PADDED
        self.considered = sorted({*tokens, *(() if scope == "reachable" else ALL_PADDED)})
        self.needs: dict[Instance, _Need] = {}
        self.uses: dict[tuple[ModuleSpec, Stage], list[_Use]] = {}
        self.refused: dict[Instance, str] = {}
        self.decisions: list[tuple[Layer, int, Decision]] = []
        self.notes: list[str] = []

    def add(self, layer: Layer) -> None:
        """Take up a layer: decide for every token count, then widen by scope."""
        known: dict[tuple[int, bool], Decision] = {}
        mine: dict[tuple[ModuleSpec, Stage], _Use] = {}
        shown = set(self.shown)
        for tokens in self.considered:
            # Besides the padded count, AITER looks at the real one only for this bound.
            key = padded_tokens(tokens), tokens < 256
            if key not in known:
                known[key] = decide(
                    layer, self.target, tokens, self.tuned, flydsl=self.manifest.flydsl
                )
            if tokens in shown:
                self.decisions.append((layer, tokens, known[key]))
            for stage, choice in zip(STAGES, known[key].stages, strict=True):
                if choice.backend == "ck":
                    self._called(layer, tokens, known[key], stage, choice, mine)
        for (spec, stage), use in mine.items():
            self.uses.setdefault((spec, stage), []).append(use)
            if self.scope == "inter-dim":
                self._widen_to_block_ms(spec, stage, use)
            elif self.scope == "module":
                self._widen_to_module(spec, stage, use)
            self._check(spec, stage, use)
        if not mine:
            self.notes.append(
                planwords.no_ck(layer, [d for at, _, d in self.decisions if at is layer])
            )

    def _called(
        self,
        layer: Layer,
        tokens: int,
        decision: Decision,
        stage: Stage,
        choice: StageChoice,
        mine: dict[tuple[ModuleSpec, Stage], _Use],
    ) -> None:
        """AITER calls CK for a token count."""
        assert choice.spec is not None  # noqa: S101 - every CK call has a module
        use = mine.setdefault((choice.spec, stage), _Use(layer))
        use.splits.add(decision.ksplit)
        if decision.row is None:
            use.loads.add((decision.block_m, decision.non_temporal))
        if choice.instance is None or choice.variant is None:
            use.problems.setdefault(choice.problem, []).append(tokens)
            if choice.instance is not None:
                self.refused[choice.instance] = choice.problem
            return
        need = self.needs.setdefault(choice.instance, _Need())
        need.because(planwords.called(layer, stage, decision, choice), tokens)
        self._runs(need, layer, choice.instance, choice.variant, decision.ksplit)

    def _widen_to_block_ms(self, spec: ModuleSpec, stage: Stage, use: _Use) -> None:
        """Add what the heuristic picks at every block height the host can choose.

        A split-K module isn't widened: K is split only where few tokens leave compute
        units idle, and all such token counts have been considered.
        """
        if not spec.splitk:
            for block_m in host_block_ms(use.layer):
                picked = catalog.dispatch(
                    spec, self.target.arch, stage, block_m, use.layer.inter_dim
                )
                if isinstance(picked, Instance):
                    loads = {nt for at, nt in use.loads if at == block_m}
                    loads = loads or {False, True}
                    reason = planwords.host_can_pick(use.layer, stage, block_m, self.target)
                    self._widen(picked, use, loads, {0}, reason)

    def _widen_to_module(self, spec: ModuleSpec, stage: Stage, use: _Use) -> None:
        """Add every instance of the stage, with and without non-temporal loads."""
        for instance in catalog.instances(spec, self.target.arch):
            if instance.stage == stage:
                splits = use.splits if spec.splitk else {0}
                self._widen(instance, use, {False, True}, splits, "scope module: all are built")

    def _widen(
        self, instance: Instance, use: _Use, loads: set[bool], splits: set[int], reason: str
    ) -> None:
        n, k = stage_dims(use.layer, instance.stage)
        rejected = catalog.rejects(instance, n, k)
        if rejected is not None:
            self.refused[instance] = f"CK refuses {instance.short}: {rejected}"
            return
        for nt in sorted(loads):
            for split in sorted(splits):
                variant = catalog.variant_for(instance, k, nt, splitk=split)
                need = self.needs.get(instance)
                if need is None or variant not in need.variants:
                    need = self.needs.setdefault(instance, _Need())
                    need.because(reason)
                    self._runs(need, use.layer, instance, variant, split)

    def _runs(
        self, need: _Need, layer: Layer, instance: Instance, variant: Variant, ksplit: int
    ) -> None:
        because = planwords.runs(instance, variant, stage_dims(layer, instance.stage)[1], ksplit)
        need.variants.setdefault(variant, {})[because] = None

    def _check(self, spec: ModuleSpec, stage: Stage, use: _Use) -> None:
        """Refuse a stage that no kernel supports; note the calls that raise."""
        usable = any(i.module == spec and i.stage == stage for i in self.needs)
        if use.problems and not usable:
            raise UnsupportedError(
                f"no CK kernel supports stage {stage} of layer {use.layer.name} on "
                f"{self.target.arch}",
                where=self.manifest.source,
                hint=planwords.hint_unsupported(use.problems),
                details=tuple(use.problems),
            )
        self.notes.extend(
            f"layer {use.layer.name}, stage {stage}: AITER raises for "
            f"{planwords.token_list(counts)}: {problem}"
            for problem, counts in use.problems.items()
        )

    # -- the result --------------------------------------------------------------------

    def result(self) -> Plan:
        """Put the plan together."""
        specs = sorted({spec for spec, _ in self.uses}, key=lambda s: s.name)
        modules = tuple(self._module(spec) for spec in specs)
        kept = {i.instance for m in modules for i in m.instances}
        for stage in STAGES:
            reached = {i.tile.m for i in self.needs if i.stage == stage}
            if reached and not any(i.stage == stage for i in kept):
                raise InputError(
                    f"narrowed to block_m {planwords.numbers(self.block_m)}, no kernel of stage "
                    f"{stage} is left",
                    where=self.manifest.source,
                    hint=f"reached are block_m {planwords.numbers(reached)}",
                )
        misread = (planwords.misread(i, self.target.arch) for i in kept)
        self.notes.extend(sorted(note for note in misread if note))
        return Plan(
            manifest=self.manifest.name,
            digest=manifest_digest(self.manifest),
            target=self.target,
            scope=self.scope,
            modules=tuple(m for m in modules if m.instances),
            rows=tuple(_token_row(la, t, d, kept) for la, t, d in self.decisions),
            notes=tuple(dict.fromkeys(self.notes)),
        )

    def _module(self, spec: ModuleSpec) -> ModulePlan:
        try:
            family = catalog.family_of(spec, self.target.arch)
            stock = catalog.instances(spec, self.target.arch)
        except UnsupportedError:
            return ModulePlan(spec, "", (), ())  # all its calls raise, and notes say so
        required = []
        pruned = []
        for instance in stock:
            if self._wanted(instance):
                required.append(self._required(instance))
            else:
                pruned.append(Pruned(instance, self._why_pruned(spec, instance)))
        return ModulePlan(spec, family.tag, tuple(required), tuple(pruned))

    def _wanted(self, instance: Instance) -> bool:
        return instance in self.needs and (not self.block_m or instance.tile.m in self.block_m)

    def _required(self, instance: Instance) -> RequiredInstance:
        need = self.needs[instance]
        ordered = catalog.variants(instance)
        return RequiredInstance(
            instance=instance,
            block_m=instance.tile.m,
            why="; ".join(planwords.with_tokens(r, c) for r, c in need.counts.items()),
            variants=tuple(
                RequiredVariant(v, "; ".join(need.variants[v]))
                for v in ordered
                if v in need.variants
            ),
            pruned=tuple(
                PrunedVariant(v, planwords.never_runs(instance, v, tuple(need.variants)))
                for v in ordered
                if v not in need.variants
            ),
        )

    def _why_pruned(self, spec: ModuleSpec, instance: Instance) -> str:
        stage, m = instance.stage, instance.tile.m
        if instance in self.needs:
            return f"stage {stage}, block_m {m}: narrowed to {planwords.numbers(self.block_m)}"
        uses = self.uses.get((spec, stage))
        if uses is None:
            return planwords.stage_unused(spec, stage)
        if instance in self.refused:
            return f"stage {stage}: {self.refused[instance]}"
        reasons = {
            planwords.never_dispatched(instance, use.layer, self.target, self.scope): None
            for use in uses
        }
        return "; ".join(reasons)


def _token_row(layer: Layer, tokens: int, decision: Decision, kept: set[Instance]) -> TokenRow:
    stages = [
        StageRow(
            backend=c.backend,
            kernel=c.kernel,
            module=c.spec.name if c.spec is not None else "",
            variant=c.variant,
            problem=c.problem,
        )
        for c in decision.stages
    ]
    notes = [c.note for c in decision.stages if c.note]
    return TokenRow(
        layer=layer.name,
        tokens=tokens,
        padded=decision.tokens,
        block_m=decision.block_m,
        ksplit=decision.ksplit,
        stages=(stages[0], stages[1]),
        planned=all(c.instance in kept for c in decision.stages if c.backend == "ck"),
        why="; ".join([decision.why, *notes]),
    )
