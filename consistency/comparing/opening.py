"""Open two clusters for reading, each over connections, with a login and by a clock of its own.

What goes wrong is said of the side on which it does: one line, with the exit code of the error itself.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass

from consistency.cluster.cql_reader import CqlReader
from consistency.cluster.pinned import ReadLimits
from consistency.cluster.port import Clock, ClusterReader
from consistency.cluster.request_counts import RequestCounts
from consistency.cluster.session import open_cluster
from consistency.cluster.settings import ConnectionSettings
from consistency.errors import ConsistencyError
from consistency.model.reading import Locality
from consistency.model.ring import Ring
from consistency.model.sides import Side


@dataclass(frozen=True)
class Cluster:
    """One of the two clusters: what reads it, and its servers' time."""

    side: Side
    reader: ClusterReader
    clock: Clock


@dataclass(frozen=True)
class Pair:
    """Two open clusters."""

    source: Cluster
    target: Cluster

    def of(self, side: Side) -> Cluster:
        """Return the cluster of a side."""
        return self.source if side is Side.SOURCE else self.target

    @property
    def is_one(self) -> bool:
        """Whether both are one cluster, which one reader asks."""
        return self.source.reader is self.target.reader

    async def host_ids(self) -> set[str]:
        """Return those of the nodes of both clusters."""
        return {host_id for cluster in self for host_id in (await cluster.reader.ring()).host_ids}

    def count_with(self, counts: RequestCounts) -> None:
        """Have the requests to both clusters counted together with those of others that read them with us."""
        for cluster in self:
            if isinstance(cluster.reader, CqlReader):
                cluster.reader.count_with(counts)

    def __iter__(self) -> Iterator[Cluster]:
        return iter((self.source, self.target))


@asynccontextmanager
async def open_pair(
    source: ConnectionSettings,
    target: ConnectionSettings,
    limits: ReadLimits | None = None,
    *,
    locality: Locality | None = None,
) -> AsyncGenerator[Pair, None]:
    """Yield both clusters; their connections are closed afterwards.

    Raises ConnectError or TopologyError with one line that names the side.
    """
    async with AsyncExitStack() as opened:
        clusters: dict[Side, Cluster] = {}
        for side, settings in ((Side.SOURCE, source), (Side.TARGET, target)):
            with naming(side):
                reader, clock = await opened.enter_async_context(open_cluster(settings, limits, locality=locality))
            clusters[side] = Cluster(side, reader, clock)
        pair = Pair(clusters[Side.SOURCE], clusters[Side.TARGET])
        yield await _asked_once(pair) if _reached_alike(source, target) else pair


async def _asked_once(pair: Pair) -> Pair:
    """Have one reader ask the nodes of one cluster, where the two are one whose tables have two names.

    Two readers would ask a node in the same lanes at once, and it would mix up the hashes of both (row_hash.py).
    """
    source, target = pair.source, pair.target
    if not _are_one(await ring_of(source), await ring_of(target)):
        return pair
    return Pair(source, Cluster(target.side, source.reader, source.clock))


def _reached_alike(source: ConnectionSettings, target: ConnectionSettings) -> bool:
    """Whether a node of one address is the same node on both sides: clones of all its machines may say that address."""
    return source.addresses == target.addresses and source.address_translator is target.address_translator


def _are_one(source: Ring, target: Ring) -> bool:
    """Whether both are one cluster: of one name, with a node of one id at one address.

    Ids alone do not tell: a cluster that was made from copies of the disks of another has its ids, and other data now.
    """
    known = {(node.host_id, node.name) for node in source.nodes}
    return source.cluster == target.cluster and any((node.host_id, node.name) in known for node in target.nodes)


async def ring_of(cluster: Cluster) -> Ring:
    """Return a side's ring; what is wrong with it names the side."""
    with naming(cluster.side):
        return await cluster.reader.ring()


@contextmanager
def naming(side: Side) -> Iterator[None]:
    """Have an error say on which side it came up."""
    try:
        yield
    except ConsistencyError as error:
        error.args = (f"{side}: {error}",)
        raise
