"""Telling one AITER from another by the files of its generator."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from jitcache.aiter import tree as aitertree
from jitcache.codegen import catalog
from jitcache.errors import InputError, UnsupportedError

TEXTS = {name: f"text of {name}\n" for name in aitertree.KNOWN[catalog.AITER_COMMIT]}


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two AITERs with files that we may write."""

    def digests(texts: dict[str, str]) -> dict[str, str]:
        return {n: hashlib.sha256(t.encode()).hexdigest() for n, t in texts.items()}

    newer = TEXTS | {"gen_instances.py": "newer\n"}
    monkeypatch.setattr(aitertree, "KNOWN", {"1111": digests(TEXTS), "2222": digests(newer)})


def make(root: Path, layout: Path, **changed: str | None) -> Path:
    directory = root / layout
    directory.mkdir(parents=True)
    for name, text in (TEXTS | {n.replace("__", "."): t for n, t in changed.items()}).items():
        if text is not None:
            (directory / name).write_text(text)
    return directory


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("layout", [aitertree.CODEGEN, Path("aiter_meta") / aitertree.CODEGEN])
def test_a_checkout_and_a_wheel_are_known_by_their_files(tmp_path: Path, layout: Path) -> None:
    directory = make(tmp_path, layout)
    assert aitertree.identify(tmp_path) == aitertree.KnownTree(directory, "1111")
    assert aitertree.identify(directory) == aitertree.KnownTree(directory, "1111")
    assert aitertree.require(tmp_path, "1111").commit == "1111"


@pytest.mark.usefixtures("known")
def test_another_known_aiter_is_refused_by_name(tmp_path: Path) -> None:
    make(tmp_path, aitertree.CODEGEN, gen_instances__py="newer\n")
    assert aitertree.require(tmp_path, "2222").commit == "2222"
    with pytest.raises(UnsupportedError, match="this is AITER 2222; the AITER dialect is for 1111"):
        aitertree.require(tmp_path, "1111")


@pytest.mark.usefixtures("known")
def test_an_unknown_aiter_is_refused_with_files_and_digests(tmp_path: Path) -> None:
    make(tmp_path, aitertree.CODEGEN, gemm_moe_ck2stages__h="other\n", gemm_moe_ck2stages__cu=None)
    tree = aitertree.identify(tmp_path)
    assert isinstance(tree, aitertree.UnknownTree)
    assert {d.name for d in tree.differences} == {"gemm_moe_ck2stages.h", "gemm_moe_ck2stages.cu"}
    with pytest.raises(UnsupportedError) as caught:
        aitertree.require(tmp_path, "1111")
    text = str(caught.value)
    assert "isn't one that jitcache knows; the AITER dialect is for 1111" in text
    found = hashlib.sha256(b"other\n").hexdigest()
    assert f"gemm_moe_ck2stages.h is sha256:{found}, expected sha256:" in text
    assert "gemm_moe_ck2stages.cu is missing, expected sha256:" in text


def test_no_generator_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no CK2stages generator here") as caught:
        aitertree.identify(tmp_path / "nowhere")
    assert "aiter_meta/csrc/ck_gemm_moe_2stages_codegen/gen_instances.py" in str(caught.value)


def test_every_known_aiter_has_all_files_and_whole_digests() -> None:
    for files in aitertree.KNOWN.values():
        assert len(files) == 8
        assert all(len(bytes.fromhex(d)) == 32 for d in files.values())
    assert catalog.AITER_COMMIT in aitertree.KNOWN
