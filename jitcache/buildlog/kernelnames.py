"""Kernel terms for the outputs of a build: `gemm1 256x128x128x128 v3`. Pure.

Known are the objects of AITER's MoE instances (named by gemm_moe_ck2stages_common.py, AITER
9bab8388), jitcache's own outputs, PyTorch extensions and CMake's object paths. Everything
else keeps its path.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

_TILE = r"gemm(?P<stage>[12])_(?P<tile>\d+x\d+x\d+x\d+)_(?P<waves>\d+x\d+)"
_STOCK = re.compile(
    rf"moe_ck2stages_{_TILE}_(?P<op>\w+?)_v(?P<version>\d+)_Nswizzle\d+_Quant(?P<quant>\d+)"
    r"_MulRoutedWeight(?P<mul>[01])(?:_(?P<act>[a-z]+))?"
    r"_(?P<a>[A-Z0-9]+)_(?P<b>[A-Z0-9]+)_(?P<c>[A-Z0-9]+)"
)
_OWN = re.compile(rf"{_TILE}_v(?P<version>\d+)_(?P<variants>\w[\w-]*?)_(?P<arch>gfx[0-9a-f]+)")
_OBJECT = re.compile(r"(?:\.(?:cuda|cu|hip|cpp|cc|cxx|c))?\.(?:o|obj|co|so)$")
_CMAKE = re.compile(r"(?:^|.*/)CMakeFiles/(?P<target>[^/]+)\.dir/(?P<source>.+)\.(?:o|obj)$")
_LINK_RULE = re.compile(r"(?:^|_)link(?:er)?(?:_|$)", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufffe\uffff]")


@dataclass(frozen=True, slots=True)
class KernelName:
    """What the name of a kernel's object tells.

    Attributes:
        stage: 1 or 2.
        tile: `256x128x128x128`.
        waves: `1x4`.
        pipeline: 1 or 3.
        op: element-wise operation, "" where the name doesn't tell.
        types: `FP4X2 FP4X2 B16` (activation, weight, output), "" likewise.
        variants: `hot-even`, "" for an object with all variants.
        arch: `gfx950`, "" where the name doesn't tell.
        extra: further parts that tell two instances apart: quantisation, activation.
    """

    stage: int
    tile: str
    waves: str
    pipeline: int
    op: str = ""
    types: str = ""
    variants: str = ""
    arch: str = ""
    extra: str = ""

    @property
    def short(self) -> str:
        """`gemm1 256x128x128x128 v3`, with the variant and target of our own outputs."""
        parts = [f"gemm{self.stage} {self.tile} v{self.pipeline}", self.variants, self.arch]
        return " ".join(p for p in parts if p)

    @property
    def full(self) -> str:
        """Everything the name tells."""
        return " ".join(p for p in (self.short, self.waves, self.op, self.types, self.extra) if p)


def parse_kernel(output: str) -> KernelName | None:
    """The kernel that an output holds, or None if its name isn't a known kernel's."""
    name = output.rsplit("/", 1)[-1]
    if m := _STOCK.match(name):
        extra = [f"Quant{m['quant']}", f"MulRoutedWeight{m['mul']}", m["act"] or ""]
        return KernelName(
            int(m["stage"]),
            m["tile"],
            m["waves"],
            int(m["version"]),
            op=m["op"],
            types=f"{m['a']} {m['b']} {m['c']}",
            extra=" ".join(e for e in extra if e),
        )
    if m := _OWN.match(name):
        return KernelName(
            int(m["stage"]),
            m["tile"],
            m["waves"],
            int(m["version"]),
            variants=m["variants"].replace("_", " "),
            arch=m["arch"],
        )
    return None


def short_name(output: str, rule: str = "") -> str:
    """What to call an output in a table.

    Args:
        output: path as in build.ninja.
        rule: the rule that makes it, where known.
    """
    if kernel := parse_kernel(output):
        return kernel.short
    base = output.rsplit("/", 1)[-1]
    if _LINK_RULE.search(rule):
        # A PyTorch extension has one link, whose rule is called just that.
        return "link" if rule == "link" else f"link {base}"
    if m := _CMAKE.match(output):
        return f"{m['target']}: {m['source']}"
    if output.startswith("actions/") or base.endswith((".cuda.o", ".co")):
        return _OBJECT.sub("", base)
    return output


def short_names(items: Sequence[tuple[str, str, str]]) -> list[str]:
    """Names for a table, no two alike: one that isn't unique says more, at last its path.

    Args:
        items: output, rule, and the name build.ninja gives it ("" for none) of each row.
    """
    names = [given or short_name(output, rule) for output, rule, given in items]
    for longer in (_longer, lambda output, _: output):
        count = Counter(names)
        names = [
            name if count[name] == 1 else longer(output, rule)
            for name, (output, rule, _) in zip(names, items, strict=True)
        ]
    return [printable(n) for n in names]


def _longer(output: str, rule: str) -> str:
    kernel = parse_kernel(output)
    name = short_name(output, rule)
    return kernel.full if kernel else f"link {output}" if name == "link" else output


def printable(text: str) -> str:
    """Text without characters that would act on a terminal or turn its direction."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)
