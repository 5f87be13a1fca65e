"""The account of one part of a run, as a file can keep it: what was read and found, and of what cluster.

It holds no key: rows that differ are in the part's findings file. As JSON it needs nothing of the cluster to be read
again, so parts can be put together anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from consistency.cluster.locality import TracesLeft
from consistency.errors import DAMAGED, UsageError
from consistency.ledger.port import RunFacts
from consistency.ledger.table_account import TableRead, read_from_json, read_json, table_from_json, table_json
from consistency.model.part import Part
from consistency.model.ring import Node, Replication, Ring
from consistency.model.schema import Keyspace, Table
from consistency.results.report import Report, Severity, Violation

SCHEMA_VERSION = 1
_NODE = ("host_id", "address", "port", "dc", "rack", "release", "state", "up", "broadcast")


@dataclass(frozen=True)
class FiledTable(Table):
    """A table as an account keeps it: its identity and its fingerprint, no columns."""

    filed: str = ""

    @property
    def fingerprint(self) -> str:
        """The fingerprint that it had."""
        return self.filed


@dataclass(frozen=True)
class PartAccount:
    """One part of a run.

    `terms` are the options that all parts of a run share. `report` is the part's own, complete but for what only the
    whole can tell: likely causes, nodes that hold nothing. `findings` is the path of its findings file, if rows differ.
    """

    part: Part
    run_name: str
    terms: Mapping[str, Any]
    facts: RunFacts
    report: Report
    reads: tuple[TableRead, ...]

    @property
    def part_id(self) -> str:
        """What tells this reading of the part from any other."""
        return self.facts.run_id

    @property
    def ended_us(self) -> int:
        """When it ended, by the servers' clocks."""
        return self.facts.started_us + round(self.report.seconds * 1e6)

    def as_text(self) -> str:
        """Return the account as one line of JSON."""
        return json.dumps(_as_json(self), separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> PartAccount:
        """Read it again; UsageError if it is none, or of another version."""
        try:
            data = json.loads(text)
            if data["schema"] != SCHEMA_VERSION:
                msg = f"the account has schema {data['schema']}, this version reads {SCHEMA_VERSION}"
                raise UsageError(msg)
            return _from_json(data)
        except DAMAGED as error:
            msg = f"the account of a part cannot be read ({type(error).__name__})"
            raise UsageError(msg) from None


def _as_json(account: PartAccount) -> dict[str, Any]:
    facts, report = account.facts, account.report
    return {
        "schema": SCHEMA_VERSION,
        "part": [account.part.number, account.part.of],
        "run": account.run_name,
        "terms": dict(account.terms),
        "started_us": facts.started_us,
        "dc": facts.dc,
        "names": list(facts.names),
        "ring": {
            "cluster": facts.ring.cluster,
            "partitioner": facts.ring.partitioner,
            "nodes": [[*(getattr(node, name) for name in _NODE), list(node.tokens)] for node in facts.ring.nodes],
        },
        "schema_of": [_keyspace_json(keyspace) for keyspace in facts.schema.values()],
        "scope": [table.full_name for table in facts.tables],
        "report": {**report.as_json(), "tables": [table_json(table) for table in report.tables]},
        "seconds": report.seconds,
        "places": dict(report.places),
        "reads": [read_json(read) for read in account.reads],
    }


def _from_json(data: Mapping[str, Any]) -> PartAccount:
    nodes = {node.host_id: node for node in map(_node, data["ring"]["nodes"])}
    ring = Ring(data["ring"]["cluster"], data["ring"]["partitioner"], tuple(nodes.values()))
    schema = {keyspace.name: keyspace for keyspace in map(_keyspace, data["schema_of"])}
    tables = {table.full_name: table for keyspace in schema.values() for table in keyspace.tables.values()}
    scope = tuple(tables[name] for name in data["scope"])
    run_id = str(data["report"]["run_id"])
    facts = RunFacts(run_id, int(data["started_us"]), ring, schema, scope, tuple(data["names"]), data["dc"])
    part = Part(*data["part"])
    report = _report(data, part, nodes)
    reads = tuple(read_from_json(each, tables, nodes) for each in data["reads"])
    return PartAccount(part, str(data["run"]), data["terms"], facts, report, reads)


def _node(values: Sequence[Any]) -> Node:
    *plain, tokens = values
    return Node(**dict(zip(_NODE, plain, strict=True)), tokens=tuple(tokens))


def _keyspace_json(keyspace: Keyspace) -> dict[str, Any]:
    how = keyspace.replication
    return {
        "name": keyspace.name,
        "replication": [how.strategy, [list(pair) for pair in how.factors], list(how.transient)],
        "tables": [
            [t.name, t.table_id, t.fingerprint, t.gc_grace_seconds, t.view_of] for t in keyspace.tables.values()
        ],
        "unreadable": dict(keyspace.unreadable),
    }


def _keyspace(data: Mapping[str, Any]) -> Keyspace:
    strategy, factors, transient = data["replication"]
    tables = {
        name: FiledTable(data["name"], name, table_id, (), gc_grace, view_of=view_of, filed=fingerprint)
        for name, table_id, fingerprint, gc_grace, view_of in data["tables"]
    }
    how = Replication(strategy, tuple((dc, factor) for dc, factor in factors), tuple(transient))
    return Keyspace(data["name"], how, tables, dict(data["unreadable"]))


def _report(data: Mapping[str, Any], part: Part, nodes: Mapping[str, Node]) -> Report:
    told = data["report"]
    return Report(
        run_id=told["run_id"],
        cluster=told["cluster"],
        started_at=told["started_at"],
        seconds=data["seconds"],
        tables=tuple(table_from_json(table, part, nodes) for table in told["tables"]),
        violations=tuple(
            Violation(**{**violation, "severity": Severity(violation["severity"])}) for violation in told["violations"]
        ),
        findings_by_kind=told["findings_by_kind"],
        not_checked=told["not_checked"],
        replicas=tuple(told["replicas"]),
        findings_path=told["findings"],
        findings_error=told["findings_error"],
        interrupted=told["interrupted"],
        places=data["places"],
        notes=tuple(told["notes"]),
        traces=TracesLeft.from_json(told["traces"]),
        cluster_id=told["cluster_id"],
        part=part,
        run_name=data["run"],
    )
