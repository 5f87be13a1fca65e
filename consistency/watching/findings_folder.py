"""The findings files of a watch: one per table with the differing rows of its latest visits, whole after each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from consistency.errors import UsageError
from consistency.model.ring import Ring
from consistency.model.tokens import TokenRange
from consistency.private import close_to_others
from consistency.results.findings import Finding, FindingsWriter, Header, read_findings, read_header, read_ranges
from consistency.results.range_findings import RangeFinding
from consistency.results.report import Report

VISIT_SUFFIX = ".visit"


@dataclass(frozen=True, slots=True)
class FindingsFolder:
    """Where a visit writes its findings, and where the latest findings of each table are kept.

    `folder` is the operator's; `evidence` is where a repair keeps its files, each named after its run. Either may be
    missing.
    """

    folder: Path | None = None
    evidence: Path | None = None

    def of_visit(self, full_name: str, run_id: str) -> Path | None:
        """Return the file of one visit."""
        if self.evidence is not None:
            return self.evidence / f"{run_id}.findings.jsonl"
        return None if self.folder is None else self.folder / f"{full_name}.jsonl{VISIT_SUFFIX}"

    def keep(
        self, report: Report, full_name: str, ring: Ring, *, sliced: bool, reached: Sequence[TokenRange] | None
    ) -> Report:
        """Make the visit's findings the latest of its table; return the report with the name of the file.

        A visit that read a part of the table replaces the findings of the ranges that it reached. If those are not
        known, the visit counts only if it found something. Older findings get the addresses that their nodes have in
        `ring`, the ring of the visit.
        """
        visit = Path(report.findings_path) if report.findings_path else None
        if visit is None:
            return report
        try:
            return self._kept(report, full_name, visit, ring, reached, sliced=sliced)
        except OSError as error:  # the report and the ledger have the findings anyway
            return replace(report, findings_path=None, findings_error=error.strerror or type(error).__name__)

    def _kept(
        self,
        report: Report,
        full_name: str,
        visit: Path,
        ring: Ring,
        reached: Sequence[TokenRange] | None,
        *,
        sliced: bool,
    ) -> Report:
        found = sum(report.findings_by_kind.values())
        if self.folder is None:
            if not found:  # nobody needs an empty file
                visit.unlink(missing_ok=True)
            return report
        latest = self.folder / f"{full_name}.jsonl"
        close_to_others(latest)  # otherwise the file is unreadable, and its findings of other ranges would be lost
        if sliced and reached is None and not found:
            visit.unlink(missing_ok=True)
            return replace(report, findings_path=str(latest) if latest.exists() else None)
        if sliced and reached is not None and _readable(latest):
            error = _rewritten(latest, visit, chain(_all_of(visit), _outside(latest, ring, reached)))
        elif self.evidence is None:
            visit.replace(latest)
            error = ""
        else:
            error = _rewritten(latest, visit, _all_of(visit))
        if self.evidence is None or not found:
            visit.unlink(missing_ok=True)
        return replace(report, findings_path=None if error else str(latest), findings_error=error)


def _all_of(path: Path) -> Iterator[Finding | RangeFinding]:
    return chain(read_findings(path), read_ranges(path))


def _rewritten(latest: Path, visit: Path, findings: Iterator[Finding | RangeFinding]) -> str:
    """Write a file with the header of a visit; return why it could not be written, or an empty text."""
    found = read_header(visit)

    def told(name: str) -> str:
        return str(found.get(name, ""))

    header = Header(told("run_id"), told("cluster"), told("ring"), told("started_at"), told("tool"))
    with FindingsWriter(latest, header) as writer:
        for finding in findings:
            if isinstance(finding, RangeFinding):
                writer.write_range(finding)
            else:
                writer.write(finding)
    return writer.error


def _outside(path: Path, ring: Ring, reached: Sequence[TokenRange]) -> Iterator[Finding | RangeFinding]:
    """Yield older findings in ranges that the visit did not reach; stop where a truncated file ends."""
    names = {node.host_id: node.name for node in ring.nodes}
    with suppress(UsageError):
        for finding in _all_of(path):
            hosts = {view.host_id for view in finding.replicas.values()}
            if _was_reached(finding, reached):
                continue
            if "" in hosts:  # a file of an earlier version, which has addresses only
                yield finding
            elif hosts & names.keys():  # otherwise the file is another cluster's
                yield _named_now(finding, names)


def _was_reached(finding: Finding | RangeFinding, reached: Sequence[TokenRange]) -> bool:
    """Whether a visit has read a finding's row again; of a range whose rows are counted, all of it."""
    if isinstance(finding, RangeFinding):
        return any(token_range.covers(finding.token_range) for token_range in reached)
    return any(finding.token in token_range for token_range in reached)


def _named_now(finding: Finding | RangeFinding, names: Mapping[str, str]) -> Finding | RangeFinding:
    """Name each replica by its current address, or by its host id if the node is gone."""
    if isinstance(finding, RangeFinding):
        views = finding.replicas.values()
        return replace(finding, replicas=dict(sorted((names.get(v.host_id, v.host_id), v) for v in views)))
    held = sorted((names.get(view.host_id, view.host_id), view) for view in finding.replicas.values())
    return replace(finding, replicas=dict(held))


def _readable(path: Path) -> bool:
    try:
        read_header(path)
    except UsageError:
        return False
    return True
