"""The ALTER KEYSPACE that corrects a keyspace's replication, with the steps before and after it."""

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
    """Return the DC of the ring that differs from `name` only in case, `-` and `_`, else None."""
    return next((dc for dc in sorted(known_dcs(ring)) if dc != name and _bare(dc) == _bare(name)), None)


def asked_per_dc(ring: Ring, replication: Replication) -> dict[str, int]:
    """Return the replicas per existing DC that the options ask for, under the DC's correct name.

    SimpleStrategy's one factor applies to every DC; a misspelled DC is corrected, an unknown one is dropped.
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
    """Return the ALTER with the commands that must follow if ranges change hands.

    `grow` also says which nodes to add first if a DC has fewer nodes than replicas.
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
    """Return the nodes to add for these replicas, such as `2 nodes to dc1`; empty if none are missing."""
    short = {dc: rf - len(ring.datacenters.get(dc, ())) for dc, rf in sorted(factors.items())}
    wanted = [f"{count} node{'s' * (count > 1)} to {dc}" for dc, count in short.items() if count > 0]
    return " and ".join(wanted)


def _moves(ring: Ring, before: Replication, after: Replication) -> tuple[bool, bool]:
    """Return whether any node gains a range, and whether any loses one."""
    gains = loses = False
    for token in ring.tokens:
        old, new = set(ring.replicas_of(token, before)), set(ring.replicas_of(token, after))
        gains |= bool(new - old)
        loses |= bool(old - new)
    return gains, loses


def _bare(name: str) -> str:
    return name.strip().casefold().replace("-", "_")
