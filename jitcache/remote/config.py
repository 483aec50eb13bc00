"""Which remotes this user has: `config.toml` in the user's configuration, or `JITCACHE_REMOTES`.

Nothing else can add one: no file of a project, no manifest, no lock file.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from jitcache.errors import InputError, UsageError
from jitcache.userconfig import REMOTES_VARIABLE as VARIABLE
from jitcache.userconfig import user_config

_KEYS = {"name", "url", "mode", "signatures", "deadline_s"}
_SCHEMES = ("file", "http", "https", "oci", "oci+http", "s3", "gs", "az")


@dataclass(frozen=True, slots=True)
class RemoteConfig:
    """One remote as it was configured.

    Attributes:
        name: for people and for `--to`.
        url: without credentials.
        writable: `rw` rather than `ro`.
        signed: False where the user said `signatures = "off"`.
        deadline_s: seconds for one operation.
    """

    name: str
    url: str
    writable: bool = False
    signed: bool = True
    deadline_s: float = 5.0


def load_remotes() -> tuple[RemoteConfig, ...]:
    """The remotes, in the order in which they are asked.

    `JITCACHE_REMOTES`, if it is set at all, replaces those of the file.

    Raises:
        InputError: the variable or the file is malformed, or can't be believed.
    """
    said = os.environ.get(VARIABLE)
    if said is not None:
        return _distinct([_of_word(w, i) for i, w in enumerate(said.split(), 1)], VARIABLE)
    where, document = user_config()
    entries = document.get("remote", [])
    if not isinstance(entries, list):
        raise InputError("must have remotes as [[remote]] tables", where=where)
    return _distinct([_of_table(e, f"{where}: remote {i}") for i, e in enumerate(entries)], where)


def choose(remotes: tuple[RemoteConfig, ...], name: str) -> RemoteConfig:
    """The remote of a name.

    Raises:
        UsageError: there is none.
    """
    for remote in remotes:
        if remote.name == name:
            return remote
    raise UsageError(
        f"there is no remote {name!r}",
        hint="`jitcache remote ls` lists them: " + (", ".join(r.name for r in remotes) or "none"),
    )


def _of_word(word: str, number: int) -> RemoteConfig:
    mode, colon, url = word.partition(":")
    writable = mode == "rw"
    if not colon or mode not in {"ro", "rw"}:
        url = word
    return RemoteConfig(f"env{number}", _url(url, f"{VARIABLE}, word {number}"), writable)


def _of_table(entry: Any, where: str) -> RemoteConfig:
    if not isinstance(entry, dict):
        raise InputError("must be a table", where=where)
    for key in entry:
        if key not in _KEYS:
            raise InputError(f"has the unknown key {key!r}", where=where, hint=_known())
    words = {k: entry.get(k, d) for k, d in (("mode", "ro"), ("signatures", "required"))}
    name, url, deadline = entry.get("name"), entry.get("url"), entry.get("deadline_s", 5)
    if not isinstance(name, str) or not name or not name.isprintable():
        raise InputError("has no name", where=where, hint=_known())
    if not isinstance(url, str):
        raise InputError("has no url", where=where, hint=_known())
    if words["mode"] not in ("ro", "rw"):
        raise InputError("mode must be ro or rw", where=where)
    if words["signatures"] not in ("required", "off"):
        raise InputError("signatures must be required or off", where=where)
    if type(deadline) not in (int, float) or not 0 < deadline <= 600:
        raise InputError("deadline_s must be between 0 and 600 seconds", where=where)
    return RemoteConfig(
        name,
        _url(url, where),
        words["mode"] == "rw",
        words["signatures"] == "required",
        float(deadline),
    )


def _known() -> str:
    return "a remote has " + ", ".join(sorted(_KEYS))


def _url(url: str, where: str) -> str:
    # The URL is never shown: it may hold a password, which is the very mistake.
    scheme, separator, rest = url.partition("://")
    authority = rest.partition("/")[0]
    if not separator or scheme not in _SCHEMES or (scheme != "file" and not authority):
        raise InputError(
            "is not the URL of a remote",
            where=where,
            hint="one of " + ", ".join(f"{s}://" for s in _SCHEMES),
        )
    if "@" in authority or "?" in rest or "#" in rest:
        raise InputError(
            "credentials and queries don't belong into a remote's URL",
            where=where,
            hint="docs/trust.md says where passwords go",
        )
    if scheme == "file" and not rest.startswith("/"):
        raise InputError("a directory is written file:///absolute/path", where=where)
    return url


def _distinct(remotes: list[RemoteConfig], where: str) -> tuple[RemoteConfig, ...]:
    names = [r.name for r in remotes]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two remotes are called {name!r}", where=where)
    return tuple(remotes)
