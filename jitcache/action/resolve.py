"""From a translation unit's recipe to its action key, with as little work as is safe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from jitcache import digest
from jitcache.action import keys
from jitcache.action.command import Command, Kind, compile_command, scan_command
from jitcache.action.headers import Headers, HeaderSet, listing, scan
from jitcache.codegen.native import Recipe
from jitcache.store.memo import MemoEntry
from jitcache.store.store import Store
from jitcache.toolchain.model import Toolchain


@dataclass(frozen=True, slots=True)
class Resolved:
    """An action: its key, and what the key covers.

    Attributes:
        recipe: what the translation unit is made from.
        key: the action key.
        headers: the headers it reads.
        command: how it is compiled.
    """

    recipe: Recipe
    key: str
    headers: HeaderSet
    command: Command


class Resolver:
    """Finds action keys for one toolchain and target.

    Args:
        store: supplies the memos.
        toolchain: compiler, headers and libraries.
        arch: target architecture.
        salt: changes every key; "" usually.
    """

    def __init__(self, store: Store, toolchain: Toolchain, arch: str, salt: str = "") -> None:
        self._store = store
        self._toolchain = toolchain
        self._arch = arch
        self._salt = salt
        self._headers = Headers(toolchain, store.stat_memo)
        self._commands: dict[str, Command] = {}
        self._scanned: dict[tuple[str, str], HeaderSet] = {}

    def resolve(self, recipe: Recipe) -> Resolved:
        """The action of a recipe.

        Runs the preprocessor only where the memo knows nothing that still holds, and then
        once for all recipes of one template and family: what a template's instances differ
        in are template arguments, which include nothing.

        Raises:
            ToolchainError: the headers can't be read.
        """
        command = self._command(recipe.kind)
        direct = keys.direct_key(
            recipe=recipe.identity,
            command=command,
            toolchain=self._toolchain,
            arch=self._arch,
            salt=self._salt,
        )
        remembered = self._store.memo.get(direct)
        if remembered is not None and self._headers.holds(remembered.headers):
            return Resolved(recipe, remembered.key, remembered.headers, command)
        family = (recipe.template, str(recipe.context["header"]))
        headers = self._scanned.get(family)
        if headers is None:
            headers = self._scanned[family] = self.scan(recipe)
        key = keys.action_key(self.inputs(recipe, headers))
        self._store.memo.put(direct, MemoEntry(key, headers))
        return Resolved(recipe, key, headers, command)

    def scan(self, recipe: Recipe) -> HeaderSet:
        """The headers that a recipe reads now, as the preprocessor says.

        Raises:
            ToolchainError: the headers can't be read.
        """
        command = scan_command(self._toolchain, cast("Kind", recipe.kind))
        return self._headers.of_paths(scan(command, recipe.source_name, recipe.render()))

    def inputs(self, recipe: Recipe, headers: HeaderSet) -> dict[str, Any]:
        """The canonical record behind a key."""
        return keys.action_inputs(
            kind=recipe.kind,
            source=digest.of_bytes(recipe.render().encode()),
            headers=digest.of_bytes(listing(headers)),
            command=self._command(recipe.kind),
            toolchain=self._toolchain,
            arch=self._arch,
            salt=self._salt,
        )

    def headers_read(self, paths: tuple[str, ...]) -> HeaderSet:
        """The header set of what a compile reports to have read."""
        return self._headers.of_paths(paths)

    def _command(self, kind: str) -> Command:
        command = self._commands.get(kind)
        if command is None:
            command = compile_command(self._toolchain, cast("Kind", kind))
            self._commands[kind] = command
        return command
