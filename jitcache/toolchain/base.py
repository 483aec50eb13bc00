"""What a search for a toolchain is asked, and what it says about each part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from jitcache.errors import ToolchainError
from jitcache.toolchain.environment import clean_environment
from jitcache.toolchain.model import Part, ProviderName, Toolchain

Status = Literal["found", "missing", "wrong"]

ISA_VERSIONS = {"gfx942": 9402, "gfx950": 9500}
"""Targets that can be built for, with the number that the device libraries know them by."""


class Request(NamedTuple):
    """What is looked for, and where.

    Attributes:
        arch: GPU architecture, a key of `ISA_VERSIONS`.
        cache_dir: root of the store: what was assembled and measured once is kept there.
        environ: environment variables to search by.
        provider: the only provider to consider, or None for the best one that is here.
        ck: CK or AITER directory named by the user, or None to search.
        root: what stands for `/` in the search of system directories.
        python_path: directories in which an installed amd-aiter is looked for.
    """

    arch: str
    cache_dir: Path
    environ: Mapping[str, str]
    provider: ProviderName | None = None
    ck: Path | None = None
    root: Path = Path("/")
    python_path: tuple[str, ...] = ()

    def system(self, path: str) -> Path:
        """A system directory below `root`."""
        return self.root / path.lstrip("/")


class PartReport(NamedTuple):
    """What is known of one part.

    Attributes:
        name: `clang`, `lld`, `host-runtime`, `hip-headers`, `device-libs`, `ck`, `compile`.
        status: `found` (fit for use), `missing`, or `wrong` (there, but unfit).
        path: where it is.
        version: as the part states it, "" where unknown.
        digest: digest of its content; "" where its files enter keys one by one.
        detail: what is wrong, or where was looked.
        next_step: what the user does next; "" where nothing needs doing.
        host_only: whether only host shims are made with it.
    """

    name: str
    status: Status
    path: Path | None = None
    version: str = ""
    digest: str = ""
    detail: str = ""
    next_step: str = ""
    host_only: bool = False

    def part(self) -> Part:
        """The found part, as the toolchain holds it.

        Raises:
            ValueError: it was not found.
        """
        if self.status != "found" or self.path is None:
            raise ValueError(f"{self.name} was not found")
        return Part(self.name, self.path, self.version, self.digest, self.host_only)


class Examination(NamedTuple):
    """The outcome of a search: a report of every part, and the toolchain if all are fit."""

    provider: ProviderName
    arch: str
    reports: tuple[PartReport, ...]
    toolchain: Toolchain | None

    def require(self) -> Toolchain:
        """The toolchain.

        Raises:
            ToolchainError: a part is missing or wrong; names each, and the first next step.
        """
        if self.toolchain is not None:
            return self.toolchain
        bad = [r for r in self.reports if r.status != "found"]
        raise ToolchainError(
            f"no complete {self.provider} toolchain for {self.arch}",
            details=tuple(describe(r) for r in self.reports),
            hint=next((r.next_step for r in bad if r.next_step), "run `jitcache doctor`"),
        )


def describe(report: PartReport) -> str:
    """One line for people: `missing  clang: looked for clang++-22 ...`."""
    about = ", ".join(x for x in (report.version, str(report.path or ""), report.detail) if x)
    return f"{report.status:<8} {report.name}: {about}"


class Ran(NamedTuple):
    """A finished process: exit status, standard output, diagnostics."""

    status: int
    out: str
    err: str


def run(
    argv: Sequence[str],
    environ: Mapping[str, str],
    *,
    cwd: Path | None = None,
    patience_s: int = 120,
) -> Ran:
    """Run a tool of the toolchain; one that can't be started or hangs has status 127 or 124."""
    import subprocess

    try:
        done = subprocess.run(
            list(argv),
            env=clean_environment(environ),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=patience_s,
            check=False,
        )
    except OSError as e:
        return Ran(127, "", f"{argv[0]}: {e.strerror}")
    except subprocess.TimeoutExpired:
        return Ran(124, "", f"{argv[0]}: no answer within {patience_s} s")
    return Ran(done.returncode, done.stdout, done.stderr)


def first_error(text: str) -> str:
    """The line of a compiler's diagnostics that says what is wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((x for x in lines if "error" in x.lower()), lines[0] if lines else "no message")
