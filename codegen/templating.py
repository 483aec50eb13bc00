"""Jinja2 templates under `codegen/templates`, rendered strictly: an unknown name is an error."""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import TYPE_CHECKING, Any

from jitcache import digest

if TYPE_CHECKING:
    import jinja2


def render(template: str, /, **values: Any) -> str:
    """The text of a template with these values.

    Args:
        template: file name under `codegen/templates`.
        **values: what the template names.
    """
    return _environment().get_template(template).render(values)


@functools.cache
def text_of(template: str) -> str:
    """A template itself."""
    place = resources.files("jitcache.codegen.templates")
    return place.joinpath(template).read_text(encoding="utf-8")


@functools.cache
def digest_of(template: str) -> str:
    """The digest of a template, known without jinja2."""
    return digest.of_bytes(text_of(template).encode())


def c_string(text: str) -> str:
    """A C string literal.

    Raises:
        ValueError: the text isn't printable ASCII, which C++ compilers don't agree on.
    """
    if not (text.isascii() and text.isprintable()):
        raise ValueError(f"not printable ASCII: {text!r}")
    # JSON escapes quotes and backslashes as C does; `??` would start a trigraph before C++17.
    return json.dumps(text)


@functools.cache
def _environment() -> jinja2.Environment:
    # Imported here: jinja2 costs 20 ms, which a warm start doesn't need.
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FunctionLoader(text_of),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - C++, not HTML
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
