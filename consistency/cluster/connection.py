"""One connection to each node, which said on it which node it is; statements go to a node, never to an address."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from consistency.cluster.driver import Channel, Dialer, no_contact, translate
from consistency.cluster.request_counts import RequestCounts
from consistency.cluster.settings import ConnectionSettings, Place
from consistency.cluster.silence import silence
from consistency.cluster.waits import at_most
from consistency.cluster.wire import OWN, Page, Statement
from consistency.errors import LevelForbidden, PageTooLarge, ReplicaError, ReplicaUnavailable, WrongNode
from consistency.model.ring import Node

_CLOSE_S = 2.0
_LEFT_ALONE_S = 1.0
_MOST_LEFT_ALONE_S = 30.0
"""For how long a node is not dialled again: three times as long as the last try took, within these bounds."""
_PEERS_ASKED = 3
"""How many other nodes are asked where a node is that is no longer found where it was."""
_MOST_ROWS = 2**31 - 1


@dataclass(frozen=True, slots=True)
class _Failed:
    """Why a node could not be reached, and until when it is not dialled again (monotonic seconds)."""

    error: ReplicaError
    until: float


class Connection:
    """Asks the nodes of a cluster, each over one connection that is proven to be its own.

    A contact point serves to discover the cluster. `heard` tells where a node can be reached; nodes are dialled when
    they are first asked, and again after a connection was lost. What answers as another node is closed, or kept
    for the node that it is: an answer belongs to a host id, never to an address.
    """

    def __init__(self, dialer: Dialer) -> None:
        self.counts = RequestCounts()
        self._dialer = dialer
        self._channels: dict[str, Channel] = {}
        self._places: dict[str, list[Place]] = defaultdict(list)
        self._failed: dict[str, _Failed] = {}
        self._dialling: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._most_rows = _MOST_ROWS
        self._levels = dialer.levels
        self._protocols: set[int] = set()
        self._asked_to_log_in = False

    @classmethod
    async def open(cls, settings: ConnectionSettings) -> Connection:
        """Connect to the contact points; ConnectError with one line that says which host refused and why."""
        dialer = Dialer(settings)
        connection = cls(dialer)
        try:
            await connection.meet()
        except BaseException:
            await connection.close()
            raise
        return connection

    async def meet(self) -> None:
        """Dial every contact point; that one of them answers is enough. Also if all connections were lost."""
        points = self._dialer.contact_points
        met = await asyncio.gather(*(self._dialer.dial(place) for place in points), return_exceptions=True)
        for channel in met:
            if not isinstance(channel, BaseException):
                self._keep(channel)
        errors = [error for error in met if isinstance(error, BaseException)]
        for error in errors:
            if not isinstance(error, Exception):
                raise error
        if not self._channels:
            raise no_contact(self._dialer.settings, errors)

    def _keep(self, channel: Channel) -> None:
        """Keep a channel for the node that it leads to; of two to one node the first."""
        held = self._channels.get(channel.host_id)
        if held is not None and held.usable:
            channel.close()
        else:
            self._channels[channel.host_id] = channel
        self._failed.pop(channel.host_id, None)
        # Both outlast the connection: a node that was lost may have no channel when somebody asks.
        self._protocols.add(channel.protocol_version)
        self._asked_to_log_in |= channel.logged_in
        if channel.place not in self._places[channel.host_id]:
            self._places[channel.host_id].append(channel.place)

    async def close(self) -> None:
        """Close every connection of ours; what waits for a silent node is left behind."""

        def leave() -> None:
            for channel in list(self._channels.values()):
                channel.close()
            self._dialer.close()

        await at_most(_CLOSE_S, leave)

    @property
    def protocol_version(self) -> int:
        """The oldest native protocol spoken with any node; `now_in_seconds` needs 5."""
        return min(self._protocols)

    @property
    def username(self) -> str | None:
        """The role logged in with, empty if a provider does not say; None if the servers ask for no login."""
        if not self._asked_to_log_in:
            return None
        return self._dialer.username

    @property
    def reached(self) -> tuple[str, ...]:
        """The host ids of the nodes that we are connected to."""
        return tuple(host_id for host_id, channel in self._channels.items() if channel.usable)

    def heard(self, host_id: str, address: str, port: int) -> None:
        """Learn where a node says, or others say, that it can be reached: its own place goes before all others."""
        place = self._outside(host_id, address, port)
        known = self._places[host_id]
        if place in known:
            known.remove(place)
        known.insert(0, place)

    def _outside(self, host_id: str, address: str, port: int) -> Place:
        """Return where to reach a node from here: by the settings' map, else as the translator says."""
        given = self._dialer.settings.addresses
        named = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        for name in (host_id, named, address):
            if name in given:
                host, own_port = given[name]
                return host, own_port or port
        return str(self._dialer.translate_address(address)), port

    @property
    def _addresses(self) -> str:
        """The table of the configuration file that says where nodes are reached."""
        return f"[{self._dialer.settings.section.table}.addresses]"

    def places(self, node: Node) -> tuple[Place, ...]:
        """Return where a node may be reached, the likeliest first."""
        if not self._places[node.host_id] and node.port:
            return (self._outside(node.host_id, node.address, node.port),)
        return tuple(self._places[node.host_id])

    def place_of(self, host_id: str) -> Place | None:
        """Return where a node was reached, None if it was not."""
        channel = self._channels.get(host_id)
        return channel.place if channel is not None else None

    async def reach(self, node: Node) -> Channel:
        """Return the channel to a node, dialled now where there is none; raises why it cannot be had."""
        held = self._channels.get(node.host_id)
        if held is not None and held.usable:
            return held
        async with self._dialling[node.host_id]:
            held = self._channels.get(node.host_id)
            if held is not None and held.usable:
                return held
            self._channels.pop(node.host_id, None)
            failed = self._failed.get(node.host_id)
            began = time.monotonic()
            if failed is not None and began < failed.until:
                raise failed.error
            try:
                return await self._dial(node)
            except ReplicaError as error:
                now = time.monotonic()
                pause_s = min(_MOST_LEFT_ALONE_S, max(_LEFT_ALONE_S, 3 * (now - began)))
                self._failed[node.host_id] = _Failed(error, now + pause_s)
                raise

    async def _dial(self, node: Node) -> Channel:
        """Try the places where a node was, then where others say that it is now."""
        tried: list[Place] = []
        last: ReplicaError | None = None
        for place in self.places(node):
            tried.append(place)
            try:
                return await self._try(node, place)
            except ReplicaError as error:
                last = last or error
        for address, port in await self._told_by_others(node):
            place = self._outside(node.host_id, address, port)
            if place not in tried:
                tried.append(place)
                try:
                    channel = await self._try(node, place)
                except ReplicaError:
                    continue
                self.heard(node.host_id, address, port)
                return channel
        raise self._with_way_out(node, last)

    def _with_way_out(self, node: Node, error: ReplicaError | None) -> ReplicaError:
        """Return a node's error, with what to do where no node at all is reached at its own address."""
        if error is None:
            return ReplicaUnavailable("no node tells its address", node)
        told = {place for places in self._places.values() for place in places[:1]}
        if isinstance(error, WrongNode) or any(channel.place in told for channel in self._channels.values()):
            return error
        msg = (
            f"{error.reason}; where nodes' own addresses cannot be reached from here, say where each is: "
            f"{self._addresses} of the configuration file"
        )
        return ReplicaUnavailable(msg, node)

    async def _try(self, node: Node, place: Place) -> Channel:
        """Dial one place; what answers there as another node is kept for that one."""
        try:
            channel = await self._dialer.dial(place)
        except Exception as error:
            raise ReplicaUnavailable(str(silence(error)), node) from error
        if channel.host_id == node.host_id:
            self._keep(channel)
            return channel
        held = self._channels.get(channel.host_id)
        if held is None or not held.usable:
            self._keep(channel)
        else:
            channel.close()
        msg = (
            f"another node answers at {place[0]}:{place[1]}, host id {channel.host_id}; where addresses are "
            f"translated or shared, say where each node is reached: {self._addresses} of the configuration file"
        )
        raise WrongNode(msg, node)

    async def _told_by_others(self, node: Node) -> list[Place]:
        """Ask some other nodes where a node is: it may have another address since a restart."""
        told: list[Place] = []
        for host_id in [h for h in self.reached if h != node.host_id][:_PEERS_ASKED]:
            query = "SELECT host_id, native_address, native_port FROM system.peers_v2"
            try:
                rows = await self.select(stand_in(host_id), query, timeout_s=5.0)
            except ReplicaError:
                continue
            told += [
                (str(row["native_address"]), int(row["native_port"]))
                for row in rows
                if str(row["host_id"]) == node.host_id and row["native_address"] and row["native_port"]
            ]
        return list(dict.fromkeys(told))

    async def execute(self, node: Node, statement: Statement) -> Page:
        """Run one statement with `node` as its coordinator and return its page undecoded."""
        page_rows = min(statement.page_size, self._most_rows)
        asked = replace(statement, consistency=self._levels.of(statement.consistency))
        try:
            page: Page = await self._counted(node, lambda channel: channel.page(asked, page_rows))
        except PageTooLarge as error:
            self._learn(error, page_rows)
            return await self.execute(node, statement)
        except LevelForbidden as error:
            self._learn_level(error, statement.consistency)
            return await self.execute(node, statement)
        return page

    async def select(
        self, node: Node, cql: str, *, consistency: int = OWN, timeout_s: float = 30.0
    ) -> list[Mapping[str, Any]]:
        """Run a query on a system table through `node` and return decoded rows, all pages of them."""
        page_rows = min(2000, self._most_rows)
        rows: list[Mapping[str, Any]] = []
        state: bytes | None = None
        while True:
            at, level = state, self._levels.of(consistency)
            try:
                page, state = await self._counted(
                    node,
                    lambda channel: channel.decoded(cql, level, page_rows, at, timeout_s),  # noqa: B023
                )
            except PageTooLarge as error:
                self._learn(error, page_rows)
                return await self.select(node, cql, consistency=consistency, timeout_s=timeout_s)
            except LevelForbidden as error:
                self._learn_level(error, consistency)
                return await self.select(node, cql, consistency=consistency, timeout_s=timeout_s)
            rows.extend(page)
            if state is None:
                return rows

    async def _counted(self, node: Node, ask: Any) -> Any:
        channel = await self.reach(node)
        self.counts.count_sent(node.host_id)
        try:
            return await ask(channel)
        except Exception as error:
            raise translate(node, error) from error
        finally:
            self.counts.count_answered(node.host_id)

    def _learn_level(self, error: LevelForbidden, wanted: int) -> None:
        """Ask at another level of the same effect from now on; if there is none the refusal stands."""
        if not self._levels.learn(wanted, str(error.__cause__)):
            raise error

    def _learn(self, error: PageTooLarge, asked: int) -> None:
        """Ask for no more rows a page than a guardrail allows, of any node; what is not allowed even so is refused."""
        if error.most >= asked:
            raise error
        self._most_rows = min(self._most_rows, error.most)


def stand_in(host_id: str, name: Place = ("", 0)) -> Node:
    """Return what a node is asked by before more is known of it than its host id."""
    return Node(host_id, name[0] or host_id, name[1], "", "", (), "")
