"""Engines: what is submitted is what they take, and workers run by them build everything."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from jitcache.errors import ExitCode, InputError, UsageError
from jitcache.fleet.engine import k8s, local, slurm
from jitcache.fleet.engine.job import FleetJob
from jitcache.fleet.model import FleetPlan, PinnedToolchain, PlannedAction
from jitcache.fleet.planfile import parse_plan
from tests.fleet_help import MANIFESTS, Fleet

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
KEY = "sha256:" + "0" * 64


def job(workers=4, cpus=2, **how) -> FleetJob:
    memories = (900 << 20, 700 << 20, 100 << 20)
    actions = tuple(
        PlannedAction(f"sha256:{i:064x}", "x", "device", "gfx950", KEY, KEY, 1, m, "", ())
        for i, m in enumerate(memories)
    )
    plan = FleetPlan("", {"gfx950": PinnedToolchain("t", "llvm", (7, 1))}, (), actions)
    return FleetJob(plan, "/plans/a b.json", "kernels", workers, cpus, ("jitcache",), **how)


def test_memory_is_that_of_the_largest_actions_at_once():
    assert job(cpus=2).memory == (900 + 700 + 256) << 20
    assert job(cpus=8).memory == (900 + 700 + 100 + 256) << 20


def test_the_slurm_script_asks_for_what_workers_need():
    text = slurm.script(job(options=("--lease", "s3://b/l")), ["--partition=cpu"])
    asked = [line for line in text.splitlines() if line.startswith("#SBATCH")]
    assert "#SBATCH --array=0-3" in asked
    assert "#SBATCH --cpus-per-task=2" in asked
    assert "#SBATCH --mem=1856M" in asked
    assert "#SBATCH --requeue" in asked
    assert asked[-1] == "#SBATCH --partition=cpu"
    words = shlex.split(next(line for line in text.splitlines() if "worker" in line))
    assert words[:4] == ["jitcache", "worker", "--plan", "/plans/a b.json"]
    assert words[-3:] == ["--lease", "s3://b/l", "--json"]
    assert "--shard" not in words
    assert "export JITCACHE_SHARDS=4" in text


@pytest.mark.parametrize("option", ["partition", "--x\n#SBATCH --y", ""])
def test_an_option_can_not_leave_its_line(option):
    with pytest.raises(InputError):
        slurm.script(job(), [option])


@pytest.mark.parametrize(
    ("code", "restarts", "requeued"),
    [(0, "0", False), (1, "0", False), (75, "0", True), (137, "2", True), (75, "3", False)],
)
def test_the_slurm_script_requeues_what_was_killed_or_lost(tmp_path, code, restarts, requeued):
    for name, body in (("jitcache", f"exit {code}"), ("scontrol", 'echo "$@"')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    env = {"PATH": f"{tmp_path}:/bin:/usr/bin", "SLURM_JOB_ID": "7"}
    done = subprocess.run(
        ["sh"],
        input=slurm.script(job()),
        env=env | {"SLURM_RESTART_COUNT": restarts},
        capture_output=True,
        text=True,
    )
    assert done.stdout == ("requeue 7\n" if requeued else "")
    assert done.returncode == (0 if requeued else code)


def cluster(**how) -> k8s.Cluster:
    return k8s.Cluster("example/jitcache:1", **how)


def test_the_kubernetes_manifest_is_valid_against_the_schema():
    validate = pytest.importorskip("kubernetes_validate")
    value = k8s.manifest(job(), cluster(secret="ci", namespace="kernels"))
    for item in value["items"]:
        validate.validate(item, "1.33", strict=True)
    broken = json.loads(json.dumps(value["items"][1]))
    broken["spec"]["completionsMode"] = "Indexed"
    with pytest.raises(validate.ValidationError):
        validate.validate(broken, "1.33", strict=True)


def test_the_kubernetes_job_tells_its_pods_their_share():
    config, item = k8s.manifest(job(), cluster(secret="ci"))["items"]
    assert item["spec"]["completions"] == item["spec"]["parallelism"] == 4
    pod = item["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    env = {e["name"]: e["value"] for e in container["env"]}
    assert env["JITCACHE_SHARDS"] == "4"
    assert container["command"][:4] == ["jitcache", "worker", "--plan", "/plan/plan.json"]
    assert container["envFrom"] == [{"secretRef": {"name": "ci"}}]
    assert container["resources"]["requests"] == {"cpu": "2", "memory": "1856Mi"}
    assert pod["volumes"][0]["configMap"]["name"] == config["metadata"]["name"]
    assert parse_plan(config["data"]["plan.json"].encode(), where="x") == job().plan
    writable = {m["mountPath"] for m in container["volumeMounts"] if not m.get("readOnly")}
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert env["JITCACHE_DIR"] in writable
    assert env["HOME"] in writable


def test_the_kubernetes_job_gives_up_where_starting_again_is_hopeless():
    item = k8s.manifest(job(), cluster())["items"][1]
    rules = item["spec"]["podFailurePolicy"]["rules"]
    by_action = {r["action"]: set(r.get("onExitCodes", {}).get("values", ())) for r in rules}
    assert int(ExitCode.TOOLCHAIN) in by_action["FailJob"]
    assert by_action["FailIndex"] == {1}
    again = {int(ExitCode.AGAIN), int(ExitCode.STORE), 137, 143}
    assert not again & (by_action["FailJob"] | by_action["FailIndex"])


def test_what_kubernetes_would_refuse_is_refused_before():
    with pytest.raises(UsageError, match="can't name"):
        k8s.manifest(replace(job(), name="Kernels_1"), cluster())
    big = replace(job().plan, salt="x" * k8s.MOST_PLAN)
    with pytest.raises(UsageError, match="more than a ConfigMap takes"):
        k8s.manifest(replace(job(), plan=big), cluster())


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    fleet = Fleet(tmp_path_factory.mktemp("fleet"))
    fleet.make_plan(MANIFESTS[0])
    return fleet


def program(fleet: Fleet) -> str:
    return shlex.join([sys.executable, "-m", "tests.fleet_driver", str(fleet.place)])


def test_local_workers_build_everything_and_a_killed_one_is_started_again(planned):
    submit = planned.start(
        *("submit", "--engine", "local", "--plan", str(planned.plan), "-n", "2"),
        *("--cpus", "1", "--program", program(planned), "--json"),
        store="local",
        FLEET_SLEEP="0.3",
    )
    victim = None
    until = time.monotonic() + 20
    while victim is None and time.monotonic() < until:
        children = Path(f"/proc/{submit.pid}/task/{submit.pid}/children").read_text().split()
        threads = Path(f"/proc/{submit.pid}/task").glob("*/children")
        children += [c for t in threads for c in t.read_text().split()]
        if planned.compiled() >= 1 and children:
            victim = int(children[0])
        time.sleep(0.02)
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    out, err = submit.communicate(timeout=60)
    assert submit.returncode == 0, err
    assert "ended with -9, and is started again" in err
    assert json.loads(out)["exit_codes"] == [0, 0]
    assert planned.gather(store="after-local")["missing"] == []


def test_dry_runs_print_and_do_nothing(planned):
    words = ("submit", "--plan", str(planned.plan), "-n", "3", "--dry-run")
    before = planned.compiled()
    for engine, more, wanted in (
        ("local", (), "--shard 2/3"),
        ("dask", (), "--shard 2/3"),
        ("slurm", (), "#SBATCH --array=0-2"),
        ("k8s", ("--image", "example/jitcache:1"), '"completionMode": "Indexed"'),
    ):
        process = planned.start(*words, "--engine", engine, *more)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 0, err
        assert wanted in out
    assert planned.compiled() == before


def test_engines_that_are_not_here_say_what_to_do(planned):
    plan = ("--plan", str(planned.plan))
    nowhere = {"PATH": "/nonexistent"}
    said = planned.run("submit", "--engine", "slurm", *plan, code=ExitCode.TOOLCHAIN, **nowhere)
    assert "no sbatch" in said
    said = planned.run(
        *("submit", "--engine", "k8s", *plan, "--image", "x"), code=ExitCode.TOOLCHAIN, **nowhere
    )
    assert "no kubectl" in said
    said = planned.run("submit", "--engine", "k8s", *plan, code=ExitCode.USAGE)
    assert "--image" in said


def test_a_worker_that_dies_each_time_is_given_up(tmp_path):
    stub = tmp_path / "jitcache"
    stub.write_text('#!/bin/sh\necho x >> "$0.log"\nkill -9 $$\n')
    stub.chmod(0o755)
    told: list[tuple[int, int]] = []
    ends = local.run(replace(job(workers=1), program=(str(stub),)), lambda *said: told.append(said))
    assert [e.code for e in ends] == [-9]
    assert told == [(0, -9)] * 3
    assert len((tmp_path / "jitcache.log").read_text().splitlines()) == 4


def test_dask_workers_build_everything(planned):
    distributed = pytest.importorskip("distributed")
    environ = planned.environ("dask")
    script = (
        "import json, sys\n"
        "from distributed import LocalCluster\n"
        "from jitcache.fleet.engine import dask\n"
        "from jitcache.fleet.engine.job import FleetJob\n"
        "from jitcache.fleet.planfile import load_plan\n"
        "from pathlib import Path\n"
        "with LocalCluster(n_workers=1, threads_per_worker=2, processes=False,\n"
        "                  dashboard_address=None, silence_logs=50) as cluster:\n"
        "    job = FleetJob(load_plan(Path(sys.argv[1])), '', 'x', 2, 1,\n"
        f"                   {tuple(shlex.split(program(planned)))!r})\n"
        "    print(json.dumps([e.told['built'] + e.told['hits'] + e.told['fetched']\n"
        "                      for e in dask.run(job, cluster.scheduler_address)]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(planned.plan)],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert distributed.__version__
    assert done.returncode == 0, done.stderr
    assert sum(json.loads(done.stdout.splitlines()[-1])) == planned.actions
    assert planned.gather(store="after-dask")["missing"] == []
