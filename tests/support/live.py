"""A watch as its live page shows it, made up: so many nodes and tables, an outage, a node that went down."""

from __future__ import annotations

import random
import uuid
from dataclasses import replace
from pathlib import Path

from consistency.checking.leaves import LeafResult
from consistency.checking.plan import Leaf, TablePlan
from consistency.cli.show.live.reports import KeptReports
from consistency.cli.show.live.state import LiveState
from consistency.model.ring import MURMUR3, Node, Ring
from consistency.model.schema import Table
from consistency.model.scope import Scope
from consistency.model.tokens import MIN_TOKEN, RING_SIZE, TokenRange
from consistency.model.tree import Digest
from consistency.results.cause import Cause, CauseKind
from consistency.results.report import Report, TableReport, Unread, Violation
from consistency.results.verdict import Coverage
from consistency.watching.board import Board
from consistency.watching.metrics import CleanPass
from tests.support.pages import HOSTILE, made_up

DAY_S = 86_400
_CELLS = 64
_RF = 3
_RULE = Violation("rf_below_minimum", "shop", "dc2 keeps 2 replicas, the minimum is 3", "ALTER KEYSPACE ...")


class MadeUpWatch:
    """A live state that is told of visits without a cluster; `clock` is its time in seconds."""

    def __init__(self, nodes: int = 6, tables: int = 8, *, folder: Path | None = None, hostile: bool = False) -> None:
        self.rng = random.Random(1)
        self.clock = 1_790_000_000.0
        self.nodes = [_node(i) for i in range(nodes)]
        self.down: set[int] = set()
        names = [f"table_{i:03}" for i in range(tables)]
        if hostile:
            names[0] = HOSTILE
        self.tables = [Table("shop", name, "", (), gc_grace_seconds=10 * DAY_S) for name in names]
        self.board = Board(clean_passes=self.clean_passes)
        self.state = LiveState(self.board.now, KeptReports(folder), clock=lambda: self.clock)
        self.board.in_scope(Scope(tuple(self.tables), ("shop",)))
        self.state.in_scope(self.tables, lambda _: None)

    def clean_passes(self) -> tuple[CleanPass, ...]:
        """Return ages of every kind: never clean, overdue, due, half of gc_grace and less."""
        ages_d = [float("inf"), 11.2, 8.7, 5.5, *((i % 40) / 10 for i in range(len(self.tables)))]
        pairs = zip(self.tables, ages_d, strict=False)
        return tuple(CleanPass(t.keyspace, t.name, age_d * DAY_S, t.gc_grace_seconds) for t, age_d in pairs)

    @property
    def ring(self) -> Ring:
        """The ring of now."""
        return Ring("prod-eu", MURMUR3, tuple(replace(n, up=i not in self.down) for i, n in enumerate(self.nodes)))

    def visit(self, number: int, *, rows: int = 0, behind: int = 2, seconds: float = 41.7) -> str:
        """Visit a table, of which so many rows differ and one node is behind in most; return the run's id."""
        table, run_id = self.tables[number], str(uuid.UUID(int=self.rng.getrandbits(128)))
        observer = self.state.visiting(run_id, table, self.ring)
        self.clock += seconds
        kinds: dict[str, int] = {}
        for each in made_up(rows, seed=number)[1].rows if rows else ():
            views = {self._name_for(name): view for name, view in each.finding.replicas.items()}
            observer.found(replace(each.finding, keyspace=table.keyspace, table=table.name, replicas=views))
            kinds[each.finding.kind.value] = kinds.get(each.finding.kind.value, 0) + 1
        told = f"{rows:,} rows were written between 02:10 and 02:25 UTC; {self.nodes[behind].name} lacks most of them"
        cause = Cause(CauseKind.MISSED_WRITES, f"{told}: did it miss writes then?", rows)
        report = Report(
            run_id=run_id,
            cluster="prod-eu",
            started_at="2026-07-15T04:00:12+00:00",
            seconds=seconds,
            tables=(self._report(table, rows, behind),),
            violations=(_RULE,) if number == 1 else (),
            findings_by_kind=kinds,
            replicas=[node.name for node in self.nodes],
            likely_causes=(cause,) if rows > 100 else (),
            places={node.name: node.dc for node in self.nodes},
        )
        self.board.visited(report, seconds)
        self.state.visited(report, int(report.exit_code))
        return run_id

    def begin(self, number: int, part: float = 0.4) -> None:
        """Begin a visit and read a part of the table."""
        table = self.tables[number]
        observer = self.state.visiting(str(uuid.UUID(int=7)), table, self.ring)
        observer.scan_started(1)
        leaves = tuple(self._leaf(cell) for cell in range(_CELLS))
        observer.table_planned(table, TablePlan(table, (leaves,), 0))
        for leaf in leaves[: int(part * _CELLS)]:
            observer.leaf_digested(LeafResult(leaf, 0, {node: Digest(1_000, b"") for node in leaf.replicas}, {}))

    def _name_for(self, name: str) -> str:
        return self.nodes[(int(name.partition(":")[0].rpartition(".")[2]) - 1) % len(self.nodes)].name

    def _owners(self, place: int) -> list[int]:
        return [(place + i) % len(self.nodes) for i in range(_RF)]

    def _leaf(self, cell: int) -> Leaf:
        width = RING_SIZE // _CELLS
        token_range = TokenRange(MIN_TOKEN + cell * width, MIN_TOKEN + (cell + 1) * width)
        return Leaf(token_range, tuple(self.nodes[i] for i in self._owners(cell)))

    def _report(self, table: Table, rows: int, behind: int) -> TableReport:
        tracks = [[" "] * _CELLS for _ in self.nodes]
        strip = ["="] * _CELLS
        for place in range(max(_CELLS, len(self.nodes))):
            cell, owners = place % _CELLS, self._owners(place)
            for i in owners:
                tracks[i][cell] = "?" if i in self.down else "="
            if self.down & set(owners):
                strip[cell] = "?"
        for cell in [c for c in range(_CELLS) if tracks[behind][c] == "="][: 9 if rows else 0]:
            tracks[behind][cell] = strip[cell] = "x"
        failed = sum(track.count("?") for track in tracks)
        gone = TokenRange(MIN_TOKEN, MIN_TOKEN + RING_SIZE // 9)
        reason = "does not answer: no connection within 5 s"
        planned = sum(cell != " " for track in tracks for cell in track)
        return TableReport(
            keyspace=table.keyspace,
            table=table.name,
            depth="content",
            route="server",
            locality="node-local",
            rows=self.rng.randrange(10**3, 10**8),
            divergent_rows=rows,
            unsettled_rows=0,
            seconds=41.7,
            coverage=Coverage(planned, planned - failed, 0, failed),
            unread=tuple(Unread(self.nodes[i].name, (gone,), reason) for i in sorted(self.down)),
            strip="".join(strip),
            tracks={node.name: "".join(track) for node, track in zip(self.nodes, tracks, strict=True)},
        )


def _node(number: int) -> Node:
    address, dc = f"10.0.{number // 250}.{number % 250 + 1}", f"dc{number % 2 + 1}"
    return Node(str(uuid.UUID(int=number)), address, 9042, dc, "r1", (MIN_TOKEN + 1 + number,), "5.0.8")
