"""The actions of a work list: what there is to build, each once, with its key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jitcache.action.resolve import Resolved, Resolver
from jitcache.action.worklist import ModuleWork


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to build: its resolved key and a label for people."""

    resolved: Resolved
    label: str

    @property
    def key(self) -> str:
        """The action key."""
        return self.resolved.key


def actions_of(modules: Sequence[ModuleWork], resolver: Resolver) -> dict[str, Action]:
    """Every action of a work list once, by its recipe's identity.

    Raises:
        ToolchainError: headers can't be read.
    """
    found: dict[str, Action] = {}
    for module in modules:
        for recipe, label in module.recipes():
            if recipe.identity not in found:
                found[recipe.identity] = Action(resolver.resolve(recipe), label)
    return found
