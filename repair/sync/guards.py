"""What must hold on both sides at the moment of writing: the clusters, rings and tables of the plan."""

from __future__ import annotations

from collections.abc import Mapping

from consistency.comparing.opening import Pair, naming
from consistency.errors import UsageError
from consistency.model.ring import Ring
from consistency.model.sides import Side
from repair.applying.guard import Guard
from repair.sync.planfile import SyncPlan
from repair.writing.writer import RowWriter

_WAY_ON = "compare and plan again"


class Guards:
    """Checks both sides before the first row and, at most every two seconds, before the next."""

    def __init__(self, plan: SyncPlan, pair: Pair, writers: Mapping[Side, RowWriter]) -> None:
        """Guard a plan on both sides; a writer of each asks its nodes for their schema."""
        self._guards = {
            side: Guard(plan.ground(side), pair.of(side).reader, writers[side], pair.of(side).clock, _WAY_ON)
            for side in Side
        }

    async def check(self) -> None:
        """Raise PlanRefused, with one line that says on which side and why, where the plan no longer fits."""
        for side, guard in self._guards.items():
            with naming(side):
                await guard.check()


def require_clusters(told: Mapping[Side, tuple[str, str]], rings: Mapping[Side, Ring], what: str) -> None:
    """Raise UsageError if the clusters are not those that a file is of, by their names and rings' fingerprints."""
    found = {side: (ring.cluster, ring.fingerprint) for side, ring in rings.items()}
    if found == dict(told):
        return
    if found[Side.SOURCE] == told[Side.TARGET] and found[Side.TARGET] == told[Side.SOURCE]:
        msg = (
            f"{what} has source and target the other way round: exchange --hosts and --target-hosts;"
            " --direction target-to-source writes to the source"
        )
        raise UsageError(msg)
    for side in Side:
        if found[side][0] != told[side][0]:
            msg = f"{what} is of a {side} called {told[side][0]!r}, this is {found[side][0]!r}: name its hosts"
            raise UsageError(msg)
    wrong = next(side for side in Side if found[side] != told[side])
    msg = (
        f"{what} is of a {wrong} with another ring: it is another cluster called {told[wrong][0]!r}, or its nodes have"
        " changed since; compare again"
    )
    raise UsageError(msg)
