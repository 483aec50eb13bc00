"""A build in kernel terms: what each unit is, which rows need it, what pruning saved. Pure.

A run of jitcache brings its plan along (`jitcache.build.runplan`). Of other builds the names
tell family, stage and tile: AITER's objects carry the instance's name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from jitcache.build.runplan import Facts, RunPlan
from jitcache.build.runplan import Unit as PlannedUnit
from jitcache.codegen.catalog import family_of, parse_name
from jitcache.errors import JitcacheError
from jitcache.plan.needs import Rows, merged


@dataclass(frozen=True, slots=True)
class Registers:
    """What a code object states of its kernels, the largest of each."""

    vgprs: int
    agprs: int
    sgprs: int
    vgpr_spills: int
    sgpr_spills: int
    lds: int
    scratch: int


@dataclass(frozen=True, slots=True)
class Need:
    """Calls of one layer that need a kernel.

    Attributes:
        layer: the layer's name.
        tokens: token counts, rising.
    """

    layer: str
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class UnitCost:
    """One translation unit. Fields as in `--json`; None is what isn't known.

    Attributes:
        output: the command that makes it; units that share a front end have one.
        label: `gemm1 256x128x128x128 v3 hot-even`, or `host shim`.
        family: the family's tag.
        stage: 1 or 2; 0 for a host shim.
        tile: `256x128x128x128_1x4_v3`.
        variant: `hot-even`; "" for an object with all of an instance's kernels.
        instance: AITER's name of the instance.
        modules: the modules that hold it.
        rows: the rows of the manifest that need it.
        rows_known: whether a manifest is known at all.
        why: what dispatches to it, "" where that isn't known.
        cpu_s: CPU seconds; of units that share a front end an estimated share.
        peak_rss: bytes.
        bytes: size of the object.
        registers: of its kernels.
        expected_s: CPU seconds that the duration database expected before.
        basis: where that expectation came from.
    """

    output: str
    label: str
    family: str
    stage: int
    tile: str
    variant: str
    instance: str
    modules: tuple[str, ...] = ()
    rows: tuple[Need, ...] = ()
    rows_known: bool = False
    why: str = ""
    cpu_s: float | None = None
    peak_rss: int | None = None
    bytes: int | None = None
    registers: Registers | None = None
    expected_s: float | None = None
    basis: str = ""


@dataclass(frozen=True, slots=True)
class LeftOutCost:
    """Kernels of a stock module that the plan leaves out: `jitcache.build.runplan.LeftOut`."""

    module: str
    family: str
    instance: str
    label: str
    kernels: int
    whole: bool
    why: str
    cost_s: float
    basis: str


@dataclass(slots=True)
class KernelTerms:
    """A build in kernel terms.

    Attributes:
        manifest: whose rows are meant, "" where none is known.
        arch: target, "" likewise.
        scope: of the plan, "" likewise.
        units: in the order of the commands given.
        left_out: what pruning left out.
        saved_s: CPU seconds that compiling those would probably take.
        bound: what the build can't beat and why, in a sentence; "" where that isn't known.
    """

    manifest: str = ""
    arch: str = ""
    scope: str = ""
    units: list[UnitCost] = field(default_factory=list)
    left_out: list[LeftOutCost] = field(default_factory=list)
    saved_s: float = 0.0
    bound: str = ""

    def of(self, output: str) -> list[UnitCost]:
        """The units that a command makes."""
        return [u for u in self.units if u.output == output]


def planned_terms(
    plan: RunPlan, facts: Mapping[str, Facts], outputs: Iterable[str]
) -> KernelTerms | None:
    """A run of jitcache.

    Args:
        plan: its plan.json.
        facts: of what was published, by action key.
        outputs: of its commands, `actions/<id>/<file>`.

    Returns:
        None where no command is of the plan.
    """
    units = {u.key: u for u in plan.units}
    found = [
        _planned(output, units[key], plan, facts.get(key))
        for output in outputs
        for key in plan.commands.get(command_id(output), ())
        if key in units
    ]
    if not found:
        return None
    left_out = [
        LeftOutCost(
            p.module, p.family, p.instance, p.label, p.kernels, p.whole, p.why, p.cost_s, p.basis
        )
        for p in plan.left_out
    ]
    return KernelTerms(
        plan.manifest, plan.arch, plan.scope, found, left_out, sum(p.cost_s for p in left_out)
    )


def named_terms(outputs: Iterable[str], size_of: Callable[[str], int | None]) -> KernelTerms | None:
    """Another build, as far as names tell.

    Args:
        outputs: of its commands.
        size_of: bytes of an output, None where it isn't there.

    Returns:
        None where no output has the name of a known kernel.
    """
    units = [u for output in outputs if (u := _named(output, size_of))]
    return KernelTerms(units=units) if units else None


def command_id(output: str) -> str:
    """The directory of an output, by which a command of ours is known."""
    return output.rpartition("/")[0].rpartition("/")[2]


def instance_name(output: str) -> str:
    """What an object of AITER's is called after: its file name without endings."""
    return output.rsplit("/", 1)[-1].split(".", 1)[0]


