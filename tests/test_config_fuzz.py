"""Whatever the user's configuration says, it is read or refused with its place named."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from jitcache.errors import JitcacheError
from jitcache.remote.config import load_remotes
from jitcache.remote.opening import open_remote
from jitcache.sign.trust import Trust, load_trust

texts = st.text(max_size=12)
plain = st.none() | st.booleans() | st.integers() | st.floats() | texts
values = plain | st.lists(plain, max_size=2) | st.dictionaries(texts, plain, max_size=2)
schemes = st.sampled_from(["file", "http", "https", "oci", "oci+http", "s3", "gs", "az"])
urls = st.builds("{}://{}".format, schemes, texts | st.just("[::1") | st.just("h:99999/p"))
REMOTE = {"name": "r", "url": "file:///r", "mode": "ro", "signatures": "off", "deadline_s": 1}
entries = st.builds(
    lambda known, other: {**REMOTE, **known, **other},
    st.fixed_dictionaries({}, optional=dict.fromkeys(REMOTE, values | urls)),
    st.dictionaries(texts, values, max_size=1) | st.just({}),
)

each_time_anew = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("JITCACHE_REMOTES", raising=False)
    monkeypatch.delenv("JITCACHE_TRUSTED_KEYS", raising=False)
    directory = tmp_path / "jitcache"
    directory.mkdir()
    return directory


def toml(value: object) -> str:
    """A TOML value that is as wrong as the given one: JSON's notation, where TOML shares it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return repr(value) if isinstance(value, float) else json.dumps(value)


def refusal(read: Callable[[], object]) -> JitcacheError | None:
    """Why something is refused; None if it isn't. Anything else that it raises is a defect."""
    try:
        read()
    except JitcacheError as e:
        return e
    return None


@each_time_anew
@given(st.lists(entries, max_size=2) | texts)
@example([REMOTE])
@example([{**REMOTE, "url": "http://[::1/x"}])
@example([{**REMOTE, "url": "oci://h:port/x"}])
def test_any_remotes_are_opened_or_refused(home: Path, said: list[dict[str, object]] | str) -> None:
    text = (
        said
        if isinstance(said, str)
        else "\n".join(
            "[[remote]]\n" + "\n".join(f"{json.dumps(k)} = {toml(v)}" for k, v in e.items())
            for e in said
        )
    )
    (home / "config.toml").write_bytes(text.encode("utf-8", "surrogatepass"))
    refused = refusal(load_remotes)
    if refused is not None:
        assert str(home / "config.toml") in (refused.where or "")
        return
    remotes = load_remotes()
    assert len(remotes) == text.count("[[remote]]")
    for remote in remotes:
        refused = refusal(partial(open_remote, remote))
        assert refused is None or refused.what


@each_time_anew
@given(texts)
@example("ro:file:///r rw:oci://h/x")
def test_any_words_of_the_variable_are_read_or_refused(
    home: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setenv("JITCACHE_REMOTES", said.replace("\0", "").encode(errors="replace").decode())
    refused = refusal(load_remotes)
    if refused is None:
        assert all("://" in r.url for r in load_remotes())
    else:
        assert "JITCACHE_REMOTES" in (refused.where or "")


@each_time_anew
@given(
    st.fixed_dictionaries(
        {"schema": st.just(1), "trusted": values, "revoked": values, "disowned": values}
    )
    | st.dictionaries(texts, values)
    | values
)
@example({"schema": 1, "trusted": [], "revoked": [], "disowned": []})
def test_any_trust_file_is_read_or_refused(home: Path, said: object) -> None:
    (home / "trust.json").write_text(json.dumps(said))
    refused = refusal(load_trust)
    if refused is None:
        assert load_trust() == Trust()
    else:
        assert str(home / "trust.json") in (refused.where or "")
