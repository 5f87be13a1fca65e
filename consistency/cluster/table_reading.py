"""Choose depth and route for a table: what every node can do, unless the operator says otherwise."""

from __future__ import annotations

from dataclasses import dataclass

from consistency.cluster.row_hash import form_of
from consistency.model.reading import Capabilities, Depth, Reading, Route
from consistency.model.schema import Table


@dataclass(frozen=True, slots=True)
class Choice:
    """How a table will be read, or why it cannot be read as asked."""

    reading: Reading | None
    route: Route | None
    refusal: str = ""


def choose(table: Table, capabilities: Capabilities, depth: Depth | None, route: Route | None) -> Choice:
    """Return how to read a table; None leaves the choice to us: values too, hashed by the servers if they can."""
    if table.is_counter and depth is Depth.VERSIONS:
        return Choice(None, None, "counters have no write times that replicas share; use --depth content")
    hashing = form_of(table, capabilities) is not None
    if route is Route.SERVER and not hashing:
        return Choice(None, None, "the servers cannot hash rows before Cassandra 4.0; use --route client")
    by_default = Route.SERVER if hashing else Route.CLIENT
    return Choice(Reading(table, depth or Depth.CONTENT, capabilities), route or by_default)
