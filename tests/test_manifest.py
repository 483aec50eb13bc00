"""Manifests: reading, resolving, refusing; model configurations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitcache.codegen.catalog import Quant
from jitcache.errors import InputError
from jitcache.manifest.hfconfig import dims_of
from jitcache.manifest.load import (
    Manifest,
    Target,
    load_manifest,
    manifest_digest,
    resolve,
    shipped_names,
)
from jitcache.manifest.raw import decode

BASE = """
model_dim = 7168
moe_intermediate = 2048
experts = 384
top_k = 8
quant = "per_1x32"
tp = 2
targets = [{ arch = "gfx950" }]
"""


def read(text: str) -> Manifest:
    return resolve(decode(text, "some/place/kimi.toml"), where="some/place/kimi.toml", config=None)


def test_the_shipped_kimi_manifest() -> None:
    found = load_manifest("kimi-k2.5-mxfp4-tp2")
    (layer,) = found.layers
    assert (layer.model_dim, layer.inter_dim, layer.experts, layer.top_k) == (7168, 1024, 384, 8)
    assert (layer.quant, layer.w, layer.out, layer.act) == (Quant.PER_1X32, "fp4x2", "b16", "silu")
    assert found.targets == (Target("gfx950", 256),)
    assert (found.scope, found.block_m, found.tokens) == ("inter-dim", (), ())
    assert load_manifest("kimi-k2.5-mxfp4-tp2-bm128").block_m == (128,)


@pytest.mark.parametrize("name", shipped_names())
def test_every_shipped_manifest_reads_and_is_called_as_its_file(name: str) -> None:
    found = load_manifest(name)
    assert found.name == name
    assert found.description
    assert "\n# " in Path(found.source).read_text()  # the source of its dims


def test_defaults() -> None:
    found = read(BASE)
    (layer,) = found.layers
    assert found.name == "kimi"
    assert (layer.name, layer.inter_dim, layer.w, layer.out) == ("moe", 1024, "fp4x2", "b16")
    assert (layer.preshuffle, layer.doweight_stage1, layer.a, layer.gate) == (
        True,
        False,
        None,
        "separated",
    )


def test_layers_override_the_top_level_and_parallelism_divides() -> None:
    found = read(
        BASE
        + """
[[layers]]
name = "routed"
fused_shared_experts = 1
[[layers]]
name = "whole"
tp = 1
ep = 8
quant = "per_128x128"
preshuffle = false
"""
    )
    first, second = found.layers
    assert (first.inter_dim, first.experts, first.top_k) == (1024, 385, 9)
    assert (second.inter_dim, second.experts, second.top_k) == (2048, 48, 8)
    assert (second.quant, second.w, second.preshuffle) == (Quant.PER_1X128, "f8", False)


def test_products_and_compute_units() -> None:
    text = BASE.replace(
        '{ arch = "gfx950" }',
        '{ product = "MI308X" }, { product = "MI300X" }, { arch = "gfx942" }, '
        '{ arch = "gfx950", cu_num = 32 }',
    )
    assert read(text).targets == (
        Target("gfx942", 80),
        Target("gfx942", 304),
        Target("gfx950", 32),
    )


def test_token_counts() -> None:
    found = read(
        BASE
        + """
