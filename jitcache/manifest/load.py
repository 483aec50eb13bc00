"""Manifests: which deployments to build kernels for, typed and checked.

`load_manifest` reads a TOML file (and the `config.json` and tuned tables it names) and
gives a frozen `Manifest` in which everything is resolved: local dims after tensor and
expert parallelism, types, targets, token counts. All later stages work from it alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from jitcache import digest
from jitcache.codegen.catalog.model import Quant
from jitcache.errors import InputError
from jitcache.manifest.model import Attention, Layer, Manifest, Target, TunedFile
from jitcache.manifest.products import DEFAULT_CU, PRODUCTS
from jitcache.manifest.raw import (
    LAYER_KEYS,
    RawLayer,
    RawManifest,
    RawTarget,
    RawTokens,
    decode,
)

if TYPE_CHECKING:
    from jitcache.manifest.hfconfig import ConfigDims

__all__ = [
    "BLOCK_M",
    "Attention",
    "Layer",
    "Manifest",
    "Target",
    "TunedFile",
    "load_manifest",
    "manifest_digest",
    "resolve",
    "shipped_directory",
    "shipped_names",
]

BLOCK_M = (16, 32, 64, 128, 256)
"""The block heights that any CK2stages kernel has."""

MAX_TOKEN_COUNTS = 200_000
"""Most token counts that one manifest may list."""

_QUANTS = {q.word: q for q in Quant} | {"per_128x128": Quant.PER_1X128}
_WEIGHTS: dict[Quant, tuple[str, ...]] = {
    Quant.NO: ("b16", "f16"),
    Quant.PER_TENSOR: ("f8", "i8", "i4"),
    Quant.PER_TOKEN: ("f8", "i8", "i4"),
    Quant.PER_1X32: ("fp4x2", "f8", "i4"),
    Quant.PER_1X128: ("f8", "i8"),
}
"""Weight types that each quantisation can have, the usual one first."""


def shipped_directory() -> Path:
    """Where the manifests that come with jitcache are."""
    return Path(__file__).parent.parent / "manifests"


def shipped_names() -> list[str]:
    """Names of the manifests that come with jitcache."""
    return sorted(p.stem for p in shipped_directory().glob("*.toml"))


def load_manifest(path_or_name: str | Path) -> Manifest:
    """Read a manifest by file, or a shipped one by its name.

    Raises:
        InputError: no such file, or it's malformed or says something impossible.
    """
    path = Path(path_or_name)
    if path.suffix != ".toml" and not path.is_file():
        shipped = shipped_directory() / f"{path_or_name}.toml"
        if len(path.parts) != 1 or not shipped.is_file():
            raise InputError(
                "no such manifest",
                where=str(path_or_name),
                hint=f"give a .toml file or one of: {', '.join(shipped_names())}",
            )
        path = shipped
    where = str(path)
    raw = decode(_text(path), where)
    config = None
    if raw.config is not None:
        from jitcache.manifest.hfconfig import read_config

        config = read_config(path.parent / raw.config)
    tuned = tuple(_tuned(path.parent / name) for name in raw.tuned)
    return resolve(raw, where=where, config=config, tuned=tuned)


def manifest_digest(manifest: Manifest) -> str:
    """Digest of what a manifest asks for: not of its file's name, place or wording."""
    value: dict[str, Any] = msgspec.to_builtins(manifest, enc_hook=lambda q: q.word)
    for key in ("description", "source", "gemms", "attention"):
        del value[key]
    value["tuned"] = [t.digest for t in manifest.tuned]
    return digest.of_json(value)


def resolve(
    raw: RawManifest, *, where: str, config: ConfigDims | None, tuned: tuple[TunedFile, ...] = ()
) -> Manifest:
    """Check a decoded manifest and fill in what it leaves out. Pure.

    Args:
        raw: the decoded file.
        where: its name, for errors.
        config: what the `config.json` it names says, if any.
        tuned: the tuned tables it names.

    Raises:
        InputError: something is missing, contradictory or impossible.
    """
    if not raw.targets:
        raise InputError(
            "missing key `targets`", where=where, hint='e.g. targets = [{ arch = "gfx950" }]'
        )
    for m in raw.block_m:
        if m not in BLOCK_M:
            raise InputError(
                f"`block_m` holds {m}",
                where=where,
                hint=f"kernels have {', '.join(map(str, BLOCK_M))}",
            )
    tokens = _tokens(raw.tokens, where)
    if raw.scope == "reachable" and not tokens:
        raise InputError(
            "`scope` is 'reachable', but there are no token counts",
            where=where,
            hint='list them under [tokens], or use scope = "inter-dim"',
        )
    layers = tuple(
        _layer(entry, index, raw, config, where)
        for index, entry in enumerate(raw.layers or [RawLayer(name="moe")])
    )
    names = [layer.name for layer in layers]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two layers are called {name!r}", where=where)
    return Manifest(
        name=raw.name or Path(where).stem,
        description=raw.description,
        source=where,
        targets=tuple(dict.fromkeys(_target(t, i, where) for i, t in enumerate(raw.targets))),
        layers=layers,
        tokens=tokens,
        scope=raw.scope,
        block_m=tuple(sorted(set(raw.block_m))),
        tuned=tuned,
        flydsl=raw.flydsl,
        gemms=tuple((n, k) for n, k in raw.audit.gemms),
        attention=tuple(
            Attention(a.hdim_q, a.hdim_v, a.dtype, a.causal, a.group, a.rounding)
            for a in raw.audit.attention
        ),
    )


