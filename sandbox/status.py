"""The status of a sandbox: each node and whether it is up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sandbox.launch import node_home, system_log
from sandbox.machine import accepts_connections

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox.state import NodeRecord, SandboxState

NodeState = Literal["up", "starting", "frozen", "down"]


@dataclass(frozen=True)
class Node:
    """The current state of one node."""

    n: int
    address: str
    port: int
    storage_port: int
    jmx_port: int
    dc: str
    rack: str
    state: NodeState
    pid: int | None
    log: Path
    data: Path

    @property
    def endpoint(self) -> str:
        """Where its clients connect."""
        return f"{self.address}:{self.port}"


@dataclass(frozen=True)
class SandboxStatus:
    """The current state of a sandbox."""

    dir: Path
    cassandra: str
    port: int
    node_local: bool
    nodes: tuple[Node, ...]
    hosts: tuple[str, ...]


def status_of(state: SandboxState) -> SandboxStatus:
    """Look at every node of a sandbox."""
    return SandboxStatus(
        dir=state.options.dir,
        cassandra=state.options.version.release,
        port=state.options.port,
        node_local=state.options.node_local,
        nodes=tuple(look_at(state, record) for record in state.nodes.values()),
        hosts=hosts_of(state),
    )


def hosts_of(state: SandboxState) -> tuple[str, ...]:
    """Return where clients connect: addresses, with ports if these differ."""
    places = [record.place for record in state.nodes.values()]
    if state.options.one_address:
        return tuple(f"{place.address}:{place.port}" for place in places)
    return tuple(place.address for place in places)


def look_at(state: SandboxState, record: NodeRecord) -> Node:
    """Look at one node."""
    process, place = record.live_process, record.place
    node_state: NodeState = "down"
    if process is not None and process.frozen:
        node_state = "frozen"
    elif process is not None:
        node_state = "up" if accepts_connections(place.address, place.port) else "starting"
    return Node(
        n=place.n,
        address=place.address,
        port=place.port,
        storage_port=place.storage_port,
        jmx_port=record.jmx_port,
        dc=place.dc,
        rack=place.rack,
        state=node_state,
        pid=process.pid if process else None,
        log=system_log(state.options, place.n),
        data=node_home(state.options, place.n) / "data",
    )
