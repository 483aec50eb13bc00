"""Jobs of the stub compiler, for the tests of the build engine."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from jitcache.build.model import CompileJob, Event
from jitcache.build.runner import run

STUB = Path(__file__).with_name("build_stub.py")


def key(name: str) -> str:
    return "sha256:" + hashlib.sha256(name.encode()).hexdigest()


def job(
    name: str,
    *words: str,
    cost_s: float | None = None,
    memory: int | None = None,
    env: tuple[tuple[str, str], ...] = (),
    source_name: str = "tu.cu",
    output_name: str = "kernel.co",
) -> CompileJob:
    argv = (sys.executable, "-I", "-S", str(STUB), "{source}", "{output}", "{depfile}", *words)
    return CompileJob(
        key=key(name),
        label=name,
        source_name=source_name,
        source=f"source of {name}\n",
        output_name=output_name,
        argv=argv,
        cost_s=cost_s,
        memory=memory,
        env=env,
    )


class Log(list[Event]):
    """Events in the order they came, by kind and label."""

    def names(self, kind: type) -> list[str]:
        found = []
        for event in self:
            if isinstance(event, kind):
                inner = getattr(event, "compiled", None) or getattr(event, "failure", event)
                found.append(inner.job.label)
        return found


__all__ = ["STUB", "Log", "job", "key", "run"]