def _layer(
    entry: RawLayer, index: int, raw: RawManifest, config: ConfigDims | None, where: str
) -> Layer:
    """One layer: its own keys, then the file's, then the model configuration's."""
    label = f"layers[{index}]" if raw.layers else "manifest"
    fields = {key: _first(getattr(entry, key), getattr(raw, key)) for key in LAYER_KEYS}
    if config is not None:
        if fields["inter_dim"] is None:
            fields["moe_intermediate"] = _first(fields["moe_intermediate"], config.moe_intermediate)
        if fields["quant"] is None:
            fields["quant"], fields["w"] = config.quant, _first(fields["w"], config.w)
        for key in ("model_dim", "experts", "top_k", "act", "out"):
            fields[key] = _first(fields[key], getattr(config, key))
    for key in ("model_dim", "experts", "top_k", "quant"):
        if fields[key] is None:
            raise InputError(
                f"{label}: missing key `{key}`",
                where=where,
                hint="write it here, at the top level, or name a `config` that says it",
            )
    quant = _QUANTS[fields["quant"]]
    out = fields["out"] or "b16"
    w = fields["w"] or (out if quant is Quant.NO else _WEIGHTS[quant][0])
    if w not in _WEIGHTS[quant]:
        raise InputError(
            f"{label}: `w` is {w!r} with `quant` {fields['quant']!r}",
            where=where,
            hint=f"{fields['quant']} weights are {' or '.join(_WEIGHTS[quant])}",
        )
    tp, ep = fields["tp"] or 1, fields["ep"] or 1
    shared = fields["fused_shared_experts"] or 0
    if fields["top_k"] > fields["experts"]:
        raise InputError(
            f"{label}: `top_k` {fields['top_k']} is more than `experts` {fields['experts']}",
            where=where,
        )
    return Layer(
        name=entry.name or f"moe{index}",
        model_dim=fields["model_dim"],
        inter_dim=_inter_dim(fields, tp, label, where),
        experts=_divided("experts", fields["experts"], "ep", ep, label, where) + shared,
        top_k=fields["top_k"] + shared,
        quant=quant,
        a=fields["a"],
        w=w,
        out=out,
        act=fields["act"] or "silu",
        gate=fields["gate"] or "separated",
        preshuffle=_first(fields["preshuffle"], True),
        doweight_stage1=_first(fields["doweight_stage1"], False),
    )


def _inter_dim(fields: dict[str, Any], tp: int, label: str, where: str) -> int:
    whole, local = fields["moe_intermediate"], fields["inter_dim"]
    if whole is None and local is None:
        raise InputError(
            f"{label}: neither `inter_dim` nor `moe_intermediate` is given",
            where=where,
            hint="inter_dim is this rank's; moe_intermediate is the model's, divided by `tp`",
        )
    if whole is None:
        return int(local)
    divided = _divided("moe_intermediate", whole, "tp", tp, label, where)
    if local is not None and local != divided:
        raise InputError(
            f"{label}: `inter_dim` is {local}, but `moe_intermediate` {whole} / `tp` {tp} "
            f"is {divided}",
            where=where,
            hint="leave one of them out",
        )
    return divided


def _divided(what: str, value: int, by: str, ranks: int, label: str, where: str) -> int:
    if value % ranks:
        raise InputError(
            f"{label}: `{what}` {value} can't be divided by `{by}` {ranks}", where=where
        )
    return value // ranks


def _target(raw: RawTarget, index: int, where: str) -> Target:
    if (raw.arch is None) == (raw.product is None):
        raise InputError(
            f"`targets[{index}]` needs either `arch` or `product`",
            where=where,
            hint=f"arch = gfx942 or gfx950; product = {', '.join(PRODUCTS)}",
        )
    if raw.product is None:
        arch = str(raw.arch)
        return Target(arch, raw.cu_num or DEFAULT_CU[arch])
    if raw.product not in PRODUCTS:
        raise InputError(
            f"`targets[{index}].product` is {raw.product!r}",
            where=where,
            hint=f"known: {', '.join(PRODUCTS)}; for another, give `arch` and `cu_num`",
        )
    arch, cu_num = PRODUCTS[raw.product]
    return Target(arch, raw.cu_num or cu_num)


def _tokens(raw: RawTokens, where: str) -> tuple[int, ...]:
    found = set(raw.list_)
    for index, entry in enumerate(raw.ranges):
        first, last = entry[0], entry[1]
        step = entry[2] if len(entry) == 3 else 1
        if last < first:
            raise InputError(
                f"`tokens.ranges[{index}]` ends at {last}, before it begins at {first}", where=where
            )
        _count(len(found) + (last - first) // step + 1, where)
        found.update(range(first, last + 1, step))
    for verify in raw.verify:
        requests = _as_list(verify.requests)
        per_request = _as_list(verify.tokens_per_request)
        _count(len(found) + len(requests) * len(per_request), where)
        found.update(r * t for r in requests for t in per_request)
    return tuple(sorted(found))


def _count(count: int, where: str) -> None:
    if count > MAX_TOKEN_COUNTS:
        raise InputError(
            f"[tokens] names {count} token counts",
            where=where,
            hint=f"at most {MAX_TOKEN_COUNTS}; AITER pads them to powers of two anyway",
        )


def _as_list(value: int | list[int]) -> list[int]:
    return value if isinstance(value, list) else [value]


def _first(*values: Any) -> Any:
    return next((v for v in values if v is not None), None)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as e:
        raise InputError(f"can't be read: {e.strerror or e}", where=str(path)) from None
    except ValueError:  # not UTF-8, or a path with a NUL byte
        raise InputError("can't be read: not UTF-8 text", where=str(path)) from None


def _tuned(path: Path) -> TunedFile:
    try:
        return TunedFile(str(path), digest.of_file(path))
    except (OSError, ValueError) as e:
        raise InputError(f"tuned table can't be read: {e}", where=str(path)) from None
