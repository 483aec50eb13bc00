"""`jitcache remote`: list remotes, or prove them end to end."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from jitcache import digest
from jitcache.cli import output
from jitcache.errors import JitcacheError
from jitcache.remote.config import choose, load_remotes

if TYPE_CHECKING:
    from jitcache.remote.chain import Guarded


@click.group()
def command() -> None:
    """List remotes, or prove them end to end."""


@command.command()
@output.json_option
def ls(as_json: bool) -> None:
    """List the configured remotes in the order in which they are asked."""
    remotes = load_remotes()
    if as_json:
        output.emit_json(
            [
                {
                    "name": r.name,
                    "url": r.url,
                    "mode": "rw" if r.writable else "ro",
                    "signatures": "required" if r.signed else "off",
                    "deadline_s": r.deadline_s,
                }
                for r in remotes
            ]
        )
        return
    rows = [
        (r.name, "rw" if r.writable else "ro", "required" if r.signed else "off", r.url)
        for r in remotes
    ]
    output.out(output.table(("NAME", "MODE", "SIGNATURES", "URL"), rows) if rows else "no remotes")


@dataclass(frozen=True, slots=True)
class _Step:
    """One thing that was tried."""

    name: str
    ok: bool
    detail: str


@command.command()
@click.argument("names", nargs=-1)
@output.json_option
def check(names: tuple[str, ...], as_json: bool) -> None:
    """Ask each remote (or those named) for something it can't have; where `rw`, put and get."""
    from jitcache.remote.opening import open_remote

    remotes = load_remotes()
    wanted = [choose(remotes, n) for n in names] or list(remotes)
    results = []
    for config in wanted:
        begin = time.monotonic()
        steps = _prove(open_remote(config))
        results.append((config.name, steps, time.monotonic() - begin))
    failed = [name for name, steps, _ in results if not all(s.ok for s in steps)]
    if as_json:
        output.emit_json(
            [
                {
                    "name": name,
                    "ok": name not in failed,
                    "seconds": round(seconds, 3),
                    "steps": [{"step": s.name, "ok": s.ok, "detail": s.detail} for s in steps],
                }
                for name, steps, seconds in results
            ]
        )
    else:
        rows = [
            (n, s.name, "ok" if s.ok else "failed", s.detail) for n, ss, _ in results for s in ss
        ]
        output.out(
            output.table(("REMOTE", "STEP", "RESULT", "DETAIL"), rows) if rows else "no remotes"
        )
    if failed:
        raise JitcacheError(
            f"{len(failed)} of {len(results)} remotes can't be used as configured",
            where=", ".join(failed),
        )


def _prove(remote: Guarded) -> list[_Step]:
    from jitcache.remote.interface import Absent, Failed, Found

    absent = remote.get_record(digest.of_bytes(os.urandom(32)))
    if not isinstance(absent, Absent):
        detail = absent.detail if isinstance(absent, Failed) else "it has what nobody can have put"
        return [_Step("reach", False, detail)]
    steps = [_Step("reach", True, "answers, and says what it doesn't have")]
    if not remote.writable:
        return steps
    data = os.urandom(2048)
    name = digest.of_bytes(data)
    put = remote.put_blob(name, data)
    steps.append(_Step("write", not isinstance(put, Failed), getattr(put, "detail", "")))
    if isinstance(put, Failed):
        return steps
    got = remote.get_blob(name, len(data))
    detail = got.detail if isinstance(got, Failed) else "the same bytes came back"
    steps.append(_Step("read back", isinstance(got, Found), detail))
    once = remote.creates_once()
    if isinstance(once, Failed):
        steps.append(_Step("first write wins", False, once.detail))
    else:
        said = "by the server" if once else "only by looking first: let one writer push at a time"
        steps.append(_Step("first write wins", True, said))
    return steps
