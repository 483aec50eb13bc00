"""Action keys: what decides the bytes of an output, and nothing else. Pure.

A key is the digest of a canonical record of every input: the rendered source, the headers
that are really read, the compiler, linker and device libraries by content, the flags, the
target, and a salt with which results can be disowned. No path, user name, time or
environment variable of the machine is in it (compilers run in an environment of our own),
so equal inputs give equal keys everywhere.

The *direct key* covers what is known without running anything. The memo remembers which
action key it stood for and which headers that key covered; if they are unchanged, the action
key is known in well under a millisecond (the idea is ccache's direct mode).
"""

from __future__ import annotations

from typing import Any

from jitcache import digest
from jitcache._version import __version__
from jitcache.action.command import Command
from jitcache.toolchain.model import Toolchain

SCHEMA = 1
"""Version of the record; a change of meaning takes a new number, and so new keys."""


def action_inputs(
    *,
    kind: str,
    source: str,
    headers: str,
    command: Command,
    toolchain: Toolchain,
    arch: str,
    salt: str,
) -> dict[str, Any]:
    """The canonical record of an action's inputs.

    Args:
        kind: `device`, `host-shim`, or `bitcode` (half a device compile: jitcache/sweep.py).
        source: digest of the translation unit's text.
        headers: digest of the header listing (`headers.listing`).
        command: flags and include order.
        toolchain: the digests of its parts.
        arch: target architecture.
        salt: what the user added to disown earlier results; "" usually.
    """
    return {
        "schema": SCHEMA,
        "kind": kind,
        "source": source,
        "headers": headers,
        "flags": list(command.flags),
        "includes": list(command.includes),
        "parts": {
            p.name: p.digest
            for p in toolchain.parts
            if p.digest and not (p.host_only and kind != "host-shim")
        },
        "target": arch,
        "salt": salt,
    }


def action_key(inputs: dict[str, Any]) -> str:
    """The key of an action."""
    return digest.of_json(inputs)


def direct_key(
    *,
    recipe: str,
    command: Command,
    toolchain: Toolchain,
    arch: str,
    salt: str,
) -> str:
    """What the memo knows an action by, on this machine.

    Args:
        recipe: identity of the translation unit's recipe.
        command: its whole command line, with this machine's paths.
        toolchain: the digests of its parts.
        arch: target architecture.
        salt: as in `action_inputs`.
    """
    return digest.of_json(
        {
            # Another version of this program may compute keys in another way.
            "jitcache": __version__,
            "schema": SCHEMA,
            "recipe": recipe,
            "argv": list(command.argv),
            "parts": {p.name: p.digest for p in toolchain.parts if p.digest},
            "toolchain": toolchain.id,
            "target": arch,
            "salt": salt,
        }
    )
