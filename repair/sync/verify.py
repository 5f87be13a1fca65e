"""Prove what came of rows that were acted on: read every replica of the taker again; nothing else is a proof."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from consistency.cluster.guardrails import Refusal
from consistency.cluster.port import Clock
from consistency.model.ring import Node
from consistency.rows.cells import Atom
from repair.applying.actions import Acted
from repair.applying.outcomes import refused
from repair.applying.verify import AFTER_S
from repair.deciding.case import Case, CaseReader
from repair.deciding.copies import copies
from repair.keeping.entries import Outcome, Result
from repair.sync.decide import Decision, Unlike, expires_soon
from repair.sync.policy import SyncPolicy
from repair.sync.still_right import Begun, what_we_did


async def verify(
    taker: CaseReader, clock: Clock, acted: Mapping[Begun, Acted], policy: SyncPolicy
) -> dict[int, Outcome]:
    """Read rows again, a few times, until every replica shows what was written; by the row's number."""
    found: dict[int, Outcome] = {}
    waiting = list(acted)
    for delay in AFTER_S:
        if not waiting:
            break
        await clock.sleep(delay)
        side = policy.direction.taker
        seen = await taker.read_many([begun.row.planned.ref.on(side) for begun in waiting])
        last = delay == AFTER_S[-1]
        left: list[Begun] = []
        for begun, now in zip(waiting, seen, strict=True):
            outcome = _outcome(begun, now, acted[begun], policy, last=last)
            if outcome is None:
                left.append(begun)
            else:
                found[begun.row.number] = outcome
        waiting = left
    return found


def _outcome(begun: Begun, now: Case, acted: Acted, policy: SyncPolicy, *, last: bool) -> Outcome | None:
    """Return what came of a row; None if it may still come."""
    shown = _Shown(begun, now, policy)
    if not shown.lacking and now.states:
        outcome = shown.done
    elif last or acted.in_vain:
        outcome = shown.failed(acted.refusal)
    else:
        return None
    return what_we_did(replace(outcome, after=copies(now)), now, begun.before, begun.decision.given, acted.fate)


class _Shown:
    """What the taker's replicas show of what was to be done."""

    def __init__(self, begun: Begun, now: Case, policy: SyncPolicy) -> None:
        self._begun = begun
        self._now = now
        self._side = policy.direction.taker
        self._unlike = Unlike(begun.case, policy.terms)
        self.lacking: Sequence[Node] = [node for node in now.states if not self._is_done(node)]

    @property
    def _decision(self) -> Decision:
        return self._begun.decision

    def _is_done(self, node: Node) -> bool:
        held = self._now.copies[node]
        for name, atom in self._decision.write.items():
            if not (self._expired(atom) or self._reached(name[0], atom, held.get(name))):
                return False
        if self._decision.delete_row_us is not None and self._now.states[node] is not None:
            return False
        return all(name not in held or held[name].rank > atom.rank for name, atom in self._decision.delete.items())

    def _expired(self, atom: Atom) -> bool:
        return expires_soon(atom, replace(self._begun.case, taker=self._now))

    def _reached(self, place: int, atom: Atom, held: Atom | None) -> bool:
        if held is None:
            return False
        newer = held.writetime is not None and held.rank >= atom.rank
        return newer or not self._unlike(place, atom, held)

    @property
    def done(self) -> Outcome:
        """The outcome of a row of which all that was read shows what it should."""
        overtaken = [
            name
            for name, atom in self._decision.write.items()
            for held in self._now.copies.values()
            if name in held and self._unlike(name[0], atom, held[name])
        ]
        left = self._decision.left
        if overtaken:
            left = (*left, f"newer writes have come to the {self._side} meanwhile: they stay")
        if left:
            return Outcome(Result.DIVERGENT, f"written, and still different: {'; '.join(left)}")
        if self._now.unread:
            nodes = ", ".join(sorted(node.name for node in self._now.unread))
            if 2 * len(self._now.states) <= len(self._now.owners):
                return Outcome(Result.UNKNOWN, f"no quorum of the {self._side} can be read: {self._now.why_unread}")
            return Outcome(Result.WAITING, f"the replicas that can be read show it; not read: {nodes}")
        return Outcome(Result.VERIFIED)

    def failed(self, refusal: Refusal | None) -> Outcome:
        """Return the outcome of a row of which a replica does not show what it should."""
        if self._now.unread and (refusal or not self._now.states):
            return Outcome(Result.UNKNOWN, refusal.text if refusal else self._now.why_unread)
        if refusal is not None:
            return Outcome(Result.REFUSED, refused(refusal))
        return Outcome(Result.DIVERGENT, self._why)

    @property
    def _why(self) -> str:
        """Say why a row is not as it should be, though the servers took what was sent."""
        copies, row_us = self._now.copies.values(), self._decision.delete_row_us
        if row_us is not None:
            times = [atom.writetime for held in copies for atom in held.values() if atom.writetime is not None]
            if max(times, default=row_us) > row_us:
                return f"it was written to in the {self._side} meanwhile: what is newer stays"
            return f"the {self._side} still holds it: its key was written later than its cells"
        nowhere = [name for name in self._decision.write if not any(name in held for held in copies)]
        if nowhere:
            return f"a delete in the {self._side} that is as new or newer hides it: it stays deleted there"
        if any(held[name].writetime is None for name in self._decision.write for held in copies if name in held):
            return f"what the {self._side} holds is newer, and stays: only its servers know how old it is"
        return f"replicas of the {self._side} disagree on it: check and repair that cluster"
