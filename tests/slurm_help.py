"""A Slurm of this machine alone: munged, slurmctld and slurmd on loopback, for one test."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.remote_servers import free_port, needs, running

_CREDENTIALS_S = 5
"""How long credentials hold: a requeued task waits for that long, two minutes by default."""


@contextlib.contextmanager
def slurm(place: Path, cpus: int = 2) -> Iterator[dict[str, str]]:
    """A cluster of one node; the environment in which sbatch finds it."""
    needs("munged", "slurmctld", "slurmd", "sbatch")
    if os.geteuid() != 0:
        pytest.skip("slurmd has to run as root")
    ports = (free_port(), free_port())
    config = place / "slurm.conf"
    config.write_text(_config(place, cpus, *ports))
    environment = {"SLURM_CONF": str(config)}
    key = place / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    munged = ["munged", "--foreground", "--force", f"--key-file={key}"]
    munged += [f"--socket={place}/munge.socket", f"--pid-file={place}/munged.pid"]
    munged += [f"--seed-file={place}/munged.seed", f"--log-file={place}/munged.log"]
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(_process(munged, place / "munged.out"))
        _wait((place / "munge.socket").exists, process, place / "munged.out")
        for words, port in ((["slurmctld"], ports[0]), (["slurmd"], ports[1])):
            log = place / f"{words[0]}.out"
            stack.enter_context(running([*words, "-D", "-f", str(config)], port, log))
        _wait(lambda: _idle(environment), process, place / "slurmctld.out")
        yield environment


def call(environment: dict[str, str], *words: str) -> str:
    """What a Slurm command says."""
    done = subprocess.run(
        words, env=os.environ | environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def wait_for_job(environment: dict[str, str], job: str, timeout_s: float) -> None:
    """Wait until no task of a job is left in the queue."""
    until = time.monotonic() + timeout_s
    while call(environment, "squeue", "-h", "-o", "%A", "-j", job).strip():
        if time.monotonic() > until:
            raise AssertionError(call(environment, "squeue"))
        time.sleep(0.2)


def _config(place: Path, cpus: int, controller: int, node: int) -> str:
    host = socket.gethostname().partition(".")[0]
    (place / "state").mkdir()
    (place / "spool").mkdir()
    return f"""
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={place}/munge.socket,cred_expire={_CREDENTIALS_S}
CredType=cred/munge
SlurmctldPort={controller}
SlurmdPort={node}
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0
MinJobAge=300
KillWait=2
MpiDefault=none
JobRequeue=1
ReturnToService=2
SwitchType=switch/none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=8000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES State=UP MaxTime=INFINITE
"""


@contextlib.contextmanager
def _process(words: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    path = f"{os.environ['PATH']}:/usr/sbin"
    with log.open("wb") as f:
        process = subprocess.Popen(
            words, stdout=f, stderr=f, stdin=subprocess.DEVNULL, env=os.environ | {"PATH": path}
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(10)


def _wait(ready, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(200):
        if ready():
            return
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    raise AssertionError(log.read_text())


def _idle(environment: dict[str, str]) -> bool:
    with contextlib.suppress(subprocess.CalledProcessError):
        return call(environment, "sinfo", "-h", "-o", "%t").strip() == "idle"
    return False
