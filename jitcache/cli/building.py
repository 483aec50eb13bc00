"""What the commands that build have in common."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jitcache.cli import output
from jitcache.store.layout import Bucket
from jitcache.store.store import Store
from jitcache.toolchain.launcher import LAUNCHERS
from jitcache.userconfig import remotes_configured

if TYPE_CHECKING:
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
