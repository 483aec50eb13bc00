"""The shortcuts through CK: when they are used, what they compute, and that code stays the same."""

from __future__ import annotations

import ctypes
import dataclasses
import re
import runpy
import subprocess
from pathlib import Path

import pytest

from jitcache.action.command import compile_command
from jitcache.action.resolve import Resolver
from jitcache.codegen import catalog, native
from jitcache.codegen.catalog.variants import variant_for
from jitcache.store.store import Store
from jitcache.toolchain import finish, shortcuts
from jitcache.toolchain.compiler import build_of
from jitcache.toolchain.find import examine
from jitcache.toolchain.model import Toolchain
from tests.compile_help import installed
from tests.fake_machine import FakeMachine

PROVED = next(iter(shortcuts.PROVED))
SHORTCUTS = "jitcache/shortcuts"


def test_they_are_used_with_what_they_were_proved_with() -> None:
    for proof in shortcuts.PROVED:
        assert shortcuts.decide(proof, {}) == shortcuts.Shortcuts(True, "")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"ck": "sha256:" + "1" * 64}, "these CK headers (sha256:111111111111)"),
        ({"compiler": "Debian clang version 22.1.7"}, "Debian clang version 22.1.7"),
        # The same number, but other sources.
        ({"compiler": "AMD clang version 22.1.8 (roc-7.9)"}, "AMD clang version 22.1.8 (roc-7.9)"),
        ({"hip": "7.1.0"}, "HIP headers 7.1.0"),
        ({"compiler": "clang", "hip": "6.0.0"}, "clang or HIP headers 6.0.0"),
    ],
)
def test_they_are_not_used_with_anything_else(change: dict[str, str], named: str) -> None:
    refused = shortcuts.decide(PROVED._replace(**change), {})
    assert refused == shortcuts.Shortcuts(False, f"not proved with {named}")
    assert refused.flags == ()


def test_parts_of_two_proofs_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    other = shortcuts.Proof("sha256:2", "clang", "7.1.0")
    monkeypatch.setattr(shortcuts, "PROVED", frozenset({PROVED, other}))
    mixed = shortcuts.decide(PROVED._replace(hip=other.hip), {})
    assert mixed == shortcuts.Shortcuts(False, "not proved with all of these together")


def test_a_variable_leaves_them_out() -> None:
    off = shortcuts.decide(PROVED, {shortcuts.VARIABLE: "off"})
    assert off == shortcuts.Shortcuts(False, "JITCACHE_SHORTCUTS is off")


# Version lines as these builds print them.
@pytest.mark.parametrize(
    ("banner", "build"),
    [
        ("Debian clang version 22.1.8 (1~deb12u1)", "Debian clang version 22.1.8"),
        ("Debian clang version 22.1.8 (2+b1)", "Debian clang version 22.1.8"),
        ("Ubuntu clang version 22.1.8 (1ubuntu1)", "Ubuntu clang version 22.1.8"),
        (
            "Debian clang version 22.1.8 (++20260617031257+1a2b3c4d5e6f-1~exp1~20260617151313.5)",
            None,
        ),
        (
            "AMD clang version 20.0.0git (https://github.com/ROCm/llvm-project roc-7.0.1)",
            None,
        ),
        ("clang version 22.1.8 (https://github.com/llvm/llvm-project.git 1a2b3c4d5e6f)", None),
        ("clang version 22.1.8", None),
    ],
)
def test_a_compiler_is_known_by_its_sources_and_not_by_its_package(
    banner: str, build: str | None
) -> None:
    assert build_of(banner) == (build or banner)


def proving(monkeypatch: pytest.MonkeyPatch, machine: FakeMachine) -> None:
    """Take what this machine has now for proved."""

    def decide(met: shortcuts.Proof, _: object) -> shortcuts.Shortcuts:
        monkeypatch.setattr(shortcuts, "PROVED", frozenset({met}))
        return shortcuts.Shortcuts(True)

    with monkeypatch.context() as patch:
        patch.setattr(finish, "decide", decide)
        examine(machine.request()).require()


def test_a_toolchain_without_them_says_why(tmp_path: Path) -> None:
    toolchain = examine(FakeMachine(tmp_path).llvm().request()).require()
    assert shortcuts.MACRO not in toolchain.device_flags
    assert toolchain.no_shortcuts.startswith("not proved with these CK headers (sha256:")
    assert toolchain.no_shortcuts.endswith(" or Some clang version 22.1.8 (vendor)")


