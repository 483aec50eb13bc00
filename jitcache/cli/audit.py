"""`jitcache audit`: what a deployment gets from AITER's tables, and what falls through."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import click

from jitcache.cli import output
from jitcache.cli.plan import targets_of
from jitcache.codegen import catalog
from jitcache.errors import ExitCode, UsageError
from jitcache.manifest.load import Manifest, Target, load_manifest
from jitcache.plan.audit import Audit, Status, audit_json, audit_moe, audit_tables, ordered
from jitcache.plan.neighbours import audit_neighbours
from jitcache.plan.tuned import read_tuned, tuned_files_of


@click.command()
@click.argument("manifests", nargs=-1, required=True, metavar="MANIFEST...")
@click.option("--arch", type=click.Choice(catalog.ARCHES), help="Only this architecture.")
@click.option(
    "--cu-num", type=click.IntRange(min=1), help="Compute units, instead of the target's."
)
@click.option("--tuned", type=Path, multiple=True, help="A tuned_fmoe CSV (repeatable, in order).")
@click.option("--aiter", "checkout", type=Path, help="AITER checkout: its tables, all of them.")
@click.option("--markdown", is_flag=True, help="Print Markdown instead of plain text.")
@click.option("--strict", is_flag=True, help="Fail on warnings, too.")
@output.json_option
def command(
    manifests: tuple[str, ...],
    arch: str | None,
    cu_num: int | None,
    tuned: tuple[Path, ...],
    checkout: Path | None,
    markdown: bool,
    strict: bool,
    as_json: bool,
) -> None:
    """Show how AITER serves every token count of the manifests, and what falls through.

    MANIFEST is a .toml file or the name of a shipped manifest.
    """
    if markdown and as_json:
        raise UsageError("--markdown and --json exclude each other")
    audits = [
        _audit(manifest, target, tuned, checkout)
        for manifest in map(load_manifest, manifests)
        for target in targets_of(manifest, arch, cu_num)
    ]
    if as_json:
        output.emit_json({"audits": [audit_json(a) for a in audits]})
    else:
        output.out("\n\n".join((_markdown if markdown else _text)(a) for a in audits))
    bad = {"error", "warning"} if strict else {"error"}
    if any(f.severity in bad for a in audits for f in a.findings):
        raise click.exceptions.Exit(int(ExitCode.FAILED))


def _audit(
    manifest: Manifest, target: Target, tuned: Sequence[Path], checkout: Path | None
) -> Audit:
    trees = tuned_files_of(checkout) if checkout is not None else []
    files = dict.fromkeys([*(Path(t.path) for t in manifest.tuned), *trees, *tuned])
    table = read_tuned(files)
    statuses, findings = audit_moe(manifest, target, table)
    findings += audit_tables(table)
    skipped = []
    if not files:
        skipped.append("tuned MoE rows: no table given (--aiter or --tuned)")
    if checkout is None:
        skipped.append("bf16 GEMMs, A8W4 Triton, FMHA v3: no AITER tree given (--aiter)")
    else:
        more, unseen = audit_neighbours(manifest, target, checkout)
        findings += more
        skipped += unseen
    return Audit(manifest.name, target, statuses, ordered(findings), tuple(skipped))


def _title(audit: Audit) -> str:
    count = {s: sum(f.severity == s for f in audit.findings) for s in ("error", "warning", "note")}
    return (
        f"{audit.manifest} on {audit.target}: {count['error']} errors, "
        f"{count['warning']} warnings, {count['note']} notes"
    )


def _status_cells(statuses: Sequence[Status]) -> list[list[str]]:
    """Neighbouring token counts with the same answer in one line."""
    cells = []
    for key, group in itertools.groupby(statuses, key=_answer):
        members = list(group)
        first, last = members[0].tokens, members[-1].tokens
        span = str(first) if first == last else f"{first} to {last}"
        cells.append([key[0], span, key[1], " + ".join(key[2]), key[3]])
    return cells


def _answer(status: Status) -> tuple[str, str, tuple[str, str], str]:
    why = status.why.replace(f" for {status.padded} tokens", "")
    return status.layer, status.served, status.by, why


_STATUS = ("layer", "tokens", "served", "by", "decided by")
_FINDING = ("severity", "part", "kind", "where", "what")


def _finding_cells(audit: Audit) -> list[list[str]]:
    return [[f.severity, f.part, f.kind, f.where, f.what] for f in audit.findings]


def _text(audit: Audit) -> str:
    parts = [_title(audit), "", output.table(_STATUS, _status_cells(audit.statuses), right="lr")]
    if audit.findings:
        parts += ["", output.table(_FINDING, _finding_cells(audit))]
    parts += ["", *(f"skipped: {s}" for s in audit.skipped)] if audit.skipped else []
    return "\n".join(parts)


def _markdown(audit: Audit) -> str:
    parts = [f"## {_title(audit)}", "", *_md_table(_STATUS, _status_cells(audit.statuses))]
    if audit.findings:
        parts += ["", *_md_table(_FINDING, _finding_cells(audit))]
    parts += ["", *(f"- skipped: {s}" for s in audit.skipped)] if audit.skipped else []
    return "\n".join(parts)


def _md_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        "| " + " | ".join(c.replace("|", "\\|") for c in r) + " |"
        for r in (header, ["---"] * len(header), *rows)
    ]
