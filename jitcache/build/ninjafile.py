"""Render build.ninja: one edge per job, in the order they should start. Pure.

No `deps =`: the compiler's dependency files stay where they are, because the action's key
is made from them afterwards. ninja itself reads them only if somebody runs it again by hand.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from jitcache.build.action import Action, longest_first

_REQUIRED = "1.5"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")


def escape_path(path: str) -> str:
    """A path as it stands in a `build` line."""
    return path.replace("$", "$$").replace(" ", "$ ").replace(":", "$:")


def escape_value(text: str) -> str:
    """A text as it stands behind `name = `; ninja drops leading blanks unless escaped."""
    escaped = text.replace("$", "$$")
    return f"${escaped}" if escaped.startswith(" ") else escaped


def edge_command(action: Action, python: str, edge: Path) -> str:
    """The shell command of one edge: `edge.py` around the compiler.

    Args:
        action: what to compile.
        python: interpreter that runs `edge.py`.
        edge: absolute path of `edge.py`.
    """
    words = [python, "-I", "-S", str(edge), action.id, action.diagnostics]
    words += ["--expect", action.output]
    if action.needs_depfile:
        words += ["--expect", action.depfile]
    for name, value in action.job.env:
        words += ["--env", f"{name}={value}"]
    # `exec`: the edge must be ninja's own child, or it would not hear of ninja's death.
    return "exec " + shlex.join([*words, "--", *action.argv])


def render(actions: Sequence[Action], *, python: str, edge: Path) -> str:
    """The text of build.ninja.

    ninja starts edges of equal depth in the order of the file (1.11 and 1.13: by edge id;
    newer ones weigh by earlier durations, of which a fresh directory has none), so the
    order of the file is the order of the build.

    Args:
        actions: what to compile.
        python: interpreter that runs `edge.py`.
        edge: absolute path of `edge.py`.
    """
    lines = [
        f"ninja_required_version = {_REQUIRED}",
        "",
        "rule compile",
        "  command = $words",
        "  description = $label",
        "",
    ]
    for action in longest_first(actions):
        lines.append(f"build {escape_path(action.output)}: compile {escape_path(action.source)}")
        lines.append(f"  words = {escape_value(edge_command(action, python, edge))}")
        lines.append(f"  label = {escape_value(_CONTROL.sub(' ', action.job.label))}")
        if action.needs_depfile:
            lines.append(f"  depfile = {escape_value(action.depfile)}")
        lines.append("")
    return "\n".join(lines)
