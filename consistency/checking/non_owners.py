"""Rows on nodes that do not own their token range: what `nodetool cleanup` would remove, or the only copy left."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing

from consistency.checking.scan import Scan
from consistency.cluster.table_reader import TableReader
from consistency.errors import InternalError, ReplicaError
from consistency.model.reading import Depth, RawRow, Reading
from consistency.model.ring import Arc, Node
from consistency.results.findings import Finding, ReplicaView, State
from consistency.results.kinds import Kind
from consistency.rows.classify import write_times
from consistency.rows.names import name_in, row_ref


class NonOwnerScan:
    """Looks on nodes for rows of ranges that other nodes own; needs NODE_LOCAL, which shows them."""

    def __init__(
        self,
        nodes: Sequence[Node],
        report: Callable[[Finding, float], Awaitable[None]],
    ) -> None:
        self._nodes = nodes
        self._report = report

    async def run(self, scan: Scan) -> None:
        """Report a finding for each such row; a node that cannot be asked is entered in the table's account.

        Also of ranges with one replica, which there is nothing to compare with: a stray row may be the only copy left.
        """
        reading = Reading(scan.task.reading.table, Depth.VERSIONS, scan.task.reading.capabilities)
        alone = (aside.arc for aside in scan.task.asides if aside.skipped)
        for arc in (*scan.task.arcs, *alone):
            for node in self._nodes:
                if node not in arc.replicas:
                    await self._look(scan, scan.table.reads(reading), arc, node)

    async def _look(self, scan: Scan, table: TableReader, arc: Arc, node: Node) -> None:
        if not table.provable([node]):
            scan.fail_extra(node, arc.ranges, "rows it does not own can only be seen with NODE_LOCAL reads")
            return
        now_s = table.now_s()
        for token_range in arc.ranges:
            try:
                async with aclosing(table.rows(node, token_range, now_s)) as pages:
                    async for page in pages:
                        read_at = table.clock.monotonic()
                        for raw in page:
                            await self._report(_finding(table.reading, raw, node, now_s), read_at)
            except (ReplicaError, InternalError) as error:
                scan.fail_extra(node, (token_range,), str(error))


def _finding(reading: Reading, raw: RawRow, node: Node, now_s: int) -> Finding:
    name = name_in(reading, raw)
    ref = row_ref(reading.table, name)
    cells = reading.statics if name.static else reading.regulars
    state = reading.static_state(raw, now_s) if name.static else reading.row_state(raw, now_s)
    view = ReplicaView(State.CURRENT, {} if state is None else write_times(cells, state), node.host_id)
    return Finding(
        kind=Kind.NON_OWNER,
        keyspace=ref.keyspace,
        table=ref.table,
        token=ref.token,
        key=ref.key,
        key_hex=ref.key_hex,
        replicas={node.name: view},
        columns=(),
        facts=(Kind.NON_OWNER,),
    )
