"""By which coordinator, and at which level, the servers let our role merge or write a row; or which rule forbids it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from consistency.cluster.guardrails import NO_GUARDRAILS, Guardrails
from consistency.cluster.wire import ALL, QUORUM
from consistency.model.ring import Node
from repair.deciding.case import Case


@dataclass(frozen=True, slots=True)
class Way:
    """How to ask for something: through which node, and whether at ALL or at QUORUM; `refused`: why it cannot be."""

    node: Node
    at_all: bool = True
    refused: str = ""


def merging(evidence: Case) -> Way:
    """Return how to have a row merged, by a read at ALL."""
    return _way(evidence, lambda rails: rails.reads.get(ALL, ""), at_all=True)


def writing(evidence: Case, times: Sequence[int], *, at_all: bool) -> Way:
    """Return how to write cells of these write times: at ALL where that is wanted and allowed, else at QUORUM.

    What each replica takes by itself is bound by no guardrail but the one on times that clients give.
    """
    if evidence.alone:
        return _way(evidence, lambda rails: rails.times, at_all=at_all)
    way = _way(evidence, lambda rails: _write_refused(rails, ALL, times), at_all=True) if at_all else None
    if way is None or way.refused:
        way = _way(evidence, lambda rails: _write_refused(rails, QUORUM, times), at_all=False)
    return way


def through_coordinator(evidence: Case, times: Sequence[int]) -> Way:
    """Return how to write to all replicas at once, whatever each would take by itself."""
    way = _way(evidence, lambda rails: _write_refused(rails, ALL, times), at_all=True)
    return way if not way.refused else _way(evidence, lambda r: _write_refused(r, QUORUM, times), at_all=False)


def writing_at(evidence: Case, times: Sequence[int], level: int) -> Way:
    """Return how to write to all replicas at once at one level."""
    return _way(evidence, lambda rails: _write_refused(rails, level, times), at_all=False)


def _write_refused(rails: Guardrails, level: int, times: Sequence[int]) -> str:
    return rails.writes.get(level, "") or rails.forbids_times(times)


def _way(evidence: Case, refuses: Callable[[Guardrails], str], *, at_all: bool) -> Way:
    """Take the first replica that was read and does not refuse; else the first, with why it does."""
    refusals = {}
    for node in evidence.states:
        refusals[node] = refuses(evidence.guarded.get(node, NO_GUARDRAILS))
        if not refusals[node]:
            return Way(node, at_all)
    first = next(iter(refusals))
    return Way(first, at_all, refusals[first])
