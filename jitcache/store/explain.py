"""Why an action was not found: what differs from the nearest one that is there. Pure.

An action's inputs are compared with those of other actions, value by value: flags as a list
of words, parts of the toolchain by name, headers (whose listing is an output of the action)
by name and digest. The action with the fewest differences is the nearest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from jitcache.store.model import ActionRecord


class Difference(NamedTuple):
    """One input that differs.

    Attributes:
        what: `header`, `flags`, `parts`, or another name of an input.
        name: which one of several: the header's or part's name, the flag; "" otherwise.
        then: what the other action had; None: nothing.
        now: what this one has; None: nothing.
    """

    what: str
    name: str
    then: str | None
    now: str | None


class Nearest(NamedTuple):
    """The nearest other action and what differs from it, least general difference first."""

    record: ActionRecord
    differences: tuple[Difference, ...]


HeadersOf = Callable[[ActionRecord], dict[str, str] | None]
"""Gives the digests of an action's headers by name; None where the listing is lost."""


def nearest(
    record: ActionRecord, others: Iterable[ActionRecord], headers_of: HeadersOf
) -> Nearest | None:
    """The other action that is most like this one.

    Actions with the same label are considered, since a miss is only puzzling where the same
    thing was there before; where there are none, all of the same kind of input are.

    Returns:
        None where there is nothing to compare with.
    """
    rest = [o for o in others if o.key != record.key]
    same = [o for o in rest if o.label == record.label] or rest
    ranked = sorted(
        same,
        key=lambda o: (len(differences(record.inputs, o.inputs)), -o.created, o.key),
    )
    if not ranked:
        return None
    best = ranked[0]
    found = differences(record.inputs, best.inputs)
    return Nearest(best, tuple(_with_headers(found, record, best, headers_of)))


def differences(now: dict[str, Any], then: dict[str, Any]) -> list[Difference]:
    """What differs between two inputs, by name."""
    found: list[Difference] = []
    for what in sorted(now.keys() | then.keys()):
        a, b = now.get(what), then.get(what)
        if a == b:
            continue
        if isinstance(a, list) and isinstance(b, list):
            found += _words(what, a, b)
        elif isinstance(a, dict) and isinstance(b, dict):
            found += [
                Difference(what, str(name), _text(b.get(name)), _text(a.get(name)))
                for name in sorted(a.keys() | b.keys())
                if a.get(name) != b.get(name)
            ]
        else:
            found.append(Difference(what, "", _text(b), _text(a)))
    return found


def _words(what: str, now: list[Any], then: list[Any]) -> list[Difference]:
    a, b = Counter(map(_word, now)), Counter(map(_word, then))
    found = [Difference(what, word, word, None) for word in (b - a).elements()]
    found += [Difference(what, word, None, word) for word in (a - b).elements()]
    if not found:
        found = [Difference(what, "order", " ".join(map(_word, then)), " ".join(map(_word, now)))]
    return found


def _with_headers(
    found: list[Difference], record: ActionRecord, other: ActionRecord, headers_of: HeadersOf
) -> list[Difference]:
    """Replace "the headers differ" by which ones, where both listings are there."""
    result: list[Difference] = []
    for difference in found:
        if difference.what == "headers":
            now, then = headers_of(record), headers_of(other)
            if now is not None and then is not None:
                result += [
                    Difference("header", name, then.get(name), now.get(name))
                    for name in sorted(now.keys() | then.keys())
                    if now.get(name) != then.get(name)
                ]
                continue
        result.append(difference)
    return result


def _word(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def _text(value: Any) -> str | None:
    return None if value is None else _word(value)
