"""What to do when something isn't built (docs/design.md, D6), and the refusals of a load."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal, cast, get_args

from jitcache.errors import ExitCode, ForbiddenError, InputError, JitcacheError

POLICY_VARIABLE = "JITCACHE_JIT"

Policy = Literal["forbid", "warn", "allow"]
"""On a miss: raise; build and warn; build. Serving wants `forbid`, which is the default."""

RefusalReason = Literal[
    "missing",
    "damaged",
    "untrusted",
    "other-bytes",
    "not-a-shim",
    "other-arch",
    "other-rocm",
    "old-rocm",
]


_EXIT_CODES: dict[RefusalReason, ExitCode] = {
    "missing": ExitCode.STORE,
    "damaged": ExitCode.DAMAGED,
    "untrusted": ExitCode.UNTRUSTED,
    "other-bytes": ExitCode.DAMAGED,
    "not-a-shim": ExitCode.DAMAGED,
    "other-arch": ExitCode.UNSUPPORTED,
    "other-rocm": ExitCode.UNSUPPORTED,
    "old-rocm": ExitCode.UNSUPPORTED,
}


def jit_policy() -> Policy:
    """The policy that `JITCACHE_JIT` asks for.

    Raises:
        InputError: it is none of the three words.
    """
    word = os.environ.get(POLICY_VARIABLE) or "forbid"
    if word not in get_args(Policy):
        raise InputError(
            f"must be one of {', '.join(get_args(Policy))}, but is {word!r}", where=POLICY_VARIABLE
        )
    return cast("Policy", word)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a module, or a part of it, isn't used.

    Attributes:
        reason: `missing`: not in the store, a seed or a remote; `damaged`: stored bytes aren't
            whole; `untrusted`: only a remote has it, and what it gave isn't believed;
            `other-bytes`: the store holds another result than the lock names; `not-a-shim`: the
            host library lacks an instance of the lock; `other-arch`: built for another GPU;
            `other-rocm`: built with another major version of ROCm; `old-rocm`: the runtime is
            older than the code objects need.
        what: the object.
        detail: what exactly, for people.
    """

    reason: RefusalReason
    what: str
    detail: str

    def __str__(self) -> str:
        return f"{self.what}: {self.detail} [{self.reason}]"


class RefusedError(JitcacheError):
    """A module was refused.

    Attributes:
        refusals: each with its reason.
    """

    def __init__(self, where: str, refusals: tuple[Refusal, ...], hint: str) -> None:
        super().__init__(
            "the module can't be used", where=where, hint=hint, details=tuple(map(str, refusals))
        )
        self.refusals = refusals

    @property
    def exit_code(self) -> ExitCode:  # type: ignore[override]
        """By the first reason."""
        return _EXIT_CODES[self.refusals[0].reason]


class MissError(ForbiddenError):
    """A call needs a kernel that the module wasn't built with.

    Attributes:
        kernel: name of the instance, with its variant where the instance is there.
        why: what needs it, as a clause.
        line: what to add to the manifest.
    """

    def __init__(self, kernel: str, why: str, *, manifest: str, line: str) -> None:
        super().__init__(
            f"this module was not built with {kernel}: {why}",
            where=f"lock of {manifest}",
            hint=f"put `{line}` into the manifest {manifest} and run `jitcache prebuild` again",
        )
        self.kernel = kernel
        self.why = why
        self.line = line
