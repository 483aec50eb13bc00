"""What compiles have cost, and what the next one will: for the order, the ETA and the jobs.

Samples are keyed by what a translation unit is (family, stage, tile, kernels, target,
compiler), never by a label or an action key, so that they serve on another machine, for
another manifest and after an edit. Databases merge: the union of their samples, of which the
newest few of each translation unit stay; the order of merging and doing it twice don't matter.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from jitcache.build.model import EdgeUsage
from jitcache.codegen.native import Recipe
from jitcache.errors import StoreError

_FILE = "samples.jsonl"
_KEEP = 8
_COMPACT = 1 << 20
_FURTHER_KERNEL = 0.35
# One kernel of a4w4, clang 22 (docs/build.md): 23.2 s for 256x128x128x128, 14.5 s for
# 64x32x32x128, 0.87 GB, 2.5 s for a host shim. Good enough for an order and a first ETA.
_THUMB_S = (11.6, 0.181)
_THUMB_SHIM_S = 2.5
_THUMB_MEMORY = 900 << 20


@dataclass(frozen=True, slots=True, order=True)
class Features:
    """What decides a translation unit's cost.

    Attributes:
        kind: `device` or `host-shim`.
        family: C++ header of the family: `a4w4`.
        stage: 1 or 2; 0 for a host shim.
        block_size: threads per workgroup; 0 for a host shim, like the three that follow.
        m: rows of the block.
        n: columns of the block.
        k: depth of the block.
        detail: all template arguments; of a host shim, the number of its instances.
        kernels: how many kernels it holds.
        variants: template arguments of those kernels.
        arch: target.
        compiler: name and version.
    """

    kind: str
    family: str
    stage: int
    block_size: int
    m: int
    n: int
    k: int
    detail: str
    kernels: int
    variants: str
    arch: str
    compiler: str

    @property
    def work(self) -> float:
        """Accumulators per thread, which is what cost follows.

        Stock figures of one module lie on a line over m * n / block_size within 2 %: 16 gives
        33 s, 32 gives 40 s, 64 gives 54 s (a4w4 stage 1).
        """
        return self.m * self.n / self.block_size if self.block_size else 0.0

    @property
    def packing(self) -> float:
        """Cost relative to a unit of one kernel: each further one shares the front end."""
        return 1 + _FURTHER_KERNEL * (self.kernels - 1)


@dataclass(frozen=True, slots=True, order=True)
class Sample:
    """One measured compile.

    Attributes:
        features: of what.
        at: when, seconds since the epoch.
        cpu_ms: CPU milliseconds.
        wall_ms: wall-clock milliseconds.
        peak_rss: bytes.
    """

    features: Features
    at: int
    cpu_ms: int
    wall_ms: int
    peak_rss: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a compile will probably cost.

    Attributes:
        cost_s: CPU seconds.
        memory: peak RSS in bytes.
        basis: where it comes from, best first: `measured`, `other compiler`, `same tile`,
            `tile sizes of the stage`, `tile sizes of the family`, `rule of thumb`.
    """

    cost_s: float
    memory: int
    basis: str


def features_of(recipe: Recipe, arch: str, compiler: str) -> Features:
    """The features of a translation unit of the native dialect.

    Args:
        recipe: the translation unit.
        arch: target.
        compiler: name and version, `clang 22.1.8`.
    """
    context = recipe.context
    if recipe.kind != "device":
        detail = str(len(context["instances"]))
        return Features(
            recipe.kind, context["header"], 0, 0, 0, 0, 0, detail, 1, "", arch, compiler
        )
    words = context["parameters"].split(", ")
    stage, block_size, m, n, k = (int(words[i]) for i in (0, 6, 7, 8, 9))
    variants = [v["arguments"] for v in context["variants"]]
    return Features(
        kind=recipe.kind,
        family=context["header"],
        stage=stage,
        block_size=block_size,
        m=m,
        n=n,
        k=k,
        detail=context["parameters"],
        kernels=len(variants),
        variants="; ".join(variants),
        arch=arch,
        compiler=compiler,
    )


class Durations:
    """A database of samples.

    Args:
        samples: to begin with.
    """

    def __init__(self, samples: Iterable[Sample] = ()) -> None:
        self._by_features: dict[Features, list[Sample]] = {}
        self.merge(samples)

    def __iter__(self) -> Iterator[Sample]:
        for features in sorted(self._by_features):
            yield from self._by_features[features]

    def merge(self, samples: Iterable[Sample]) -> None:
        """Take samples in; of each translation unit the newest stay."""
        for sample in samples:
            known = self._by_features.setdefault(sample.features, [])
            if sample not in known:
                known.append(sample)
                # Oldest first, and a total order, so that merging always ends the same way.
                known.sort()
                del known[:-_KEEP]

    def to_json(self) -> list[dict[str, Any]]:
        """All samples as plain JSON without floats, in a fixed order."""
        return [asdict(sample) for sample in self]

    def estimate(self, wanted: Features) -> Estimate:
        """Cost and memory: measured where possible, else from the nearest that was.

        Memory is the largest of what was measured, cost the median. The order of a build,
        its ETA and packs, and the shares of a fleet all ask here: there is no other model.

        Args:
            wanted: what is to be compiled, from `features_of`.
        """
        exact = self._by_features.get(wanted)
        if exact:
            return _summary(exact, wanted, "measured")
        kin = [s for s in self if s.features.kind == wanted.kind]
        same_text = [s for s in kin if _text(s.features) == _text(wanted)]
        if same_text:
            return _summary(same_text, wanted, "other compiler")
        family = [s for s in kin if s.features.family == wanted.family]
        tile = [s for s in family if _tile(s.features) == _tile(wanted)]
        if tile:
            return _summary(tile, wanted, "same tile")
        stage = [s for s in family if s.features.stage == wanted.stage]
        for near, basis in (
            (stage, "tile sizes of the stage"),
            (family, "tile sizes of the family"),
        ):
            if near:
                return _fitted(near, wanted, basis)
        return _rule_of_thumb(wanted)


