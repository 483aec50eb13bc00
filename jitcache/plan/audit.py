"""The audit: what a deployment gets from AITER's tuned tables, and what falls through. Pure.

Looks at every token count of every layer with the real lookup (`jitcache.plan.backend`) and
collects findings: calls that raise, tuned rows that are used for the wrong activation, are
out of reach or name a kernel that no module has.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from jitcache.codegen import catalog
from jitcache.errors import InputError, UnsupportedError
from jitcache.manifest.model import Layer, Manifest, Target
from jitcache.plan import words as planwords
from jitcache.plan.backend import Decision, StageChoice, decide, module_of
from jitcache.plan.hostrules import activation_type, shape_of
from jitcache.plan.tuned import ALL_PADDED, FALLBACK_TAG, Row, Shape, TunedTable

Severity = Literal["error", "warning", "note"]
Part = Literal["moe", "gemm", "a8w4", "fmha"]


class Finding(msgspec.Struct, frozen=True):
    """One thing to know.

    Attributes:
        part: which part of the deployment.
        severity: `error`: a call fails or is wrong, or something can't start; `warning`: it
            runs, but not as tuned; `note`.
        kind: a word for filters: `raises`, `act-collision`, `unknown-kernel`, ...
        what: one sentence without a final period.
        where: layer, file and line, or shape.
    """

    part: Part
    severity: Severity
    kind: str
    what: str
    where: str


class Status(msgspec.Struct, frozen=True):
    """How one token count of one layer is served.

    Attributes:
        layer: the layer's name.
        tokens: the token count.
        padded: the one AITER decides by.
        served: `tuned`, `heuristic`, `other backend` or `raises`.
        by: backends of stage 1 and 2.
        row: `file:line` of the tuned row, or "".
        why: what decided.
    """

    layer: str
    tokens: int
    padded: int
    served: Literal["tuned", "heuristic", "other backend", "raises"]
    by: tuple[str, str]
    row: str
    why: str


class Audit(msgspec.Struct, frozen=True):
    """The audit of one deployment on one GPU.

    Attributes:
        manifest: its name.
        target: the GPU.
        statuses: per layer and token count.
        findings: most severe first.
        skipped: parts that weren't looked at, and why.
    """

    manifest: str
    target: Target
    statuses: tuple[Status, ...]
    findings: tuple[Finding, ...]
    skipped: tuple[str, ...]

    @property
    def failed(self) -> bool:
        """Whether there is an error."""
        return any(f.severity == "error" for f in self.findings)


def audit_moe(
    manifest: Manifest, target: Target, tuned: TunedTable
) -> tuple[tuple[Status, ...], list[Finding]]:
    """Audit the MoE layers of a deployment on one GPU."""
    statuses: list[Status] = []
    findings: list[Finding] = []
    for layer in manifest.layers:
        raised: dict[str, list[int]] = {}
        met: dict[Finding, None] = {}
        for tokens in manifest.tokens or ALL_PADDED:
            decision = decide(layer, target, tokens, tuned, flydsl=manifest.flydsl)
            statuses.append(_status(layer, tokens, decision))
            for number, choice in enumerate(decision.stages, start=1):
                if choice.problem:
                    raised.setdefault(f"stage {number}: {choice.problem}", []).append(tokens)
                met.update(dict.fromkeys(_of_choice(decision, choice)))
                met.update(dict.fromkeys(_of_layout(layer, choice, target)))
            met.update(dict.fromkeys(_of_row(layer, decision.row)))
        findings.extend(
            Finding(
                "moe",
                "error",
                "raises",
                f"AITER raises for {planwords.token_list(c)}: {why}",
                layer.name,
            )
            for why, c in raised.items()
        )
        findings.extend(met)
        findings.extend(_of_table(layer, target, tuned))
    return tuple(statuses), findings


def _status(layer: Layer, tokens: int, decision: Decision) -> Status:
    backends = decision.stages[0].backend, decision.stages[1].backend
    served: Literal["tuned", "heuristic", "other backend", "raises"]
    if any(c.problem for c in decision.stages):
        served = "raises"
    elif decision.row is not None:
        served = "tuned"
    else:
        served = "heuristic" if "ck" in backends else "other backend"
    return Status(
        layer=layer.name,
        tokens=tokens,
        padded=decision.tokens,
        served=served,
        by=backends,
        row=decision.row.place if decision.row is not None else "",
        why=decision.why,
    )


def _of_choice(decision: Decision, choice: StageChoice) -> list[Finding]:
    row = decision.row
    if row is None or choice.backend != "ck":
        return []
    found = []
    if choice.note:
        found.append(Finding("moe", "warning", "unknown-kernel", choice.note, row.place))
    elif choice.instance is not None and choice.instance.tile.m != row.block_m:
        found.append(
            Finding(
                "moe",
                "error",
                "block-m",
                f"block_m is {row.block_m}, but {choice.instance.short} has "
                f"{choice.instance.tile.m} rows: tokens would be sorted for the wrong height",
                row.place,
            )
        )
    return found


def _of_layout(layer: Layer, choice: StageChoice, target: Target) -> list[Finding]:
    if choice.instance is None or choice.backend != "ck":
        return []
    misread = planwords.misread(choice.instance, target.arch)
    return [Finding("moe", "error", "weight-layout", misread, layer.name)] if misread else []


def _of_row(layer: Layer, row: Row | None) -> list[Finding]:
    if row is None or row.act in ("", layer.act):
        return []
    return [
        Finding(
            "moe",
            "warning",
            "act-collision",
            f"layer {layer.name} ({layer.act}) gets the row tuned for {row.act}: the lookup "
            "never matches act_type",
            row.place,
        )
    ]


def _of_table(layer: Layer, target: Target, tuned: TunedTable) -> list[Finding]:
    """Rows of the layer's shape that can't be found, and names that no module has."""
    shapes = {
        shape_of(layer, target, activation_type(layer, target, tokens)) for tokens in (1, 1 << 20)
    }
    found = [
        Finding("moe", "warning", "unreachable-row", s.why, s.row.place)
        for s in tuned.shadowed
        if s.row.act == layer.act and _fits(s.row, shapes)
    ]
    for row in tuned.rows:
        if _fits(row, shapes):
            found.extend(_names(row, layer, target))
    return list(dict.fromkeys(found))


def _fits(row: Row, shapes: set[Shape]) -> bool:
    return row.shape in shapes or any(
        not row.shape.arch and row.shape == msgspec.structs.replace(s, arch="") for s in shapes
    )


def _names(row: Row, layer: Layer, target: Target) -> list[Finding]:
    found = []
    for name in (row.kernel1, row.kernel2):
        if "ck2stages" not in name:
            continue
        try:
            parsed = catalog.parse_name(name)
            spec = module_of(layer, parsed.a, splitk=parsed.splitk)
            own = parsed.module(act=layer.act, preshuffle=spec.preshuffle)
            known = catalog.find(name, own, target.arch) is not None
        except (InputError, UnsupportedError):
            known = False
        if not known:
            found.append(
                Finding(
                    "moe",
                    "warning",
                    "unknown-kernel",
                    f"no module on {target.arch} has {name}",
                    row.place,
                )
            )
    return found


def audit_tables(tuned: TunedTable) -> list[Finding]:
    """Findings about the tuned tables themselves."""
    first: dict[tuple[Shape, int, str, str], Row] = {}
    found = []
    for row in tuned.rows:
        key = row.shape, row.token, row.act, row.tag
        winner = first.setdefault(key, row)
        if winner is not row:
            found.append(
                Finding(
                    "moe",
                    "error",
                    "duplicate-row",
                    f"has the same key as {winner.place}: AITER rewrites the tables and raises "
                    "when it merges them",
                    row.place,
                )
            )
        if row.tag == FALLBACK_TAG and row.names_flydsl:
            found.append(
                Finding(
                    "moe", "warning", "fallback", "the fallback row needs FlyDSL, too", row.place
                )
            )
    return found


_ORDER: dict[Severity, int] = {"error": 0, "warning": 1, "note": 2}


def ordered(findings: list[Finding]) -> tuple[Finding, ...]:
    """Findings without repetitions, most severe first."""
    return tuple(sorted(dict.fromkeys(findings), key=lambda f: (_ORDER[f.severity], f.part)))


def audit_json(result: Audit) -> dict[str, Any]:
    """The JSON form of an audit (docs/audit.md)."""
    return {
        "manifest": result.manifest,
        "arch": result.target.arch,
        "cu_num": result.target.cu_num,
        "failed": result.failed,
        "tokens": [msgspec.to_builtins(s) for s in result.statuses],
        "findings": [msgspec.to_builtins(f) for f in result.findings],
        "skipped": list(result.skipped),
    }
