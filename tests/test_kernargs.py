"""Recorded launches carry what CK's own `MakeArgument` makes of the same call.

The runtime's side is whole: a real host shim behind `jitcache.load`, AITER's stage calls, and
the recording HIP library. Against it stands a program (tests/ck_direct) that spells out CK's
device operation as AITER does and shares no code with csrc/jitcache. Code objects play no part
in an argument, so stand-ins are loaded.
"""

from __future__ import annotations

import math
import random
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from jitcache import digest
from jitcache.action.ckfeatures import missing
from jitcache.action.command import compile_command
from jitcache.codegen import native
from jitcache.codegen.catalog import Instance, ModuleSpec, Quant, Variant
from jitcache.codegen.catalog.dims import k_per_block
from jitcache.codegen.catalog.select import instances
from jitcache.codegen.catalog.variants import variants
from jitcache.lockfile import Lock, LockedInstance, LockedModule, LockedVariant
from jitcache.runtime import hip as hip_module
from jitcache.runtime.load import open_module
from jitcache.runtime.stages import Stages
from jitcache.store.store import Store
from tests import runtime_help as help_
from tests.fake_clang import code_object
from tests.test_csrc import build, ck_include, toolchain

SHAPES = 200
"""Per family and stage."""
NON_TEMPORAL = Variant(hot_loop=False, tail="odd", non_temporal=True)
DIRECT = Path(__file__).parent / "ck_direct"

CASES = {
    "a16w16": ("gfx942", "plain", ModuleSpec("b16", "b16", "b16", Quant.NO, "silu", 2, True)),
    "a16w16_gfx950": (
        *("gfx950", "plain"),
        ModuleSpec("f16", "f16", "f16", Quant.NO, "gelu", 1, True),
    ),
    "a8w8": ("gfx942", "plain", ModuleSpec("f8", "f8", "b16", Quant.PER_TOKEN, "silu", 2, True)),
    "a8w8_gfx950": (
        *("gfx950", "plain"),
        ModuleSpec("f8", "f8", "b16", Quant.PER_TENSOR, "silu", 1, True),
    ),
    "a8w8blkscale": (
        *("gfx942", "blockscale"),
        ModuleSpec("f8", "f8", "b16", Quant.PER_1X128, "silu", 2, True),
    ),
    "a8w4": ("gfx942", "plain", ModuleSpec("f8", "i4", "b16", Quant.PER_TOKEN, "gelu", 1, True)),
    "a4w4": (
        *("gfx950", "mx_shuffled"),
        ModuleSpec("fp4x2", "fp4x2", "b16", Quant.PER_1X32, "silu", 2, True),
    ),
    "a4w4_bns": (
        *("gfx950", "mx_plain"),
        ModuleSpec("fp4x2", "fp4x2", "f16", Quant.PER_1X32, "silu", 1, False),
    ),
}
TYPES = {"b16": "bfloat16", "f16": "float16", "f8": "float8_e4m3fn", "fp4x2": "uint8"}
POINTERS = (
    *("states", "a_scale", "weights", "w_scale", "sorted_token_ids", "sorted_expert_ids"),
    *("num_valid_ids", "sorted_weights", "out"),
)


class Device:
    type, index = "cuda", 0


@dataclass(frozen=True)
class Tensor:
    """What a stage call asks of a tensor; its memory is an address and nothing more."""

    shape: tuple[int, ...]
    dtype: str
    address: int
    device = Device()

    def numel(self) -> int:
        return math.prod(self.shape)

    def element_size(self) -> int:
        return {"float32": 4, "int32": 4, "bfloat16": 2, "float16": 2}.get(self.dtype, 1)

    def is_contiguous(self) -> bool:
        return True

    def data_ptr(self) -> int:
        return self.address


