"""What was read of one table, as JSON that goes into files and from process to process: its report, leaf by leaf."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from consistency.ledger.port import RangeRead
from consistency.model.part import Part
from consistency.model.reading import Depth
from consistency.model.ring import Node
from consistency.model.schema import Table
from consistency.model.tokens import TokenRange
from consistency.results.range_findings import Counted, RangeView
from consistency.results.report import TableReport, Unread
from consistency.results.tree_report import LeafHashes, TreeReport
from consistency.results.verdict import Coverage

_COMPLETE, _CLEAN = 1, 2


@dataclass(frozen=True)
class TableRead:
    """What was read of a table at one depth; `non_owners`: whether all nodes were searched for rows they do not own."""

    table: Table
    depth: Depth
    ranges: tuple[RangeRead, ...]
    non_owners: bool


def table_json(table: TableReport) -> dict[str, Any]:
    """Return the JSON form, of which all of the report can be read again."""
    return {
        **replace(table, trees=()).as_json(),
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


def table_from_json(data: Mapping[str, Any], part: Part | None, nodes: Mapping[str, Node]) -> TableReport:
    """Read the JSON form; `nodes` by host id."""
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


def read_json(read: TableRead) -> dict[str, Any]:
    """Return the JSON form."""
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


def read_from_json(data: Mapping[str, Any], tables: Mapping[str, Table], nodes: Mapping[str, Node]) -> TableRead:
    """Read the JSON form; `tables` by `keyspace.table`, `nodes` by host id."""
    sets = [tuple(nodes[host] for host in hosts) for hosts in data["sets"]]
    return TableRead(
        tables[data["table"]], Depth(data["depth"]), tuple(_ranges(data["ranges"], sets)), data["non_owners"]
    )


def _ranges(told: Iterable[Sequence[int]], sets: Sequence[tuple[Node, ...]]) -> Iterable[RangeRead]:
    for start, end, number, started_us, flags in told:
        yield RangeRead(TokenRange(start, end), sets[number], started_us, bool(flags & _COMPLETE), bool(flags & _CLEAN))
