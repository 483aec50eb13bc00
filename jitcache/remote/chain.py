"""Remotes within bounds: a dead one costs a stated time, once, and fails nothing.

All attempts at one operation share one deadline; when it has passed, or every attempt has
failed, the remote is left out for the rest of the process. An operation runs in a thread of
its own, because neither a name lookup nor a hung network file system can be timed out.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from jitcache.remote.interface import Absent, Failed, Got, Put, Remote
from jitcache.remote.transport import allowance

DEADLINE_S = 5.0
"""Seconds for one operation; a second more for each MiB that is moved."""

_ATTEMPTS = 3
_PAUSE_S = 0.1

T = TypeVar("T")


class Bounds:
    """What keeps a server that hangs or fails from costing more than is stated.

    Args:
        deadline_s: seconds for one operation.

    Attributes:
        down: why the server is left out, once it is.
    """

    def __init__(self, deadline_s: float = DEADLINE_S) -> None:
        self.down: str | None = None
        self._deadline_s = deadline_s

    def run(self, work: Callable[[], T], size: int) -> T | Failed:
        """Try an operation that moves some bytes, for as long as it may take."""
        if self.down is not None:
            return Failed("unavailable", f"left out: {self.down}")
        until = time.monotonic() + allowance(self._deadline_s, size)
        result: T | Failed = Failed("unavailable", "no answer in time")
        for attempt in range(_ATTEMPTS):
            left = until - time.monotonic()
            if left <= 0:
                break
            result = _in_time(work, left)
            if not isinstance(result, Failed) or result.kind != "unavailable":
                return result
            if attempt + 1 < _ATTEMPTS:
                time.sleep(min(_PAUSE_S * 2**attempt, max(0.0, until - time.monotonic())))
        assert isinstance(result, Failed)  # noqa: S101
        self.down = result.detail
        return result


class Guarded(Bounds):
    """A remote, its rights and its bounds.

    Args:
        name: for people and for `--to`.
        remote: what does the work.
        writable: whether `push` may write there.
        signed: whether its records have to be signed.
        deadline_s: seconds for one operation.
    """

    def __init__(
        self,
        name: str,
        remote: Remote,
        *,
        writable: bool = False,
        signed: bool = True,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        super().__init__(deadline_s)
        self.name = name
        self.writable = writable
        self.signed = signed
        self._remote = remote
        self._absent: set[str] = set()

    def get_record(self, key: str) -> Got:
        """As the remote's; what it said it doesn't have it isn't asked for again."""
        if key in self._absent:
            return Absent()
        got = self.run(lambda: self._remote.get_record(key), 0)
        if isinstance(got, Absent):
            self._absent.add(key)
        return got

    def put_record(self, key: str, data: bytes, blobs: tuple[tuple[str, int], ...]) -> Put:
        """As the remote's."""
        self._absent.discard(key)
        return self.run(lambda: self._remote.put_record(key, data, blobs), len(data))

    def get_blob(self, digest: str, size: int) -> Got:
        """As the remote's."""
        return self.run(lambda: self._remote.get_blob(digest, size), size)

    def put_blob(self, digest: str, data: bytes) -> Put:
        """As the remote's."""
        return self.run(lambda: self._remote.put_blob(digest, data), len(data))

    def creates_once(self) -> bool | Failed:
        """As the remote's."""
        return self.run(self._remote.creates_once, 0)


def _in_time(work: Callable[[], T], seconds: float) -> T | Failed:
    results: list[T | Failed] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as e:  # noqa: BLE001 -- raised again in the caller's thread
            errors.append(e)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    return results[0] if results else Failed("unavailable", "no answer in time")
