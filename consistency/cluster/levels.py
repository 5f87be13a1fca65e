"""At which consistency level a node is asked where guardrails forbid some: never at one that could make servers write.

What a node holds itself (system.local, virtual tables) any level reads alike. A read of one replica is the same at ONE
and at LOCAL_ONE. For all else there is no other level.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from consistency.cluster.wire import ALL, LOCAL_ONE, LOCAL_QUORUM, NODE_LOCAL, ONE, OWN, QUORUM, THREE, TWO

NAMES: Mapping[str, int] = {
    "ONE": ONE,
    "TWO": TWO,
    "THREE": THREE,
    "QUORUM": QUORUM,
    "ALL": ALL,
    "LOCAL_QUORUM": LOCAL_QUORUM,
    "LOCAL_ONE": LOCAL_ONE,
    "NODE_LOCAL": NODE_LOCAL,
}
_FORBIDDEN = re.compile(r"Guardrail (\w+_consistency_levels) violated: Provided values \[(\w+)\].*?\[([^\]]*)\]")
"""The words of the guardrails read_consistency_levels and write_consistency_levels, from 4.1 on."""
_ALIKE = {OWN: (ONE, LOCAL_ONE, LOCAL_QUORUM, QUORUM, ALL), ONE: (ONE, LOCAL_ONE), LOCAL_ONE: (LOCAL_ONE, ONE)}


class Levels:
    """Which levels a guardrail forbids our role, as far as was heard; any node's word counts for all."""

    def __init__(self) -> None:
        self._forbidden: set[int] = set()

    def of(self, wanted: int) -> int:
        """Return the level to ask at for what is wanted: the first one that is not known to be forbidden."""
        alike = _ALIKE.get(wanted, (wanted,))
        return next((level for level in alike if level not in self._forbidden), alike[0])

    def learn(self, wanted: int, text: str) -> bool:
        """Take note of a refusal's words; return whether what was wanted can be asked for at another level."""
        told = forbidden(text)
        self._forbidden |= told
        return bool(told) and self.of(wanted) not in self._forbidden


def forbidden(text: str) -> frozenset[int]:
    """Return the levels that a guardrail forbids by these words; none if they are not a guardrail's of levels."""
    found = _FORBIDDEN.search(text)
    named = {found[2], *found[3].split(", ")} if found else set()
    return frozenset(NAMES[name] for name in named if name in NAMES)


def sentence(text: str) -> str:
    """Say which guardrail forbids which level, with the way out; empty if the words are not such a guardrail's."""
    found = _FORBIDDEN.search(text)
    if not found:
        return ""
    return (
        f"the guardrail {found[1]} forbids {found[2]} to our role: take it out of {found[1]}_disallowed in"
        " cassandra.yaml, or log in as a superuser, whom guardrails do not bind"
    )
