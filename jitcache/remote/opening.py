"""From a remote's URL to what speaks its protocol."""

from __future__ import annotations

import urllib.parse
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from jitcache.errors import InputError
from jitcache.remote.chain import Guarded
from jitcache.remote.config import RemoteConfig, load_remotes
from jitcache.remote.fetch import Fetcher
from jitcache.remote.interface import Remote
from jitcache.sign.trust import load_trust
from jitcache.store.store import Store

if TYPE_CHECKING:
    from jitcache.remote.oci import OciClient


def open_remote(config: RemoteConfig) -> Guarded:
    """A remote, not yet asked anything.

    Raises:
        InputError: the URL isn't one, or needs an extra that isn't installed.
    """
    return Guarded(
        config.name,
        _remote(config),
        writable=config.writable,
        signed=config.signed,
        deadline_s=config.deadline_s,
    )


def open_fetcher(store: Store, targets: Collection[str]) -> Fetcher | None:
    """What asks all configured remotes; None where there are none.

    Raises:
        InputError: the configuration or the trust file is malformed.
    """
    remotes = load_remotes()
    if not remotes:
        return None
    return Fetcher(store, [open_remote(r) for r in remotes], load_trust(), targets)


def _remote(config: RemoteConfig) -> Remote:
    from jitcache.remote.keyed import KeyedRemote

    scheme, _, rest = config.url.partition("://")
    if scheme == "file":
        from jitcache.remote.directory import DirectoryObjects

        place = urllib.parse.unquote(rest)
        return KeyedRemote(DirectoryObjects(Path(place)), place)
    if scheme in {"oci", "oci+http"}:
        return _oci(config, scheme, rest)
    if scheme in {"http", "https"}:
        from jitcache.remote.http import HttpObjects

        return KeyedRemote(HttpObjects(config.url, config.deadline_s), rest.partition("/")[0])
    from jitcache.remote.objects import BucketObjects

    return KeyedRemote(BucketObjects(config.url, config.deadline_s), rest.partition("/")[0])


def _oci(config: RemoteConfig, scheme: str, rest: str) -> Remote:
    from jitcache.remote.oci_actions import OciRemote

    host, _, repository = rest.partition("/")
    client = open_repository(scheme, host, repository.strip("/"), config.deadline_s)
    if client is None:
        raise InputError(
            "a repository is written oci://HOST[:PORT]/NAME", where=f"remote {config.name}"
        )
    return OciRemote(client)


def open_repository(scheme: str, host: str, repository: str, deadline_s: float) -> OciClient | None:
    """A repository of a registry with the user's credentials; None for what can't be one.

    Args:
        scheme: `oci`, or `oci+http` for one without TLS.
        host: with the port, if it has one.
        repository: e.g. `kernels/kimi`.
        deadline_s: seconds for one request.
    """
    from jitcache.remote.credentials import find
    from jitcache.remote.oci import OciClient
    from jitcache.remote.transport import LOOPBACK, split

    parts = split(f"https://{host}/")
    if parts is None or not repository:
        return None
    # As container tools do: a registry on this machine is asked without TLS.
    plain = scheme == "oci+http" or parts[0].host in LOOPBACK
    origin = split(f"{'http' if plain else 'https'}://{host}/")
    assert origin is not None  # noqa: S101
    return OciClient(origin[0], repository, credentials=find(host), timeout=deadline_s)
