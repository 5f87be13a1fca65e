"""See from outside how a node fares: how fast it answers a small read, and how much others ask of it."""

from __future__ import annotations

import time

from consistency.cluster.connection import Connection
from consistency.cluster.throttle import Requests
from consistency.cluster.wire import Statement
from consistency.errors import ReplicaRefused
from consistency.model.ring import Node

_SMALL_READ = "SELECT key FROM system.local"
_ANSWERED = "SELECT completed_tasks FROM system_views.thread_pools WHERE name = 'Native-Transport-Requests'"
_TIMEOUT_S = 5.0


class CqlNodeWatch:
    """Looks at nodes over the connection that the work is done over."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def small_read(self, node: Node) -> float:
        """Time a read of one row that every node has in memory."""
        started = time.monotonic()
        await self._connection.execute(node, Statement(_SMALL_READ, timeout_s=_TIMEOUT_S))
        return time.monotonic() - started

    async def requests(self, node: Node) -> Requests:
        """Read how many client requests the node has answered."""
        ours_answered = self._connection.counts.answered(node.host_id)
        page = await self._connection.execute(node, Statement(_ANSWERED, timeout_s=_TIMEOUT_S))
        if not page.row_count:
            msg = f"{node}: system_views.thread_pools does not list its client requests"
            raise ReplicaRefused(msg)
        answered = int.from_bytes(page.rows()[0][0] or b"", "big", signed=True)
        return Requests(answered, self._connection.counts.sent(node.host_id), ours_answered)
