"""Where one job of a run lives, and the exact command it is compiled by. Pure.

The compiler is started in the run directory with relative paths and a clean environment:
neither the place of the store nor a variable of the caller can change an output's bytes
behind the key's back.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from jitcache.build.model import CompileJob
from jitcache.toolchain.environment import FIXED, PASSED_ON

ACTIONS = "actions"
TEMPORARY = "tmp"
DEPFILE = "depfile.d"
DIAGNOSTICS = "diagnostics.txt"

_ID_DIGITS = 16
_PLACEHOLDER = re.compile(r"\{(source|output|depfile)\}")
# ninja has no escape for a newline or a bar in a path, and none is needed.
_BAD_NAME = re.compile(r"[\x00-\x1f\x7f/|]")
_BAD_WORD = re.compile(r"[\x00\n\r]")


@dataclass(frozen=True, slots=True)
class Action:
    """One job's place in the run directory; all paths are relative to it.

    Attributes:
        job: the job.
        id: first 16 hex digits of the key: names the directory, the events and the edge.
        source: the translation unit.
        output: what the compiler writes.
        depfile: the compiler's dependency file.
        diagnostics: everything the compiler said.
        argv: the command line, placeholders replaced.
        needs_depfile: whether the command line asks the compiler for a dependency file.
    """

    job: CompileJob
    id: str
    source: str
    output: str
    depfile: str
    diagnostics: str
    argv: tuple[str, ...]
    needs_depfile: bool


def action_id(key: str) -> str:
    """What names a job's directory, events and edge: the first digits of its key."""
    return key.removeprefix("sha256:")[:_ID_DIGITS]


def action_of(job: CompileJob) -> Action:
    """Lay one job out.

    Raises:
        ValueError: a file name, word or variable that can't stand in a build file; these
            come from our own code, so it is a bug.
    """
    ident = action_id(job.key)
    if not re.fullmatch(r"[0-9a-f]{16}", ident):
        raise ValueError(f"{job.key!r} is not an action key")
    names = (job.source_name, job.output_name, DEPFILE, DIAGNOSTICS)
    for name in names:
        if not name or name in {".", ".."} or _BAD_NAME.search(name):
            raise ValueError(f"{name!r} can't name a file of an action")
    if len(set(names)) < len(names):
        raise ValueError(f"two files of {job.label} have one name: {', '.join(names)}")
    if not job.argv:
        raise ValueError(f"{job.label} has no command")
    for word in (*job.argv, *(part for pair in job.env for part in pair)):
        if _BAD_WORD.search(word):
            raise ValueError(f"{word!r} of {job.label} can't stand in a build file")
    for name, _ in job.env:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError(f"{name!r} of {job.label} is not a variable's name")

    place = f"{ACTIONS}/{ident}"
    paths = {
        "source": f"{place}/{job.source_name}",
        "output": f"{place}/{job.output_name}",
        "depfile": f"{place}/{DEPFILE}",
    }
    return Action(
        job=job,
        id=ident,
        **paths,
        diagnostics=f"{place}/{DIAGNOSTICS}",
        argv=tuple(_PLACEHOLDER.sub(lambda m: paths[m[1]], word) for word in job.argv),
        needs_depfile=any("{depfile}" in word for word in job.argv),
    )


def actions_of(jobs: Sequence[CompileJob]) -> tuple[Action, ...]:
    """Lay all jobs of a run out, in their order.

    Raises:
        ValueError: two jobs would share a directory, or one is malformed.
    """
    actions = tuple(action_of(job) for job in jobs)
    seen: dict[str, Action] = {}
    for action in actions:
        other = seen.setdefault(action.id, action)
        if other is not action:
            raise ValueError(f"{other.job.label} and {action.job.label} share a key")
    return actions


def longest_first(actions: Sequence[Action]) -> tuple[Action, ...]:
    """The order to start in: highest expected cost first, unknown ones before all.

    A long TU that is started last makes the build longer by almost its whole time; of one
    nobody has measured, that has to be assumed.
    """
    unknown = float("inf")
    return tuple(
        sorted(actions, key=lambda a: -(unknown if a.job.cost_s is None else a.job.cost_s))
    )


def reproduce_command(action: Action, directory: str) -> str:
    """A line for a POSIX shell that runs the compiler as the build did.

    Args:
        action: what to run.
        directory: absolute path of the run directory.
    """
    variables = [f'{name}="${name}"' for name in PASSED_ON]
    variables += [f"{name}={value}" for name, value in FIXED.items()]
    variables.append(f'TMPDIR="$PWD/{TEMPORARY}"')
    variables += [f"{name}={shlex.quote(value)}" for name, value in action.job.env]
    return f"cd {shlex.quote(directory)} && env -i {' '.join(variables)} {shlex.join(action.argv)}"