def test_using_them_is_a_flag_of_device_passes_and_another_toolchain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = FakeMachine(tmp_path).llvm()
    without = examine(machine.request()).require()
    proving(monkeypatch, machine)
    used = examine(machine.request()).require()
    assert used.device_flags == (*without.device_flags, shortcuts.MACRO)
    assert used.host_flags == without.host_flags
    assert used.no_shortcuts == ""
    assert used.id != without.id
    assert shortcuts.MACRO in compile_command(used, "device").flags
    assert shortcuts.MACRO not in compile_command(used, "host-shim").argv


def test_a_rebuilt_package_is_proved_and_another_vendor_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = FakeMachine(tmp_path).llvm()
    driver = "usr/bin/clang++-22"
    machine.add_clang(driver, "22.1.8", banner="Debian clang version {} (1~deb12u1)")
    proving(monkeypatch, machine)
    first = examine(machine.request()).require()
    machine.add_clang(driver, "22.1.8", banner="Debian clang version {} (1~deb13u2)", salt="2")
    rebuilt = examine(machine.request()).require()
    assert (first.no_shortcuts, rebuilt.no_shortcuts) == ("", "")
    assert first.id != rebuilt.id  # its digest is in every key
    machine.add_clang(driver, "22.1.8", banner="AMD clang version {} (roc-7.9)", salt="3")
    amd = examine(machine.request()).require()
    assert amd.no_shortcuts == "not proved with AMD clang version 22.1.8 (roc-7.9)"


def test_an_edited_checkout_is_not_believed_for_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = FakeMachine(tmp_path).llvm()
    proving(monkeypatch, machine)
    (machine.ck / ".git").mkdir()
    (machine.ck / ".git" / "HEAD").write_text("a" * 40 + "\n")
    checkout = examine(machine.request()).require()
    assert (checkout.ck_commit, checkout.no_shortcuts) == ("a" * 40, "")
    machine.add_ck(machine.ck, "// edited\n")
    edited = examine(machine.request()).require()
    assert edited.ck_commit == checkout.ck_commit
    assert edited.no_shortcuts.startswith("not proved with these CK headers")


def test_every_family_has_kernels_in_the_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    tool = Path(__file__).parent.parent / "tools" / "prove_shortcuts"
    monkeypatch.syspath_prepend(str(tool.parent))
    modules = runpy.run_path(str(tool))["MODULES"]
    found = [
        instance
        for spec in modules
        for arch in catalog.ARCHES
        if catalog.refusal(spec, arch) is None
        for instance in catalog.instances(spec, arch)
    ]
    assert {i.family for i in found} == {f.tag for f in catalog.all_families()}
    headers = (finish.CSRC / "jitcache" / "family").glob("*.hpp")
    assert {native.header(i) for i in found} == {h.stem for h in headers}


# --- real compiles ---------------------------------------------------------------------------

