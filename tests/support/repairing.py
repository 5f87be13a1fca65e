"""Check, plan and apply as the library does, and what every replica holds of a table, byte for byte."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from consistency.model.reading import Locality
from consistency.results.report import Report
from repair.api import apply, plan
from repair.applying.outcomes import Tally
from repair.applying.pace import ApplyOptions
from repair.deciding.decide import Rule
from repair.deciding.policy import Policy, Require, Zombies
from repair.keeping.entries import Result
from repair.keeping.planfile import Plan
from repair.planning.planner import PlanOptions
from tests.support.cluster import RunningCluster

Dump = dict[int, dict[str, str]]
"""By node: each row's key with everything that CQL shows of it."""


class Repairing:
    """One repair of some tables, its files in a directory of its own."""

    def __init__(self, cluster: RunningCluster, directory: Path, *names: str, locality: Locality | None = None) -> None:
        self.cluster = cluster
        self.locality = locality
        self.directory = directory
        self.names = names
        self._runs = 0

    def check(self) -> Report:
        """Check, and leave the findings in the file that `plan` reads."""
        return self.cluster.check(*self.names, findings=self.directory / "findings.jsonl", locality=self.locality)

    def plan(self, zombies: Zombies = Zombies.QUARANTINE, require: Require = Require.QUORUM, **options: Any) -> Plan:
        """Plan from the findings of the last check."""
        policy = Policy(zombies, require, settle_s=0.3)
        return plan(
            self.directory / "findings.jsonl",
            settings=self.cluster.settings,
            options=PlanOptions(policy, **options),
            locality=self.locality,
        )

    def apply(
        self, made: Plan, options: ApplyOptions | None = None, progress: Callable[[Tally], None] | None = None
    ) -> Tally:
        """Apply with a new journal."""
        self._runs += 1
        settings, locality = self.cluster.settings, self.locality
        return apply(made, self.journal, settings=settings, options=options, locality=locality, progress=progress)

    @property
    def journal(self) -> Path:
        """The journal of the last apply."""
        return self.directory / f"journal-{self._runs}.jsonl"

    def repaired(self, **policy: Any) -> tuple[Plan, Tally]:
        """Check, plan and apply."""
        self.check()
        made = self.plan(**policy)
        return made, self.apply(made)


def rules(made: Plan) -> set[Rule]:
    """Return the rules of a plan."""
    return {row.rule for row in made.rows}


def results(tally: Tally) -> dict[Result, int]:
    """Return the counts that are not zero."""
    return {result: count for result, count in tally.results.items() if count}


def everything(cluster: RunningCluster, keyspace: str, table: str, nodes: tuple[int, ...] = (1, 2, 3)) -> Dump:
    """Read every replica alone: all that CQL shows of each row, and of each partition's statics, by key."""
    columns = list(
        cluster.session.execute(
            "SELECT column_name, kind, type FROM system_schema.columns WHERE keyspace_name = %s AND table_name = %s",
            (keyspace, table),
        )
    )
    by_kind: dict[str, list[dict[str, str]]] = defaultdict(list)
    for column in columns:
        by_kind[column["kind"]].append(column)
    partition = [quoted(c["column_name"]) for c in by_kind["partition_key"]]
    keys = partition + [quoted(c["column_name"]) for c in by_kind["clustering"]]
    out: Dump = {}
    for n in nodes:
        out[n] = _rows(cluster, n, keyspace, table, "", keys, by_kind["regular"])
        if by_kind["static"]:
            out[n] |= _rows(cluster, n, keyspace, table, "DISTINCT ", partition, by_kind["static"])
    return out


def tables_of(cluster: RunningCluster, keyspace: str) -> list[str]:
    """Return the tables of a keyspace."""
    found = cluster.session.execute("SELECT table_name FROM system_schema.tables WHERE keyspace_name = %s", (keyspace,))
    return [row["table_name"] for row in found]


def _rows(
    cluster: RunningCluster,
    n: int,
    keyspace: str,
    table: str,
    distinct: str,
    keys: list[str],
    columns: list[dict[str, str]],
) -> dict[str, str]:
    names = [quoted(c["column_name"]) for c in columns]
    untold = ("counter", *(("map<", "set<", "list<") if cluster.version < (5, 0) else ()))
    times = [f"writetime({quoted(c['column_name'])})" for c in columns if not c["type"].startswith(untold)]
    rows = cluster.on(n, f"SELECT {distinct}{', '.join(keys + names + times)} FROM {keyspace}.{quoted(table)}")
    return {str(list(row.values())[: len(keys)]): str(list(row.values())) for row in rows}


def quoted(name: str) -> str:
    """Quote an identifier."""
    return '"' + name.replace('"', '""') + '"'


def dump(cluster: RunningCluster, table: str, key: str, *cells: str, nodes: tuple[int, ...] = (1, 2, 3)) -> Dump:
    """Read every replica alone: each row's values, write times and whether it expires."""
    times = ", ".join(f"writetime({cell}) AS w_{cell}" for cell in cells)
    select = f"SELECT {key}, {', '.join(cells)}, {times} FROM {table}"
    names = [name.strip() for name in key.split(",")]
    return {n: {str([row[k] for k in names]): str(row) for row in cluster.on(n, select)} for n in nodes}
