"""Sets of LLVM options, and a toolchain that has them."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace

from jitcache import digest
from jitcache.action.split import mllvm_options, without_mllvm
from jitcache.errors import InputError
from jitcache.toolchain.model import Toolchain


@dataclass(frozen=True, slots=True)
class FlagSet:
    """Options of LLVM's to try together.

    Attributes:
        options: each as it stands behind `-mllvm`; none for the product's own flags.
    """

    options: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join(self.options) or "(the product's own flags)"


def parse_flag_set(text: str) -> FlagSet:
    """A set from a command line: options separated by blanks.

    Raises:
        InputError: it holds no option, or a word that is none.
    """
    try:
        words = tuple(shlex.split(text))
    except ValueError as e:
        raise InputError(f"can't be read: {e}", where=text) from None
    bad = [w for w in words if not w.startswith("-") or w in ("-mllvm", "-", "--")]
    if not words or bad:
        raise InputError(
            f"is no set of options: {bad[0]!r}" if bad else "is no set of options",
            where=text,
            hint="write them as behind -mllvm: --mllvm '-enable-misched=0 --slp-threshold=0'",
        )
    return FlagSet(words)


def with_flags(toolchain: Toolchain, flags: FlagSet) -> Toolchain:
    """The toolchain with these back-end options; they take the place of its own of one name."""
    if not flags.options:
        return toolchain
    names = {_name(o) for o in flags.options}
    kept = [o for o in mllvm_options(toolchain.device_flags) if _name(o) not in names]
    device = (
        *without_mllvm(toolchain.device_flags),
        *(word for option in (*kept, *flags.options) for word in ("-mllvm", option)),
    )
    tag = digest.of_json(list(device))[7:15]
    return replace(toolchain, device_flags=device, id=f"{toolchain.id}-{tag}")


def _name(option: str) -> str:
    return option.lstrip("-").partition("=")[0]
