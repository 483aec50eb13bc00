"""What the commands that build have in common."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jitcache.cli import output
from jitcache.errors import ForbiddenError
from jitcache.runtime.policy import POLICY_VARIABLE, jit_policy
from jitcache.store.layout import Bucket
from jitcache.store.model import Hit
from jitcache.store.store import Store
from jitcache.toolchain.launcher import LAUNCHERS
from jitcache.userconfig import remotes_configured

if TYPE_CHECKING:
    from jitcache.action.actions import Action
    from jitcache.build.model import CompileJob, Event
    from jitcache.build.progress import Progress
    from jitcache.store.locks import Busy
    from jitcache.store.model import ActionRecord

SALT_VARIABLE = "JITCACHE_SALT"

launcher_option = click.option(
    "--launcher", type=click.Choice(LAUNCHERS), help="Compiler launcher in front of the compiler."
)


def fetch_from_remotes(
    store: Store, targets: Collection[str]
) -> Callable[[str], ActionRecord | None] | None:
    """What asks the configured remotes; None where there are none."""
    if not remotes_configured():
        return None
    from jitcache.remote.fetch import Fetched
    from jitcache.remote.opening import open_fetcher

    fetcher = open_fetcher(store, targets)
    if fetcher is None:
        return None
    said: set[tuple[str, str]] = set()

    def fetch(key: str) -> ActionRecord | None:
        got = fetcher.fetch(key)
        if isinstance(got, Fetched):
            return got.record
        for remote, reason in got.reasons:
            if (remote, reason) not in said:
                said.add((remote, reason))
                output.say(f"note: remote {remote}: {reason}")
        return None

    return fetch


def heed_policy(
    store: Store,
    what: str,
    actions: Sequence[Action],
    fetch: Callable[[str], ActionRecord | None] | None,
) -> None:
    """Refuse or announce a compile, as a policy says that was set.

    Args:
        store: where results are looked up.
        what: what is built, for people.
        actions: what it consists of.
        fetch: asks the remotes for what the store lacks.

    Raises:
        ForbiddenError: something would have to be compiled, and the policy forbids it.
    """
    # Without one, who runs a command that builds wants to build.
    policy = jit_policy() if os.environ.get(POLICY_VARIABLE) else "allow"
    if policy == "allow":
        return
    missing = [
        a.label
        for a in actions
        if not isinstance(store.lookup(a.key), Hit) and (fetch is None or fetch(a.key) is None)
    ]
    if not missing:
        return
    if policy == "forbid":
        raise ForbiddenError(
            f"{len(missing)} of {len(actions)} actions would have to be compiled, and"
            f" {POLICY_VARIABLE}=forbid",
            where=what,
            details=tuple(missing),
            hint="`jitcache warm --from PACK` fetches what was built elsewhere;"
            f" {POLICY_VARIABLE}=allow builds it here",
        )
    output.say(f"warning: {POLICY_VARIABLE}=warn: {len(missing)} actions are compiled here")
    for label in missing:
        output.say(f"  {label}")


def default_lock_path(store: Store, manifest: str, arch: str) -> Path:
    """Where `prebuild` writes a lock file when not told otherwise."""
    return store.layout.bucket(Bucket.LOCKS) / f"{manifest}.{arch}.lock.json"


class Show:
    """What people see while it builds."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._progress: Progress | None = None

    def start(self, jobs: list[CompileJob], parallel: int) -> None:
        """Compilers are about to start."""
        from jitcache.build.progress import Progress

        self.close()
        self._progress = Progress(jobs, parallel, quiet=self._quiet)
        self._progress.__enter__()

    def event(self, event: Event) -> None:
        """One started or ended."""
        if self._progress is not None:
            self._progress.event(event)

    def wait(self, busy: Busy) -> None:
        """We wait for another process."""
        text = f"waiting for {busy.holder or 'another process'} ({busy.waited_s:.0f} s)"
        if self._quiet:
            return
        if self._progress is not None:
            self._progress.line(text)
        else:
            output.say(text)

    def close(self) -> None:
        """Nothing runs any more."""
        if self._progress is not None:
            self._progress.__exit__(None, None, None)
            self._progress = None
