"""Whether requests through a coordinator can be answered at all: a keyspace may ask for more replicas than exist.

A coordinator counts what the options ask for, also of a data center without a node, and refuses a level that it has too
few live replicas for (Unavailable). That is foreseen here, as it is the same for every row and every day.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from consistency.model.schema import Keyspace


@dataclass(frozen=True, slots=True)
class Reach:
    """Why no request at ALL can be answered, with the way out; empty where one can."""

    not_at_all: str = ""


def reach(keyspace: Keyspace, exist: int) -> Reach:
    """Say what can be asked of rows that `exist` nodes hold."""
    asked = keyspace.replication.asked
    if asked <= exist:
        return Reach()
    places = ", ".join(f"{dc} {rf}" for dc, rf in keyspace.replication.factors if dc and rf)
    named = f" ({places})" if places else ""
    return Reach(
        f"keyspace {keyspace.name} needs {asked} replicas of each row{named}, {exist} nodes exist to hold them: lower"
        f" its replication factor, as consistency audit {keyspace.name} says"
    )
