"""What the ledger says of a cluster: past runs, rows that came back, and how old the last clean pass is.

The figure that matters is the age of each table's oldest clean pass against its gc_grace_seconds. After that
time a tombstone may be purged on one replica while another replica never got it, and the row comes back. So the
warning comes earlier.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from consistency.errors import LedgerError, UsageError
from consistency.ledger import KnownCluster, LedgerFile, PastRun, TableAge
from consistency.ledger.recorder import OPEN_STATES
from consistency.ledger.roots import KnownTree
from consistency.model.scope import parse_name
from consistency.model.servertime import iso_time
from consistency.results.report import coverage_json
from consistency.results.verdict import ExitCode

SCHEMA_VERSION = 1
WARN_AT = 0.8
"""A table is due after this part of gc_grace_seconds."""


class Standing(str, Enum):
    """How a table stands, the gravest first."""

    OVERDUE = "overdue"
    DUE = "due"
    UNCHECKED = "unchecked"
    IN_TIME = "in time"


@dataclass(frozen=True, slots=True)
class TableHistory:
    """A table's age, judged at one moment."""

    known: TableAge
    now_us: int
    warn_at: float

    @property
    def age_s(self) -> float | None:
        """Seconds since the oldest of the ranges' last clean passes; None if no range was ever clean."""
        return None if self.known.oldest_us is None else max(0.0, (self.now_us - self.known.oldest_us) / 1e6)

    @property
    def part(self) -> float | None:
        """The age as a part of gc_grace_seconds; None without an age, and if tombstones are not kept at all."""
        return None if self.age_s is None or not self.known.gc_grace_s else self.age_s / self.known.gc_grace_s

    @property
    def standing(self) -> Standing:
        """How the table stands; a range that was never clean makes it unchecked, unless another one is late already."""
        part = self.part
        if part is not None and part >= 1:
            return Standing.OVERDUE
        if part is not None and part >= self.warn_at:
            return Standing.DUE
        return Standing.UNCHECKED if self.known.never else Standing.IN_TIME

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        known = self.known
        return {
            "keyspace": known.keyspace,
            "table": known.table,
            "standing": self.standing.value,
            "gc_grace_seconds": known.gc_grace_s,
            "oldest_clean": None if known.oldest_us is None else iso_time(known.oldest_us),
            "oldest_clean_age": self.age_s,
            "part_of_gc_grace": self.part,
            "never_clean": known.never,
            "ranges": known.ranges,
            "differing_rows": {state: known.states.get(state, 0) for state in OPEN_STATES},
            "rows_that_came_back": known.came_back,
            "unchanged_since": None if known.unchanged_since_us is None else iso_time(known.unchanged_since_us),
            "trees": [_tree_json(tree) for tree in known.trees],
        }


