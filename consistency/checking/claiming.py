"""From what the settler found out about a row to what is claimed of it: a finding, that it is unknown, or nothing."""

from __future__ import annotations

from consistency.checking.settle import Settlement, Unsettled
from consistency.results.findings import Finding
from consistency.rows.classify import finding, judge_row


def claim(settlement: Settlement, max_skew_s: float) -> Finding | Unsettled | None:
    """Judge a settled row by the instant at which it was looked at.

    A row that is the same everywhere and in which nothing is wrong is nothing. One that differs by no rule that we
    know is unknown: a finding has at least one kind.
    """
    if isinstance(settlement, Unsettled):
        return settlement
    judgement = judge_row(settlement, max_skew_s=max_skew_s)
    if judgement.facts:
        return finding(settlement, judgement)
    if settlement.agreed:
        return None
    return Unsettled(settlement.reading, settlement.name, "its copies differ in a way that has no name")
