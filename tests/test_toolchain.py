"""Searching toolchains: fake machines with a stub compiler; a real one for `compile` tests."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jitcache.errors import ExitCode, ToolchainError, UnsupportedError
from jitcache.toolchain import devicelibs, flags
from jitcache.toolchain.base import PartReport, run
from jitcache.toolchain.ck import find_ck, short
from jitcache.toolchain.environment import clean_environment
from jitcache.toolchain.find import examine, find_toolchain, make_request, path_of, root_of
from jitcache.toolchain.finish import COMPAT_HEADER, CSRC, OWN_CK_CONFIG
from jitcache.toolchain.memo import Memo
from jitcache.toolchain.model import Toolchain
from tests.fake_machine import FakeMachine


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    return FakeMachine(tmp_path)


def built(machine: FakeMachine, **changes: object) -> Toolchain:
    return examine(machine.request(**changes)).require()


def report(machine: FakeMachine, name: str, **changes: object) -> PartReport:
    examination = examine(machine.request(**changes))
    assert examination.toolchain is None
    return next(r for r in examination.reports if r.name == name)


# --- provider llvm -------------------------------------------------------------------------


def test_llvm_toolchain_is_complete(machine: FakeMachine) -> None:
    toolchain = built(machine.llvm())
    assert toolchain.provider == "llvm"
    assert re.fullmatch(r"llvm-22\.1\.8-hip5\.2-ck[0-9a-f]{12}-[0-9a-f]{12}", toolchain.id)
    assert toolchain.hip_version == (5, 2)
    digests = {p.name: bool(p.digest) for p in toolchain.parts}
    assert digests == {
        "clang": True,
        "lld": True,
        "host-runtime": True,
        "hip-headers": False,
        "device-libs": True,
        "ck": False,
    }
    assert [p.name for p in toolchain.parts if p.host_only] == ["host-runtime"]
    assert "--offload-arch=gfx950" in toolchain.base_flags
    rocm_path = Path(toolchain.path_flags[0].removeprefix("--rocm-path="))
    assert (rocm_path / "include" / "hip" / "hip_runtime.h").read_text() == "// runtime\n"
    assert (rocm_path / "amdgcn/bitcode/ocml.bc").read_text() == "bitcode of ocml.bc"
    assert "HIP_VERSION_MINOR=2" in (rocm_path / "share/hip/version").read_text()


def test_nothing_that_enters_a_key_names_a_path(machine: FakeMachine) -> None:
    toolchain = built(machine.llvm())
    words = (*toolchain.base_flags, *toolchain.device_flags, *toolchain.host_flags, toolchain.id)
    assert not [w for w in words if str(machine.base) in w or "/" in w]


def test_another_place_gives_the_same_toolchain(tmp_path: Path) -> None:
    # The stub's text names its directory, so both machines share one compiler.
    one, two = FakeMachine(tmp_path / "one").llvm(), FakeMachine(tmp_path / "elsewhere" / "two")
    two.add_hip()
    two.add_device_libs()
    environ = {**one.environ, "JITCACHE_CLANG": str(one.root / "usr/bin/clang++-22")}
    first, second = built(one), built(two, environ=environ)
    assert first.path_flags != second.path_flags
    assert first.id == second.id
    assert [p.digest for p in first.parts] == [p.digest for p in second.parts]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("usr/lib/x86_64-linux-gnu/amdgcn/bitcode/ocml.bc", "other bitcode"),
        ("usr/bin/lld", "other linker"),
        ("usr/lib/gcc/x86_64-linux-gnu/12/libstdc++.a", "other archive"),
    ],
)
def test_changed_part_changes_the_id(machine: FakeMachine, path: str, text: str) -> None:
    before = built(machine.llvm())
    machine.write(path, text)
    after = built(machine)
    assert before.id != after.id
    changed = {
        p.name for p, q in zip(before.parts, after.parts, strict=True) if p.digest != q.digest
    }
    assert len(changed) == 1


def test_replaced_compiler_is_noticed_whatever_its_mtime(machine: FakeMachine) -> None:
    driver = machine.llvm().root / "usr/bin/clang++-22"
    before = built(machine)
    stat = driver.stat()
    machine.add_clang("usr/bin/clang++-22", "22.1.9", salt="new")
    os.utime(driver, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    after = built(machine)
    assert after.id.startswith("llvm-22.1.9-")
    assert after.parts[0].digest != before.parts[0].digest


def test_warm_search_starts_no_process(machine: FakeMachine) -> None:
    cold = built(machine.llvm())
    calls = machine.calls()
    assert sum("-v" in c.split() for c in calls) == 1
    assert sum(c.endswith("trial.hip -o trial.out") for c in calls) == 2
    assert built(machine) == cold
    assert machine.calls() == calls


def test_warm_search_reads_no_ck_header(
    machine: FakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    cold = built(machine.llvm())

    def refuse(path: Path) -> str:
        raise AssertionError(f"read {path}")

    monkeypatch.setattr("jitcache.digest.of_file", refuse)
    assert built(machine) == cold


def test_fact_about_something_else_is_not_believed(tmp_path: Path) -> None:
    memo = Memo(tmp_path)
    memo.remember("flags", ["one"], "known")
    memo.remember("flags", ["two"], "other")
    assert memo.recall("flags", ["one"]) == "known"
    assert memo.recall("clang", ["one"]) is None
    one, two = sorted((tmp_path / "memo-v1").glob("flags-*.json"))
    one_text = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(one_text)
    assert memo.recall("flags", ["one"]) is None
    assert memo.recall("flags", ["two"]) is None


def test_damaged_memo_is_an_empty_one(machine: FakeMachine) -> None:
    cold = built(machine.llvm())
    for file in (machine.cache / "memo-v1").iterdir():
        file.write_bytes(b'{"schema": 1, "garbage')
    assert built(machine) == cold


def test_rejected_flags_are_left_out_and_reported(machine: FakeMachine) -> None:
    machine.llvm().rejected.write_text("-amdgpu-coerce-illegal-types=1 --slp-threshold=-32")
    toolchain = built(machine)
    assert toolchain.rejected_flags == (
        "-mllvm -amdgpu-coerce-illegal-types=1",
        "-mllvm --slp-threshold=-32",
    )
    words = list(toolchain.device_flags)
    assert "--slp-threshold=-32" not in words
    # Every -mllvm still has its own option behind it.
    assert all(words[i + 1] != "-mllvm" for i, w in enumerate(words) if w == "-mllvm")
    assert "--misched-prera-direction=bottomup" in words
    machine.rejected.write_text("")
    shutil.rmtree(machine.cache)
    assert built(machine).id != toolchain.id


def test_compiler_without_the_target_is_wrong(machine: FakeMachine) -> None:
    machine.llvm().rejected.write_text("--offload-arch=gfx950")
    bad = report(machine, "compile")
    assert bad.status == "wrong"
    assert "does not build for gfx950" in bad.detail
    assert "--offload-arch=gfx950" in bad.detail
    machine.rejected.write_text("")
    assert built(machine).provider == "llvm"  # a failure is not remembered


@pytest.mark.parametrize(
    ("remove", "name", "about"),
    [
        ("usr/bin/clang++-22", "clang", "no clang++-22 or newer"),
        ("usr/bin/lld", "lld", "neither beside clang nor on PATH"),
        ("usr/lib/gcc/x86_64-linux-gnu/12/libstdc++.a", "host-runtime", "libstdc++.a"),
        ("usr/include/hip/hip_version.h", "hip-headers", "hip_version.h"),
        ("usr/lib/x86_64-linux-gnu/amdgcn/bitcode/ockl.bc", "device-libs", "ockl.bc"),
    ],
)
def test_missing_part_is_named_with_a_next_step(
    machine: FakeMachine, remove: str, name: str, about: str
) -> None:
    machine.llvm()
    (machine.root / remove).unlink()
    missing = report(machine, name)
    assert missing.status == "missing"
    assert about in missing.detail
    assert "apt install" in missing.next_step
    with pytest.raises(ToolchainError) as caught:
        built(machine)
    assert caught.value.exit_code == ExitCode.TOOLCHAIN
    told = "\n".join(caught.value.details)
    assert re.search(rf"^missing\s+{name}: .*{re.escape(about)}", told, re.MULTILINE)
    assert re.search(r"^found\s+ck: ", told, re.MULTILINE)
    assert caught.value.hint == missing.next_step


def test_runtime_that_comes_and_goes_is_noticed(machine: FakeMachine) -> None:
    archive = machine.llvm().root / "usr/lib/gcc/x86_64-linux-gnu/12/libstdc++.a"
    before = built(machine)
    archive.rename(archive.with_suffix(".gone"))
    assert report(machine, "host-runtime").status == "missing"
    assert report(machine, "host-runtime").status == "missing"
    archive.with_suffix(".gone").rename(archive)
    assert built(machine) == before


def test_old_clang_is_wrong_and_a_newer_one_is_taken(machine: FakeMachine) -> None:
    machine.llvm()
    (machine.root / "usr/bin/clang++-22").unlink()
    machine.add_clang("usr/bin/clang++", "14.0.6")
    old = report(machine, "clang")
    assert (old.status, old.version) == ("wrong", "14.0.6")
    assert "22 or newer" in old.detail
    machine.add_clang("usr/lib/llvm-23/bin/clang++", "23.0.1")
    assert built(machine).id.startswith("llvm-23.0.1-")


def test_named_clang_that_is_none_is_not_replaced_by_another(machine: FakeMachine) -> None:
    machine.llvm()
    broken = machine.write("opt/broken", "#!/bin/sh\necho no such luck >&2\nexit 3\n")
    broken.chmod(0o755)
    environ = {**machine.environ, "JITCACHE_CLANG": str(broken)}
    bad = report(machine, "clang", environ=environ)
    assert (bad.status, bad.detail, bad.path) == ("wrong", "no such luck", broken)


def test_compat_header_only_for_old_hip_headers(machine: FakeMachine) -> None:
    old = built(machine.llvm())
    assert COMPAT_HEADER in old.base_flags
    assert (path_of(old, "compat", COMPAT_HEADER)).is_file()
    machine.add_hip(version="7.1.5")
    assert COMPAT_HEADER not in built(machine).base_flags


def test_unwritable_store_is_explained(machine: FakeMachine) -> None:
    machine.llvm().cache.write_text("a file")
    bad = report(machine, "device-libs")
    assert bad.status == "wrong"
    assert "can't be written" in bad.detail
    assert "JITCACHE_DIR" in bad.next_step


# --- device libraries ----------------------------------------------------------------------


def test_constants_cover_targets_and_what_clang_looks_for() -> None:
    texts = devicelibs.constants()
    assert "i32 9402" in texts["oclc_isa_version_942.bc"]
    assert "i32 9500" in texts["oclc_isa_version_950.bc"]
    assert "@__oclc_ABI_version = " in texts["oclc_abi_version_600.bc"]
    assert "@__oclc_daz_opt = " in texts["oclc_abi_version_600.bc"]
    for name in ("finite_only", "unsafe_math", "correctly_rounded_sqrt", "wavefrontsize64"):
        assert " i8 0," in texts[f"oclc_{name}_off.bc"]
        assert " i8 1," in texts[f"oclc_{name}_on.bc"]


@pytest.mark.parametrize("damage", ["truncate", "remove", "listing"])
def test_damaged_root_is_made_again(machine: FakeMachine, damage: str) -> None:
    toolchain = built(machine.llvm())
    root = Path(toolchain.path_flags[0].removeprefix("--rocm-path="))
    victim = root / "amdgcn" / "bitcode" / "ocml.bc"
    if damage == "truncate":
        victim.write_bytes(victim.read_bytes()[:4])
    elif damage == "remove":
        victim.unlink()
    else:
        (root / "listing.json").write_text("{")
    assert built(machine) == toolchain
    assert victim.read_text() == "bitcode of ocml.bc"
    assert [p.name for p in root.parent.iterdir()] == [root.name]  # nothing left behind


def test_simultaneous_searches_share_one_root(machine: FakeMachine) -> None:
    machine.llvm()
    found: list[Toolchain] = []
    threads = [threading.Thread(target=lambda: found.append(built(machine))) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    assert len(list((machine.cache / "toolchain-v1").iterdir())) == 1


def test_root_of_a_faster_process_is_left_alone(
    machine: FakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    toolchain = built(machine.llvm())
    root = Path(toolchain.path_flags[0].removeprefix("--rocm-path="))
    inode = root.stat().st_ino
    real = devicelibs._read
    answers = iter([None])  # not there when we looked, there when we are done
    monkeypatch.setattr(devicelibs, "_read", lambda *a: next(answers, real(*a)))
    assert built(machine) == toolchain
    assert root.stat().st_ino == inode
    assert [p.name for p in root.parent.iterdir()] == [root.name]


# --- flags ---------------------------------------------------------------------------------

_FLAGS = st.lists(st.integers(0, 30), unique=True, max_size=14).map(
    lambda numbers: tuple((f"-f{n}",) for n in numbers)
)


@settings(max_examples=60)
@given(every=_FLAGS, bad=st.sets(st.integers(0, 30)))
def test_bisection_finds_exactly_the_rejected(every: tuple[flags.Flag, ...], bad: set[int]) -> None:
    refused = {(f"-f{n}",) for n in bad}
    questions: list[tuple[flags.Flag, ...]] = []

    def works(some: tuple[flags.Flag, ...]) -> bool:
        questions.append(some)
        return not refused & set(some)

    probed = flags.bisect(every, works)
    assert probed.accepted == tuple(f for f in every if f not in refused)
    assert probed.rejected == tuple(f for f in every if f in refused)
    if not refused & set(every):
        assert len(questions) <= 1


def test_older_compilers_get_the_older_scheduler_flag() -> None:
    new, old = flags.device_candidates(20), flags.device_candidates(19)
    assert ("-mllvm", "--misched-prera-direction=bottomup") in new
    assert ("-mllvm", "--misched-bottomup=1") in old
    assert len(set(new) ^ set(old)) == 2


# --- CK ------------------------------------------------------------------------------------

_COMMIT = "1234567890abcdef1234567890abcdef12345678"


def ck_of(machine: FakeMachine, **changes: object) -> tuple[object, PartReport]:
    request = machine.request(**changes)
    return find_ck(request, OWN_CK_CONFIG, Memo(machine.cache))


def test_ck_is_taken_from_the_first_place_that_names_one(
    machine: FakeMachine, tmp_path: Path
) -> None:
    trees = {n: machine.add_ck(tmp_path / n, n) for n in ("JITCACHE_CK", "CK_DIR")}
    checkout = tmp_path / "aiter"
    submodule = machine.add_ck(checkout / "3rdparty" / "composable_kernel")
    site = tmp_path / "site"
    installed = machine.add_ck(site / "aiter_meta" / "3rdparty" / "composable_kernel")
    (site / "amd_aiter-0.1.7.dist-info").mkdir()
    environ = {**{n: str(p) for n, p in trees.items()}, "AITER_DIR": str(checkout)}

    def taken(**changes: object) -> Path | None:
        settings = {"ck": None, "environ": environ, "python_path": ("", str(site)), **changes}
        return ck_of(machine, **settings)[1].path

    assert taken(ck=machine.ck) == machine.ck
    assert taken() == trees["JITCACHE_CK"]
    del environ["JITCACHE_CK"]
    assert taken() == trees["CK_DIR"]
    del environ["CK_DIR"]
    assert taken() == submodule
    del environ["AITER_DIR"]
    assert taken() == installed
    assert ck_of(machine, ck=None, python_path=(str(site),))[1].version == "amd-aiter 0.1.7"
    nothing = ck_of(machine, ck=None)[1]
    assert nothing.status == "missing"
    assert "amd-aiter" in nothing.next_step


def test_named_directory_without_ck_is_wrong(machine: FakeMachine, tmp_path: Path) -> None:
    environ = {"CK_DIR": str(machine.ck)}
    tree, bad = ck_of(machine, ck=tmp_path / "empty", environ=environ)
    assert tree is None
    assert (bad.status, bad.path) == ("wrong", tmp_path / "empty")
    assert "--ck names it" in bad.detail
    assert report(machine.llvm(), "ck", ck=tmp_path / "empty").status == "wrong"


@pytest.mark.parametrize("layout", ["detached", "branch", "packed", "submodule", "worktree"])
def test_commit_is_read_from_gits_files(machine: FakeMachine, layout: str, tmp_path: Path) -> None:
    git = machine.ck / ".git"
    if layout in ("submodule", "worktree"):
        git.write_text("gitdir: ../modules/ck\n")
        git = tmp_path / "modules" / "ck"
    git.mkdir(parents=True)
    ref = git / "refs" / "heads" / "develop"
    if layout == "worktree":
        (git / "commondir").write_text("../common\n")
        ref = tmp_path / "modules" / "common" / "refs" / "heads" / "develop"
    if layout in ("detached", "submodule"):
        (git / "HEAD").write_text(_COMMIT + "\n")
    else:
        (git / "HEAD").write_text("ref: refs/heads/develop\n")
    if layout == "packed":
        (git / "packed-refs").write_text(f"# pack-refs\n{_COMMIT} refs/heads/develop\n")
    elif layout in ("branch", "worktree"):
        ref.parent.mkdir(parents=True)
        ref.write_text(_COMMIT + "\n")
    part = ck_of(machine)[1]
    assert part.version == f"commit {_COMMIT[:12]}"
    assert f"-ck{_COMMIT[:12]}-" in built(machine.llvm()).id


def test_broken_git_directory_falls_back_to_the_headers(machine: FakeMachine) -> None:
    (machine.ck / ".git").write_text("gitdir: nowhere\n")
    first = built(machine.llvm())
    assert f"-ck{short(first.ck_commit)}-" in first.id
    assert first.ck_commit.startswith("sha256:")
    machine.add_ck(machine.ck, "// changed\n")
    second = built(machine)
    # The headers enter the keys one by one, so only the readable part of the id follows.
    assert first.ck_commit != second.ck_commit
    assert first.id.rpartition("-")[2] == second.id.rpartition("-")[2]


def test_configuration_header_of_the_tree_or_our_own(machine: FakeMachine) -> None:
    toolchain = built(machine.llvm())
    assert path_of(toolchain, "ck-config", "ck/config.h") == OWN_CK_CONFIG / "ck/config.h"
    assert (OWN_CK_CONFIG / "ck" / "config.h").is_file()
    helper = machine.ck.parent / "ck_helper"
    (helper / "ck").mkdir(parents=True)
    (helper / "ck" / "config.h").write_text("// configured\n")
    roots = [r.name for r in built(machine).include_roots if r.flag]
    assert roots.index("ck-config") < roots.index("ck")
    assert path_of(built(machine), "ck-config", "ck/config.h").parent.parent == helper


# --- names of headers ----------------------------------------------------------------------


def test_each_header_has_one_name(machine: FakeMachine) -> None:
    toolchain = built(machine.llvm())
    linked = Path(toolchain.path_flags[0].removeprefix("--rocm-path=")) / "include/hip"
    cases = {
        machine.ck / "include/ck/ck.hpp": ("ck", "ck/ck.hpp"),
        machine.root / "usr/include/hip/hip_runtime.h": ("hip", "hip_runtime.h"),
        linked / "hip_runtime.h": ("hip", "hip_runtime.h"),
        linked / ".." / "hip" / "hip_runtime.h": ("hip", "hip_runtime.h"),
        CSRC / "hip_compat" / COMPAT_HEADER: ("compat", COMPAT_HEADER),
        CSRC / "ck_config" / "ck" / "config.h": ("ck-config", "ck/config.h"),
        CSRC / "x.hpp": ("csrc", "x.hpp"),
    }
    for path, name in cases.items():
        assert root_of(toolchain, path) == name
        assert path_of(toolchain, *name).resolve() == path.resolve()
    system, relative = root_of(toolchain, machine.root / "usr/include/c++/12/vector")
    assert (system, relative) == ("system-1", "c++/12/vector")


def test_header_outside_of_all_roots_is_refused(machine: FakeMachine) -> None:
    toolchain = built(machine.llvm())
    with pytest.raises(ToolchainError, match="outside of every directory"):
        root_of(toolchain, machine.base / "elsewhere.h")
    with pytest.raises(KeyError):
        path_of(toolchain, "nowhere", "x.h")


# --- provider rocm -------------------------------------------------------------------------


def test_rocm_is_taken_where_it_is_installed(machine: FakeMachine) -> None:
    toolchain = built(machine.llvm().rocm())
    assert toolchain.provider == "rocm"
    assert toolchain.id.startswith("rocm-7.0.1-hip7.0-ck")
    assert f"--rocm-path={machine.root / 'opt/rocm'}" in toolchain.path_flags
    assert COMPAT_HEADER not in toolchain.base_flags
    hip = machine.root / "opt/rocm/include/hip/hip_runtime.h"
    assert root_of(toolchain, hip) == ("hip", "hip_runtime.h")
    assert built(machine, provider="llvm").provider == "llvm"
    assert not (machine.cache / "toolchain-v1" / "rocm").exists()


def test_rocm_path_names_another_installation(machine: FakeMachine, tmp_path: Path) -> None:
    machine.rocm()
    shutil.move(machine.root / "opt/rocm", tmp_path / "root/rocm-7")
    machine.add_clang("rocm-7/lib/llvm/bin/clang++", "20.0.0")
    environ = {"PATH": "", "ROCM_PATH": str(tmp_path / "root/rocm-7")}
    assert built(machine, environ=environ).provider == "rocm"
    gone = {"PATH": "", "ROCM_PATH": str(tmp_path / "nowhere")}
    assert report(machine, "clang", environ=gone).status == "missing"


def test_rocm_before_7_gets_the_older_flag(machine: FakeMachine) -> None:
    toolchain = built(machine.rocm("6.3.4", clang="18.0.0"), arch="gfx942")
    assert "--misched-bottomup=1" in toolchain.device_flags
    assert toolchain.hip_version == (6, 3)


def test_rocm_too_old_for_the_target_is_wrong(machine: FakeMachine) -> None:
    old = report(machine.rocm("6.3.4", clang="18.0.0"), "clang", arch="gfx950")
    assert old.status == "wrong"
    assert "gfx950 needs clang 19" in old.detail
    assert "--provider llvm" in old.next_step


def test_rocm_device_libs_must_know_the_target(machine: FakeMachine) -> None:
    machine.rocm()
    isa = machine.root / "opt/rocm/amdgcn/bitcode/oclc_isa_version_950.bc"
    before = built(machine).id
    isa.write_text("changed")
    assert built(machine).id != before
    isa.unlink()
    bad = report(machine, "device-libs")
    assert bad.status == "wrong"
    assert "oclc_isa_version_950.bc" in bad.detail


def test_rocm_asked_for_and_absent(machine: FakeMachine) -> None:
    absent = report(machine.llvm(), "rocm", provider="rocm")
    assert absent.status == "missing"
    assert "ROCM_PATH" in absent.next_step


# --- the rest ------------------------------------------------------------------------------


def test_impossible_requests_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="gfx1100"):
        make_request("gfx1100")
    with pytest.raises(ToolchainError, match="cuda"):
        make_request("gfx950", provider="cuda")


def test_compilers_run_without_variables_that_steer_them() -> None:
    noisy = {"PATH": "/usr/bin:/bin", "CPATH": "/evil", "LD_PRELOAD": "evil.so", "TMPDIR": "/t"}
    said = set(run(["env"], noisy).out.splitlines())
    assert said == {"PATH=/usr/bin:/bin", "LANG=C", "LC_ALL=C", "TMPDIR=/t"}


def test_program_that_cannot_start_is_a_status() -> None:
    assert run(["/nowhere/clang++"], {}).status == 127


# --- a real compiler -----------------------------------------------------------------------

_COMMON = """
#include "ck/ck.hpp"
#include "ck/tensor_operation/gpu/device/gemm_specialization.hpp"
#include "ck/tensor_operation/gpu/device/tensor_layout.hpp"
#include "ck/tensor_operation/gpu/element/element_wise_operation.hpp"
#include "ck/utility/blkgemmpipe_scheduler.hpp"
#include "ck/tensor_operation/gpu/device/impl/{header}"
namespace device = ck::tensor_operation::device;
template <ck::index_t... Is> using S = ck::Sequence<Is...>;
using Row = ck::tensor_layout::gemm::RowMajor;
using Col = ck::tensor_layout::gemm::ColumnMajor;
using Pass = ck::tensor_operation::element_wise::PassThrough;
struct Scale
{{
    template <typename E, typename C, typename D0, typename D1, typename D2>
    __host__ __device__ constexpr void
    operator()(E& e, const C& c, const D0&, const D1&, const D2& d2) const
    {{ e = ck::type_convert<E>(c * d2); }}
}};
using Ds = ck::Tuple<float, float, float>;
using DsLayout = ck::Tuple<Row, Col, Row>;
"""
_MXFP4 = """
using F4 = ck::f4x2_pk_t;
using E8 = ck::e8m0_bexp_t;
using Op = device::DeviceMoeGemmMXBPreShuffle<
    Row, Col, DsLayout, Row, F4, E8, F4, E8, Ds, ck::bhalf_t, float, float, Pass, Pass, Scale,
    device::GemmSpecialization::Default, 32, 64, 32, 32, 128, 16, 16, 16, 16, 2, 2,
    S<8, 8, 1>, S<1, 0, 2>, S<1, 0, 2>, 2, 16, 16, 1,
    S<8, 8, 1>, S<1, 0, 2>, S<1, 0, 2>, 2, 16, 16, 1,
    2, 2, S<1, 16, 1, 4>, S<8, 1, 8>, ck::BlockGemmPipelineScheduler::Intrawave,
    ck::BlockGemmPipelineVersion::v3, 1, false, true, false, ck::index_t, F4>;
