"""What the nodes say of the cluster as a whole: its ring, its schema, what they forbid, and how long they wait."""

from __future__ import annotations

from collections.abc import Sequence

from consistency.cluster.connection import Connection
from consistency.cluster.guardrails import Guardrails, read_guardrails
from consistency.cluster.masks import sees_masked
from consistency.cluster.pinned import PinnedAccess
from consistency.cluster.schemas import Schemas
from consistency.cluster.server_clocks import longest_write_s
from consistency.cluster.snapshot import Describer
from consistency.model.reading import Capabilities
from consistency.model.ring import Node, Ring
from consistency.model.schema import Keyspace, Table


class Described:
    """Asks the nodes of one snapshot of the ring."""

    def __init__(self, connection: Connection, ring: Ring, access: PinnedAccess, describer: Describer) -> None:
        self._connection = connection
        self._ring = ring
        self._access = access
        self._describer = describer
        self._schemas = Schemas(connection)

    @property
    def ring(self) -> Ring:
        """The snapshot."""
        return self._ring

    @property
    def _up(self) -> Sequence[Node]:
        return [node for node in self._ring.nodes if node.up]

    @property
    def _asked(self) -> Sequence[Node]:
        return sorted(self._ring.nodes, key=lambda n: not (n.up and self._access.answers(n)))

    @property
    def capabilities(self) -> Capabilities:
        """What every node can do."""
        versions = [node.version for node in self._ring.nodes if node.release]
        oldest = min(versions)
        return Capabilities(
            hashes=oldest >= (5, 0),
            arithmetic=oldest >= (4, 0),
            unchecked_text=max(versions) < (5, 0),
            collection_times=oldest >= (5, 0),
            timed=self._connection.protocol_version >= 5 and oldest >= (4, 0),
        )

    async def ring_now(self) -> Ring:
        """Ask all nodes anew."""
        return await self._describer.ring()

    async def schema(self) -> dict[str, Keyspace]:
        """Read every keyspace as all nodes describe it that answer."""
        return await self._schemas.read(self._asked, patient=not self._describer.schemas_differ)

    async def schema_again(self) -> dict[str, Keyspace]:
        """Read it if any node has another version of it than all had the last time."""
        return await self._schemas.read_again(self._asked, patient=not self._describer.schemas_differ)

    async def guardrails(self, table: Table) -> dict[Node, Guardrails]:
        """Ask every node that is up."""
        return await read_guardrails(self._connection, self._up, table)

    async def write_timeout_s(self) -> float | None:
        """Return how long a write may be under way on the most patient node; None if no node tells."""
        return await longest_write_s(self._connection, self._up)

    async def sees_masked(self, table: Table) -> bool:
        """Whether our role reads the masked columns of a table as they are stored."""
        return await sees_masked(self._connection, self._ring.nodes, table)
