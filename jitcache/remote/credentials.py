"""Passwords for remotes: never in a URL, a log or an error.

They come from `JITCACHE_CREDENTIALS` (words `host=user:password`) or from the `auths` of
docker's config.json, for exactly the host and port that the remote's URL names.
"""

from __future__ import annotations

import base64
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

VARIABLE = "JITCACHE_CREDENTIALS"


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user's name and password; neither is shown by `repr`."""

    user: str = field(repr=False)
    password: str = field(repr=False)

    def basic(self) -> str:
        """The value of an Authorization header."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


def find(host: str) -> Credentials | None:
    """What is known for `host` or `host:port`; malformed entries are as good as none."""
    for word in os.environ.get(VARIABLE, "").split():
        named, _, pair = word.partition("=")
        if named == host and ":" in pair:
            return Credentials(*pair.split(":", 1))
    return _of_docker(host)


def _of_docker(host: str) -> Credentials | None:
    directory = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")  # noqa: PTH111
    try:
        entries = json.loads(Path(directory, "config.json").read_bytes())["auths"]
        for name in (host, f"https://{host}", f"http://{host}"):
            if name in entries:
                pair = base64.b64decode(entries[name]["auth"], validate=True).decode()
                user, colon, password = pair.partition(":")
                return Credentials(user, password) if colon else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return None