[tokens]
list = [7, 1]
ranges = [[10, 12], [100, 130, 10]]
[[tokens.verify]]
requests = [1, 40]
tokens_per_request = [4, 5]
[[tokens.verify]]
requests = 3
tokens_per_request = 2
"""
    )
    assert found.tokens == (1, 4, 5, 6, 7, 10, 11, 12, 100, 110, 120, 130, 160, 200)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BASE + "modeldim = 1", "unknown key `modeldim`.*did you mean `model_dim`"),
        (BASE + "[[layers]]\nexpert = 3", r"unknown key `layers\[0\].expert`.*`experts`"),
        (BASE + "[tokens]\nlists = [3]", "unknown key `tokens.lists`"),
        (BASE.replace("384", '"384"'), "`experts` is '384'.*an integer from 1"),
        (BASE.replace("384", "0"), "`experts` is 0.*an integer from 1"),
        (BASE.replace("384", "true"), "`experts` is True.*an integer"),
        (BASE.replace("per_1x32", "per_1x64"), "`quant` is 'per_1x64'.*allowed: no, per_tensor"),
        (BASE.replace("gfx950", "gfx1100"), r"`targets\[0\].arch` is 'gfx1100'.*gfx942, gfx950"),
        (BASE.replace('arch = "gfx950"', 'product = "MI999"'), "'MI999'.*MI355X"),
        (BASE.replace('arch = "gfx950"', "cu_num = 3"), "either `arch` or `product`"),
        (BASE.replace("targets", "# targets"), "missing key `targets`"),
        (BASE.replace("top_k", "# top_k"), "missing key `top_k`"),
        (BASE.replace("moe_inter", "# "), "neither `inter_dim` nor `moe_intermediate`"),
        (BASE + "inter_dim = 512", "`inter_dim` is 512, but .* is 1024"),
        (BASE.replace("tp = 2", "tp = 3"), "`moe_intermediate` 2048 can't be divided by `tp` 3"),
        (BASE + "ep = 7", "`experts` 384 can't be divided by `ep` 7"),
        (BASE.replace("top_k = 8", "top_k = 400"), "`top_k` 400 is more than `experts` 384"),
        (BASE + 'w = "b16"', "`w` is 'b16' with `quant` 'per_1x32'.*fp4x2 or f8 or i4"),
        (BASE + "block_m = [48]", "`block_m` holds 48.*16, 32, 64, 128, 256"),
        (BASE + 'scope = "reachable"', "'reachable', but there are no token counts"),
        (BASE + "[tokens]\nranges = [[9, 3]]", "ends at 3, before it begins at 9"),
        (BASE + "[tokens]\nranges = [[1, 2000000000]]", "names 2000000000 token counts"),
        (BASE + "[tokens]\nranges = [[1]]", r"`tokens.ranges\[0\]` is \[1\]"),
        (BASE + '[[layers]]\nname = "x"\n[[layers]]\nname = "x"', "two layers are called 'x'"),
        (BASE + "[[tokens.verify]]\nrequests = 3", "missing key `tokens.verify.*tokens_per_req"),
        ("model_dim = ", "not TOML"),
        ("model_dim = 1" + "0" * 5000, "not TOML"),
        ("model_dim = " + "[" * 5000, "not TOML"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_allowed(text: str, said: str) -> None:
    with pytest.raises(InputError, match=r"(?s)kimi.toml: .*" + said) as caught:
        read(text)
    assert caught.value.where == "some/place/kimi.toml"


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"kimi-k2\.5-mxfp4-tp2"):
        load_manifest("kimi")
    with pytest.raises(InputError, match=r"No such file"):
        load_manifest(tmp_path / "x.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="UTF-8"):
        load_manifest(tmp_path / "bytes.toml")


def test_tuned_tables_enter_the_digest_by_content(tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    path.write_text(BASE.replace("tp = 2", 'tp = 2\ntuned = ["t.csv"]'))
    with pytest.raises(InputError, match=r"t\.csv.*tuned table"):
        load_manifest(path)
    (tmp_path / "t.csv").write_text("a")
    first = manifest_digest(load_manifest(path))
    (tmp_path / "t.csv").write_text("b")
    assert manifest_digest(load_manifest(path)) != first


def test_the_digest_is_of_the_meaning(tmp_path: Path) -> None:
    path = tmp_path / "kimi.toml"
    path.write_text("# a comment\n" + BASE + 'description = "other words"\n')
    assert manifest_digest(load_manifest(path)) == manifest_digest(read(BASE))
    assert manifest_digest(read(BASE + "flydsl = true")) != manifest_digest(read(BASE))
    assert manifest_digest(read(BASE.replace("tp = 2", "tp = 4"))) != manifest_digest(read(BASE))


CONFIGS: list[tuple[dict[str, Any], tuple[object, ...]]] = [
    (
        {
            "hidden_size": 7168,
            "intermediate_size": 18432,
            "moe_intermediate_size": 2048,
            "n_routed_experts": 256,
            "num_experts_per_tok": 8,
            "hidden_act": "silu",
            "torch_dtype": "bfloat16",
            "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
        },
        (7168, 2048, 256, 8, "silu", "per_1x128", "f8", "b16"),
    ),
    (
        {
            "text_config": {
                "hidden_size": 4096,
                "moe_intermediate_size": 1024,
                "num_experts": 512,
                "num_experts_per_tok": 10,
                "dtype": "bfloat16",
            }
        },
        (4096, 1024, 512, 10, "silu", "no", "b16", "b16"),
    ),
    (
        {
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_local_experts": 8,
            "num_experts_per_tok": 2,
            "torch_dtype": "float16",
            "quantization_config": {
                "quant_method": "quark",
                "global_quant_config": {"weight": {"dtype": "fp8_e4m3", "qscheme": "per_tensor"}},
            },
        },
        (4096, 14336, 8, 2, "silu", "per_tensor", "f8", "f16"),
    ),
    (
        {
            "model_type": "gpt_oss",
            "hidden_size": 2880,
            "intermediate_size": 2880,
            "num_local_experts": 128,
            "num_experts_per_tok": 4,
            "hidden_act": "silu",
            "quantization_config": {"quant_method": "mxfp4"},
        },
        (2880, 2880, 128, 4, "swiglu", "per_1x32", "fp4x2", None),
    ),
    (
        {
            "hidden_size": 5120,
            "moe_intermediate_size": 1536,
            "n_routed_experts": 160,
            "num_experts_per_tok": 8,
            "hidden_act": "gelu_pytorch_tanh",
            "quantization_config": {
                "quant_method": "compressed-tensors",
                "config_groups": {
                    "group_0": {"weights": {"type": "float", "num_bits": 8, "strategy": "channel"}}
                },
            },
        },
        (5120, 1536, 160, 8, "gelu", "per_token", "f8", None),
    ),
]


@pytest.mark.parametrize(("config", "want"), CONFIGS)
def test_model_configurations(config: dict[str, Any], want: tuple[object, ...]) -> None:
    found = dims_of(config, "config.json")
    assert (
        found.model_dim,
        found.moe_intermediate,
        found.experts,
        found.top_k,
        found.act,
        found.quant,
        found.w,
        found.out,
    ) == want


def test_a_manifest_takes_its_dims_from_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS[0][0]))
    path = tmp_path / "m.toml"
    path.write_text('config = "config.json"\ntp = 8\ntargets = [{ arch = "gfx942" }]\n')
    (layer,) = load_manifest(path).layers
    assert (layer.model_dim, layer.inter_dim, layer.quant, layer.w) == (
        7168,
        256,
        Quant.PER_1X128,
        "f8",
    )
    path.write_text(path.read_text() + 'quant = "per_token"\ninter_dim = 512\n')
    (layer,) = load_manifest(path).layers
    assert (layer.inter_dim, layer.quant, layer.w) == (512, Quant.PER_TOKEN, "f8")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not JSON"),
        ("[]", "top level is no object"),
        ('{"hidden_size": 5}', "no moe intermediate"),
        ('{"hidden_size": "x"}', "`hidden_size` is 'x'"),
    ],
)
def test_bad_configurations(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "config.json").write_text(text)
    path = tmp_path / "m.toml"
    path.write_text('config = "config.json"\ntargets = [{ arch = "gfx942" }]\n')
    with pytest.raises(InputError, match=said):
        load_manifest(path)


words = st.sampled_from(
    ["model_dim", "tp", "quant", "targets", "tokens", "list", "ranges", "layers", "verify", "w"]
)
values = st.recursive(
    st.integers(-3, 300) | st.text(max_size=4) | st.booleans() | st.just("per_1x32"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(words | st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


def toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


@given(st.dictionaries(words | st.text(max_size=5), values, max_size=5) | st.text(max_size=40))
def test_any_text_is_read_or_refused(value: dict[str, object] | str) -> None:
    text = (
        value
        if isinstance(value, str)
        else "\n".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items())
    )
    for candidate in (text, BASE + text):
        refused = ""
        try:
            read(candidate)
        except InputError as e:
            refused = e.where or "nowhere"
        assert refused in ("", "some/place/kimi.toml")


@given(st.dictionaries(st.sampled_from([*CONFIGS[0][0], "text_config"]), values))
def test_any_configuration_is_read_or_refused(value: dict[str, Any]) -> None:
    for candidate in (value, CONFIGS[0][0] | value):
        refused = ""
        try:
            dims_of(candidate, "c.json")
        except InputError as e:
            refused = e.where or "nowhere"
        assert refused in ("", "c.json")
