"""The device libraries as clang wants them, assembled once below JITCACHE_DIR.

AMD's device libraries are a few bitcode files with code (ocml, ockl) and one tiny file per
constant that the code is specialised by. A distribution's package has the code, but not the
constants of newer targets and ABIs; their names and meanings are documented by ROCm's
device-libs, and each is one definition, so we write them and let the same clang assemble
them, which gives them its own data layout.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from jitcache import digest
from jitcache.errors import ToolchainError
from jitcache.store import durable
from jitcache.store.layout import Bucket, Layout
from jitcache.toolchain.base import ISA_VERSIONS, Request, first_error, run
from jitcache.toolchain.compiler import CompilerFacts
from jitcache.toolchain.memo import Memo

CODE_LIBRARIES = ("ocml.bc", "ockl.bc")
_SCHEMA = 1
_ABI = 600  # code object version 6, the default since clang 20


class AssembledRoot(NamedTuple):
    """A small ROCm-like directory, for `--rocm-path`.

    Attributes:
        path: holds include/hip (a link), share/hip/version and amdgcn/bitcode.
        digest: over the names and digests of all bitcode files.
    """

    path: Path
    digest: str

    @property
    def bitcode(self) -> Path:
        """Directory of the bitcode files, for `--rocm-device-lib-path`."""
        return self.path / "amdgcn" / "bitcode"

    @property
    def include(self) -> Path:
        """Directory that holds `hip/`."""
        return self.path / "include"


def constants() -> dict[str, str]:
    """File name → LLVM IR of every constant that clang links into our targets' code."""
    flags = {
        "oclc_correctly_rounded_sqrt_off": ("__oclc_correctly_rounded_sqrt32", 0),
        "oclc_correctly_rounded_sqrt_on": ("__oclc_correctly_rounded_sqrt32", 1),
        "oclc_daz_opt_off": ("__oclc_daz_opt", 0),
        "oclc_daz_opt_on": ("__oclc_daz_opt", 1),
        "oclc_finite_only_off": ("__oclc_finite_only_opt", 0),
        "oclc_finite_only_on": ("__oclc_finite_only_opt", 1),
        "oclc_unsafe_math_off": ("__oclc_unsafe_math_opt", 0),
        "oclc_unsafe_math_on": ("__oclc_unsafe_math_opt", 1),
        "oclc_wavefrontsize64_off": ("__oclc_wavefrontsize64", 0),
        "oclc_wavefrontsize64_on": ("__oclc_wavefrontsize64", 1),
    }
    files = {f"{name}.bc": _module(_byte(*value)) for name, value in flags.items()}
    for arch, number in ISA_VERSIONS.items():
        name = f"oclc_isa_version_{arch.removeprefix('gfx')}.bc"
        files[name] = _module(_word("__oclc_ISA_version", number))
    # Never linked into HIP code, but clang takes a directory without it for no device library.
    files["opencl.bc"] = _module()
    # Clang of today links no oclc_daz_opt file, but libraries built before still ask for the
    # constant. It goes with the ABI version, which is always linked; "on" is what
    # -fgpu-flush-denormals-to-zero, a flag of every device compile, used to choose.
    files[f"oclc_abi_version_{_ABI}.bc"] = _module(
        _word("__oclc_ABI_version", _ABI), _byte("__oclc_daz_opt", 1)
    )
    return files


