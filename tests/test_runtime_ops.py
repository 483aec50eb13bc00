"""The torch ops: schema, fake kernels, torch.compile; and capsules of their launches."""

from __future__ import annotations

import ctypes

import pytest

torch = pytest.importorskip("torch")

from jitcache.errors import InputError, UnsupportedError, UsageError  # noqa: E402
from jitcache.runtime import capsule, ops  # noqa: E402
from jitcache.runtime.hip import open_hip  # noqa: E402
from tests.runtime_help import calls  # noqa: E402
from tests.test_runtime_stages import arguments, log, open_stages  # noqa: E402, F401


@pytest.mark.parametrize("stage", [1, 2])
def test_an_op_launches_once_and_its_schema_says_what_it_writes(open_stages, log, stage):  # noqa: F811
    bound = ops.bind(open_stages())
    getattr(bound, f"ck_moe_stage{stage}")(*arguments("fp4", stage).values())
    assert len(calls(log, "launch")) == 1
    schema = getattr(torch.ops.jitcache, f"moe_stage{stage}").default._schema
    assert [a.name for a in schema.arguments if a.alias_info and a.alias_info.is_write] == ["out"]
    assert len(schema.arguments) == 20
    assert schema.returns == []


def test_fake_tensors_launch_nothing(open_stages, log):  # noqa: F811
    from torch._subclasses.fake_tensor import FakeTensorMode

    bound = ops.bind(open_stages())
    with FakeTensorMode():
        call = arguments("fp4", 1)
        bound.ck_moe_stage1(*call.values())
    assert calls(log) == []


def test_opcheck(open_stages):  # noqa: F811
    bound = ops.bind(open_stages())
    op = torch.ops.jitcache.moe_stage1.default
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(op, (bound.key, *arguments("fp4", 1).values()), test_utils=tests)


def test_torch_compile_keeps_the_launch(open_stages, log):  # noqa: F811
    bound = ops.bind(open_stages())
    call = arguments("fp4", 1)

    @torch.compile(backend="aot_eager", fullgraph=True)
    def step(states, out):
        torch.ops.jitcache.moe_stage1(bound.key, states, *list(call.values())[1:6], out, *tail)
        return out + 1

    tail = list(call.values())[7:]
    assert step(call["states"], call["out"]).shape == call["out"].shape
    assert len(calls(log, "launch")) == 1


def test_a_released_key_is_refused(open_stages):  # noqa: F811
    bound = ops.bind(open_stages())
    bound.release()
    with pytest.raises(UsageError, match="no module is bound"):
        bound.ck_moe_stage1(*arguments("fp4", 1).values())


def filled(call):
    make = torch.Generator().manual_seed(7)
    for t in call.values():
        if isinstance(t, torch.Tensor):
            raw = t.view(torch.uint8).view(-1)
            raw.copy_(torch.randint(0, 256, raw.shape, generator=make, dtype=torch.uint8))
    return call


def test_a_capsule_holds_the_launch_and_every_buffer(open_stages, log, tmp_path):  # noqa: F811
    stages = open_stages()
    call = filled(arguments("fp4", 2))
    checked = stages.check(2, *call.values())
    made = stages.capture(checked)
    stages.launch(checked)
    (launch,) = calls(log, "launch")
    assert made.kernarg.hex() == launch["kernarg"]
    assert (made.symbol, list(made.grid)) == (launch["symbol"], launch["grid"])
    by_field = {b.field: b for b in made.buffers}
    assert len(by_field) == 9
    for field, tensor in checked.buffers.items():
        size = tensor.numel() * tensor.element_size()
        assert by_field[field].before == ctypes.string_at(tensor.data_ptr(), size)
        (offset,) = by_field[field].offsets
        address = int.from_bytes(made.kernarg[offset : offset + 8], "little")
        assert address == tensor.data_ptr()


def test_a_capsule_reads_back_as_it_was_written(open_stages, tmp_path):  # noqa: F811
    stages = open_stages()
    made = stages.capture(stages.check(1, *filled(arguments("fp4", 1)).values()))
    assert "sorted_weights" not in {b.field for b in made.buffers}
    made = made.with_expected(b"\1\2\3")
    path = tmp_path / "one.capsule"
    capsule.write(path, made)
    assert capsule.read(path) == made
    assert "result known" in capsule.describe(made)


def test_damaged_capsules_are_refused(open_stages, tmp_path):  # noqa: F811
    stages = open_stages()
    data = capsule.dump(stages.capture(stages.check(1, *arguments("fp4", 1).values())))
    for broken, said in (
        (b"x" + data[1:], "not a capsule"),
        (data[:100], "cut off"),
        (data[:-4096], "behind the end"),
        (data[:-4096] + b"\1" + data[-4095:], "other bytes than its digest"),
        (data.replace(b'"schema":1', b'"schema":2'), "schema is not 1"),
    ):
        with pytest.raises(InputError, match=said):
            capsule.load(broken, where="broken")


def test_a_replay_points_the_argument_at_new_buffers(open_stages, log, monkeypatch):  # noqa: F811
    stages = open_stages()
    call = filled(arguments("fp4", 2))  # kept, so that no new buffer takes their place
    made = stages.capture(stages.check(2, *call.values()))
    after = capsule.replay(made, open_hip())
    # The recording library runs nothing, so every buffer comes back as it went.
    assert after == {b.field: b.before for b in made.buffers}
    (launch,) = calls(log, "launch")
    kernarg = bytes.fromhex(launch["kernarg"])
    pointers = {o for b in made.buffers for o in b.offsets}
    for offset in range(0, len(kernarg), 8):
        same = kernarg[offset : offset + 8] == made.kernarg[offset : offset + 8]
        assert same == (offset not in pointers)
    with pytest.raises(UnsupportedError, match="the capsule is for gfx942"):
        capsule.replay(capsule.replace(made, arch="gfx942"), open_hip())


def test_the_environment_captures_the_first_launch_of_each_instance(
    open_stages,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    monkeypatch.setenv("JITCACHE_CAPTURE", str(tmp_path / "capsules"))
    stages = open_stages()
    for _ in range(2):
        stages.ck_moe_stage1(*arguments("fp4", 1).values())
    (path,) = (tmp_path / "capsules").iterdir()
    assert capsule.read(path).instance in path.name
