"""What one node says of a cluster: of itself, and of the others in its peers table and its gossip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from consistency.model.ring import NOT_IN_THE_RING

_ANYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104 - what a node tells that binds to every address


@dataclass(frozen=True, slots=True)
class Claim:
    """What one node says of a node, perhaps of itself; None if it says nothing.

    `broadcast` is the node's `address:port` between nodes, `tokens` are sorted.
    """

    host_id: str
    broadcast: str
    dc: str | None
    rack: str | None
    tokens: tuple[int, ...]
    address: str | None
    port: int | None
    release: str

    @property
    def reachable_at(self) -> tuple[str, int] | None:
        """Return the native address and port, None if they do not name a place."""
        if self.address is None or self.port is None or self.address in _ANYWHERE:
            return None
        return self.address, self.port


@dataclass(frozen=True)
class View:
    """What one node says of the cluster.

    `nameless` are rows of its peers table without a host id, by broadcast address. `gossip` maps the broadcast address
    of every node that its gossip knows to the state there, None if the server does not show it.
    """

    own: Claim
    cluster: str
    partitioner: str
    schema_version: str
    peers: tuple[Claim, ...]
    nameless: tuple[str, ...] = ()
    gossip: Mapping[str, str] | None = field(default=None)

    def knows(self, claim: Claim) -> bool:
        """Whether a row of its peers table is one that it acts on: gossip lists every node that it does."""
        return self.gossip is None or claim.broadcast in self.gossip

    def places(self, broadcast: str) -> bool:
        """Whether its gossip shows a node as one that owns tokens."""
        state = (self.gossip or {}).get(broadcast)
        return state is not None and state.upper() not in NOT_IN_THE_RING


Said = Mapping[str, Sequence[tuple[View, Claim]]]
"""By host id: who says what of a node."""
