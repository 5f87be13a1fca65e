"""What changed under a comparison, on either side: what was read of it cannot be believed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from consistency.checking.changes import Changes
from consistency.model.ownership import joined
from consistency.model.schema import Table
from consistency.model.sides import Side
from consistency.model.tokens import TokenRange


class PairChanges:
    """Asks both clusters; tables go by their names in the source."""

    def __init__(self, source: Changes, target: Changes, targets: Mapping[str, Table]) -> None:
        self._sides = {Side.SOURCE: source, Side.TARGET: target}
        self._targets = targets

    def _named(self, side: Side, table: Table) -> Table:
        return table if side is Side.SOURCE else self._targets[table.full_name]

    def _first(self, table: Table, say: Callable[[Changes, Table], str]) -> str:
        """Return the first side's reason, with the side."""
        for side, changes in self._sides.items():
            if reason := say(changes, self._named(side, table)):
                return f"{side}: {reason}"
        return ""

    async def after(self, moment: float) -> None:
        """Have both clusters described at least once after a moment (monotonic seconds)."""
        if late := [changes for changes in self._sides.values() if not changes.is_after(moment)]:
            await asyncio.gather(*(changes.after(moment) for changes in late))

    def begin_look(self) -> None:
        """Believe nothing until both clusters have been described once more."""
        for changes in self._sides.values():
            changes.begin_look()

    async def look(self) -> None:
        """Describe both clusters now."""
        await asyncio.gather(*(changes.look() for changes in self._sides.values()))

    async def masks(self, tables: list[Table]) -> None:
        """Ask again whether our roles read masked columns as they are stored."""
        for side, changes in self._sides.items():
            await changes.masks([self._named(side, table) for table in tables])

    def of_table(self, table: Table) -> str:
        """Say why nothing that was read of a table can be believed; empty if it can."""
        return self._first(table, Changes.of_table)

    def altered(self, table: Table) -> str:
        """Say how a table or its replication changed since the run began; empty if nobody saw it change."""
        return self._first(table, Changes.altered)

    def moved(self, table: Table) -> tuple[TokenRange, ...]:
        """Return the ranges whose replicas on either side are others than when the run began, or were meanwhile."""
        return joined(*(changes.moved(self._named(side, table)) for side, changes in self._sides.items()))

    def of_range(self, table: Table, token_range: TokenRange) -> str:
        """Say why differences of rows in a range cannot be judged; empty if they can."""
        return self._first(table, lambda changes, named: changes.of_range(named, token_range))
