"""The dependency files that compilers write."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jitcache.depfile import DepfileError, parse, resolve


def clang_escape(name: str) -> str:
    """What clang's Make output does to a name (its PrintFilename)."""
    out = ""
    for i, c in enumerate(name):
        if c == "#":
            out += "\\"
        elif c == " ":
            out += "\\"
            j = i
            while j > 0 and name[j - 1] == "\\":
                out += "\\"
                j -= 1
        elif c == "$":
            out += "$"
        out += c
    return out


NAMES = (
    st.text(st.sampled_from("ab/.: #$\\-=é\u2028\x0b'\""), min_size=1, max_size=12)
    # A name that ends in a backslash or a colon can't be told from an escape or a target.
    .filter(lambda n: n[-1] not in "\\:")
)


@settings(max_examples=300)
@given(st.lists(NAMES, max_size=6), st.sampled_from([" \\\n  ", " ", " \\\r\n "]))
def test_reads_back_what_clang_writes(names: list[str], gap: str) -> None:
    text = "out\\ put.co:" + "".join(gap + clang_escape(n) for n in names) + "\n"
    assert parse(text.encode()) == tuple(dict.fromkeys(names))


def test_phony_targets_and_several_rules_add_up() -> None:
    text = b"a.o: x.cu one.h \\\n two.h\n\none.h:\n\ntwo.h:\na.d: three.h one.h\n"
    assert parse(text) == ("x.cu", "one.h", "two.h", "three.h")


def test_names_that_are_not_utf8_survive() -> None:
    assert [n.encode("utf-8", "surrogateescape") for n in parse(b"o: h\xff.h\n")] == [b"h\xff.h"]


@pytest.mark.parametrize(
    "text", [b"", b"\n \n", b"just words\n", b"\x00\x01\x02", b"o: a.h\nmore\n"]
)
def test_nonsense_is_refused(text: bytes) -> None:
    with pytest.raises(DepfileError):
        parse(text)


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_any_bytes_give_names_or_a_refusal(data: bytes) -> None:
    try:
        names = parse(data)
    except DepfileError:
        return
    assert len(set(names)) == len(names)
    assert all(names)


def test_resolve_follows_links_and_joins_what_is_one_file(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (real / "a.h").write_text("a")
    (tmp_path / "link").symlink_to("real")
    (real / "b.h").symlink_to("a.h")
    found = resolve(("link/a.h", "link/../real/a.h", "real/b.h", str(real / "c.h")), str(tmp_path))
    assert found == (str(real / "a.h"), str(real / "c.h"))
