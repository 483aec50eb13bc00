"""What waited for what, as a report carries it in its JSON, and back into a network. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jitcache.buildlog.network import Network


@dataclass(frozen=True, slots=True)
class Node:
    """A command, or a name that others wait for.

    Attributes:
        output: names the command; "" for a phony target, which takes no time.
        pool: its pool, "" for none.
        waits_for: indices of the nodes that it directly waits for.
    """

    output: str
    pool: str
    waits_for: tuple[int, ...]


def nodes(network: Network) -> list[Node]:
    """The commands that ran, and what else stands between two of them, in the network's order.

    Empty where dependencies are guessed.
    """
    if network.guessed:
        return []
    commands = network.commands
    behind = [False] * len(commands)  # something that ran comes before it
    for i in network.order:
        behind[i] = any(commands[p].ran or behind[p] for p in commands[i].preds)
    ahead = [False] * len(commands)
    for i in reversed(network.order):
        ahead[i] = any(commands[s].ran or ahead[s] for s in network.after[i])
    kept = [i for i, c in enumerate(commands) if c.ran or (behind[i] and ahead[i])]
    place = {i: n for n, i in enumerate(kept)}
    return [
        Node(
            "" if commands[i].rule == "phony" else commands[i].output,
            commands[i].pool,
            tuple(place[p] for p in commands[i].preds if p in place),
        )
        for i in kept
    ]


def direct(graph: Sequence[Node], most: int) -> dict[str, tuple[list[str], int]]:
    """What each command waits for, seen through phony targets.

    Args:
        graph: nodes of a report.
        most: how many are named of each.

    Returns:
        By output: the first `most` outputs that it waits for, and how many more there are
        at least (a phony target that holds many is not looked through twice).
    """
    found: dict[str, tuple[list[str], int]] = {}
    for node in graph:
        if not node.output:
            continue
        names: list[str] = []
        more = 0
        stack = list(reversed(node.waits_for))
        seen = set(stack)
        while stack:
            other = graph[stack.pop()]
            if other.output:
                if len(names) < most:
                    names.append(other.output)
                else:
                    more += 1
            elif len(names) < most:
                for p in reversed(other.waits_for):
                    if p not in seen:
                        seen.add(p)
                        stack.append(p)
        found[node.output] = (names, more)
    return found
