"""The ALTER KEYSPACE that puts a keyspace's replication right, with what must come before and after it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from consistency.auditing.placement import known_dcs
from consistency.model.cqltype import quote_identifier, quote_string
from consistency.model.ring import Replication

if TYPE_CHECKING:
    from collections.abc import Mapping

    from consistency.model.ring import Ring


def same_dc_in_other_letters(name: str, ring: Ring) -> str | None:
    """Return the DC of the ring that `name` misspells in case, `-` and `_` only, else None."""
    return next((dc for dc in sorted(known_dcs(ring)) if dc != name and _bare(dc) == _bare(name)), None)


def asked_per_dc(ring: Ring, replication: Replication) -> dict[str, int]:
    """Return the replicas that the options ask for in DCs that exist, under the names these really have.

    SimpleStrategy's one factor is asked of every DC; an unknown DC takes the name it misspells or goes.
    """
    if replication.strategy == "SimpleStrategy":
        rf = replication.factor("")
        return dict.fromkeys(ring.datacenters, rf) if rf > 0 else {}
    known = known_dcs(ring)
    asked = {dc: rf for dc, rf in replication.factors if rf > 0 and dc in known}
    for dc, rf in replication.factors:
        meant = same_dc_in_other_letters(dc, ring) if rf > 0 and dc not in known else None
        if meant is not None:
            asked.setdefault(meant, rf)
    return asked


def alter_cql(keyspace: str, factors: Mapping[str, int]) -> str:
    """Return the ALTER KEYSPACE statement to NetworkTopologyStrategy with these replicas per DC."""
    options = "".join(f", {quote_string(dc)}: {rf}" for dc, rf in sorted(factors.items()))
    return (
        f"ALTER KEYSPACE {quote_identifier(keyspace)} "
        f"WITH replication = {{'class': 'NetworkTopologyStrategy'{options}}};"
    )


def alter_steps(
    ring: Ring, keyspace: str, before: Replication, factors: Mapping[str, int], *, grow: bool = True
) -> str:
    """Return the ALTER with the commands that must follow where ranges change hands.

    `grow` also says which nodes to add first, where a DC has fewer than its replicas.
    """
    missing = missing_nodes(ring, factors) if grow else ""
    gains, loses = _moves(ring, before, Replication("NetworkTopologyStrategy", tuple(factors.items())))
    steps = [f"first add {missing}, then" if missing else "", alter_cql(keyspace, factors)]
    if gains or missing:
        repair = f"nodetool repair --full {shlex.quote(keyspace)}"
        steps.append(f"then on every node, before reads are trusted: {repair}")
    if loses:
        steps.append(f"then on every node: nodetool cleanup {shlex.quote(keyspace)}")
    return " ".join(step for step in steps if step)


def missing_nodes(ring: Ring, factors: Mapping[str, int]) -> str:
    """Return which nodes the DCs lack to hold these replicas, such as `2 nodes to dc1`; empty where none."""
    short = {dc: rf - len(ring.datacenters.get(dc, ())) for dc, rf in sorted(factors.items())}
    wanted = [f"{count} node{'s' * (count > 1)} to {dc}" for dc, count in short.items() if count > 0]
    return " and ".join(wanted)


def _moves(ring: Ring, before: Replication, after: Replication) -> tuple[bool, bool]:
    """Say whether any node gains, and whether any loses, a range."""
    gains = loses = False
    for token, _ in ring.owners:
        old, new = set(ring.replicas_of(token, before)), set(ring.replicas_of(token, after))
        gains |= bool(new - old)
        loses |= bool(old - new)
    return gains, loses


def _bare(name: str) -> str:
    return name.strip().casefold().replace("-", "_")
