"""The reader of build.ninja, against ninja's rules and against ninja itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jitcache.buildlog.graph import Graph, GraphEdge, canonical, parse_graph, read_graph
from jitcache.errors import InputError, JitcacheError

DATA = Path(__file__).parent / "data" / "ninja"


def parse(text: str, **files: str) -> Graph:
    def load(name: str, where: str) -> str:
        if where == "":
            return text
        key = name.replace(".", "_")
        if key not in files:
            raise InputError("no such file", where=where)
        return files[key]

    return parse_graph(load)


RULE = "rule cc\n  command = cc $in\n"


def only(text: str) -> GraphEdge:
    (edge,) = parse(RULE + text).edges
    return edge


def test_all_kinds_of_inputs_and_outputs() -> None:
    edge = only("build a b | c: cc d e | f g || h i |@ v\n")
    assert edge.outputs == ("a", "b", "c")
    assert edge.inputs == ("d", "e", "f", "g")
    assert edge.order_only == ("h", "i")
    assert edge.rule == "cc"


@pytest.mark.parametrize(
    ("text", "outputs", "inputs"),
    [
        ("build a$ b: cc c$ d\n", ("a b",), ("c d",)),
        ("build C$:/x: cc C$:/y\n", ("C:/x",), ("C:/y",)),
        ("build a$$b: cc c$$d\n", ("a$b",), ("c$d",)),
        ("build a: cc b $\n      c $\n   d\n", ("a",), ("b", "c", "d")),
        ("build a:cc b\n", ("a",), ("b",)),
        ("build ./a//b/../c: cc ../d/./e\n", ("a/c",), ("../d/e",)),
        ("v = x y\nbuild $v: cc ${v}z$v\n", ("x y",), ("x yzx y",)),
        ("build $o: cc $i\n  o = out\n  i = in\n", ("out",), ("in",)),
        ("d = dir\nbuild $d/a: cc $d/b\nd = other\n", ("dir/a",), ("dir/b",)),
        ("build a: cc b\r\n", ("a",), ("b",)),
        ("build a: cc pre$\n    fix\n", ("a",), ("prefix",)),
        ("build caf\u00e9: cc na\u00efve\n", ("caf\u00e9",), ("na\u00efve",)),
    ],
)
def test_paths(text: str, outputs: tuple[str, ...], inputs: tuple[str, ...]) -> None:
    edge = only(text)
    assert edge.outputs == outputs
    assert edge.inputs == inputs


def test_comments_blank_lines_and_a_missing_last_newline() -> None:
    edge = only("# build x: cc y\n\n   # indented\nbuild a: cc b # c\n\n  # note\n  pool = p")
    assert edge.inputs == ("b", "#", "c")
    assert edge.pool == "p"


def test_pools_of_rules_and_edges() -> None:
    graph = parse(
        "depth_of = 3\npool small\n  depth = $depth_of\n"
        "rule link\n  command = ld\n  pool = $where\nwhere = small\n"
        "build a: link x\nbuild b: link x\n  where = console\n"
        "build c: link x\n  pool =\n"
    )
    assert graph.pools == {"console": 1, "small": 3}
    assert [e.pool for e in graph.edges] == ["small", "console", ""]


def test_include_shares_a_scope_and_subninja_does_not() -> None:
    graph = parse(
        "v = top\ninclude inc.ninja\nsubninja sub.ninja\n"
        "build $v: cc ${inner}-\nbuild mine: late x\n",
        inc_ninja=RULE + "v = included\nrule late\n  command = x\n",
        sub_ninja="v = sub\ninner = 1\nbuild $v: cc $inner\nrule late\n  command = y\n",
    )
    assert [e.outputs for e in graph.edges] == [("sub",), ("included",), ("mine",)]
    assert [e.inputs for e in graph.edges] == [("1",), ("-",), ("x",)]


def test_rules_of_a_subninja_stay_in_it() -> None:
    with pytest.raises(InputError, match="unknown rule 'own'"):
        parse(
            "subninja sub.ninja\nbuild a: own b\n",
            sub_ninja="rule own\n  command = x\nbuild c: own d\n",
        )


def test_builddir_phony_label_and_dyndep() -> None:
    graph = parse(
        RULE + "builddir = out\nbuild all: phony a\nbuild a: cc b || dd\n  dyndep = dd\n"
        "  label = gemm1 256x128\ndefault all\n"
    )
    assert graph.builddir == "out"
    assert graph.edges[0].phony
    assert graph.edges[1].label == "gemm1 256x128"
    assert graph.producer == {"all": 0, "a": 1}
    assert "1 edges find further inputs" in graph.notes[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("build a: nope b\n", "unknown rule 'nope'"),
        ("build a cc b\n", "without a colon"),
        ("build : cc b\n", "expected 'build outputs: rule inputs'"),
        ("build a:\n", "expected 'build outputs: rule inputs'"),
        ("build a: cc $none\n", "a path is empty"),
        ("nonsense here\n", "expected 'name = value'"),
        ("build a: cc $!\n", "bad \\$ escape"),
        ("pool p\n  depth = x\n", "no depth"),
        ("include missing.ninja\n", "no such file"),
        ("v = 1\n  w = 2\n", "takes none"),
    ],
)
def test_errors_name_file_and_line(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as e:
        parse(RULE + text)
    assert e.value.where == "build.ninja:3"


def test_a_file_that_begins_indented_is_refused() -> None:
    with pytest.raises(InputError, match="indented line") as e:
        parse("\n  x = 1\n")
    assert e.value.where == "build.ninja:2"


def test_files_that_include_themselves_are_refused() -> None:
    with pytest.raises(InputError, match="more than 64 deep"):
        parse("include a.ninja\n", a_ninja="include a.ninja\n")


def test_values_that_explode_are_refused() -> None:
    text = "v0 = " + "x" * 1000 + "\n"
    text += "".join(f"v{i + 1} = $v{i}$v{i}$v{i}$v{i}\n" for i in range(20))
    with pytest.raises(InputError, match="4 MiB"):
        parse(text)


def test_read_graph_follows_includes_relative_to_the_build_directory(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "build.ninja").write_text("subninja sub/one.ninja\n")
    (tmp_path / "sub" / "one.ninja").write_text("include sub/two.ninja\nbuild a: cc b\n")
    (tmp_path / "sub" / "two.ninja").write_text(RULE)
    assert read_graph(tmp_path / "build.ninja").producer == {"a": 0}
    (tmp_path / "sub" / "two.ninja").unlink()
    with pytest.raises(InputError, match="no such file") as e:
        read_graph(tmp_path / "build.ninja")
    assert e.value.where == "sub/one.ninja:1"


def test_a_real_graph() -> None:
    graph = read_graph(DATA / "small" / "build.ninja")
    app = graph.edges[graph.producer["app"]]
    assert app.inputs == ("a.o", "b.o", "c.o", "objects")
    assert graph.edges[graph.producer["b.o"]].order_only == ("gen.h",)
    assert graph.edges[graph.producer["b.o"]].pool == "two"
    assert graph.producer["pair.log"] == graph.producer["pair.c"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a/b", "a/b"),
        ("a/", "a"),
        ("/../a", "/a"),
        ("../../a", "../../a"),
        ("a/../..", ".."),
        ("a/..", "."),
        ("./.", "."),
        ("//a", "/a"),
        ("a.b/..c/d...", "a.b/..c/d..."),
        ("...", "..."),
    ],
)
def test_canonical_paths(path: str, expected: str) -> None:
    assert canonical(path) == expected


words = st.lists(
    st.sampled_from(
        [
            "build",
            "rule",
            "pool",
            "include",
            "subninja",
            "default",
            "cc",
            "a",
            "b",
            ":",
            "|",
            "||",
            "|@",
            "=",
            "$",
            "$\n",
            "\n",
            "\n  ",
            " ",
            "$v",
            "${v}",
            "${",
            "#",
            "\t",
            "phony",
            "\x00",
            "v",
        ]
    ),
    max_size=40,
)


@settings(max_examples=200)
@given(words, st.booleans())
def test_any_text_gives_a_graph_or_a_clear_error(parts: list[str], spaced: bool) -> None:
    text = (" " if spaced else "").join(parts)
    try:
        graph = parse(RULE + text)
    except JitcacheError:
        return
    assert all(graph.producer[o] <= i for i, e in enumerate(graph.edges) for o in e.outputs)


@settings(max_examples=100)
@given(
    st.lists(
        st.text(
            st.characters(exclude_characters="\n\r\x00", exclude_categories=["Cs"]), min_size=1
        ).filter(lambda p: canonical(p) == p),
        min_size=2,
        max_size=6,
    )
)
def test_escaped_paths_come_back(paths: list[str]) -> None:
    def escape(p: str) -> str:
        p = p.replace("$", "$$").replace(" ", "$ ").replace(":", "$:")
        return p.replace("|", "$|")

    out, *ins = map(escape, paths)
    edge = only(f"build {out}: cc {' '.join(ins)}\n")
    assert edge.outputs == (paths[0],)
    assert edge.inputs == tuple(paths[1:])
