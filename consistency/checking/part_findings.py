"""The findings file of a part of a run: looked for, and proven to be the one that the part has written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from consistency.errors import UsageError
from consistency.ledger.part_account import PartAccount
from consistency.model.part import Part
from consistency.results.figures import counted
from consistency.results.findings import Finding, read_all, read_header
from consistency.results.range_findings import RangeFinding


def findings_beside(ledger: Path, part: Part) -> Path:
    """Return where a part's findings are written if nobody names a file: beside its ledger."""
    return ledger.with_name(f"{ledger.name}.part-{part.number}-of-{part.of}.jsonl")


def locate(account: PartAccount, ledger: Path) -> Path | None:
    """Return a part's findings file: where it was written, or beside the ledger; None if no row differs.

    UsageError if it is missing, or belongs to another run: then nothing can be said of the whole.
    """
    rows = sum(account.report.findings_by_kind.values())
    if not rows:
        return None
    written = Path(account.report.findings_path or findings_beside(ledger, account.part))
    there = [path for path in (ledger.parent / written.name, written) if path.is_file()]
    for path in there:
        if read_header(path).get("run_id") == account.part_id:
            return path
    what = f"{there[0]} is of another run" if there else f"{written.name} is missing"
    msg = (
        f"part {account.part} in {ledger} found {counted(rows, 'row that differs', 'rows that differ')}, and its"
        f" findings file {what}: put it beside the ledger, or run the part again"
    )
    raise UsageError(msg)


def findings_of(account: PartAccount, path: Path | None) -> Iterator[Finding | RangeFinding]:
    """Yield what a part has found, of its file; UsageError if that lacks some of it."""
    wanted = Counter(dict(account.report.findings_by_kind))
    seen: Counter[str] = Counter()
    for found in () if path is None else read_all(path):
        kinds = {found.kind: 1} if isinstance(found, Finding) else found.kinds
        seen.update({kind.value: count for kind, count in kinds.items()})
        yield found
    if +seen != +wanted:
        rows = counted(wanted.total(), "row")
        msg = f"{path} has {seen.total():,} of the {rows} that part {account.part} found; run it again"
        raise UsageError(msg)
