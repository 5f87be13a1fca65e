"""Choose depth and route for a table: what every node can do, unless the operator says otherwise."""

from __future__ import annotations

from dataclasses import dataclass

from consistency.cluster.selects import folded_token
from consistency.model.reading import Capabilities, Depth, Reading, Route
from consistency.model.schema import Table


@dataclass(frozen=True, slots=True)
class Choice:
    """How a table will be read, or why it cannot be read as asked."""

    reading: Reading | None
    route: Route | None
    refusal: str = ""


def choose(table: Table, capabilities: Capabilities, depth: Depth | None, route: Route | None) -> Choice:
    """Return the deepest reading the servers can digest themselves; None leaves the choice to us.

    Without mask_hash (before 5.0) the server digests versions only, and only where its sums cover the
    clustering key and every column's write time; any other table is hashed on the client, values too.
    """
    if table.is_counter and depth is Depth.VERSIONS:
        return Choice(None, None, "counters have no write times that replicas share; use --depth content")
    server = _server_depth(table, capabilities)
    if route is Route.CLIENT:
        return _chosen(table, capabilities, depth or Depth.CONTENT, Route.CLIENT)
    if server is not None and (depth is None or depth is server or server is Depth.CONTENT):
        return _chosen(table, capabilities, depth or server, Route.SERVER)
    if route is Route.SERVER:
        return Choice(None, None, _why_not(table, capabilities, depth))
    return _chosen(table, capabilities, depth or Depth.CONTENT, Route.CLIENT)


def _server_depth(table: Table, capabilities: Capabilities) -> Depth | None:
    if capabilities.hashes:
        return Depth.CONTENT
    timeless = any(c.type.is_multicell for c in table.statics + table.regulars)
    if timeless or table.is_counter or folded_token(table) is None:
        return None
    return Depth.VERSIONS


def _chosen(table: Table, capabilities: Capabilities, depth: Depth, route: Route) -> Choice:
    return Choice(Reading(table, depth, capabilities), route)


def _why_not(table: Table, capabilities: Capabilities, depth: Depth | None) -> str:
    if depth is Depth.CONTENT or table.is_counter:
        return "the servers cannot hash content before Cassandra 5.0; use --route client"
    if folded_token(table) is None:
        return "its clustering columns cannot all be put through token() here, by type or number; use --route client"
    return f"the servers do not tell write times of collections before 5.0 ({capabilities}); use --route client"
