"""Prove what came of rows that were acted on: read every replica again, and take nothing else for a proof."""

from __future__ import annotations

from collections.abc import Mapping

from consistency.cluster.port import Clock
from repair.applying.actions import Acted
from repair.applying.outcomes import failed, settled
from repair.applying.still_right import Begun
from repair.deciding.case import Case, CaseReader
from repair.keeping.entries import Outcome

AFTER_S = (0.0, 0.1, 0.5, 1.5)
"""An acknowledged repair can take a moment on the other replicas."""


async def verify(cases: CaseReader, clock: Clock, acted: Mapping[Begun, Acted]) -> dict[Begun, Outcome]:
    """Read rows again, a few times, until all their replicas agree; what does not agree by then has failed."""
    outcomes: dict[Begun, Outcome] = {}
    now: dict[Begun, Case] = {}
    for delay in AFTER_S:
        waiting = [begun for begun in acted if begun not in outcomes]
        if not waiting:
            break
        await clock.sleep(delay)
        seen = await cases.read_many([begun.row.planned.ref for begun in waiting])
        now.update(zip(waiting, seen, strict=True))
        for begun in waiting:
            outcome = settled(now[begun])
            if outcome is None and acted[begun].in_vain:
                outcome = _failed(begun, now[begun], acted[begun])
            if outcome is not None:
                outcomes[begun] = outcome
    for begun in acted.keys() - outcomes.keys():
        outcomes[begun] = _failed(begun, now[begun], acted[begun])
    return outcomes


def _failed(begun: Begun, now: Case, acted: Acted) -> Outcome:
    return failed(begun.row.planned, begun.case, now, acted.refusal)
