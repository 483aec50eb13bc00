"""`jitcache selftest`: run every kernel that was built, and compare it with the reference."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import click

from jitcache.cli import output
from jitcache.errors import JitcacheError
from jitcache.runtime.load import load_all
from jitcache.selftest.check import check
from jitcache.selftest.model import CannotTestError, Result, kernels
from jitcache.selftest.runners import emulator, gpu

_HEADER = ("kernel", "result", "error", "allowed", "ms", "why")


@click.command()
@click.argument("what")
@click.option("--arch", help="Which architecture, where WHAT was built for several.")
@click.option("--kernel", "text", default="", help="Only kernels whose name holds this text.")
@click.option("--emulate", is_flag=True, help="On an emulator instead of a GPU.")
@click.option("--device", type=int, default=0, show_default=True, help="Device index.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the random inputs.")
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    help="Largest relative error; what rounding explains when not given.",
)
@output.json_option
def command(
    what: str,
    arch: str | None,
    text: str,
    emulate: bool,
    device: int,
    seed: int,
    tolerance: float | None,
    as_json: bool,
) -> None:
    """Run every kernel of WHAT with small random inputs, and compare with the reference.

    Runs them on a GPU, or with --emulate on the CPU, from their machine code.

    WHAT is a lock file, a manifest's name or a module's name.
    """
    modules = load_all(what, arch=arch)
    chosen = kernels(modules, text)
    try:
        runner = emulator(modules) if emulate else gpu(modules, device)
        results = []
        for number, kernel in enumerate(chosen, 1):
            # Said before: on a GPU, a kernel that faults takes the process with it.
            output.say(f"[{number}/{len(chosen)}] {kernel.label}")
            results.append(check(kernel, runner, seed=seed, tolerance=tolerance))
        _refuse_if_nothing_was_compared(results)
    except CannotTestError as e:
        if as_json:
            output.emit_json(
                {"status": "unsupported", "reason": e.reason, "detail": e.what, "hint": e.hint}
            )
        raise
    bad = [r for r in results if r.status in ("wrong", "failed")]
    if as_json:
        head = {"status": "wrong" if bad else "ok", "device": runner.to_json(), "seed": seed}
        output.emit_json(head | _json(results))
    else:
        output.out(output.table(_HEADER, [_row(r) for r in results], right="llrrrl"))
    if bad:
        raise JitcacheError(
            f"{len(bad)} of {len(results)} kernels are not as the reference has them",
            where=what,
            hint="don't serve with them; `jitcache verify` checks the stored objects",
        )


def _refuse_if_nothing_was_compared(results: list[Result]) -> None:
    if all(r.status == "skipped" for r in results):
        reasons = "; ".join(sorted({r.reason for r in results}))
        raise CannotTestError("all-skipped", reasons, None)


def _row(result: Result) -> tuple[str, ...]:
    def number(value: float | None, form: str) -> str:
        return "" if value is None or math.isinf(value) else format(value, form)

    return (
        result.kernel.label,
        result.status,
        number(result.error, ".6f"),
        number(result.tolerance, ".6f"),
        number(result.ms, ".2f"),
        result.reason,
    )


def _json(results: list[Result]) -> dict[str, Any]:
    counts = Counter(r.status for r in results)
    return {
        "counts": {word: counts[word] for word in ("ok", "wrong", "failed", "skipped")},
        "kernels": [
            {
                "module": r.kernel.module.name,
                "instance": r.kernel.instance.name,
                "variant": str(r.kernel.which),
                "symbol": r.kernel.variant.kernel,
                "status": r.status,
                "reason": r.reason,
                # JSON has no infinity; the reason says that it is one.
                "error": None if r.error is None or math.isinf(r.error) else r.error,
                "tolerance": r.tolerance,
                "ms": r.ms,
            }
            for r in results
        ],
    }