def draw(rng: random.Random, spec: ModuleSpec, instance: Instance) -> dict:
    """AITER's arguments of a random valid call of an instance."""
    stage, tile = instance.stage, instance.tile
    tokens, topk = rng.choice((rng.randint(1, 64), rng.randint(1, 16384))), rng.randint(1, 9)
    experts = rng.randint(topk, 400)
    n = tile.n * rng.randint(1, max(1, 8192 // tile.n))
    step = k_per_block(instance)
    k = step * rng.randint(1, 8192 // step)
    pack = 2 if spec.b in ("fp4x2", "i4") else 1
    k_stored = k // (2 if spec.a == "fp4x2" else 1)
    wide = 2 * n if stage == 1 else n
    model, inter = (k, n) if stage == 1 else (n, k)
    rows = tokens if stage == 1 else tokens * topk
    sorted_rows = tokens * topk + experts * tile.m - topk
    addresses = iter(rng.sample(range(1 << 34, 1 << 40), 12))

    def tensor(shape: tuple[int, ...], dtype: str) -> Tensor:
        return Tensor(shape, dtype, next(addresses) * 128)

    scales = {
        "no": None,
        "per_tensor": ((1,), (experts,), "float32"),
        "per_token": ((rows, 1), (experts, wide), "float32"),
        "per_1x32": ((rows, k // 32), (experts, wide, k // 32), "uint8"),
        "per_1x128": ((rows, -(-k // 128)), (experts, -(-wide // 128), -(-k // 128)), "float32"),
    }[spec.quant.word]
    weight = TYPES.get(spec.b, "uint8")
    return {
        "states": tensor((tokens, *((topk,) if stage == 2 else ()), k_stored), TYPES[spec.a]),
        "w1": tensor((experts, 2 * inter, model // pack), weight),
        "w2": tensor((experts, model, inter // pack), weight),
        "sorted_token_ids": tensor((sorted_rows,), "int32"),
        "sorted_expert_ids": tensor((-(-sorted_rows // tile.m),), "int32"),
        "num_valid_ids": tensor((2,), "int32"),
        "out": tensor((tokens, topk, n) if stage == 1 else (tokens, n), TYPES[spec.c]),
        "topk": topk,
        "kernelName": instance.name,
        "w_scale": scales and tensor(scales[1], scales[2]),
        "a_scale": scales and tensor(scales[0], scales[2]),
        "block_m": tile.m,
        "sorted_weights": tensor((sorted_rows,), "float32")
        if stage == spec.routed_weight_stage
        else None,
        "quant_type": spec.quant.number,
        "activation": {"silu": 0, "gelu": 1}[spec.act],
        "is_shuffled": spec.preshuffle,
    }


def question(index: int, stage: int, call: dict, spec: ModuleSpec) -> str:
    """The call as AITER hands it to CK (gemm_moe_ck2stages.cu), as a line for the program."""
    named = call | {"weights": call[f"w{stage}"]}
    tokens, sorted_ids = call["states"].shape[0], call["sorted_token_ids"].shape[0]
    sorted_size = min(tokens * call["topk"] * call["block_m"], sorted_ids)
    n = call["w1"].shape[1] // 2 if stage == 1 else call["w2"].shape[1]
    k = call["states"].shape[-1] * (2 if spec.a == "fp4x2" else 1)
    pointers = [hex(named[p].address if named[p] else 0) for p in POINTERS]
    return " ".join(map(str, (index, *pointers, tokens, call["topk"], sorted_size, n, k)))


def program_source(header: str, listed: tuple[Instance, ...]) -> str:
    """C++ that answers for the instances, whose parameters are read from AITER's names."""
    form = (
        r"gemm([12])_(\d+)x(\d+)x(\d+)x(\d+)_(\d+)x(\d+)_\w+?_v([13])_Nswizzle0_Quant(\d)"
        r"_MulRoutedWeight([01])(?:_(silu|gelu))?_([A-Z0-9]+)_([A-Z0-9]+)_([A-Z0-9]+)$"
    )
    cases = []
    for index, instance in enumerate(listed):
        found = re.search(form, instance.name)
        stage, block, m, n, k, mw, nw, v, quant, routed, act, a, b, out = found.groups()
        sums = "int" if a == "I8" else "F32"
        flags = (str(int(quant == "1")), routed, str(int(act == "silu")))
        words = (stage, a, b, sums, out, f"V{v}", block, m, n, k, mw, nw, *flags)
        cases.append(f"        case {index}: answer<{', '.join(words)}>(call); break;\n")
    return (
        f'#include "{header}.hpp"\n'
        "int main()\n{\n    Call call;\n    while(read_call(call))\n        switch(call.instance)\n"
        f"        {{\n{''.join(cases)}        default: return 1;\n        }}\n    return 0;\n}}\n"
    )


def build_program(
    tools, header: str, listed: tuple[Instance, ...], place: Path, *flags: str
) -> Path:
    """Compile the program with the host shim's own flags and these, as an executable."""
    place.mkdir(parents=True, exist_ok=True)
    source, output, depfile = place / "direct.hip", place / "direct", place / "direct.d"
    source.write_text(program_source(header, listed))
    named = {"source": source, "output": output, "depfile": depfile}
    splits = missing(ck_include(tools), listed[0], NON_TEMPORAL) is None
    words = [w for w in compile_command(tools, "host-shim").argv if w != "-shared"]
    words = [re.sub(r"\{(\w+)\}", lambda m: str(named[m[1]]), w) for w in words]
    words[1:1] = [f"-I{DIRECT}", f"-DCK_SPLITS_K={int(splits)}", *flags]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "csrc/jitcache" not in depfile.read_text()
    return output


def load_stages(store: Store, spec: ModuleSpec, arch: str, listed: tuple[Instance, ...], shim):
    """The module with its real shim, and one stand-in for all of its code objects."""
    host = help_.put(store, f"{spec.name}.so", shim.read_bytes(), target="host", mode=0o555)
    code = help_.put(store, "any.co", code_object("_Zany", arch, b"x" * 64), target=arch)
    locked = tuple(
        LockedInstance(
            i.name,
            i.stage,
            i.tile.m,
            tuple(
                LockedVariant(v.hot_loop, v.tail, v.non_temporal, "_Zany", code)
                for v in variants(i)
            ),
        )
        for i in listed
    )
    module = LockedModule(spec.name, host, locked)
    lock = Lock("kernargs", digest.of_bytes(b""), arch, 256, "test", "llvm", (7, 1), (module,))
    return Stages(open_module(lock, module, store))


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("kernargs")


@pytest.mark.compile
@pytest.mark.parametrize("family", CASES)
def test_recorded_arguments_are_those_of_cks_own_make_argument(family, work, monkeypatch):
    arch, header, spec = CASES[family]
    tools = toolchain(work, arch)
    listed = instances(spec, arch)
    assert {i.family for i in listed} == {family}
    place = work / family
    shim, said = build(tools, native.shim_recipe(spec, listed), place)
    assert not said
    program = build_program(tools, header, listed, place)

    log = place / "hip.log"
    monkeypatch.setenv("JITCACHE_HIP_LIBRARY", str(help_.recorder()))
    monkeypatch.setenv("RECORDING_HIP_LOG", str(log))
    monkeypatch.setenv("RECORDING_HIP_ARCH", arch)
    monkeypatch.setattr(hip_module, "_opened", None)
    stages = load_stages(Store(place / "store"), spec, arch, listed, shim)
    rng = random.Random(family)
    questions = []
    for stage in (1, 2):
        of_stage = [(i, each) for i, each in enumerate(listed) if each.stage == stage]
        for number in range(SHAPES):
            index, instance = of_stage[number % len(of_stage)]
            call = draw(rng, spec, instance)
            # The stream is named: torch, where it is imported, would be asked for a GPU's.
            stages.launch(stages.check(stage, **call), stream=0)
            questions.append(question(index, stage, call, spec))
    answers = subprocess.run(
        [program], input="\n".join(questions), capture_output=True, text=True, check=True
    ).stdout.splitlines()
    recorded = [bytes.fromhex(c["kernarg"]) for c in help_.calls(log, "launch")]
    assert len(recorded) == len(answers) == 2 * SHAPES
    for asked, mine, answer in zip(questions, recorded, answers, strict=True):
        theirs, written = map(bytes.fromhex, answer.split())
        # The first word is the vtable's address; what CK leaves unwritten is padding.
        assert len(mine) == len(theirs)
        assert written.count(0) <= 16
        compared = [i for i in range(8, len(theirs)) if written[i]]
        differing = [i for i in compared if mine[i] != theirs[i]]
        assert differing == [], asked
