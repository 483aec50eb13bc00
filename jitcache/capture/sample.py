"""One launch written as a capsule with the expected result in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from jitcache.capture.case import make_case
from jitcache.capture.choice import Choice, Launch
from jitcache.lockfile import Lock
from jitcache.runtime import capsule
from jitcache.runtime.capsule import Capsule
from jitcache.runtime.load import open_module
from jitcache.runtime.stages import Stages
from jitcache.store.store import Store


@dataclass(frozen=True, slots=True)
class Sample:
    """A capsule that was written.

    Attributes:
        file: its path.
        choice: family and architecture.
        launch: instance and sizes.
        capsule: what is in it.
    """

    file: Path
    choice: Choice
    launch: Launch
    capsule: Capsule

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        held = self.capsule
        return {
            "file": self.file.name,
            "family": self.choice.family,
            "arch": self.choice.arch,
            "stage": self.launch.instance.stage,
            "instance": held.instance,
            "symbol": held.symbol,
            "grid": list(held.grid),
            "block": list(held.block),
            "problem": held.problem,
            "experts": self.launch.experts,
            "tolerance": held.out.tolerance,
            "bytes": self.file.stat().st_size,
        }


def write_samples(
    choice: Choice, lock: Lock, store: Store, directory: Path, *, seed: int = 0
) -> tuple[Sample, ...]:
    """Write a family's two capsules as `<family>.<arch>.stage<N>.capsule`.

    Args:
        choice: the family and its launches.
        lock: its kernels, which are in the store.
        store: where they are.
        directory: where to write; it exists.
        seed: another seed gives other values.

    Raises:
        RefusedError: a kernel is missing or damaged.
        StoreError: a file can't be written.
    """
    module = open_module(lock, lock.modules[0], store, remotes=False)
    stages = Stages(module, host_memory=True)
    return tuple(_write(choice, launch, stages, directory, seed) for launch in choice.launches)


def _write(choice: Choice, launch: Launch, stages: Stages, directory: Path, seed: int) -> Sample:
    case = make_case(launch, choice.arch, seed)
    made = stages.capture(stages.check(launch.instance.stage, **case.arguments))
    expected = case.expected.contiguous().view(torch.uint8).numpy().tobytes()
    made = made.with_expected(expected, case.roundings).without_addresses()
    name = f"{choice.family}.{choice.arch}.stage{launch.instance.stage}.capsule"
    capsule.write(directory / name, made)
    return Sample(directory / name, choice, launch, made)