@dataclass(frozen=True)
class History:
    """Everything `consistency history` shows of a cluster; runs newest first, tables gravest first.

    `others` are further clusters of the same name; none of them stands worse. `nodes` are those of the newest run.
    """

    cluster: str
    ledger: str
    now_us: int
    tables: tuple[TableHistory, ...]
    runs: tuple[PastRun, ...]
    cluster_id: str = ""
    nodes: tuple[str, ...] = ()
    others: tuple[History, ...] = ()

    @property
    def worst(self) -> TableHistory | None:
        """The table that stands worst."""
        return self.tables[0] if self.tables else None

    @property
    def standing(self) -> Standing:
        """How the cluster stands; a ledger without a table has checked nothing."""
        return self.worst.standing if self.worst else Standing.UNCHECKED

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of the command, that of this cluster, as no other stands worse."""
        late = self.standing in {Standing.OVERDUE, Standing.DUE}
        return ExitCode.of(wrong=late, unknown=self.standing is Standing.UNCHECKED)

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "schema": SCHEMA_VERSION,
            "cluster": self.cluster,
            "cluster_id": self.cluster_id,
            "nodes": list(self.nodes),
            "ledger": self.ledger,
            "at": iso_time(self.now_us),
            "standing": self.standing.value,
            "exit_code": int(self.exit_code),
            "tables": [table.as_json() for table in self.tables],
            "runs": [_run_json(run) for run in self.runs],
            "others": [other.as_json() for other in self.others],
        }


def read_history(
    ledger: LedgerFile,
    now_us: int,
    *,
    cluster: str | None = None,
    names: Sequence[str] = (),
    warn_at: float = WARN_AT,
    most_runs: int = 14,
) -> History:
    """Read the history of a cluster by its name or id; if several share the name, of each, gravest first.

    UsageError if a name is not in the ledger, or if its clusters have different names and none is given.
    """
    past = ledger.past()
    clusters = _clusters(ledger, cluster)
    tables = {k.number: [TableHistory(age, now_us, warn_at) for age in past.tables(k.number)] for k in clusters}
    for text in names:
        _require_known(text, [table for some in tables.values() for table in some])
    found = [
        History(
            known.name,
            str(ledger.path),
            now_us,
            tuple(sorted(_chosen(tables[known.number], names), key=_gravest_first)),
            past.runs(known.number, most_runs),
            known.cluster_id,
            known.nodes,
        )
        for known in clusters
    ]
    having = [each for each in found if each.tables] if names else found  # a named table is in at least one of them
    first, *others = sorted(having, key=_worst_first)
    return replace(first, others=tuple(others))


def _worst_first(history: History) -> tuple[int, float, float, str]:
    if history.worst is None:
        return list(Standing).index(history.standing), 0.0, 0.0, ""
    return _gravest_first(history.worst)


def _gravest_first(table: TableHistory) -> tuple[int, float, float, str]:
    unchecked = table.known.never if table.standing is Standing.UNCHECKED else 0.0
    return list(Standing).index(table.standing), -unchecked, -(table.part or 0.0), table.known.full_name


def _clusters(ledger: LedgerFile, wanted: str | None) -> list[KnownCluster]:
    known = ledger.past().known_clusters()
    if not known:
        msg = f"the ledger {ledger.path} holds no run, so nothing counts as checked; run: consistency check --ledger"
        raise LedgerError(msg)
    names = sorted({cluster.name for cluster in known})
    if wanted is None and len(names) > 1:
        msg = f"the ledger {ledger.path} knows several clusters; name one by --cluster: {', '.join(names)}"
        raise UsageError(msg)
    found = [cluster for cluster in known if wanted in (None, cluster.name)]
    found = found or [cluster for cluster in known if wanted == cluster.cluster_id]
    if not found:
        told = ", ".join(f"{cluster.name} ({cluster.cluster_id})" for cluster in sorted(known, key=lambda c: c.name))
        msg = f"--cluster {wanted}: the ledger {ledger.path} knows {told}"
        raise UsageError(msg)
    return found


def _chosen(tables: Sequence[TableHistory], names: Sequence[str]) -> list[TableHistory]:
    if not names:
        return list(tables)
    out: dict[str, TableHistory] = {}
    for text in names:
        out.update({t.known.full_name: t for t in _called(text, tables)})
    return list(out.values())


def _called(text: str, tables: Sequence[TableHistory]) -> list[TableHistory]:
    keyspace, table = parse_name(text)
    return [t for t in tables if t.known.keyspace == keyspace and table in (None, t.known.table)]


def _require_known(text: str, tables: Sequence[TableHistory]) -> None:
    if not _called(text, tables):
        msg = f"the ledger knows of no {text!r} that has replicas to compare"
        raise UsageError(msg)


def _tree_json(tree: KnownTree) -> dict[str, Any]:
    return {
        "replicas": list(tree.replicas),
        "scheme": tree.scheme,
        "root": tree.root.hex() if tree.root else None,
        "leaves": tree.leaves,
        "changed_leaves": tree.changed,
        "since": iso_time(tree.since_us),
        "read": iso_time(tree.read_us),
    }


def _run_json(run: PastRun) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "scope": run.scope,
        "started_at": iso_time(run.started_us),
        "ended": run.ended,
        "seconds": round(run.seconds, 3),
        "verdict": run.verdict or None,
        "exit_code": run.exit_code,
        "interrupted": run.interrupted,
        "coverage": coverage_json(run.coverage),
        "findings_by_kind": dict(run.findings_by_kind),
        "rows": dict(run.states),
    }
