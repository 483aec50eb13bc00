"""AITER's real loader and ops on our modules.

The installed wheel's always; those of other trees, such as a checkout of 9bab8388, where
JITCACHE_TEST_AITER names them, with colons between them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("pandas")

from jitcache.lockfile import load_lock
from jitcache.runtime import dropin
from jitcache.runtime.jitdir import Place
from jitcache.store.store import Store
from tests import runtime_help as help_
from tests.test_runtime_stages import BLOCK_M, BOTH, INTER, KINDS, spec_of

INSTALLED = sysconfig.get_paths()["purelib"]
NOBODY = 65534
# Root may write whatever modes forbid, unless it gives this up.
UNPRIVILEGED = ("setpriv", "--bounding-set=-dac_override") if os.geteuid() == 0 else ()


def trees():
    """Where AITER is."""
    absent = not Path(INSTALLED, "aiter").is_dir()
    yield pytest.param(
        INSTALLED,
        id="installed",
        marks=pytest.mark.skipif(absent, reason="no AITER is installed: see tools/setup --dev"),
    )
    named = [root for root in os.environ.get("JITCACHE_TEST_AITER", "").split(":") if root]
    for root in named:
        yield pytest.param(root, id=Path(root).name)
    if not named:
        reason = "JITCACHE_TEST_AITER names no other AITER"
        yield pytest.param("", id="9bab8388", marks=pytest.mark.skip(reason=reason))


pytestmark = [pytest.mark.aiter, pytest.mark.parametrize("root", list(trees()))]


@dataclass
class Machine:
    """A directory with a store, a recording HIP library, and what AITER asks of ROCm.

    Attributes:
        home: the directory; everything that a process writes is below it.
        python: the Python that runs AITER.
        search: what PYTHONPATH begins with.
        jit_dir: AITER_JIT_DIR, where it is set.
        prefix: words before every command.
        environment: further variables.
    """

    home: Path
    python: str = sys.executable
    search: tuple[str, ...] = ()
    jit_dir: Path | None = None
    prefix: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        tools = self.home / "rocm" / "bin"
        tools.mkdir(parents=True)
        # A compiler that writes down its calls.
        for name, text in (
            ("hipconfig", "echo 7.1.25424"),
            ("hipcc", f"echo x >> {self.home}/hipcc; exit 1"),
        ):
            (tools / name).write_text(f"#!/bin/sh\n{text}\n")
            (tools / name).chmod(0o755)
        shutil.copy(help_.recorder(), self.home)
        self.store = Store(self.home / "store")

    @property
    def compiler_ran(self) -> bool:
        return (self.home / "hipcc").exists()

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("AITER")},
            "PATH": f"{self.home}/rocm/bin:{os.environ['PATH']}",
            "HOME": str(self.home / "home"),
            "ROCM_HOME": f"{self.home}/rocm",
            "ROCM_PATH": f"{self.home}/rocm",
            "GPU_ARCHS": "gfx950",
            "JITCACHE_DIR": str(self.store.layout.root),
            "JITCACHE_HOST_MEMORY": "1",
            "JITCACHE_HIP_LIBRARY": str(self.home / help_.recorder().name),
            "RECORDING_HIP_LOG": str(self.home / "log"),
            "PYTHONPATH": ":".join((*self.search, str(help_.ROOT))),
            "PYTHONDONTWRITEBYTECODE": "1",
            **({"AITER_JIT_DIR": str(self.jit_dir)} if self.jit_dir else {}),
            **self.environment,
        }
        return subprocess.run(
            [*self.prefix, self.python, *words],
            env=environment,
            capture_output=True,
            text=True,
            cwd=self.home,
        )

    def call(self, root, kind, *stages, block_m=BLOCK_M):
        driver = Path(__file__).with_name("aiter_driver.py")
        return self.run(str(driver), root, kind, str(block_m), *map(str, stages))


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path, jit_dir=tmp_path / "jit")


def lock_of(machine, kind, block_m=BLOCK_M):
    return help_.make_lock(
        machine.store, spec=spec_of(kind), block_ms=(block_m,), inter_dim=INTER, variants=BOTH
    )


def assert_launched(machine, done, stages=(1, 2)):
    """Every call ended in the launch that its tensors ask for."""
    assert done.returncode == 0, done.stderr[-3000:]
    said = [json.loads(line.removeprefix("called")) for line in done.stdout.splitlines()]
    launches = help_.calls(machine.home / "log", "launch")
    assert len(said) == len(launches) == len(stages)
    for stage, problem, launch in zip(stages, said, launches, strict=True):
        assert launch["symbol"].startswith(f"_Zkernel{stage}_{BLOCK_M}_")
        assert bytes.fromhex(launch["kernarg"]) == help_.expected_kernarg(problem)
        assert launch["grid"] == [problem["n"] // 128, problem["sorted_size"] // BLOCK_M, 1]
        assert (launch["block"], launch["stream"]) == ([256, 1, 1], 0)
    assert not machine.compiler_ran


def assert_aiter_builds(machine, root, directory):
    """The control: AITER finds no module and calls the compiler to make one there."""
    done = machine.call(root, "fp4", 1)
    assert "called" not in done.stdout
    # AITER colours the word "error" in what it prints, so only the rest can be looked for.
    lacks = rf"No module named '(aiter\.jit\.)?{spec_of('fp4').name}'"
    assert re.search(lacks, done.stderr)
    assert machine.compiler_ran
    assert (directory / "build" / spec_of("fp4").name / "build").is_dir()


@pytest.mark.parametrize("kind", KINDS)
def test_aiters_stages_reach_our_launches_and_no_compiler_runs(root, kind, machine):
    dropin.install(lock_of(machine, kind), Place.of(machine.jit_dir), machine.store)
    done = machine.call(root, kind, 1, 2)
    assert_launched(machine, done)
    # AITER compares our docs with its own stubs, and says so where they differ.
    assert "type hints mismatch" not in done.stderr


def test_split_k_as_aiters_host_calls_it(root, machine):
    if "splitk" not in Path(root, "aiter", "ops", "moe_op.py").read_text():
        pytest.skip("this AITER doesn't split K")
    dropin.install(lock_of(machine, "splitk"), Place.of(machine.jit_dir), machine.store)
    assert_launched(machine, machine.call(root, "splitk", 1), (1,))


def test_without_our_module_aiter_builds(root, machine):
    dropin.install(lock_of(machine, "fp4"), Place.of(machine.jit_dir), machine.store)
    dropin.uninstall(Place.of(machine.jit_dir))
    assert_aiter_builds(machine, root, machine.jit_dir)


def test_aiter_checks_arguments_by_our_docs(root, machine):
    (package,) = dropin.install(lock_of(machine, "bf16"), Place.of(machine.jit_dir), machine.store)
    with (package / "__init__.py").open("a") as f:
        f.write("ck_moe_stage1.__doc__ = ck_moe_stage1.__doc__.replace('topk: int', 'topk: str')\n")
    done = machine.call(root, "bf16", 1)
    assert "ck_moe_stage1: topk needs to be <class 'str'>" in done.stderr
    assert help_.calls(machine.home / "log", "launch") == []


def test_a_miss_where_building_is_forbidden(root, machine):
    lock = lock_of(machine, "fp4", block_m=128)
    dropin.install(lock, Place.of(machine.jit_dir), machine.store)
    held = next(i.name for i in load_lock(lock).modules[0].instances if i.stage == 1)
    # A name that AITER's whole module has: AITER would log a line and run its heuristic's.
    absent = held.replace("gemm1_256x128x", "gemm1_256x64x")
    for block_m, name in ((BLOCK_M, ""), (128, absent)):
        machine.environment["DRIVER_KERNEL"] = name
        done = machine.call(root, "fp4", 1, block_m=block_m)
        assert "MissError" in done.stderr
        assert f"this module was not built with {absent}" in done.stderr
        assert "into the manifest test-manifest" in done.stderr
    assert help_.calls(machine.home / "log") == []
    assert not machine.compiler_ran


@pytest.mark.parametrize("policy", ["warn", "allow"])
def test_a_miss_where_building_is_allowed(root, policy, machine):
    lock = lock_of(machine, "fp4", block_m=128)
    dropin.install(lock, Place.of(machine.jit_dir), machine.store)
    machine.environment |= {
        "JITCACHE_JIT": policy,
        "DRIVER_BUILDER": str(help_.builder(machine.home)),
    }
    done = machine.call(root, "fp4", 1, 1)
    assert_launched(machine, done, (1, 1))
    assert len((machine.home / "asked").read_text().splitlines()) == 1
    assert ("RuntimeWarning: jitcache compiles" in done.stderr) == (policy == "warn")


def test_a_miss_while_a_graph_is_captured(root, machine):
    lock = lock_of(machine, "fp4", block_m=128)
    dropin.install(lock, Place.of(machine.jit_dir), machine.store)
    machine.environment |= {
        "JITCACHE_JIT": "allow",
        "DRIVER_BUILDER": str(help_.builder(machine.home)),
        "RECORDING_HIP_CAPTURING": "1",
    }
    done = machine.call(root, "fp4", 1)
    assert "ForbiddenError" in done.stderr
    assert "can't be built while a graph is captured" in done.stderr
    assert help_.calls(machine.home / "log") == []
    assert not (machine.home / "asked").exists()


@pytest.fixture
def read_only(root, tmp_path):
    """A machine whose AITER can't be written, with a Python environment of its own."""
    lib = tmp_path / "lib"
    shutil.copytree(
        Path(root, "aiter", "jit"),
        lib / "aiter" / "jit",
        ignore=shutil.ignore_patterns("build", "__pycache__", "*.so", "module_*"),
    )
    for entry in Path(root, "aiter").iterdir():
        if entry.name not in ("jit", "__pycache__"):
            (lib / "aiter" / entry.name).symlink_to(entry)
    for name in ("aiter_meta", "csrc", "hsa", "3rdparty"):
        if Path(root, name).exists():
            (lib / name).symlink_to(Path(root, name))
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    (tmp_path / "home").mkdir()
    machine = Machine(
        tmp_path,
        python=str(tmp_path / "venv" / "bin" / "python"),
        search=(str(lib), INSTALLED),
        prefix=UNPRIVILEGED,
    )
    if UNPRIVILEGED and shutil.which(UNPRIVILEGED[0]) is None:
        pytest.skip("root can't give up its rights without setpriv")
    directories = [Path(directory) for directory, _, _ in os.walk(lib)]
    for directory in directories:
        if UNPRIVILEGED:
            os.chown(directory, NOBODY, NOBODY)
        else:
            # AITER copies the directory with its modes, and then fails to write the copy.
            (tmp_path / "home" / ".aiter" / "jit").mkdir(parents=True, exist_ok=True)
            directory.chmod(0o555)
    tried = machine.run("-c", f"open({str(lib / 'aiter' / 'jit' / 'x')!r}, 'w')")
    assert "PermissionError" in tried.stderr
    yield machine
    for directory in directories:
        directory.chmod(0o755)


def test_a_read_only_install(root, read_only):
    lock = str(lock_of(read_only, "fp4"))
    installed = read_only.run("-m", "jitcache", "aiter", "install", lock, "--json")
    assert installed.returncode == 0, installed.stderr
    (package,) = json.loads(installed.stdout)["installed"]
    assert Path(package).parent.name == "jitcache_aiter"
    assert package.startswith(str(read_only.home / "venv"))
    root = str(read_only.home / "lib")
    assert_launched(read_only, read_only.call(root, "fp4", 1, 2))
    (found,) = json.loads(read_only.run("-m", "jitcache", "aiter", "status", "--json").stdout)
    assert found["kind"] == "installed"
    assert read_only.run("-m", "jitcache", "aiter", "uninstall").returncode == 0
    assert_aiter_builds(read_only, root, read_only.home / "home" / ".aiter" / "jit")
