"""tools/setup on machines whose package manager is a stub."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LLVM = ["clang-22", "lld-22", "llvm-22", "libamdhip64-dev", "rocm-device-libs"]
ALL = [*LLVM, "libmimalloc2.0"]
SERVERS = [
    *("docker-registry", "skopeo", "umoci", "nginx-light", "libnginx-mod-http-dav-ext"),
    *("apache2-utils", "openssl", "zstd", "slurm-wlm", "munge", "ccache"),
]
BROWSER = ["chromium", "chromium-driver"]


class Machine:
    """A checkout and a PATH of stubs that write down what they are asked.

    Args:
        base: an empty directory.
    """

    def __init__(self, base: Path) -> None:
        self.base = base
        self.checkout = base / "checkout"
        self.bin = base / "bin"
        self.log = base / "log"
        (self.checkout / "tools").mkdir(parents=True)
        self.bin.mkdir()
        self.log.write_text("")
        self.installed = base / "installed"
        self.installed.write_text("")
        shutil.copy(ROOT / "tools" / "setup", self.checkout / "tools")
        (self.checkout / "pyproject.toml").write_text("[project]\n")
        self.stub("id", "echo 0")
        query = 'for p in "$@"; do :; done; '
        self.stub("dpkg-query", f'{query}grep -qx "$p" {self.installed} && printf installed')
        self.stub("apt-get", f'echo "apt-get $*" >> {self.log}')
        self.stub("apt-cache", "exit 0")
        venv = f"mkdir -p .venv/bin && cp {self.bin}/venv-python .venv/bin/python"
        self.stub(
            "python3", f'case "$*" in "-m venv "*) echo "python3 $*" >> {self.log}; {venv} ;; esac'
        )
        self.stub(
            "venv-python",
            f'case "$*" in\n'
            f'  *"-m pip install"*) echo "pip ${{*#*install }}" >> {self.log}\n'
            f"    cp {self.bin}/jitcache .venv/bin/jitcache\n"
            f'    case "$*" in *amd-aiter*) touch {base}/ck ;; esac ;;\n'
            f"  *amd-aiter*) test -e {base}/ck ;;\n"
            f"esac",
        )
        self.stub("jitcache", f'echo "jitcache $*" >> {self.log}')

    def stub(self, name: str, body: str) -> None:
        file = self.bin / name
        file.write_text(f"#!/bin/sh\n{body}\n")
        file.chmod(0o755)

    def run(self, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.checkout / "tools" / "setup", *words],
            env={
                "PATH": f"{self.bin}:/usr/bin:/bin",
                "ROCM_PATH": str(self.base / "no-rocm"),
                "TMPDIR": str(self.base),
                **environ,
            },
            cwd="/",
            capture_output=True,
            text=True,
            timeout=60,
        )

    def done(self) -> list[str]:
        return self.log.read_text().splitlines()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_fresh_machine_gets_everything_and_a_second_run_nothing(machine: Machine) -> None:
    first = machine.run()
    assert first.returncode == 0, first.stderr
    assert machine.done() == [
        "apt-get update -qq",
        f"apt-get install -y -qq --no-install-recommends {' '.join(ALL)}",
        "python3 -m venv --clear .venv",
        "pip -q --disable-pip-version-check -e .",
        "pip -q --disable-pip-version-check --no-deps amd-aiter==0.1.7.post2.dev18",
        "jitcache doctor",
    ]
    machine.log.write_text("")
    machine.installed.write_text("\n".join(ALL) + "\n")
    assert machine.run().returncode == 0
    assert machine.done() == ["jitcache doctor"]
    assert not [f for f in machine.base.iterdir() if f.name.startswith("tmp.")]


def test_only_what_is_missing_is_installed(machine: Machine) -> None:
    machine.installed.write_text("clang-22\nllvm-22\nlibamdhip64-dev\nlibmimalloc2.0\n")
    assert machine.run().returncode == 0
    assert machine.done()[1].endswith("--no-install-recommends lld-22 rocm-device-libs")


def test_dev_extra_is_installed_once_and_kept(machine: Machine) -> None:
    machine.installed.write_text("\n".join([*ALL, *SERVERS, *BROWSER]) + "\n")
    assert machine.run("--dev").returncode == 0
    assert "pip -q --disable-pip-version-check -e .[dev]" in machine.done()
    machine.log.write_text("")
    assert machine.run().returncode == 0
    assert machine.run("--dev").returncode == 0
    assert machine.done() == ["jitcache doctor"] * 2
    (machine.checkout / "pyproject.toml").write_text("[project]\nname = 'changed'\n")
    machine.log.write_text("")
    assert machine.run("--dev").returncode == 0
    assert machine.done()[0] == "pip -q --disable-pip-version-check -e .[dev]"


def test_dry_run_says_and_does_nothing(machine: Machine) -> None:
    machine.stub("id", "echo 1000")
    told = machine.run("--dry-run", "--dev")
    assert told.returncode == 0
    assert machine.done() == []
    assert not (machine.checkout / ".venv").exists()
    lines = told.stdout.splitlines()
    assert f"apt-get install -y -qq --no-install-recommends {' '.join(ALL)}" in lines
    assert ".venv/bin/python -m pip install -q --disable-pip-version-check -e .[dev]" in lines
    assert lines[-1] == ".venv/bin/jitcache doctor"


def test_without_root_the_exact_command_is_printed(machine: Machine) -> None:
    machine.stub("id", "echo 1000")
    machine.installed.write_text("clang-22\nlld-22\nllvm-22\nlibmimalloc2.0\n")
    told = machine.run()
    assert told.returncode == 1
    assert told.stdout == (
        "sudo apt-get update -qq && sudo apt-get install -y -qq --no-install-recommends"
        " libamdhip64-dev rocm-device-libs\n"
    )
    assert machine.done() == []
    machine.installed.write_text("\n".join(ALL) + "\n")
    assert machine.run().returncode == 0  # nothing needs root any more


def test_rocm_needs_no_llvm_packages(machine: Machine) -> None:
    driver = machine.base / "rocm" / "lib" / "llvm" / "bin" / "clang++"
    driver.parent.mkdir(parents=True)
    driver.write_text("")
    driver.chmod(0o755)
    done = machine.run(ROCM_PATH=str(machine.base / "rocm"))
    assert done.returncode == 0
    assert "llvm packages are not needed" in done.stderr
    assert not [line for line in machine.done() if line.startswith("apt-get")]


def test_python_without_venv_needs_its_package(machine: Machine) -> None:
    machine.installed.write_text("\n".join(ALL) + "\n")
    machine.stub("python3", 'case "$*" in *ensurepip*) exit 1 ;; esac')
    assert "install -y -qq --no-install-recommends python3-venv" in machine.run("--dry-run").stdout


def test_own_ck_needs_no_wheel(machine: Machine) -> None:
    assert machine.run(CK_DIR="/somewhere").returncode == 0
    assert not [line for line in machine.done() if "amd-aiter" in line]


def test_unknown_package_names_the_suite(machine: Machine) -> None:
    machine.stub("apt-cache", 'case "$*" in *clang-22*) exit 100 ;; esac')
    refused = machine.run()
    assert refused.returncode == 1
    assert "no package source here has clang-22" in refused.stderr
    assert "security suite" in refused.stderr
    assert machine.done() == ["apt-get update -qq"]


def test_failing_step_shows_its_output(machine: Machine) -> None:
    machine.stub("apt-get", "echo E: broken mirror >&2; exit 100")
    failed = machine.run()
    assert failed.returncode == 1
    assert "E: broken mirror" in failed.stderr
    assert "failed: apt-get update -qq" in failed.stderr


def test_doctor_has_the_last_word(machine: Machine) -> None:
    machine.stub("jitcache", "echo missing lld; exit 4")
    failed = machine.run()
    assert failed.returncode == 1
    assert "missing lld" in failed.stderr


def test_other_systems_are_told_what_to_install(machine: Machine) -> None:
    script = machine.checkout / "tools" / "setup"
    tools = machine.base / "tools"
    tools.mkdir()
    for name in ("bash", "dirname", "env", "cat", "cksum", "id", "tail", "mktemp", "rm"):
        (tools / name).symlink_to(shutil.which(name) or "/bin/false")
    (tools / "python3").symlink_to(machine.bin / "python3")
    told = subprocess.run(
        [script], env={"PATH": str(tools), "ROCM_PATH": "/nowhere"}, capture_output=True, text=True
    )
    assert told.returncode == 1
    assert "this is no Debian" in told.stderr
    assert "--no-packages" in told.stderr


def test_bad_option(machine: Machine) -> None:
    assert machine.run("--wat").returncode == 2
    assert "--dry-run" in machine.run("--help").stdout
    assert machine.done() == []


@pytest.mark.parametrize("script", ["tools/setup", "tools/test", ".ci/run"])
def test_scripts_are_executable_bash_that_stops_at_errors(script: str) -> None:
    path = ROOT / script
    assert os.access(path, os.X_OK)
    text = path.read_text()
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "\nset -euo pipefail\n" in text
    assert subprocess.run(["bash", "-n", path]).returncode == 0