_VALUES = """\
#include "jitcache/shortcuts/begin.hpp"
#include "ck/utility/common_header.hpp"
#include "ck/tensor_description/tensor_descriptor_helper.hpp"
#include "ck/tensor_description/tensor_space_filling_curve.hpp"
#include "jitcache/shortcuts/end.hpp"

using namespace ck;

static int values[4096];
static int count = 0;
static void note(int value) { values[count++] = value; }

template <index_t... Is>
static void note(Sequence<Is...>)
{
    note(static_cast<int>(sizeof...(Is)));
    (note(Is), ...);
}

template <typename Curve>
static void curve()
{
    note(Curve::ScalarPerVector);
    static_for<0, Curve::GetNumOfAccess(), 1>{}([](auto step) {
        constexpr auto at  = Curve::GetIndex(step);
        const auto numbers = Curve::GetIndexTupleOfNumber(step);
        static_for<0, Curve::nDim, 1>{}([&](auto i) { note(at[i]), note(numbers[i]); });
        if constexpr(step.value + 1 < Curve::GetNumOfAccess())
        {
            constexpr auto forward = Curve::GetForwardStep(step);
            static_for<0, Curve::nDim, 1>{}([&](auto i) { note(forward[i]); });
        }
        if constexpr(step.value > 0)
        {
            constexpr auto backward = Curve::GetBackwardStep(step);
            static_for<0, Curve::nDim, 1>{}([&](auto i) { note(backward[i]); });
        }
    });
}

template <typename Descriptor>
static void descriptor(Descriptor d)
{
    note(Descriptor::GetNumOfDimension()), note(Descriptor::GetNumOfHiddenDimension());
    note(Descriptor::GetNumOfTransform()), note(Descriptor::IsKnownAtCompileTime());
    note(d.GetElementSize()), note(static_cast<int>(d.GetElementSpaceSize()));
    note(d.GetLengths()), note(static_cast<int>(sizeof(Descriptor)));
    static_for<0, Descriptor::GetNumOfDimension(), 1>{}([&](auto i) { note(d.GetLength(i)); });
    constexpr index_t numbers = Descriptor{}.CalculateOffset(
        make_tuple(Number<1>{}, Number<2>{}, Number<3>{}));
    constexpr index_t mixed = Descriptor{}.CalculateOffset(make_tuple(1, Number<0>{}, 4));
    constexpr index_t indices = Descriptor{}.CalculateOffset(make_multi_index(0, 1, 2));
    note(numbers), note(mixed), note(indices);
    note(d.CalculateOffset(make_multi_index(values[0] % 2, 2, 1)));
}

extern "C" __attribute__((visibility("default"))) int fill(int* out)
{
    curve<SpaceFillingCurve<Sequence<2, 6, 4>, Sequence<0, 1, 2>, Sequence<1, 2, 4>>>();
    curve<SpaceFillingCurve<Sequence<4, 3, 8>, Sequence<2, 0, 1>, Sequence<1, 1, 2>>>();
    curve<SpaceFillingCurve<Sequence<4, 3, 4>, Sequence<1, 2, 0>, Sequence<2, 1, 1>, false>>();
    curve<SpaceFillingCurve<Sequence<8>, Sequence<0>, Sequence<2>>>();
    curve<SpaceFillingCurve<const Sequence<2, 4>, Sequence<1, 0>, const Sequence<1, 2>>>();
    descriptor(make_naive_tensor_descriptor_packed(
        make_tuple(Number<3>{}, Number<4>{}, Number<5>{})));
    descriptor(make_naive_tensor_descriptor(make_tuple(Number<3>{}, Number<4>{}, Number<5>{}),
                                            make_tuple(Number<7>{}, Number<30>{}, Number<2>{})));
    note(typename sequence_map_inverse<Sequence<2, 0, 3, 1>>::type{});
    note(typename sequence_merge<Sequence<1>, Sequence<2, 3>, Sequence<>, Sequence<4>>::type{});
    note(typename arithmetic_sequence_gen<9, 1, -2>::type{});
    note(typename uniform_sequence_gen<3, 5>::type{});
    note(typename sequence_unique_sort<Sequence<5, 1, 5, 0, 3, 1>,
                                       math::less<index_t>,
                                       math::equal<index_t>>::type{});
    note(typename sequence_unique_sort<const Sequence<7, 2, 7, 0, 2>,
                                       math::less<index_t>,
                                       math::equal<index_t>>::type{});
    note(is_valid_sequence_map<const Sequence<2, 0, 1>>::value);
    note(is_valid_sequence_map<const Sequence<2, 0, 3>>::value);
    note(is_valid_sequence_map<Sequence<2, 0, 1>>::value);
    note(is_valid_sequence_map<Sequence<2, 0, 2>>::value);
    note(is_valid_sequence_map<Sequence<1, 2, 3>>::value);
    note(is_valid_sequence_map<Sequence<0, -1>>::value);
    note(is_valid_sequence_map<Sequence<>>::value);
    for(int i = 0; i < count; ++i)
        out[i] = values[i];
    return count;
}
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def toolchain_for(arch: str, cache: Path) -> Toolchain:
    found = installed(arch, cache)
    if found.no_shortcuts:
        pytest.skip(found.no_shortcuts)
    return found


def compile_with(argv: tuple[str, ...], text: str, place: Path, *more: str) -> Path:
    place.mkdir()
    (place / "unit.hip").write_text(text)
    named = {"source": place / "unit.hip", "output": place / "out", "depfile": place / "unit.d"}
    words = [re.sub(r"\{(\w+)\}", lambda m: str(named[m[1]]), w) for w in argv]
    done = subprocess.run([*words[:-1], *more, words[-1]], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return place / "out"


@pytest.mark.compile
def test_they_compute_what_ck_computes(cache: Path, tmp_path: Path) -> None:
    argv = compile_command(toolchain_for("gfx950", cache), "host-shim").argv
    found = []
    for name, word in (("ck", "-UJITCACHE_CK_SHORTCUTS"), ("ours", shortcuts.MACRO)):
        library = ctypes.CDLL(str(compile_with(argv, _VALUES, tmp_path / name, word)))
        values = (ctypes.c_int * 4096)()
        found.append(list(values[: library.fill(values)]))
    assert len(found[0]) > 500
    assert found[0] == found[1]


# One cheap kernel of each family; docs/compile-time.md says how many were compared.
KERNELS = """
gfx950 gemm1_64x32x32x128_1x1_MulABScaleShuffled_v3 Quant3 1_silu_FP4X2_FP4X2_F16
gfx950 gemm1_256x32x128x128_1x4_MulABScale_v3 Quant3 1_silu_FP4X2_FP4X2_F16
gfx942 gemm2_256x32x64x64_1x4_TypeCast_v1 Quant0 0_B16_B16_F16
gfx942 gemm2_64x16x64x64_1x1_MulABScaleExpertWeight_v1 Quant0 0_F8_F8_F16
gfx950 gemm2_128x16x128x128_1x2_MulABScaleExpertWeightA8W8blkscale_v1 Quant4 0_F8_F8_F16
gfx942 gemm1_256x32x64x128_1x4_MulABScaleWint4_v1 Quant0 1_silu_F8_I4_F16
""".strip().splitlines()


def recipe_of(kernel: str) -> native.Recipe:
    arch, tile, quant, types = kernel.split()
    name = f"moe_ck2stages_{tile}_Nswizzle0_{quant}_MulRoutedWeight{types}"
    instance = catalog.find(name, catalog.parse_name(name).module(act="silu"), arch)
    assert instance is not None
    return native.device_recipe(instance, (variant_for(instance, 7168),), arch)


@pytest.mark.compile
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: k.split("_v")[0])
def test_the_key_covers_every_shortcut_and_every_header_of_ck_as_before(
    kernel: str, cache: Path
) -> None:
    arch = kernel.split()[0]
    used = toolchain_for(arch, cache)
    kept = tuple(flag for flag in used.device_flags if flag != shortcuts.MACRO)
    listed = [
        {h.name: h.digest for h in Resolver(Store(cache), toolchain, arch).scan(recipe_of(kernel))}
        for toolchain in (used, dataclasses.replace(used, device_flags=kept))
    ]
    ours = {f"csrc/{SHORTCUTS}/{f.name}" for f in (finish.CSRC / SHORTCUTS).iterdir()}
    assert ours <= set(listed[0])
    assert ours & set(listed[1]) == {f"csrc/{SHORTCUTS}/{n}.hpp" for n in ("begin", "end")}
    # They replace templates, not files: whoever edits CK's own still gets another key.
    assert listed[1].items() <= listed[0].items()


@pytest.mark.compile
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: k.split("_v")[0])
def test_a_kernel_has_the_same_bytes_with_and_without(
    kernel: str, cache: Path, tmp_path: Path
) -> None:
    arch, text = kernel.split()[0], recipe_of(kernel).render()
    argv = compile_command(toolchain_for(arch, cache), "device").argv
    trace = tmp_path / "trace.json"
    traced = (f"-ftime-trace={trace}", "-ftime-trace-granularity=0")
    words = (shortcuts.MACRO, *(w for option in traced for w in ("-Xclang", option)))
    with_them = compile_with(argv, text, tmp_path / "with", *words)
    without = compile_with(argv, text, tmp_path / "without", "-UJITCACHE_CK_SHORTCUTS")
    assert with_them.read_bytes() == without.read_bytes()
    # A shortcut that no longer matches what CK asks for costs time and nothing else.
    assert "ck::SpaceFillingCurve<" in trace.read_text()
    assert "ck::sequence_sort_impl<" not in trace.read_text()
    assert "shortcuts/curve.hpp" in (tmp_path / "with" / "unit.d").read_text()
    assert "shortcuts/curve.hpp" not in (tmp_path / "without" / "unit.d").read_text()