using Gemm = Op::GridwiseGemmBase<Op::NXdlPerWave64>;
"""
_MXFP4_KERNEL = """
template __global__ void ck::kernel_moe_mxgemm_2lds<Gemm, true,
    ck::InMemoryDataOperationEnum::Set, 2, ck::TailNumber::Even>(Gemm::Argument);
"""
_BF16 = """
using B16 = ck::bhalf_t;
using Op = device::DeviceMoeGemm<
    Row, Col, DsLayout, Row, B16, B16, Ds, B16, float, float, Pass, Pass, Scale,
    device::GemmSpecialization::Default, 256, 32, 64, 64, 8, 8, 16, 16, 2, 1,
    S<8, 32, 1>, S<1, 0, 2>, S<1, 0, 2>, 2, 8, 8, 0,
    S<8, 32, 1>, S<1, 0, 2>, S<1, 0, 2>, 2, 8, 8, 0,
    2, 1, S<1, 32, 1, 8>, S<8, 1, 1>, ck::BlockGemmPipelineScheduler::Intrawave,
    ck::BlockGemmPipelineVersion::v1, 1, false, true, false, false, ck::index_t, B16>;
template __global__ void ck::kernel_moe_gemm<Op::GridwiseGemm64, true,
    ck::InMemoryDataOperationEnum::Set, 2, ck::TailNumber::Odd>(Op::GridwiseGemm64::Argument);
