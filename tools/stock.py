"""How stock AITER compiles a CK2stages module, without ROCm: for benchmarks and identity.

The sources are those of the installed `amd-aiter` wheel (or of an AITER checkout) and are only
read and compiled, never copied into the project. Torch's CPU headers stand for ROCm's; the
one rocThrust header they ask for is replaced by tools/standin.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from jitcache.codegen import catalog
from jitcache.toolchain.model import Toolchain

STANDIN = Path(__file__).parent / "standin"
STANDIN_TORCH = Path(__file__).parent / "standin_torch"


def aiter_meta() -> Path:
    """The `aiter_meta` directory of the installed wheel."""
    for place in map(Path, sysconfig.get_paths().values()):
        if (place / "aiter_meta" / "csrc").is_dir():
            return place / "aiter_meta"
    raise SystemExit(
        "no installed amd-aiter wheel found; `tools/setup` installs it "
        "(pip install --no-deps amd-aiter==0.1.7.post2.dev18)"
    )


def torch_include() -> Path | None:
    """Torch's header directory, found without importing torch; None where it isn't installed."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "include"


def generator_words(spec: catalog.ModuleSpec) -> list[str]:
    """Command line of AITER's generator for a module."""
    words = ["-b", spec.b, "-c", spec.c, "-q", spec.quant.word, "-act", spec.act]
    words += ["-m", str(spec.routed_weight_stage)]
    words += ["--preshuffle"] if spec.preshuffle else []
    words += ["--issplitk"] if spec.splitk else []
    return words


def generate(csrc: Path, directory: Path, arch: str, words: list[str]) -> list[Path]:
    """Run AITER's own generator and return its instance files.

    Args:
        csrc: AITER's csrc directory.
        directory: where the generator writes.
        arch: architecture to generate for.
        words: its command line without `-w`.
    """
    with tempfile.TemporaryDirectory() as tools:
        # The generator imports AITER's build helpers, which insist on a ROCm version.
        stub = Path(tools) / "hipconfig"
        stub.write_text("#!/bin/sh\necho 7.0.0\n")
        stub.chmod(0o755)
        script = csrc / "ck_gemm_moe_2stages_codegen" / "gen_instances.py"
        env = {**os.environ, "GPU_ARCHS": arch, "PATH": f"{tools}:{os.environ['PATH']}"}
        directory.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [sys.executable, str(script), *words, "-w", str(directory)],
            check=True,
            env=env,
            stderr=subprocess.DEVNULL,
        )
    return sorted((directory / "instances").glob("*.cu"))


def source_of(sources: list[Path], instance: catalog.Instance) -> Path:
    """The instance file of an instance, whatever AITER of that age calls its operation.

    Raises:
        LookupError: this AITER has no such tile.
    """
    tile = instance.tile
    stem = f"gemm{instance.stage}_{tile.block_size}x{tile.m}x{tile.n}x{tile.k}_"
    version = f"_v{tile.pipeline}_"
    for source in sources:
        if stem in source.name and version in source.name:
            return source
    raise LookupError(f"this AITER has no instance {instance.short}")


def command(
    toolchain: Toolchain,
    csrc: Path,
    source: Path,
    output: Path,
    *,
    device_only: bool,
    torch: Path | None,
) -> list[str]:
    """The compile of one stock translation unit with the given toolchain.

    Args:
        toolchain: compiler, flags and CK; the same that our own build uses.
        csrc: AITER's csrc directory.
        source: an instance file.
        output: object (host and device) or code object (device only).
        device_only: leave the host pass out, for a code object to compare with.
        torch: torch's headers; None for a stand-in, which is enough to compare kernels.
    """
    ours = {"compat", "csrc"}
    includes = [csrc / "include", csrc / "ck_gemm_moe_2stages_codegen"]
    words = [f"-I{d}" for d in includes]
    for root in toolchain.include_roots:
        if root.flag and root.name not in ours - {"compat"}:
            words += [root.flag, str(root.path)]
        if root.name == "ck":
            words += ["-isystem", str(root.path.parent / "library" / "include")]
    if torch is None:
        headers = [STANDIN_TORCH]
    else:
        api = torch / "torch" / "csrc" / "api" / "include"
        headers = [STANDIN, torch, api, Path(sysconfig.get_paths()["include"])]
    for directory in headers:
        words += ["-isystem", str(directory)]
    mode = ["--cuda-device-only", "--no-gpu-bundle-output"] if device_only else ["-c", "-fPIC"]
    return [
        str(toolchain.compiler),
        *toolchain.base_flags,
        "-DTORCH_EXTENSION_NAME=stock",
        *toolchain.path_flags,
        *toolchain.device_flags,
        *words,
        *mode,
        "-w",
        str(source),
        "-o",
        str(output),
    ]
