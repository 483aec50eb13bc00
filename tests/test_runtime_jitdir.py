"""Where modules are installed, by what AITER's directory allows."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jitcache.errors import InputError
from jitcache.runtime import dropin, jitdir
from jitcache.runtime.jitdir import Place, find_place
from jitcache.store.store import Store
from tests import runtime_help as help_
from tests.runtime_help import make_lock, python

NAME = help_.FP4.name


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """An AITER and a site directory below tmp_path; what `locked` holds can't be written."""
    package = tmp_path / "lib" / "aiter"
    (package / "jit").mkdir(parents=True)
    for name in ("__init__.py", "jit/__init__.py"):
        (package / name).touch()
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.delenv("AITER_JIT_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(jitdir, "aiter_package", lambda: package)
    monkeypatch.setattr(jitdir, "_site_directories", lambda: iter([site, tmp_path / "user"]))
    locked: set[Path] = set()
    real = os.access

    def access(path, mode):
        return Path(path) not in locked and real(path, mode)

    monkeypatch.setattr(jitdir.os, "access", access)
    return package / "jit", site, locked


def test_the_variable_comes_first(machine, tmp_path, monkeypatch):
    monkeypatch.setenv("AITER_JIT_DIR", str(tmp_path / "own"))
    assert find_place() == Place.of(tmp_path / "own")


def test_a_writable_aiter_takes_modules_itself(machine):
    assert find_place() == Place.of(machine[0])


def test_a_read_only_aiter_is_hooked_through_a_site_directory(machine, tmp_path):
    jit, site, locked = machine
    locked.add(jit)
    wanted = Place(
        site / "jitcache_aiter",
        jit,
        tmp_path / "home" / ".aiter" / "jit",
        site / "jitcache_aiter.pth",
    )
    assert find_place() == wanted
    # The user's own comes after the environment's, and need not exist.
    locked.add(site)
    assert find_place().modules == tmp_path / "user" / "jitcache_aiter"
    # A hook that is there already is the one that counts, even for who can't write it.
    wanted.prepare()
    assert find_place() == wanted


def test_where_nothing_can_be_written_it_says_what_to_do(machine, tmp_path):
    jit, site, locked = machine
    locked |= {jit, site, tmp_path}
    with pytest.raises(InputError, match="so is every site directory") as caught:
        find_place()
    assert "AITER_JIT_DIR" in caught.value.hint


def test_the_hook_comes_and_goes_with_the_modules(machine, tmp_path):
    jit, site, locked = machine
    locked.add(jit)
    store = Store(tmp_path / "store")
    place = find_place()
    (made,) = dropin.install(make_lock(store), place, store)
    assert made == site / "jitcache_aiter" / NAME
    assert (site / "jitcache_aiter.pth").read_text() == "import jitcache_aiter\n"
    found = list(dropin.status(place, store))
    # This process started without it.
    assert [f.kind for f in found] == ["broken", "installed"]
    assert "has not read it" in found[0].detail
    assert dropin.uninstall(place) == (made,)
    assert list(site.iterdir()) == []
    assert dropin.uninstall(place) == ()


def run(machine, code):
    """Code in a Python that reads the site directory of the machine."""
    jit, site, _ = machine
    start = f"import site; site.addsitedir({str(site)!r})\n"
    return python(start + code, env={"PYTHONPATH": str(jit.parent.parent)})


def test_the_module_is_found_before_aiters_own(machine, tmp_path, monkeypatch):
    jit, _, locked = machine
    locked.add(jit)
    monkeypatch.setenv("JITCACHE_DIR", str(tmp_path / "store"))
    store = Store(tmp_path / "store")
    place = find_place()
    dropin.install(make_lock(store), place, store)
    (jit / f"{NAME}.py").write_text("aiters = 1\n")
    (jit / "module_other.py").write_text("aiters = 1\n")
    # Nothing else is looked for there.
    (place.modules / "colorsys.py").write_text("ours = 1\n")
    code = (
        "import colorsys, importlib, sys\n"
        "assert not hasattr(colorsys, 'ours')\n"
        "before = set(sys.modules)\n"
        f"ours = importlib.import_module('aiter.jit.{NAME}')\n"
        "other = importlib.import_module('aiter.jit.module_other')\n"
        "print(ours.__file__); print(ours.ck_moe_stage1.__name__); print(other.aiters)\n"
        "print('jitcache' in before)\n"
    )
    done = run(machine, code)
    assert done.stdout.split() == [
        str(place.modules / NAME / "__init__.py"), "ck_moe_stage1", "1", "False",
    ], done.stderr  # fmt: skip
    # The control: without the hook it is AITER's.
    dropin.uninstall(place)
    done = run(machine, code)
    assert "ck_moe_stage1" not in done.stdout
    assert "has no attribute 'ck_moe_stage1'" in done.stderr
