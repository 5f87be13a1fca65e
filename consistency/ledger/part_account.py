"""The account of one part of a run, as a file can keep it: what was read and found, and of what cluster.

It holds no key: rows that differ are in the part's findings file. As JSON it needs nothing of the cluster to be read
again, so parts can be put together anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from consistency.cluster.locality import TracesLeft
from consistency.errors import UsageError
from consistency.ledger.port import RangeRead, RunFacts
from consistency.model.part import Part
from consistency.model.reading import Depth
from consistency.model.ring import Node, Replication, Ring
from consistency.model.schema import Keyspace, Table
from consistency.model.tokens import TokenRange
from consistency.results.range_findings import Counted, RangeView
from consistency.results.report import Report, Severity, TableReport, Unread, Violation
from consistency.results.tree_report import LeafHashes, TreeReport
from consistency.results.verdict import Coverage

SCHEMA_VERSION = 1
_NODE = ("host_id", "address", "port", "dc", "rack", "release", "state", "up", "broadcast")
_COMPLETE, _CLEAN = 1, 2


@dataclass(frozen=True)
class FiledTable(Table):
    """A table as an account keeps it: its identity and its fingerprint, no columns."""

    filed: str = ""

    @property
    def fingerprint(self) -> str:
        """The fingerprint that it had."""
        return self.filed


@dataclass(frozen=True)
class TableRead:
    """What was read of a table at one depth; `non_owners`: whether all nodes were searched for rows they do not own."""

    table: Table
    depth: Depth
    ranges: tuple[RangeRead, ...]
    non_owners: bool


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
        except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
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
        "report": {**report.as_json(), "tables": [_table_json(table) for table in report.tables]},
        "seconds": report.seconds,
        "places": dict(report.places),
        "reads": [_read_json(read) for read in account.reads],
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
    reads = tuple(_read(each, tables, nodes) for each in data["reads"])
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


def _table_json(table: TableReport) -> dict[str, Any]:
    return {
        **table.as_json(),
        "seconds": table.seconds,
        "tracks": dict(table.tracks),
        "held": dict(table.held),
        "counted": {
            "rows": table.counted.rows,
            "ranges": table.counted.ranges,
            "replicas": {name: view.as_json() for name, view in table.counted.replicas.items()},
        },
        "trees": [
            [[node.host_id for node in tree.replicas], tree.scheme, tree.differing, [*map(_leaf_json, tree.hashes)]]
            for tree in table.trees
        ],
    }


def _leaf_json(leaf: LeafHashes) -> list[Any]:
    """Return start, end and hashes of a leaf: one where all are alike."""
    token_range, hashes = leaf
    told = [h.hex() if h is not None else None for h in (hashes if len(set(hashes)) > 1 else hashes[:1])]
    return [token_range.start, token_range.end, *told]


def _leaf(values: Sequence[Any], replicas: int) -> LeafHashes:
    start, end, *told = values
    hashes = tuple(bytes.fromhex(text) if text is not None else None for text in told)
    return TokenRange(start, end), hashes if len(hashes) == replicas else hashes * replicas


def _table(data: Mapping[str, Any], part: Part, nodes: Mapping[str, Node]) -> TableReport:
    counted = data["counted"]
    lacks = {name: RangeView.from_json(view) for name, view in counted["replicas"].items()}
    return TableReport(
        keyspace=data["keyspace"],
        table=data["table"],
        depth=data["depth"],
        route=data["route"],
        locality=data["locality"],
        rows=data["rows"],
        divergent_rows=data["divergent_rows"],
        unsettled_rows=data["unsettled_rows"],
        seconds=data["seconds"],
        coverage=Coverage(**data["coverage"]),
        unread=tuple(
            Unread(each["replica"], tuple(TokenRange(*ends) for ends in each["ranges"]), each["reason"])
            for each in data["unread"]
        ),
        strip=data["strip"],
        blind=tuple(data["cannot_see"]),
        note=data["note"],
        ranges=data["ranges"],
        ranges_read=data["ranges_read"],
        tracks=data["tracks"],
        alone=data["ranges_alone"],
        trees=tuple(
            TreeReport(
                tuple(nodes[host] for host in hosts), scheme, tuple(_leaf(leaf, len(hosts)) for leaf in leaves), unlike
            )
            for hosts, scheme, unlike, leaves in data["trees"]
        ),
        counted=Counted(counted["rows"], counted["ranges"], lacks),
        scheme=data["scheme"],
        part=part,
        held=data["held"],
    )


def _report(data: Mapping[str, Any], part: Part, nodes: Mapping[str, Node]) -> Report:
    told = data["report"]
    return Report(
        run_id=told["run_id"],
        cluster=told["cluster"],
        started_at=told["started_at"],
        seconds=data["seconds"],
        tables=tuple(_table(table, part, nodes) for table in told["tables"]),
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
        traces=TracesLeft(**{f.name: told["traces"][f.name] for f in fields(TracesLeft)}),
        cluster_id=told["cluster_id"],
        part=part,
        run_name=data["run"],
    )


def _read_json(read: TableRead) -> dict[str, Any]:
    sets: dict[tuple[str, ...], int] = {}
    ranges = []
    for each in read.ranges:
        number = sets.setdefault(tuple(node.host_id for node in each.replicas), len(sets))
        flags = _COMPLETE * each.complete + _CLEAN * each.clean
        ranges.append([each.token_range.start, each.token_range.end, number, each.started_us, flags])
    return {
        "table": read.table.full_name,
        "depth": read.depth.value,
        "non_owners": read.non_owners,
        "sets": [list(hosts) for hosts in sets],
        "ranges": ranges,
    }


def _read(data: Mapping[str, Any], tables: Mapping[str, Table], nodes: Mapping[str, Node]) -> TableRead:
    sets = [tuple(nodes[host] for host in hosts) for hosts in data["sets"]]
    return TableRead(
        tables[data["table"]], Depth(data["depth"]), tuple(_ranges(data["ranges"], sets)), data["non_owners"]
    )


def _ranges(told: Iterable[Sequence[int]], sets: Sequence[tuple[Node, ...]]) -> Iterable[RangeRead]:
    for start, end, number, started_us, flags in told:
        yield RangeRead(TokenRange(start, end), sets[number], started_us, bool(flags & _COMPLETE), bool(flags & _CLEAN))
