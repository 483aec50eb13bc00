"""The compiler passes behind a build's command, to run them once more elsewhere. Pure.

A driver (clang, hipcc) starts one `-cc1` process per pass: host, and each device target.
`-###` makes it print them instead. Only such a process takes `-ftime-trace=` for every
pass: clang 22's driver doesn't hand it to device passes.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

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
    while words and posixpath.basename(words[0]) in _WRAPPERS:
        words.pop(0)
    return CompileCommand(tuple(words), tuple(env), directory, own)
