"""Errors for people, and the exit codes that go with them.

Every failure that a user can cause or mend is a `JitcacheError`: it says what
happened, where, and what to do next. The command line prints it without a traceback and
exits with its code; anything else that escapes is a bug and exits with `ExitCode.BUG`.
"""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """Exit codes of the `jitcache` command (docs/exit-codes.md)."""

    OK = 0
    FAILED = 1
    """The work was understood and tried, and some of it failed (a TU did not compile)."""
    USAGE = 2
    """The command line is wrong."""
    INPUT = 3
    """A file given to the command is missing, malformed or says something impossible."""
    TOOLCHAIN = 4
    """No compiler, CK or device libraries that can build what was asked."""
    UNSUPPORTED = 5
    """No kernel supports the shape, type or target, or no GPU here could run it."""
    STORE = 6
    """The store can't be read or written (permission, full disk, read-only)."""
    DAMAGED = 7
    """Stored objects don't match their digests."""
    BUSY = 8
    """A lock was not released in time."""
    FORBIDDEN = 9
    """Policy forbids the compile or download that would be needed."""
    UNTRUSTED = 10
    """Nobody whom this user trusts has signed what came from outside, or it was disowned."""
    BUG = 70
    """Not the user's fault: please report it."""
    AGAIN = 75
    """A remote or the leases were lost on the way: the same command will go on from there."""
    INTERRUPTED = 130
    """Ctrl-C."""
    TERMINATED = 143
    """SIGTERM."""


class JitcacheError(Exception):
    """A failure explained to its reader.

    Args:
        what: what happened, one sentence without a final period.
        where: the file, key, path or command it happened at.
        hint: what to do next.
        details: further lines (a compiler's first error, the rejected candidates).
    """

    exit_code = ExitCode.FAILED

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        hint: str | None = None,
        details: tuple[str, ...] = (),
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint
        self.details = details

    def __str__(self) -> str:
        lines = [self.what if self.where is None else f"{self.where}: {self.what}"]
        lines.extend(f"  {line}" for line in self.details)
        if self.hint is not None:
            lines.append(f"hint: {self.hint}")
        return "\n".join(lines)


class UsageError(JitcacheError):
    """The command line is wrong in a way click can't know."""

    exit_code = ExitCode.USAGE


class InputError(JitcacheError):
    """A manifest, lock file, CSV, log or config file is malformed or impossible."""

    exit_code = ExitCode.INPUT


class ToolchainError(JitcacheError):
    """The compiler, CK or the device libraries are missing or unfit."""

    exit_code = ExitCode.TOOLCHAIN


class UnsupportedError(JitcacheError):
    """No kernel supports the shape, type or target that was asked for."""

    exit_code = ExitCode.UNSUPPORTED


class StoreError(JitcacheError):
    """The store can't be read or written."""

    exit_code = ExitCode.STORE


class DamagedError(JitcacheError):
    """Stored bytes don't match their digest."""

    exit_code = ExitCode.DAMAGED


class BusyError(JitcacheError):
    """Somebody else held a lock for longer than we wait."""

    exit_code = ExitCode.BUSY


class ForbiddenError(JitcacheError):
    """Policy forbids what would be needed."""

    exit_code = ExitCode.FORBIDDEN


class UntrustedError(JitcacheError):
    """What came from outside is not signed by anybody who is trusted."""

    exit_code = ExitCode.UNTRUSTED


class LostError(JitcacheError):
    """What workers share can't be reached any more; starting again goes on from there."""

    exit_code = ExitCode.AGAIN


class BuildError(JitcacheError):
    """One or more translation units failed to compile."""

    exit_code = ExitCode.FAILED
