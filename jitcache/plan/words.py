"""The sentences of a plan: why a kernel is kept, why another is left out. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from jitcache.codegen import catalog
from jitcache.codegen.catalog import Instance, ModuleSpec, Stage, Variant
from jitcache.manifest.model import Layer, Target
from jitcache.plan.backend import Decision, StageChoice
from jitcache.plan.hostrules import host_block_ms


def hint_unsupported(problems: Iterable[str]) -> str:
    """What to do about a stage that no kernel supports."""
    if any(p.startswith("CK refuses") for p in problems):
        return (
            "choose another tensor-parallel size, or pad the weights to the multiple and plan "
            "with the padded dims"
        )
    return "another quantisation, activation or architecture is needed"


def misread(instance: Instance, arch: str) -> str | None:
    """What is wrong where a kernel reads weights otherwise than AITER shuffles them."""
    pack = catalog.weight_pack(instance, arch)
    if not instance.module.preshuffle or pack == catalog.SHUFFLED:
        return None
    return (
        f"{instance.short} reads {pack} bytes of a weight's row at a time, but AITER shuffles "
        f"{catalog.SHUFFLED}: its results are wrong (seen on an emulator, not on a GPU)"
    )


def numbers(values: Iterable[int]) -> str:
    """`32, 64`."""
    return ", ".join(map(str, sorted(values)))


def token_list(counts: Sequence[int]) -> str:
    """`8 tokens`, `1, 2 and 4 tokens`, `9 token counts from 256 to 131072`."""
    ordered = sorted(set(counts))
    if len(ordered) > 4:
        return f"{len(ordered)} token counts from {ordered[0]} to {ordered[-1]}"
    text = ", ".join(map(str, ordered[:-1]))
    last = f"{ordered[-1]} token{'' if ordered == [1] else 's'}"
    return f"{text} and {last}" if text else last


def with_tokens(reason: str, counts: Sequence[int]) -> str:
    """A reason with the token counts it holds for."""
    return f"{reason} ({token_list(counts)})" if counts else reason


def called(layer: Layer, stage: Stage, decision: Decision, choice: StageChoice) -> str:
    """Why AITER runs an instance."""
    row = decision.row
    if row is not None and choice.note == "" and choice.kernel in (row.kernel1, row.kernel2):
        return f"stage {stage}, block_m {decision.block_m}: named by tuned rows of {row.file}"
    why = f"stage {stage}, block_m {decision.block_m}, inter_dim {layer.inter_dim}: heuristic"
    if choice.note:
        why += f", as {choice.note.partition(':')[0]}"
    return why


def host_can_pick(layer: Layer, stage: Stage, block_m: int, target: Target) -> str:
    """Why an instance is kept that no considered token count reaches."""
    return (
        f"stage {stage}, block_m {block_m}, inter_dim {layer.inter_dim}: heuristic; no token "
        f"count gets there with {target.cu_num} CUs, but the host can pick {block_m}"
    )


def runs(instance: Instance, variant: Variant, k: int, ksplit: int) -> str:
    """Why a device kernel runs."""
    count = catalog.steps(instance, k, splitk=ksplit)
    name = "model_dim" if instance.stage == 1 else "inter_dim"
    split = f", split {ksplit} ways" if instance.module.splitk and ksplit > 1 else ""
    return (
        f"K ({name}) {k}{split} is {count} step{'' if count == 1 else 's'} of "
        f"{catalog.k_per_block(instance)}: {_words(variant)}"
    )


def _words(variant: Variant) -> str:
    parts = ["hot loop" if variant.hot_loop else "no hot loop"]
    if variant.tail != "full":
        parts.append(f"{variant.tail} tail")
    if variant.non_temporal is not None:
        parts.append("non-temporal loads" if variant.non_temporal else "temporal loads")
    return ", ".join(parts)


def never_runs(instance: Instance, variant: Variant, used: tuple[Variant, ...]) -> str:
    """Why a device kernel of a required instance isn't needed."""
    prefetch = catalog.family_by_tag(instance.family).pipelines[instance.tile.pipeline].prefetch
    reasons = []
    if all(v.hot_loop != variant.hot_loop for v in used):
        reasons.append(f"{'more than' if variant.hot_loop else 'at most'} {prefetch} loop steps")
    if all(v.tail != variant.tail for v in used):
        reasons.append(f"an {variant.tail} number of loop steps")
    if all(v.non_temporal != variant.non_temporal for v in used):
        reasons.append("non-temporal loads" if variant.non_temporal else "temporal loads")
    if not reasons:
        return f"no K here runs {_words(variant)}"
    return f"only for {' and '.join(reasons)}"


def stage_unused(spec: ModuleSpec, stage: Stage) -> str:
    """Why a whole stage of a module is left out."""
    if spec.splitk and stage == 2:
        return "stage 2 is never called in a split-K module"
    return f"stage {stage} of this module is never called: another backend or module runs it"


def never_dispatched(instance: Instance, layer: Layer, target: Target, scope: str) -> str:
    """Why nothing dispatches to an instance of a stage that CK runs."""
    stage, m = instance.stage, instance.tile.m
    hosts = host_block_ms(layer)
    if m not in hosts:
        return (
            f"stage {stage}, block_m {m}: AITER's host picks only {numbers(hosts)} for this "
            "layer, and no tuned row names it"
        )
    picked = catalog.dispatch(instance.module, target.arch, stage, m, layer.inter_dim)
    if picked == instance:
        what = "no listed token count gets" if scope == "reachable" else "no token count gets"
        return f"stage {stage}: {what} to block_m {m} with {target.cu_num} CUs"
    why = catalog.why_not_dispatched(instance, target.arch, m, layer.inter_dim)
    return f"stage {stage}, {why}: never dispatched"


def no_ck(layer: Layer, decisions: Sequence[Decision]) -> str:
    """Why a layer needs nothing."""
    backends = {c.backend for d in decisions for c in d.stages}
    names = {"asm": "assembly", "flydsl": "FlyDSL", "cktile": "CK-Tile", "ck": "CK"}
    who = " and ".join(sorted(names[b] for b in backends))
    whys = dict.fromkeys(d.why.rpartition("; ")[2] for d in decisions)
    return f"layer {layer.name} needs no CK2stages kernel: {who} runs it ({'; '.join(whys)})"
