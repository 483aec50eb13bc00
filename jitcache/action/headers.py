"""Which headers a translation unit reads, and whether they are what they were.

A header's name in a key is its include root's name and its path below it (`ck/ck/ck.hpp`),
so that equal trees at different places give equal keys. Translation units of one family
read the same hundreds of headers; a set is checked once per process.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from jitcache import digest
from jitcache.errors import ToolchainError
from jitcache.store.memo import MemoHeader, StatMemo
from jitcache.toolchain.find import root_of
from jitcache.toolchain.model import Toolchain

HeaderSet = tuple[MemoHeader, ...]
"""Headers sorted by name."""

HEADERS_OUTPUT = "headers.json"
"""Output that lists the headers a translation unit read: what `why-miss` compares."""


class Headers:
    """Header sets of one toolchain, with what was already checked in this process.

    Args:
        toolchain: names the include roots.
        stat_memo: digests of unchanged files.
    """

    def __init__(self, toolchain: Toolchain, stat_memo: StatMemo) -> None:
        self._toolchain = toolchain
        self._stat = stat_memo
        self._checked: dict[int, tuple[HeaderSet, bool]] = {}

    def holds(self, headers: HeaderSet) -> bool:
        """Whether every header still has its digest and none is hidden by a new one."""
        # By identity: the memo hands out one object per set, and comparing hundreds of
        # rows would cost more than what is saved. Keeping the set keeps its id its own.
        known = self._checked.get(id(headers))
        if known is None:
            known = self._checked[id(headers)] = (headers, self._unchanged(headers))
        return known[1]

    def of_paths(self, paths: Iterable[str | Path]) -> HeaderSet:
        """The header set of files that a compiler said it read.

        Raises:
            ToolchainError: a file is outside every include root, or can't be read.
        """
        found = {}
        for path in paths:
            root, relative = root_of(self._toolchain, path)
            real = os.path.realpath(path)
            try:
                value = self._stat.digest(real)
            except OSError as e:
                raise ToolchainError(
                    f"a header can't be read: {e.strerror}",
                    where=real,
                    hint="did the CK tree change while it was being read? try again",
                ) from e
            found[f"{root}/{relative}"] = MemoHeader(f"{root}/{relative}", real, value)
        return tuple(found[name] for name in sorted(found))

    def _unchanged(self, headers: HeaderSet) -> bool:
        # Headers that the compiler is pointed at by flag can be hidden by a new file of the
        # same name in a root that is searched earlier; such a file would be read instead.
        earlier: dict[str, list[str]] = {}
        roots: list[str] = []
        for root in self._toolchain.include_roots:
            if root.flag is not None:
                earlier[root.name] = list(roots)
                roots.append(str(root.path))
        try:
            for header in headers:
                if self._stat.digest(header.path) != header.digest:
                    return False
                root_name, _, relative = header.name.partition("/")
                for directory in earlier.get(root_name, ()):
                    if os.path.exists(f"{directory}/{relative}"):  # noqa: PTH110 -- hot path
                        return False
        except OSError:
            return False
        return True


def listing(headers: HeaderSet) -> bytes:
    """What a key covers of a header set: names and digests, canonical."""
    return digest.canonical_json([[h.name, h.digest] for h in headers])


def scan(command: Sequence[str], source_name: str, source: str) -> tuple[str, ...]:
    """Run the compiler's preprocessor and return the files it read, absolute and resolved.

    Args:
        command: from `command.scan_command`.
        source_name: file name to give the source.
        source: text of the translation unit.

    Raises:
        ToolchainError: the preprocessor fails; the message has its first error.
    """
    from jitcache import depfile
    from jitcache.toolchain.base import first_error, run

    with tempfile.TemporaryDirectory(prefix="jitcache-scan-") as directory:
        place = Path(directory)
        (place / source_name).write_text(source, encoding="utf-8")
        names = {"{source}": source_name, "{output}": "scan.out", "{depfile}": "scan.d"}
        done = run([names.get(word, word) for word in command], os.environ, cwd=place)
        if done.status != 0:
            raise ToolchainError(
                f"the headers can't be read: {first_error(done.err)}",
                where=str(command[0]),
                hint="run `jitcache doctor`; is the CK tree complete and of a known version?",
            )
        try:
            read = depfile.parse((place / "scan.d").read_bytes())
        except (OSError, depfile.DepfileError) as e:
            raise ToolchainError(
                f"the compiler wrote no usable dependency file: {e}", where=str(command[0])
            ) from e
        own = os.path.realpath(place / source_name)
        return tuple(p for p in depfile.resolve(read, str(place)) if p != own)