def assemble(
    facts: CompilerFacts,
    hip_include: Path,
    hip_version: str,
    bitcode: Path,
    request: Request,
    memo: Memo,
) -> AssembledRoot:
    """Find or make the root for these HIP headers and device libraries.

    Args:
        facts: the clang that will read the bitcode.
        hip_include: directory of `hip_runtime.h`; linked, not copied.
        hip_version: `5.2.21153`, written where clang looks for it.
        bitcode: directory that holds `CODE_LIBRARIES`.
        request: names the cache directory.
        memo: remembers digests.

    Raises:
        ToolchainError: clang refuses the constants, or the directory can't be written.
    """
    texts = constants()
    name = digest.of_json(
        {
            "schema": _SCHEMA,
            "clang": facts.digest,
            "constants": digest.of_json(texts),
            "hip": [str(hip_include), hip_version],
            "libraries": {n: memo.file_digest(bitcode / n) for n in CODE_LIBRARIES},
        }
    ).removeprefix("sha256:")[:16]
    root = Layout(request.cache_dir).bucket(Bucket.TOOLCHAIN) / name
    intact = _read(root, memo.file_digest)
    if intact is not None:
        return intact
    import shutil
    import tempfile

    try:
        durable.make_dir(root.parent)
        temp = Path(tempfile.mkdtemp(dir=root.parent, prefix=f".{name}-"))
        try:
            _fill(temp, texts, facts, hip_include, hip_version, bitcode, request)
            _publish(temp, root)
        finally:
            shutil.rmtree(temp, ignore_errors=True)
    except OSError as e:
        raise ToolchainError(
            f"the toolchain directory can't be written: {e.strerror}",
            where=str(root),
            hint="set JITCACHE_DIR to a writable directory with 1 MB of free space",
        ) from e
    made = _read(root, memo.file_digest)
    if made is None:
        raise ToolchainError(
            "the toolchain directory does not hold what was written to it",
            where=str(root),
            hint="remove it and try again",
        )
    return made


def _fill(
    root: Path,
    texts: dict[str, str],
    facts: CompilerFacts,
    hip_include: Path,
    hip_version: str,
    bitcode: Path,
    request: Request,
) -> None:
    import shutil

    target = root / "amdgcn" / "bitcode"
    for directory in (target, root / "include", root / "share" / "hip"):
        directory.mkdir(parents=True)
    (root / "include" / "hip").symlink_to(hip_include)
    major, minor, patch = hip_version.split(".")
    (root / "share" / "hip" / "version").write_text(
        f"HIP_VERSION_MAJOR={major}\nHIP_VERSION_MINOR={minor}\nHIP_VERSION_PATCH={patch}\n"
    )
    for library in CODE_LIBRARIES:
        shutil.copyfile(bitcode / library, target / library)
    for name, text in texts.items():
        source = root / "constant.ll"
        source.write_text(text)
        done = run(
            [
                str(facts.path),
                "--no-default-config",
                "-target",
                "amdgcn-amd-amdhsa",
                "-nogpulib",
                "-x",
                "ir",
                "-emit-llvm",
                "-c",
                source.name,
                "-o",
                str(target / name),
            ],
            request.environ,
            cwd=root,
        )
        if done.status != 0:
            raise ToolchainError(
                f"clang does not assemble {name}: {first_error(done.err)}",
                where=str(facts.path),
                hint="use a clang that was built with the AMDGPU target",
            )
    source.unlink()
    listing = {f.name: digest.of_file(f) for f in sorted(target.iterdir())}
    (root / "listing.json").write_text(json.dumps(listing, indent=1))


def _publish(temp: Path, root: Path) -> None:
    """Rename into place; a damaged directory of that name is moved away first."""
    temp.chmod(0o755)
    damaged = temp.with_name(temp.name + "-damaged")
    try:
        temp.rename(root)
    except OSError:
        if _read(root, digest.of_file) is not None:
            return  # another process was faster
        import shutil

        root.rename(damaged)
        temp.rename(root)
        shutil.rmtree(damaged, ignore_errors=True)


def _read(root: Path, of_file: Callable[[Path], str]) -> AssembledRoot | None:
    """The root if every file in it is what was written."""
    try:
        listing = json.loads((root / "listing.json").read_bytes())
        assembled = AssembledRoot(root, digest.of_json(listing))
        same = all(of_file(assembled.bitcode / n) == d for n, d in listing.items())
        whole = set(listing) == {*CODE_LIBRARIES, *constants()}
        there = (assembled.include / "hip" / "hip_version.h").is_file()
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    return assembled if same and whole and there else None


def _module(*definitions: str) -> str:
    return "\n".join(('target triple = "amdgcn-amd-amdhsa"', *definitions, ""))


def _word(name: str, value: int) -> str:
    return f"@{name} = {_LINKAGE} i32 {value}, align 4"


def _byte(name: str, value: int) -> str:
    return f"@{name} = {_LINKAGE} i8 {value}, align 1"


_LINKAGE = "linkonce_odr protected local_unnamed_addr addrspace(4) constant"
