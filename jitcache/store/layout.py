"""Where things lie below the store's root (drawn in docs/store.md).

Every bucket carries the version of its format in its name, so that an older and a newer
jitcache can share one root: each sees only the buckets that it understands. Nothing here
touches the disk, but to look for installed wheels.
"""

from __future__ import annotations

import enum
import os
from pathlib import Path

from jitcache import digest
from jitcache.store.installed import wheel_roots


class Bucket(enum.Enum):
    """One directory below the root per kind of thing; the value is its name."""

    CAS = "cas-v1"
    """Blobs: `<2 hex>/<62 hex>` of the SHA-256 of their bytes; read-only, never changed."""
    AC = "ac-v1"
    """Action records: `<2 hex>/<62 hex>.json` of the action key; written once."""
    MEMO = "memo-v1"
    """Hints that only save time: direct-mode memo, header sets, stat memo. Rebuildable."""
    LOCK = "lock-v1"
    """One lock file per action, `<64 hex>.lock`; created on demand and never unlinked."""
    TMP = "tmp-v1"
    """Files being written. Whatever is older than an hour was left by a killed process."""
    QUARANTINE = "quarantine-v1"
    """One directory per incident: what was damaged or divergent, with a `why.json`."""
    RUNS = "runs-v1"
    """Run directories of ninja; owned by the build."""
    TOOLCHAIN = "toolchain-v1"
    """Assembled ROCm-like roots; owned by the toolchain."""
    DURATIONS = "durations-v1"
    """What compiles cost, for order and ETA of later ones; owned by the build."""
    LOCKS = "locks-v1"
    """Lock files that `prebuild` wrote: `<manifest>.<arch>.lock.json`."""
    PINS = "pins-v1"
    """Lists of action keys that `gc` keeps: `<name>.json`."""
    SIGNATURES = "sig-v1"
    """Signatures of records and lock files that came from elsewhere (jitcache.sign.beside)."""
    STATS = "stats-v1"
    """Counters: one line of JSON per process in `<year>-<month>.jsonl`."""


CACHEDIR_TAG = (
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# This directory was created by jitcache; everything in it can be made again.\n"
    "# Backup programs that know https://bford.info/cachedir/ skip it.\n"
)
"""Content of CACHEDIR.TAG; the first line is fixed by the specification."""


def store_root() -> Path:
    """The root of the local store.

    `JITCACHE_DIR`, else `$XDG_CACHE_HOME/jitcache`, else `~/.cache/jitcache`. A relative
    `XDG_CACHE_HOME` is ignored, as its specification demands.
    """
    if own := os.environ.get("JITCACHE_DIR"):
        return Path(own).expanduser().absolute()
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    if xdg.startswith("/"):
        return Path(xdg) / "jitcache"
    return Path("~/.cache/jitcache").expanduser().absolute()


def seed_roots() -> tuple[Path, ...]:
    """Roots of read-only stores that are looked at after the local one, in order.

    `JITCACHE_SEEDS`, separated by colons: directories of an image, a mounted volume, a
    shared disk; then what was installed as a wheel.
    """
    text = os.environ.get("JITCACHE_SEEDS", "")
    return (*(Path(p).expanduser().absolute() for p in text.split(":") if p), *wheel_roots())


class Layout:
    """Paths below one root."""

    __slots__ = ("root",)

    def __init__(self, root: Path) -> None:
        self.root = root

    def bucket(self, bucket: Bucket) -> Path:
        """Directory of a bucket."""
        return self.root / bucket.value

    def blob(self, blob_digest: str) -> Path:
        """Path of a blob."""
        hexes = _hex(blob_digest)
        return self.root / Bucket.CAS.value / hexes[:2] / hexes[2:]

    def record(self, key: str) -> Path:
        """Path of an action record."""
        hexes = _hex(key)
        return self.root / Bucket.AC.value / hexes[:2] / (hexes[2:] + ".json")

    def signatures(self, key: str) -> Path:
        """Path of the signatures of an action record."""
        hexes = _hex(key)
        return self.root / Bucket.SIGNATURES.value / hexes[:2] / (hexes[2:] + ".json")

    def lock(self, key: str) -> Path:
        """Path of an action's lock file."""
        return self.root / Bucket.LOCK.value / (_hex(key) + ".lock")

    def cachedir_tag(self) -> Path:
        """Path of CACHEDIR.TAG."""
        return self.root / "CACHEDIR.TAG"


def _hex(text: str) -> str:
    # A digest becomes a path here: nothing that could leave the bucket may pass.
    if not digest.is_digest(text):
        raise ValueError(f"not a digest: {text!r}")
    return text[7:]
