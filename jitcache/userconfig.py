"""Where the user's configuration is, and whether it can be believed.

Asked on every warm prebuild, so it imports next to nothing.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from jitcache.errors import InputError

REMOTES_VARIABLE = "JITCACHE_REMOTES"


def config_dir() -> Path | None:
    """The user's configuration directory; None where the user has no home.

    `XDG_CONFIG_HOME` counts only as an absolute path, as its specification says: otherwise
    a project's directory could stand in for it.
    """
    configured = os.environ.get("XDG_CONFIG_HOME", "")
    if configured.startswith("/"):
        return Path(configured, "jitcache")
    home = os.path.expanduser("~")  # noqa: PTH111
    return Path(home, ".config", "jitcache") if home.startswith("/") else None


def own_file(path: Path) -> bytes | None:
    """A configuration file that only its user (or root) can have written; None if absent.

    Raises:
        InputError: somebody else can write it, or it can't be read.
    """
    try:
        for part in (path, path.parent):
            state = part.stat()
            if state.st_uid not in {0, os.geteuid()} or stat.S_IMODE(state.st_mode) & 0o002:
                raise InputError(
                    "another user can write this, so it is not believed",
                    where=str(part),
                    hint=f"chown it to yourself and chmod o-w {part}",
                )
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as e:
        raise InputError(f"can't be read ({e.strerror})", where=str(path)) from None


def user_config() -> tuple[str, dict[str, Any]]:
    """The user's `config.toml`: its path and its tables; both empty where there is none.

    Raises:
        InputError: it is no TOML, has unknown tables, or can't be believed.
    """
    directory = config_dir()
    path = None if directory is None else directory / "config.toml"
    data = None if path is None else own_file(path)
    if data is None:
        return "", {}
    import tomllib

    where = str(path)
    try:
        document = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as e:
        raise InputError(f"is not TOML ({e})", where=where) from None
    if set(document) - {"remote", "build"}:
        raise InputError("has [[remote]] tables, a [build] table and nothing else", where=where)
    return where, document


def remotes_configured() -> bool:
    """Whether there may be remotes: a look at the environment and at one path."""
    said = os.environ.get(REMOTES_VARIABLE)
    if said is not None:
        return bool(said.strip())
    directory = config_dir()
    return directory is not None and (directory / "config.toml").exists()
