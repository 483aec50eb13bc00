"""MoE dims and quantisation out of a Hugging Face `config.json`.

Key names are those of the transformers configurations named
in `_KEYS`; a configuration of a multimodal model keeps its language part under
`text_config`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from jitcache.errors import InputError

_KEYS: dict[str, tuple[str, ...]] = {
    "model_dim": ("hidden_size",),
    # deepseek/kimi/qwen/glm/minimax m1 ... | mixtral, minimax m2, gpt-oss
    "moe_intermediate": ("moe_intermediate_size", "intermediate_size"),
    # deepseek/kimi/glm | qwen | mixtral, minimax, gpt-oss
    "experts": ("n_routed_experts", "num_experts", "num_local_experts"),
    "top_k": ("num_experts_per_tok", "num_experts_per_token", "top_k_experts"),
}
_TORCH: dict[str, str] = {
    "bfloat16": "b16",
    "torch.bfloat16": "b16",
    "float16": "f16",
    "torch.float16": "f16",
}


class ConfigDims(msgspec.Struct, frozen=True):
    """What a configuration says; None where it says nothing that maps.

    Attributes:
        model_dim: hidden size.
        moe_intermediate: inter_dim of one expert before tensor parallelism.
        experts: routed experts.
        top_k: experts per token.
        act: activation, as AITER calls it.
        quant: quantisation word.
        w: weight type.
        out: output type.
    """

    model_dim: int
    moe_intermediate: int
    experts: int
    top_k: int
    act: str
    quant: str | None
    w: str | None
    out: str | None


def read_config(path: Path) -> ConfigDims:
    """Read a `config.json`.

    Raises:
        InputError: it can't be read, or as `dims_of`.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise InputError(f"can't be read: {e.strerror or e}", where=str(path)) from None
    except (ValueError, RecursionError) as e:
        raise InputError(f"not JSON: {e}", where=str(path)) from None
    return dims_of(value, str(path))


def dims_of(config: object, where: str) -> ConfigDims:
    """The MoE dims that a configuration describes.

    Args:
        config: the decoded JSON value.
        where: the file, for errors.

    Raises:
        InputError: it isn't a configuration of a mixture of experts, or a value is wrong.
    """
    if not isinstance(config, Mapping):
        raise InputError("not a model configuration: the top level is no object", where=where)
    outer: Mapping[str, Any] = config
    text = outer.get("text_config")
    inner: Mapping[str, Any] = text if isinstance(text, Mapping) else outer
    found = {name: _integer(inner, name, keys, where) for name, keys in _KEYS.items()}
    quantisation = inner.get("quantization_config") or outer.get("quantization_config")
    torch_type = next(
        (
            c[k]
            for c in (inner, outer)
            for k in ("dtype", "torch_dtype")
            if isinstance(c.get(k), str)
        ),
        None,
    )
    out = _TORCH.get(torch_type or "")
    quant, w = _quantisation(quantisation, out)
    return ConfigDims(**found, act=_act(inner, where), quant=quant, w=w, out=out)


def _integer(config: Mapping[str, Any], name: str, keys: tuple[str, ...], where: str) -> int:
    for key in keys:
        value = config.get(key)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InputError(
                f"`{key}` is {value!r}", where=where, hint="it must be a positive integer"
            )
        return value
    raise InputError(
        f"no {name.replace('_', ' ')}: none of {', '.join(f'`{k}`' for k in keys)}",
        where=where,
        hint="is this a mixture-of-experts model? Otherwise write the dims in the manifest",
    )


def _act(config: Mapping[str, Any], where: str) -> str:
    if config.get("model_type") == "gpt_oss":
        return "swiglu"  # its clamped SwiGLU is called `silu` in the configuration
    value = config.get("hidden_act", config.get("hidden_activation", "silu"))
    if value in ("silu", "swish"):
        return "silu"
    if isinstance(value, str) and value.startswith("gelu"):
        return "gelu"
    raise InputError(
        f"`hidden_act` is {value!r}", where=where, hint="AITER has silu and gelu experts"
    )


def _quantisation(config: object, out: str | None) -> tuple[str | None, str | None]:
    """(quantisation word, weight type); (None, None) where the manifest must say it."""
    if config is None:
        return ("no", out) if out is not None else (None, None)
    if not isinstance(config, Mapping):
        return None, None
    match config.get("quant_method"):
        case "fp8" if config.get("weight_block_size") == [128, 128]:
            return "per_1x128", "f8"
        case "fp8" if config.get("weight_block_size") is None:
            return "per_tensor", "f8"
        case "mxfp4":
            return "per_1x32", "fp4x2"
        case "quark":
            return _quark(config)
        case "compressed-tensors":
            return _compressed_tensors(config)
    return None, None


def _quark(config: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Quark: `global_quant_config.weight` with dtype, qscheme and group size."""
    weight = _path(config, "global_quant_config", "weight")
    if isinstance(weight, list) and weight and isinstance(weight[0], Mapping):
        weight = weight[0]
    if not isinstance(weight, Mapping):
        return None, None
    scheme = weight.get("qscheme")
    match weight.get("dtype"):
        case "fp4" if scheme == "per_group" and weight.get("group_size") == 32:
            return "per_1x32", "fp4x2"
        case "fp8_e4m3" if scheme == "per_tensor":
            return "per_tensor", "f8"
        case "fp8_e4m3" if scheme == "per_channel":
            return "per_token", "f8"
    return None, None


def _compressed_tensors(config: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """compressed-tensors: the weights of the first group."""
    groups = config.get("config_groups")
    if not isinstance(groups, Mapping) or not groups:
        return None, None
    weights = _path(next(iter(groups.values())), "weights")
    if not isinstance(weights, Mapping):
        return None, None
    kind = weights.get("type"), weights.get("num_bits"), weights.get("strategy")
    match kind:
        case ("float", 8, "block") if weights.get("block_structure") == [128, 128]:
            return "per_1x128", "f8"
        case ("float", 8, "channel"):
            return "per_token", "f8"
        case ("float", 8, "tensor"):
            return "per_tensor", "f8"
        case ("int", 8, "channel"):
            return "per_token", "i8"
        case ("int", 4, "group") if weights.get("group_size") == 32:
            return "per_1x32", "i4"
    return None, None


def _path(value: object, *keys: str) -> object:
    for key in keys:
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value
