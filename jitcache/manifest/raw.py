"""The TOML form of a manifest, and errors that name file, key, value and what is allowed.

This module knows what may stand in a file; what it means is `jitcache.manifest.load`.
"""

from __future__ import annotations

import re
import tomllib
import types
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from jitcache.errors import InputError

Positive = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
Text = Annotated[str, msgspec.Meta(min_length=1)]
Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")]

Range = Annotated[list[Positive], msgspec.Meta(min_length=2, max_length=3)]

Pair = Annotated[list[Positive], msgspec.Meta(min_length=2, max_length=2)]

AttentionWord = Literal["bf16", "fp8bf16"]
ArchWord = Literal["gfx942", "gfx950"]
QuantWord = Literal["no", "per_tensor", "per_token", "per_1x32", "per_1x128", "per_128x128"]
TypeWord = Literal["b16", "f16", "f8", "i8", "fp4x2"]
WeightWord = Literal["b16", "f16", "f8", "i8", "fp4x2", "i4"]
OutWord = Literal["b16", "f16"]
ActWord = Literal["silu", "gelu", "swiglu"]
GateWord = Literal["separated", "interleaved"]
ScopeWord = Literal["reachable", "inter-dim", "module"]


class RawTarget(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One GPU: an architecture or a product, and its compute units if not the usual ones."""

    arch: ArchWord | None = None
    product: Text | None = None
    cu_num: Positive | None = None


class RawVerify(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Token counts of a speculative-decoding verify step."""

    requests: Positive | list[Positive]
    tokens_per_request: Positive | list[Positive]


class RawTokens(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Token counts: explicit ones, ranges (first, last[, step]), verify steps."""

    list_: list[Positive] = msgspec.field(default=[], name="list")
    ranges: list[Range] = []
    verify: list[RawVerify] = []


class RawAttention(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One attention forward call, for the audit."""

    hdim_q: Positive
    hdim_v: Positive
    dtype: AttentionWord = "bf16"
    causal: bool = True
    group: bool = True
    rounding: Literal[0, 1, 2] = 1


class RawAudit(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What the audit looks at besides the MoE layers; it doesn't change the plan."""

    gemms: list[Pair] = []
    attention: list[RawAttention] = []


class RawLayer(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Keys of a kind of MoE layer; at the top level they are defaults for every layer."""

    name: Name | None = None
    model_dim: Positive | None = None
    inter_dim: Positive | None = None
    moe_intermediate: Positive | None = None
    experts: Positive | None = None
    top_k: Positive | None = None
    fused_shared_experts: Count | None = None
    quant: QuantWord | None = None
    a: TypeWord | None = None
    w: WeightWord | None = None
    out: OutWord | None = None
    act: ActWord | None = None
    gate: GateWord | None = None
    preshuffle: bool | None = None
    doweight_stage1: bool | None = None
    tp: Positive | None = None
    ep: Positive | None = None


class RawManifest(RawLayer, forbid_unknown_fields=True, frozen=True):
    """The whole file."""

    description: str = ""
    config: Text | None = None
    targets: list[RawTarget] = []
    scope: ScopeWord = "inter-dim"
    block_m: list[Positive] = []
    tuned: list[Text] = []
    flydsl: bool = False
    tokens: RawTokens = RawTokens()
    audit: RawAudit = RawAudit()
    layers: list[RawLayer] = []


LAYER_KEYS: tuple[str, ...] = RawLayer.__struct_fields__


def decode(text: str, where: str) -> RawManifest:
    """Read the TOML text of a manifest.

    Args:
        text: the file's content.
        where: the file, for errors.

    Raises:
        InputError: not TOML, an unknown key, a wrong type or a value that isn't allowed.
    """
    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as e:  # also of integers too long for Python
        raise InputError(f"not TOML: {e}", where=where) from None
    try:
        return msgspec.convert(data, RawManifest)
    except msgspec.ValidationError as e:
        raise _explained(str(e), data, where) from None


_UNKNOWN = r"(?s)Object contains unknown field `(.*?)`(?: - at `\$(.*)`)?$"
_MISSING = r"(?s)Object missing required field `(.*?)`(?: - at `\$(.*)`)?$"
_WRONG = r"(?s)(.*?) - at `\$(.*)`$"
_STEP = r"\.?([^.\[\]]+)|\[(\d+|\.\.\.)\]"


def _explained(message: str, data: Mapping[str, Any], where: str) -> InputError:
    """A validation error with the key's value and what may stand there."""
    if found := re.match(_UNKNOWN, message):
        table, path = _type_at(found[2] or ""), found[2] or ""
        known = [f.encode_name for f in msgspec.structs.fields(table)]
        return InputError(
            f"unknown key `{_dotted(path, found[1])}`",
            where=where,
            hint=_suggestion(found[1], known),
        )
    if found := re.match(_MISSING, message):
        return InputError(f"missing key `{_dotted(found[2] or '', found[1])}`", where=where)
    if found := re.match(_WRONG, message):
        path = found[2]
        value = _value_at(data, path)
        return InputError(
            f"`{_dotted(path)}` is {_shown(value)}",
            where=where,
            hint=f"allowed: {_allowed(_type_at(path))}",
        )
    return InputError(message, where=where)


def _suggestion(word: str, known: list[str]) -> str:
    import difflib

    near = difflib.get_close_matches(word, known, n=1)
    start = f"did you mean `{near[0]}`? " if near else ""
    return f"{start}Known keys here: {', '.join(known)}"


def _dotted(path: str, *more: str) -> str:
    return ".".join([p for p in (path.lstrip("."), *more) if p])


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _value_at(data: Any, path: str) -> object:
    """The value at a msgspec path; the container where the path has `[...]`."""
    for key, index in re.findall(_STEP, path):
        if index == "..." or data is None:
            break
        if index:
            data = data[int(index)] if isinstance(data, list) else None
        else:
            data = data.get(key) if isinstance(data, Mapping) else None
    return data


def _type_at(path: str) -> Any:
    """The declared type at a msgspec path."""
    kind: Any = RawManifest
    for key, index in re.findall(_STEP, path):
        options = _options(kind)
        if index:
            bare = [get_args(o)[0] if get_origin(o) is Annotated else o for o in options]
            holder = next((o for o in bare if get_origin(o) is list), None)
            kind = get_args(holder)[0] if holder is not None else kind
        else:
            struct = next(
                (o for o in options if isinstance(o, type) and issubclass(o, msgspec.Struct)), None
            )
            if struct is None:
                return kind
            names = {f.encode_name: f.name for f in msgspec.structs.fields(struct)}
            kind = get_type_hints(struct, include_extras=True)[names[key]]
    options = _options(kind)
    structs = [o for o in options if isinstance(o, type) and issubclass(o, msgspec.Struct)]
    return structs[0] if len(structs) == 1 and len(options) == 1 else kind


def _options(kind: Any) -> list[Any]:
    """The alternatives of a union without None; the type itself otherwise."""
    if get_origin(kind) in (Union, types.UnionType):
        return [o for a in get_args(kind) if a is not type(None) for o in _options(a)]
    return [kind]


def _allowed(kind: Any) -> str:
    """A declared type in words."""
    return " or ".join(dict.fromkeys(_words(o) for o in _options(kind)))


def _span(least: int, most: int) -> str:
    return str(most) if least == most else f"{least} to {most}"


def _words(kind: Any) -> str:
    if get_origin(kind) is Annotated:
        base, *meta = get_args(kind)
        for m in meta:
            if isinstance(m, msgspec.Meta) and m.pattern is not None:
                return "letters, digits and . _ + -, starting with a letter or digit"
            if isinstance(m, msgspec.Meta) and m.ge is not None:
                return f"an integer from {m.ge} to {m.le}"
            if isinstance(m, msgspec.Meta) and m.max_length is not None:
                return f"{_words(base)}, {_span(m.min_length or 0, m.max_length)} of them"
            if isinstance(m, msgspec.Meta) and m.min_length is not None:
                return "a text that isn't empty"
        return _words(base)
    if get_origin(kind) is Literal:
        return ", ".join(map(str, get_args(kind)))
    if get_origin(kind) is list:
        return f"a list of: {_allowed(get_args(kind)[0])}"
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return f"a table with {', '.join(f.encode_name for f in msgspec.structs.fields(kind))}"
    return {bool: "true or false", str: "a text", int: "an integer"}.get(kind, str(kind))