def _planned(output: str, unit: PlannedUnit, plan: RunPlan, facts: Facts | None) -> UnitCost:
    # Two modules of one run have a shim each.
    label = unit.label if unit.stage else f"host shim of {_short_module(unit.modules[0])}"
    return UnitCost(
        output=output,
        label=label,
        family=unit.family,
        stage=unit.stage,
        tile=unit.tile,
        variant=unit.variant,
        instance=unit.instance,
        modules=unit.modules,
        rows=_needs(unit.rows),
        rows_known=bool(plan.manifest),
        why=unit.why,
        cpu_s=facts.cpu_ms / 1000 if facts else None,
        peak_rss=facts.peak_rss if facts else None,
        bytes=facts.bytes if facts else None,
        registers=_registers(facts.kernels) if facts else None,
        expected_s=unit.cost_s,
        basis=unit.basis,
    )


def _short_module(name: str) -> str:
    return name.removeprefix("module_moe_ck2stages_")


def _named(output: str, size_of: Callable[[str], int | None]) -> UnitCost | None:
    name = instance_name(output)
    try:
        parsed = parse_name(name)
        # The lists of one device operation differ by target, which a name doesn't tell.
        family = family_of(parsed.module(), "gfx950").tag.removesuffix("_gfx950")
    except JitcacheError:
        return None
    t = parsed.tile
    label = f"gemm{parsed.stage} {t.block_size}x{t.m}x{t.n}x{t.k} v{t.pipeline}"
    return UnitCost(output, label, family, parsed.stage, str(t), "", name, bytes=size_of(output))


def _needs(rows: Sequence[Rows]) -> tuple[Need, ...]:
    return tuple(Need(r.layer, r.tokens) for r in rows)


def _registers(kernels: Sequence[Mapping[str, object]]) -> Registers | None:
    def most(name: str) -> int:
        return max(v for k in kernels if isinstance(v := k.get(name, 0), int))

    if not kernels:
        return None
    try:
        return Registers(*(most(name) for name in Registers.__slots__))
    except ValueError:
        return None


def bound(
    terms: KernelTerms, path: Sequence[tuple[str, str, float]], path_s: float, *, most: int = 3
) -> str:
    """What the build can't beat, in a sentence; "" where no kernel is on the path.

    Args:
        terms: the units.
        path: output, label and seconds of each command of the critical path.
        path_s: its length.
        most: layers that are named.
    """
    own = {output: terms.of(output) for output, _, _ in path}
    kernels = [p for p in path if own[p[0]]]
    if not kernels:
        return ""
    output, label, duration = max(kernels, key=lambda p: p[2])
    units = own[output]
    what = " + ".join(f"{u.label} ({_place(u)})" for u in units) if units else label
    text = f"the build can't beat {path_s:.1f} s because of {what}: {duration:.1f} s"
    if not units[0].rows_known:
        return text
    return f"{text}; rows that need it: {rows_text(needed(units), most=most)}"


def _place(unit: UnitCost) -> str:
    return f"{unit.family} stage {unit.stage}" if unit.stage else unit.family


def needed(units: Iterable[UnitCost]) -> tuple[Need, ...]:
    """The rows that need any of these units."""
    return _needs(merged([Rows(n.layer, n.tokens) for n in u.rows] for u in units))


def rows_text(rows: Sequence[Need], *, most: int = 3) -> str:
    """Rows for people: `moe with 1, 2, 4 .. 64 tokens (7 rows)`."""
    if not rows:
        return "none listed, only the scope asks for it"
    shown = [_need_text(n) for n in rows[:most]]
    if len(rows) > most:
        shown.append(f"{len(rows) - most} more layers")
    return "; ".join(shown)


def _need_text(need: Need) -> str:
    tokens = need.tokens
    if len(tokens) <= 4:
        return f"{need.layer} with {', '.join(map(str, tokens))} tokens"
    return f"{need.layer} with {tokens[0]} .. {tokens[-1]} tokens ({len(tokens)} rows)"
