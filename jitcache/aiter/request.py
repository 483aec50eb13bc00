"""What `jitcache generate` was asked for: whether its options fit together, what they name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jitcache.codegen import catalog, stock
from jitcache.codegen.catalog import Arch, ModuleSpec, Stage
from jitcache.errors import UsageError
from jitcache.manifest.raw import ScopeWord

_OF_MODULES = ("activations", "output", "quant", "act", "stage", "preshuffle", "splitk")
_OF_SHAPES = ("inter_dims", "kernels", "block_ms", "tuned")
_OPTION = {
    "activations": "-a",
    "output": "-c",
    "quant": "-q",
    "act": "-act",
    "stage": "-m",
    "inter_dims": "--inter-dim",
    "block_ms": "--block-m",
    "tuned": "--tuned",
    "kernels": "--kernel",
    "splitk": "--issplitk",
    "preshuffle": "--preshuffle",
}


@dataclass(frozen=True, slots=True)
class Request:
    """A parsed command line; see docs/generate.md for the options.

    Attributes:
        manifest: a manifest's file or name.
        given: names of the attributes that were on the command line.
        stage: stage that multiplies by the routed weight, as text.
        tree: the AITER that will compile the sources and look up its tuned tables.
    """

    manifest: str | None
    given: frozenset[str]
    dialect: str
    arch: str | None
    weights: tuple[str, ...]
    activations: tuple[str, ...]
    output: str
    quant: str
    act: str
    stage: str
    preshuffle: bool
    splitk: bool
    inter_dims: tuple[int, ...]
    block_ms: tuple[int, ...]
    tuned: tuple[Path, ...]
    kernels: tuple[str, ...]
    scope: ScopeWord | None
    tree: Path | None


def choose_arch(
    option: str | None,
    environ: Mapping[str, str],
    of_manifest: Sequence[Arch],
    able: Sequence[Arch] = (),
) -> Arch:
    """The one architecture to generate for.

    AITER's generator takes the last of several in GPU_ARCHS and its build then compiles
    that one's list for all of them: names and tiles differ, so one of them gets a module that
    lacks kernels (aiter/jit/utils/chip_info.py).

    Args:
        option: `--arch`.
        environ: the environment.
        of_manifest: architectures of a manifest's targets.
        able: without a manifest, the architectures that can run the kernels.

    Raises:
        UsageError: none or several are given, or one that the manifest doesn't have.
        UnsupportedError: AITER has no CK2stages kernels for it.
    """
    archs = [a for a in environ.get("GPU_ARCHS", "").replace(",", ";").split(";") if a.strip()]
    known = list(dict.fromkeys(of_manifest))
    if option is not None:
        arch = option
    elif len(archs) > 1:
        raise UsageError(
            f"GPU_ARCHS names {len(archs)} architectures: {', '.join(archs)}",
            hint="kernel lists and names differ between them, so a blob directory is for one: "
            "generate and build once per architecture, or choose with --arch",
        )
    elif archs and archs[0].strip() != "native":
        arch = archs[0].strip()
    elif len(known or able) == 1:
        arch = (known or able)[0]
    else:
        raise UsageError(
            "no architecture is given"
            if not known
            else f"the manifest has targets of {len(known)} architectures: {', '.join(known)}",
            hint=f"--arch {' or --arch '.join(known or catalog.ARCHES)}",
        )
    catalog.check_arch(arch)
    if known and arch not in known:
        raise UsageError(f"the manifest has no target of {arch}", hint=f"it has {', '.join(known)}")
    return arch


def check(request: Request) -> None:
    """Refuse options that contradict each other or would do nothing."""
    shapes = [n for n in _OF_SHAPES if n in request.given]
    if request.manifest is not None:
        if shapes and shapes[0] in ("inter_dims", "kernels"):
            raise UsageError(
                f"{_OPTION[shapes[0]]} and a manifest: both say what is needed",
                hint="put the shape into the manifest, or name the module with -b instead",
            )
        alone = [n for n in _OF_MODULES if n in request.given]
        if alone and not request.weights:
            raise UsageError(
                f"{_OPTION[alone[0]]} needs -b: together they choose a module of the manifest"
            )
        return
    if request.scope is not None:
        raise UsageError("--scope needs a manifest", hint="without a shape, the module is whole")
    if request.dialect == "native":
        raise UsageError(
            "the native dialect needs a manifest",
            hint="which kernel of an instance runs depends on dims that the options don't say",
        )
    if shapes and not request.weights:
        raise UsageError(f"{_OPTION[shapes[0]]} needs -b: it narrows a module")
    if request.tuned and not (request.inter_dims or request.block_ms):
        raise UsageError("--tuned needs --inter-dim or --block-m: it adds kernels to a shape's")


def specs_of(request: Request) -> tuple[ModuleSpec, ...]:
    """The modules that the generator's options name."""
    if not request.weights:
        return stock.everything()
    stage: Stage = 1 if request.stage == "1" else 2
    return stock.asked(
        request.weights,
        request.output,
        stock.QUANT_WORDS[request.quant],
        request.act,
        stage,
        preshuffle=request.preshuffle,
        splitk=request.splitk,
    )


def able_archs(request: Request) -> list[Arch]:
    """The architectures on which any of the modules that the options name can run."""
    specs = specs_of(request)
    return [a for a in catalog.ARCHES if any(catalog.refusal(s, a) is None for s in specs)]


def doubts(request: Request, arch: Arch) -> list[str]:
    """What AITER's generator accepts without a word although it can't end well."""
    notes = []
    derived = [s.a for s in specs_of(request)] if request.weights else []
    if request.activations and list(request.activations) != derived:
        notes.append(
            f"-a {' '.join(request.activations)} is not used: AITER derives the activation "
            f"type from -b, here {' '.join(derived) or 'every type'}"
        )
    refusals = {catalog.refusal(s, arch) for s in specs_of(request)} - {None}
    notes += sorted(f"kernels that can never run: {r.reason}" for r in refusals if r is not None)
    return notes
