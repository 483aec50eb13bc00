"""Options of commands that sign what leaves, or believe what comes in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from jitcache.pack.signed import Belief
    from jitcache.sign.keys import SecretKey

KEY_VARIABLE = "JITCACHE_SIGNING_KEY"

key_option = click.option(
    "--key", "keys", type=Path, multiple=True, help="File of a secret key (repeatable)."
)
"""Who signs; the variable, where the option isn't given."""

signatures_option = click.option(
    "--signatures",
    type=click.Choice(["required", "off"]),
    default="required",
    show_default=True,
    help="Whether a trusted key must have signed what comes from outside.",
)
"""The same words as in the configuration of a remote."""


def load_signers(paths: tuple[Path, ...]) -> list[SecretKey]:
    """The secret keys of `--key`, else of the variable.

    Raises:
        InputError: one can't be read, or isn't one, or others can read it.
    """
    from jitcache.sign.keys import parse_secret, read_secret

    signers = [read_secret(path) for path in paths]
    if not paths and (text := os.environ.get(KEY_VARIABLE)):
        signers.append(parse_secret(text, where=KEY_VARIABLE))
    return signers


def load_belief(signatures: str) -> Belief:
    """What `--signatures` and the user's trust file say.

    Raises:
        InputError: the trust file is malformed, or can't be believed.
    """
    from jitcache.pack.signed import Belief
    from jitcache.sign.trust import load_trust

    return Belief(load_trust(), signed=signatures == "required")