"""
_SIZE = 'extern "C" int kernarg_bytes() { return sizeof(Gemm::Argument); }\n'
_MX_HEADER = "device_moe_mx_gemm_bpreshuffle.hpp"


def compile_real(toolchain: Toolchain, text: str, words: tuple[str, ...], place: Path) -> Path:
    """Compile with every flag of the toolchain, and check the names of all headers read."""
    (place / "unit.hip").write_text(text)
    includes = [w for r in toolchain.include_roots if r.flag for w in (r.flag, str(r.path))]
    depfile = ("-dependency-file", "unit.d", "-MT", "unit", "-sys-header-deps")
    done = subprocess.run(
        [
            str(toolchain.compiler),
            *toolchain.base_flags,
            *toolchain.path_flags,
            *includes,
            *words,
            *(w for option in depfile for w in ("-Xclang", option)),
            "unit.hip",
            "-o",
            "unit.out",
        ],
        cwd=place,
        env=clean_environment(os.environ),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[:4000]
    read = (place / "unit.d").read_text().replace("\\\n", " ").split()[1:]
    names = {root_of(toolchain, place / h)[0] for h in read if h != "unit.hip"}
    assert {"ck", "ck-config", "hip", "clang", "system"} <= names
    return place / "unit.out"


@pytest.mark.compile
@pytest.mark.parametrize(
    ("arch", "unit"),
    [
        ("gfx950", _COMMON.format(header=_MX_HEADER) + _MXFP4 + _MXFP4_KERNEL),
        ("gfx942", _COMMON.format(header="device_moe_gemm.hpp") + _BF16),
    ],
    ids=["mxfp4-gfx950", "bf16-gfx942"],
)
def test_real_ck_kernel_compiles(arch: str, unit: str, tmp_path: Path) -> None:
    toolchain = find_toolchain(arch)
    words = (*toolchain.device_flags, "--cuda-device-only", "--no-gpu-bundle-output", "-c")
    data = compile_real(toolchain, unit, words, tmp_path).read_bytes()
    assert data[:4] == b"\x7fELF"
    assert data[18:20] == (224).to_bytes(2, "little")  # EM_AMDGPU
    assert f"amdgcn-amd-amdhsa--{arch}".encode() in data


@pytest.mark.compile
def test_real_host_library_has_the_same_bytes_at_another_place(tmp_path: Path) -> None:
    toolchain = find_toolchain("gfx950")
    ck = next(r for r in toolchain.include_roots if r.name == "ck").path.parent
    config = next(r for r in toolchain.include_roots if r.name == "ck-config").path
    shutil.copytree(ck / "include" / "ck", tmp_path / "x" / "copy" / "include" / "ck")
    shutil.copytree(config, tmp_path / "x" / "ck_helper")
    moved = find_toolchain("gfx950", ck=tmp_path / "x" / "copy")
    assert moved.id == toolchain.id or "-ck" in moved.id
    unit = _COMMON.format(header=_MX_HEADER) + _MXFP4 + _SIZE
    words = (*toolchain.host_flags, "--cuda-host-only", "-shared")
    outputs = []
    for number, each in enumerate((toolchain, moved)):
        place = tmp_path / str(number)
        place.mkdir()
        outputs.append(compile_real(each, unit, words, place).read_bytes())
    assert outputs[0] == outputs[1]
    assert str(ck).encode() not in outputs[0]
