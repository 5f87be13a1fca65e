"""What the rules of the audit judge, one keyspace on one ring, and the words for their answers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from consistency.auditing import remedy
from consistency.model.cqltext import some_of
from consistency.model.schema import SYSTEM_KEYSPACES
from consistency.results.report import Severity, Violation

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from consistency.auditing.placement import Placement
    from consistency.model.ring import Node, Replication, Ring

AUTH = "system_auth"
BACKGROUND = frozenset({"system_distributed", "system_traces"})
"""Only Cassandra reads and writes them, at ONE or ANY, and their loss loses no user's row."""

_TRACES_DEFAULT_RF = 2  # TraceKeyspace.DEFAULT_RF: Cassandra's own default is no fault
_NAMES_SHOWN = 8


@dataclass(frozen=True)
class Subject:
    """One replicated keyspace on one ring; `rf_minimum` is the operator's rule for replicas per DC."""

    keyspace: str
    placement: Placement
    rf_minimum: int

    @property
    def ring(self) -> Ring:
        """The ring the keyspace lies on."""
        return self.placement.ring

    @property
    def replication(self) -> Replication:
        """The keyspace's replication options."""
        return self.placement.replication

    @property
    def background(self) -> bool:
        """Whether this keyspace gives warnings at most."""
        return self.keyspace in BACKGROUND

    @property
    def of_users(self) -> bool:
        """Whether the keyspace is not one of Cassandra's own."""
        return self.keyspace not in SYSTEM_KEYSPACES

    @property
    def minimum(self) -> int:
        """The fewest replicas a DC should hold."""
        return min(self.rf_minimum, _TRACES_DEFAULT_RF) if self.keyspace == "system_traces" else self.rf_minimum

    @cached_property
    def asked(self) -> Mapping[str, int]:
        """The replicas per existing DC that the options ask for, under the DC's correct name."""
        return remedy.asked_per_dc(self.ring, self.replication)

    @cached_property
    def mended(self) -> Mapping[str, int]:
        """The replicas per DC under which the options break no rule.

        ALTER KEYSPACE replaces the whole map. If each violation named only its own change, one remedy would undo
        another, so all remedies of a keyspace carry this one final map. DCs that hold nothing stay out, which is
        often intended, except for logins.
        """
        asked = dict(self.asked)
        if not asked or self.keyspace == AUTH:
            asked = dict.fromkeys(self.ring.datacenters, 0) | asked
        return {dc: self._wanted(dc, rf) for dc, rf in sorted(asked.items())}

    @cached_property
    def alter(self) -> str:
        """The steps that correct every option of the keyspace."""
        return remedy.alter_steps(self.ring, self.keyspace, self.replication, self.mended, grow=self.of_users)

    def violation(self, kind: str, detail: str, mend: str, severity: Severity = Severity.ERROR) -> Violation:
        """Return a violation of this keyspace, a warning at most for the background ones."""
        return Violation(kind, self.keyspace, detail, mend, Severity.WARNING if self.background else severity)

    def _wanted(self, dc: str, rf: int) -> int:
        nodes = len(self.ring.datacenters.get(dc, ()))
        if self.background:  # more replicas than nodes do no harm there, and leave room for growth
            return max(self.minimum, rf)
        if self.keyspace == AUTH:  # nobody adds nodes only for logins
            return max(1, min(max(self.minimum, rf), nodes))
        return max(self.minimum, min(rf, nodes))


def percent(share: float) -> str:
    """Format a share from 0 to 1; never `0.0%` for something or `100.0%` for less than all."""
    if 0 < share < 0.0005:
        return "<0.1%"
    if 0.9995 <= share < 1 - 1e-9:
        return ">99.9%"
    return f"{share:.1%}"


def named(nodes: Collection[Node]) -> str:
    """Return node names for a sentence, only the first few of many."""
    return some_of(sorted(node.name for node in nodes), _NAMES_SHOWN)
