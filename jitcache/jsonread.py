"""Reading JSON that somebody else may have written: every value is checked where it is taken.

A `Reader` is a cursor into a parsed document. It hands out values of the wanted type or
raises `ShapeError` with the path of what is wrong (`$.modules[2].name`), so that a lock file
edited by hand and a torn action record both give one clear sentence instead of a traceback.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from jitcache import digest


class ShapeError(ValueError):
    """A document isn't what it has to be.

    Attributes:
        path: where, as a JSON path (`$.modules[0].name`).
        problem: what, without a final period.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path
        self.problem = problem


def parse(data: bytes) -> Reader:
    """Parse a whole document.

    Raises:
        ShapeError: it isn't UTF-8 JSON, nests too deeply, or names a key twice.
    """
    try:
        return Reader(json.loads(data.decode(), object_pairs_hook=_unique), "$")
    except ShapeError:
        raise
    except RecursionError:
        raise ShapeError("$", "is nested too deeply") from None
    except ValueError as e:
        raise ShapeError("$", f"is not JSON ({e})") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ShapeError("$", f"the key {twice!r} stands twice in one object")
    return found


_WORDS = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "true or false",
    int: "an integer",
    float: "a number",
    type(None): "null",
}


class Reader:
    """A value of a document and the path that leads to it."""

    __slots__ = ("path", "value")

    def __init__(self, value: Any, path: str) -> None:
        self.value = value
        self.path = path

    def fail(self, problem: str) -> ShapeError:
        """The error to raise about this value."""
        return ShapeError(self.path, problem)

    def _expect(self, kind: type) -> Any:
        # type(), not isinstance(): true is not an integer here.
        if type(self.value) is not kind:
            raise self.fail(
                f"must be {_WORDS[kind]}, but is {_WORDS.get(type(self.value), 'something else')}"
            )
        return self.value

    def only(self, *names: str, optional: tuple[str, ...] = ()) -> Reader:
        """Check that this is an object with all of `names` and nothing but `optional` besides."""
        found = self._expect(dict)
        for name in names:
            if name not in found:
                raise self.fail(f"lacks the key {name!r}")
        for name in found:
            if name not in names and name not in optional:
                known = ", ".join((*names, *optional))
                raise self.fail(f"has the unknown key {name!r} (known: {known})")
        return self

    def __getitem__(self, name: str) -> Reader:
        found = self._expect(dict)
        if name not in found:
            raise self.fail(f"lacks the key {name!r}")
        return Reader(found[name], f"{self.path}.{name}")

    def has(self, name: str) -> bool:
        """Whether this object holds the key."""
        return name in self._expect(dict)

    def object(self) -> dict[str, Any]:
        """This value as an object of unchecked values."""
        found: dict[str, Any] = self._expect(dict)
        return found

    def each(self) -> Iterator[Reader]:
        """The items of this list."""
        for i, item in enumerate(self._expect(list)):
            yield Reader(item, f"{self.path}[{i}]")

    def text(self, *, max_length: int = 4096) -> str:
        """This value as a string without control characters, which would upset a terminal."""
        found: str = self._expect(str)
        if len(found) > max_length:
            raise self.fail(f"is longer than {max_length} characters")
        if not found.isprintable():
            raise self.fail("holds control characters")
        return found

    def one_of(self, *allowed: str) -> str:
        """This value as one of a few words."""
        found = self.text()
        if found not in allowed:
            raise self.fail(f"must be one of {', '.join(allowed)}, but is {found!r}")
        return found

    def integer(self, low: int = 0, high: int = 2**63 - 1) -> int:
        """This value as an integer within bounds."""
        found: int = self._expect(int)
        if not low <= found <= high:
            raise self.fail(f"must be between {low} and {high}, but is {found}")
        return found

    def boolean(self) -> bool:
        """This value as a truth value."""
        found: bool = self._expect(bool)
        return found

    def digest(self) -> str:
        """This value as a digest, `sha256:` and 64 hex digits."""
        found = self.text()
        if not digest.is_digest(found):
            raise self.fail(f"is not a digest (sha256:<64 hex digits>): {found[:80]!r}")
        return found

    def file_name(self) -> str:
        """This value as a plain file name: it can't leave the directory it is put into."""
        found = self.text(max_length=255)
        if not found or found in {".", ".."} or "/" in found:
            raise self.fail(f"is not a plain file name: {found!r}")
        return found
