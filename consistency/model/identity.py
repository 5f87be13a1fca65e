"""Which cluster is this? Its name and its nodes tell, because names repeat, addresses move, and nodes come and go.

A node is its host id. A cluster is recognized by its name and a node that both sightings share; if several fit, the
one with most such nodes wins (docs/design/0017). Its id is for people and labels: it is made at the first sighting,
and stays.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

ID_LENGTH = 8

KeyT = TypeVar("KeyT")


def cluster_id(name: str, host_ids: Iterable[str]) -> str:
    """Return a short id for a cluster at its first sighting, from its name and its first host id."""
    first = min(host_ids, default="")
    return hashlib.sha256(f"{name}\n{first}".encode()).hexdigest()[:ID_LENGTH]


def sharing_most(known: Mapping[KeyT, Collection[str]], host_ids: Collection[str]) -> KeyT | None:
    """Return the one that shares most nodes with these, the first of equals; None if none shares any."""
    wanted = set(host_ids)
    shared = {key: len(wanted.intersection(hosts)) for key, hosts in known.items()}
    best = max(shared, key=lambda key: shared[key], default=None)
    return best if best is not None and shared[best] else None