def _text(features: Features) -> tuple[str, ...]:
    return (features.family, features.detail, features.variants, features.arch)


def _tile(features: Features) -> tuple[int, ...]:
    return (features.stage, features.block_size, features.m, features.n, features.k)


def _summary(samples: Sequence[Sample], wanted: Features, basis: str) -> Estimate:
    cost = statistics.median(s.cpu_ms / s.features.packing for s in samples) * wanted.packing
    return Estimate(cost / 1000, max(s.peak_rss for s in samples), basis)


def _fitted(samples: Sequence[Sample], wanted: Features, basis: str) -> Estimate:
    """By least squares over `Features.work`; never less than half of the cheapest measured."""
    costs = [(s.features.work, s.cpu_ms / s.features.packing) for s in samples]
    memories = [(s.features.work, float(s.peak_rss)) for s in samples]
    return Estimate(
        _line(costs, wanted.work) * wanted.packing / 1000,
        round(_line(memories, wanted.work)),
        basis,
    )


def _line(points: Sequence[tuple[float, float]], x: float) -> float:
    mean_x = statistics.fmean(p[0] for p in points)
    mean_y = statistics.fmean(p[1] for p in points)
    spread = sum((px - mean_x) ** 2 for px, _ in points)
    together = sum((px - mean_x) * (py - mean_y) for px, py in points)
    # A larger tile never costs less; a falling line is noise.
    slope = max(0.0, together / spread) if spread else 0.0
    return max(mean_y + slope * (x - mean_x), min(p[1] for p in points) / 2)


def _rule_of_thumb(wanted: Features) -> Estimate:
    if wanted.kind != "device":
        return Estimate(_THUMB_SHIM_S, _THUMB_MEMORY, "rule of thumb")
    base, slope = _THUMB_S
    cost = (base + slope * wanted.work) * wanted.packing
    return Estimate(cost, _THUMB_MEMORY, "rule of thumb")


def sample_of(features: Features, usage: EdgeUsage, at: int) -> Sample:
    """A sample from what a run measured.

    Args:
        features: of what was compiled.
        usage: what it cost.
        at: when, seconds since the epoch.
    """
    return Sample(
        features, at, round(usage.cpu_s * 1000), round(usage.wall_s * 1000), usage.peak_rss
    )


def load(directory: Path) -> Durations:
    """The store's database; what can't be read or makes no sense is left out.

    A file that has grown large is rewritten with what counts.
    """
    path = directory / _FILE
    try:
        data = path.read_bytes()
    except OSError:
        return Durations()
    found = Durations(s for line in data.splitlines() if (s := parse_line(line)) is not None)
    if len(data) > _COMPACT:
        # What another process appends meanwhile is lost: one sample, not a result.
        with contextlib.suppress(OSError):
            fresh = path.with_name(f"{_FILE}.{os.getpid()}")
            fresh.write_bytes(b"".join(_line_of(s) for s in found))
            fresh.replace(path)
    return found


def append(directory: Path, samples: Iterable[Sample]) -> None:
    """Add samples to the store's database, each with one write.

    They only help later builds: where they can't be written, this one doesn't fail.
    """
    with contextlib.suppress(StoreError):
        add(directory, samples)


def add(directory: Path, samples: Iterable[Sample]) -> None:
    """As `append`, for who has been asked to.

    Raises:
        StoreError: they can't be written.
    """
    path = directory / _FILE
    try:
        directory.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            for sample in samples:
                # The newline first ends what a full disk may have cut off.
                os.write(fd, b"\n" + _line_of(sample))
        finally:
            os.close(fd)
    except OSError as e:
        raise StoreError(f"can't be written: {e.strerror or e}", where=str(path)) from e


def parse_line(line: bytes) -> Sample | None:
    """One sample; None for anything else."""
    try:
        value = json.loads(line)
        return from_json(value)
    except (ValueError, TypeError, RecursionError):
        return None


def from_json(value: Any) -> Sample:
    """A sample from what `to_json` gave.

    Raises:
        TypeError: it isn't that.
    """
    if not isinstance(value, dict):
        raise TypeError("a sample is an object")
    numbers = dict(value)
    inner = numbers.pop("features", None)
    if not isinstance(inner, dict):
        raise TypeError("a sample has features")
    features = Features(**inner)
    sample = Sample(features=features, **numbers)
    for part in (features, sample):
        for field in fields(part):
            got = getattr(part, field.name)
            if type(got).__name__ != field.type or (type(got) is int and got < 0):
                raise TypeError(f"{field.name} is {got!r}")
    if features.kernels < 1 or (features.kind == "device" and features.block_size < 1):
        raise TypeError("no kernel, or one without threads")
    return sample


def _line_of(sample: Sample) -> bytes:
    return json.dumps(asdict(sample), separators=(",", ":")).encode() + b"\n"
