"""Read the dependency files that clang writes (`-MD -MF`). Pure.

Escapes as clang and gcc write them: a blank in a name has 2n+1 backslashes before it for n
real ones, `#` has one before it, `$` is doubled; a backslash at a line's end continues it.
Backslashes anywhere else are part of the name.
"""

# Objects per path would cost more than the rest of a build's overhead.
# ruff: noqa: PTH114, PTH118

from __future__ import annotations

import os
import re

_CONTINUATION = re.compile(r"\\\r?\n")
_LINE_END = re.compile(r"\r?\n")
_WORD = re.compile(
    r"(?:[^ \t\\]"  # plain
    r"|(?:\\\\)*\\[ \t]"  # an escaped blank
    r"|\\+(?![\\ \t])"  # backslashes inside a name
    r"|(?:\\\\)+(?=[ \t]))+"  # backslashes at the end of a name
)
_ESCAPED = re.compile(r"(\\+)([ \t#])|\$\$")


class DepfileError(ValueError):
    """Not a dependency file."""


def parse(data: bytes) -> tuple[str, ...]:
    """The prerequisites of all rules, in their order, each once, as the compiler wrote them.

    Args:
        data: content of the file.

    Raises:
        DepfileError: a line that is no rule, or no rule at all.
    """
    text = _CONTINUATION.sub(" ", os.fsdecode(data))
    found: dict[str, None] = {}
    rules = 0
    for line in _LINE_END.split(text):
        words = _WORD.findall(line)
        if not words:
            continue
        target = next((i for i, word in enumerate(words) if word.endswith(":")), None)
        if target is None:
            raise DepfileError(f"no target in {line[:80]!r}")
        rules += 1
        found.update(dict.fromkeys(_unescape(word) for word in words[target + 1 :]))
    if not rules:
        raise DepfileError("no rule")
    return tuple(found)


def _unescape(word: str) -> str:
    if "\\" not in word and "$" not in word:
        return word
    return _ESCAPED.sub(_plain, word)


def _plain(match: re.Match[str]) -> str:
    if match[0] == "$$":
        return "$"
    kept = len(match[1]) - 1 if match[2] == "#" else (len(match[1]) - 1) // 2
    return "\\" * kept + match[2]


def resolve(prerequisites: tuple[str, ...], directory: str) -> tuple[str, ...]:
    """Absolute paths without links, in order, each once.

    Directories are resolved once each: a CK translation unit reads more than a thousand
    headers from a few dozen of them.

    Args:
        prerequisites: as `parse` returns them.
        directory: absolute path of the directory that relative names start from.
    """
    directories: dict[str, str] = {}
    found: dict[str, None] = {}
    for name in prerequisites:
        path = os.path.join(directory, name)
        if os.path.islink(path):
            found[os.path.realpath(path)] = None
            continue
        head, tail = os.path.split(path)
        real = directories.get(head)
        if real is None:
            real = directories[head] = os.path.realpath(head)
        found[os.path.join(real, tail)] = None
    return tuple(found)
