"""The compiler passes behind a build's command, to run them once more elsewhere. Pure.

A driver (clang, hipcc) starts one `-cc1` process per pass: host, and each device target.
`-###` makes it print them instead. Only such a process takes `-ftime-trace=` for every
pass: clang 22's driver doesn't hand it to device passes.
"""

from __future__ import annotations

import json
import posixpath
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

_WRAPPERS = ("ccache", "sccache", "distcc")
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)")
_SHELL = re.compile(r"[|;&<>`]|\$\(")
# What a pass writes, and what it reads that only an earlier pass would have written.
_WRITES = (
    *("-o", "-dependency-file", "-serialize-diagnostic-file", "-header-include-file"),
    *("-opt-record-file", "-split-dwarf-output", "-diagnostic-log-file", "-stats-file"),
    *("-coverage-notes-file", "-stack-usage-file"),
)
_READS = ("-fcuda-include-gpubinary",)
_EMBEDS = "-fembed-offload-object="


@dataclass(frozen=True, slots=True)
class CompileCommand:
    """A command as a process is started, without the shell.

    Attributes:
        argv: the compiler and its arguments.
        env: what it has in its environment besides the builder's.
        directory: where it runs, relative to the build directory; "" for there.
        own: whether it is jitcache's, which compiles in a clean environment.
    """

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    directory: str = ""
    own: bool = False


@dataclass(frozen=True, slots=True)
class NoCompile:
    """Why a command can't be run once more.

    Attributes:
        reason: one clause.
    """

    reason: str


def parse_command(text: str) -> CompileCommand | NoCompile:
    """The compiler call in a shell command of build.ninja.

    Understood are CMake's `cd DIR && ...` and `: && ... && :`, assignments in front, compiler
    caches, `exec`, and the measuring wrapper around jitcache's own compilers.
    """
    try:
        lexer = shlex.shlex(text, posix=True, punctuation_chars="&|;<>")
        lexer.whitespace_split = True
        lexer.commenters = ""
        words = list(lexer)
    except ValueError as e:
        return NoCompile(f"its command can't be read: {e}")
    directory = ""
    calls: list[list[str]] = [[]]
    for word in words:
        if word == "&&":
            calls.append([])
        else:
            calls[-1].append(word)
    found: list[list[str]] = []
    for call in calls:
        if call[:1] == ["cd"] and len(call) == 2 and not found:
            directory = posixpath.join(directory, call[1])
        elif call and call != [":"]:
            found.append(call)
    if len(found) != 1:
        return NoCompile("it runs several programs" if found else "it runs nothing")
    if any(_SHELL.match(w) for w in found[0]):
        return NoCompile("it uses the shell in ways that aren't understood")
    command = _unwrapped(found[0], directory)
    return command if command.argv else NoCompile("it runs nothing")


@dataclass(frozen=True, slots=True)
class Pack:
    """A job of jitcache that compiles several kernels behind one front end (packjob.py).

    Attributes:
        runner: the interpreter and the script.
        spec: the script's argument.
    """

    runner: tuple[str, ...]
    spec: dict[str, Any]

    @property
    def front(self) -> tuple[str, ...]:
        """The driver's call that is the front end."""
        return tuple(self.spec["front"])

    def behind(self, bitcode: str, scratch: str, traces: str) -> tuple[str, ...]:
        """The same job behind a front end that has run already, with traces.

        Args:
            bitcode: what that front end wrote.
            scratch: an absolute directory for the code objects.
            traces: an absolute directory for a trace of each kernel's back end.
        """
        first, *others = self.spec["outputs"]
        spec = {
            **self.spec,
            "front": ["true"],
            "bitcode": bitcode,
            "outputs": [posixpath.join(scratch, posixpath.basename(first)), *others],
            "back": [*self.spec["back"], f"-ftime-trace={traces}/"],
        }
        return (*self.runner, json.dumps(spec))


def parse_pack(argv: Sequence[str]) -> Pack | None:
    """The job of several kernels that a command is, if it is one."""
    if len(argv) < 2 or posixpath.basename(argv[-2]) != "packjob.py":
        return None
    try:
        spec = json.loads(argv[-1])
    except (ValueError, RecursionError):
        return None
    lists = isinstance(spec, dict) and [spec.get(k) for k in ("front", "back", "outputs")]
    good = lists and all(
        isinstance(words, list) and words and all(isinstance(w, str) for w in words)
        for words in lists
    )
    return Pack(tuple(argv[:-1]), spec) if good else None


def parse_passes(said: str) -> list[tuple[str, ...]]:
    """The `-cc1` calls in what a driver printed for `-###`; none where it is no clang."""
    passes = []
    for line in said.splitlines():
        words = [_ESCAPED.sub(r"\1", w) for w in _QUOTED.findall(line)]
        if line[:2] == ' "' and words[1:2] == ["-cc1"]:
            passes.append(tuple(words))
    return passes


def retargeted(argv: Sequence[str], scratch: str, trace: str) -> tuple[str, ...]:
    """A pass that writes below another directory, and a trace.

    Args:
        argv: a `-cc1` call.
        scratch: an absolute directory.
        trace: absolute path of the trace.
    """
    found = list(argv[:2])
    words = iter(argv[2:])
    for word in words:
        if word in _READS:
            next(words, None)
        elif word.startswith((_EMBEDS, "-ftime-trace")):
            continue
        elif word in _WRITES:
            found += [word, _elsewhere(scratch, word, next(words, ""))]
        elif (option := word.partition("=")[0]) in _WRITES:
            found.append(f"{option}={_elsewhere(scratch, option, word.partition('=')[2])}")
        else:
            found.append(word)
    return (*found, f"-ftime-trace={trace}")


def _elsewhere(scratch: str, option: str, path: str) -> str:
    """A file of its own for what an option makes a pass write."""
    return posixpath.join(scratch, f"{option[1:]}-{posixpath.basename(path) or 'out'}")


def written(argv: Sequence[str]) -> str:
    """The output of a pass."""
    return dict(pairwise(argv)).get("-o", "")


def pass_target(argv: Sequence[str]) -> str:
    """What a pass compiles for: `gfx950`, or the triple of the host."""
    words = dict(pairwise(argv))
    triple = words.get("-triple", "")
    return words.get("-target-cpu", triple) if triple.startswith(("amdgcn", "nvptx")) else triple


def _unwrapped(call: list[str], directory: str) -> CompileCommand:
    """The compiler call without what stands around it."""
    env: list[tuple[str, str]] = []
    words = call[1:] if call[:1] == ["exec"] else list(call)
    while words and _ASSIGNMENT.match(words[0]):
        name, _, value = words.pop(0).partition("=")
        env.append((name, value))
    own = "--" in words and any(posixpath.basename(w) == "edge.py" for w in words[:4])
    if own:
        end = words.index("--")
        options = words[:end]
        for option, text in pairwise(options):
            if option == "--env":
                name, _, value = text.partition("=")
                env.append((name, value))
        words = words[end + 1 :]
    if own and any(posixpath.basename(w) == "packjob.py" for w in words[:4]):
        # Kernels that share a front end: that is where their compile time goes.
        words = json.loads(words[-1])["front"]
    while words and posixpath.basename(words[0]) in _WRAPPERS:
        words.pop(0)
    return CompileCommand(tuple(words), tuple(env), directory, own)
