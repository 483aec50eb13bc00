"""Prebuild takes from remotes what the store lacks, and compiles only the rest."""

from __future__ import annotations

from jitcache.action.actions import actions_of
from jitcache.action.resolve import Resolver
from jitcache.prebuild import Prebuilder
from jitcache.remote.fetch import Fetched, Fetcher
from jitcache.remote.push import push
from jitcache.store.model import Hit
from jitcache.store.store import Store
from tests.fake_toolchain import compiles, make_toolchain
from tests.prebuild_driver import work
from tests.remote_help import CI, TRUST, directory


def build(place, store, fetch=None):
    toolchain = make_toolchain(place)
    resolver = Resolver(store, toolchain, "gfx950")
    actions = actions_of(work("kimi-k2.5-mxfp4-tp2"), resolver)
    distinct = list({a.key: a for a in actions.values()}.values())
    return Prebuilder(store, toolchain, "gfx950", resolver, jobs=2, fetch=fetch).build(distinct)


def test_what_ci_pushed_is_fetched_and_the_rest_is_compiled(tmp_path):
    remote = directory(tmp_path / "remote")
    ci = Store(tmp_path / "ci")
    cold = build(tmp_path, ci)
    *first, last = cold.records.values()
    for record in first:
        assert push(ci, remote, record, [CI]).state == "pushed"
    before = len(compiles(tmp_path))
    here = Store(tmp_path / "here")
    fetcher = Fetcher(here, [remote], TRUST, {"gfx950", "host"})

    def fetch(key):
        got = fetcher.fetch(key)
        return got.record if isinstance(got, Fetched) else None

    built = build(tmp_path, here, fetch)
    assert (built.fetched, built.built, built.hits) == (len(first), 1, 0)
    assert len(compiles(tmp_path)) == before + 1
    assert {k: r.outputs for k, r in built.records.items()} == {
        k: r.outputs for k, r in cold.records.items()
    }
    assert isinstance(here.lookup(last.key), Hit)
    assert build(tmp_path, here, fetch).hits == len(cold.records)
