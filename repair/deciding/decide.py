"""Decide what to do with one row: pure, exhaustive, and free to abstain.

The order of the rules is the safety argument. First what forbids any decision (a view, too few replicas),
then what needs none (agreement), then what must wait or be left to a person (future and unsettled write
times, zombies), and only then Cassandra's own merge.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from consistency.model.reading import RowState
from consistency.rows.cells import Atom, AtomName, addressable, lacked, times_of, winners
from consistency.rows.evidence import Evidence
from consistency.rows.reconcile import DecidedBy, contests
from consistency.rows.zombies import is_whole_row, zombie_suspects
from repair.deciding.case import Case
from repair.deciding.permitted import Way, merging, writing
from repair.deciding.policy import Policy, Require, Zombies


class Rule(str, Enum):
    """By which rule a row is decided."""

    VIEW = "view"
    NOT_OWNED = "not-owned"
    TOO_FEW = "too-few-replicas"
    AGREED = "already-agreed"
    GONE = "gone"
    WAITS = "waits-for-node"
    FUTURE = "future-write-time"
    SETTLING = "settling"
    ZOMBIE = "zombie-suspect"
    COUNTER = "counter"
    LAST_WRITE = "last-write-wins"
    TIE = "tie"
    EXPIRY = "expiry"
    SPELLING = "spelling"
    OUT_OF_REACH = "out-of-reach"

    @property
    def sentence(self) -> str:
        """Say what the rule means, for people."""
        return _SENTENCES[self]


_SENTENCES = {
    Rule.VIEW: "a materialized view is never written directly: repair its table",
    Rule.NOT_OWNED: "the owners agree, and a node that does not own it holds it: nodetool cleanup removes it there",
    Rule.TOO_FEW: "too few of its replicas can be read to decide it",
    Rule.AGREED: "all replicas hold the same now",
    Rule.GONE: "no replica has the row any more",
    Rule.WAITS: "the readable replicas do not decide it; it waits for the others",
    Rule.FUTURE: "a write time lies in the future and wins over every write until then: only a write USING a later"
    " TIMESTAMP replaces it",
    Rule.SETTLING: "its newest write is too young and may still be in flight; plan again later",
    Rule.ZOMBIE: "a minority holds cells older than gc_grace_seconds, or of unknown age: their delete may be purged;"
    " --zombies restore or purge decides",
    Rule.COUNTER: "only the servers can merge counters",
    Rule.LAST_WRITE: "the newest write of each cell wins, deletes included",
    Rule.TIE: "for one write time the greater value wins, as in Cassandra",
    Rule.EXPIRY: "for one write time the later expiry wins, as in Cassandra",
    Rule.SPELLING: "its replicas hold a clustering key, or a collection's element, in different bytes that are one to"
    " Cassandra (the decimals 1.0 and 1.00): no merge makes them alike; delete it and write it anew",
    Rule.OUT_OF_REACH: "only the servers could merge it, which needs all replicas up and read_repair = 'BLOCKING'",
}


ACTING = frozenset({Rule.ZOMBIE, Rule.COUNTER, Rule.LAST_WRITE, Rule.TIE, Rule.EXPIRY})
"""The rules by which something may be done."""


class Action(str, Enum):
    """What is done with a row."""

    NONE = "none"
    RECONCILE = "reconcile"
    WRITE_BACK = "write-back"
    PURGE = "purge"

    @property
    def sentence(self) -> str:
        """Say how it is done."""
        return _HOW[self]


_HOW = {
    Action.NONE: "left alone",
    Action.RECONCILE: "a read of the row at all its replicas makes the servers merge it, tombstones included",
    Action.WRITE_BACK: "each winning cell is written to the replicas behind, with its own write time and expiry; the"
    " row marker of an INSERT, which CQL does not show, is not",
    Action.PURGE: "the suspect cells are deleted at their own write time",
}


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with one row, and by which rule; `suspects` are the cells that may be zombies."""

    rule: Rule
    action: Action = Action.NONE
    sentence: str = ""
    at_all: bool = True
    """Whether a write through a coordinator is at ALL; at QUORUM where a replica is down."""
    suspects: frozenset[AtomName] = frozenset()
    refused: str = ""
    """Which rule of which server forbids the action for now; empty if none does."""

    @property
    def done(self) -> bool:
        """Whether there is nothing left to do for this row."""
        return self.rule in (Rule.AGREED, Rule.GONE)

    @property
    def unknown(self) -> bool:
        """Whether the row could not be judged, for want of replicas."""
        return self.rule in (Rule.TOO_FEW, Rule.WAITS)


def decide(evidence: Case, policy: Policy) -> Decision:
    """Return the one decision for this evidence."""
    return _forbidden(evidence, policy) or _settled(evidence, policy) or _merge(evidence, policy)


def _forbidden(evidence: Case, policy: Policy) -> Decision | None:
    if evidence.table.view_of:
        return _left(Rule.VIEW)
    short = too_few(evidence, policy.require)
    return _left(Rule.TOO_FEW, short) if short else None


def too_few(evidence: Case, require: Require) -> str:
    """Say which replicas are too few to decide by; empty if they are enough."""
    read, owners = len(evidence.states), len(evidence.owners)
    needed = owners if require is Require.ALL else evidence.quorum
    if read < max(needed, 1):
        reason = f": {next(iter(evidence.unread.values()))}" if evidence.unread else ""
        return f"{read} of {owners} read, {needed} needed{reason}"
    if require is Require.EACH_QUORUM:
        for dc, (there, total) in evidence.by_dc().items():
            if there < total // 2 + 1:
                return f"{there} of {total} read in {dc}, {total // 2 + 1} needed"
    return ""


def _settled(evidence: Case, policy: Policy) -> Decision | None:
    """Return the decision if nothing differs, or time must pass."""
    newest = evidence.newest_us
    if newest is not None and newest > evidence.when.future_us(policy.max_skew_s):
        return _left(Rule.FUTURE)  # wrong also where all agree: it hides every write until then
    if evidence.agreed:
        if evidence.unread:
            return _left(Rule.WAITS, ", ".join(sorted(n.name for n in evidence.unread)))
        gone = not any(state is not None for state in evidence.states.values())
        return Decision(Rule.GONE if gone else Rule.AGREED, sentence=(Rule.GONE if gone else Rule.AGREED).sentence)
    if newest is not None and newest > evidence.when.in_flight_us(policy.window_s):
        return _left(Rule.SETTLING)
    return None


def _merge(evidence: Case, policy: Policy) -> Decision:
    if evidence.respelled:
        return _left(Rule.SPELLING)
    suspects = zombie_suspects(evidence)
    if suspects is not None:
        return _zombie(evidence, policy, suspects)
    if evidence.table.is_counter:
        return _act(evidence, Rule.COUNTER)
    return _act(evidence, _rule(evidence))


def _zombie(evidence: Case, policy: Policy, suspects: frozenset[AtomName]) -> Decision:
    """Return what the operator asked for with rows whose delete may be purged elsewhere."""
    if policy.zombies is Zombies.QUARANTINE:
        return Decision(Rule.ZOMBIE, sentence=Rule.ZOMBIE.sentence, suspects=suspects)
    if policy.zombies is Zombies.PURGE:
        return _purge(evidence, suspects)
    if evidence.unread:
        # One that is not read may still know the delete: what comes back elsewhere would go again with it.
        return _left(Rule.WAITS, ", ".join(sorted(n.name for n in evidence.unread)))
    if evidence.reach.not_at_all and evidence.table.read_repair == "BLOCKING":
        # The servers' merge would tell whether a replica still knows the delete; a write-back stopped half-way may not.
        return _left(Rule.ZOMBIE, f"not restored: {evidence.reach.not_at_all}")
    return _act(evidence, Rule.ZOMBIE)


def _rule(evidence: Case) -> Rule:
    if any(state is None for state in evidence.states.values()):
        return Rule.LAST_WRITE
    if _has_newer(list(evidence.present.values())):
        return Rule.LAST_WRITE
    worst = max((c.decided_by for c in contests(evidence.states)), default=DecidedBy.NEWER)
    return {DecidedBy.TIE: Rule.TIE, DecidedBy.EXPIRY: Rule.EXPIRY}.get(worst, Rule.LAST_WRITE)


def _has_newer(states: Sequence[RowState]) -> bool:
    """Whether copies show different write times of a column: then the newest wins, whatever else differs."""
    first, *others = states
    return any(
        mine.writetimes != cell.writetimes
        for state in others
        for mine, cell in zip(first.cells, state.cells, strict=True)
    )


def _purge(evidence: Case, suspects: frozenset[AtomName]) -> Decision:
    """Purge only what a minority of all replicas holds, all of them read, and what can be named exactly."""
    if evidence.unread:
        return _left(Rule.ZOMBIE, "not purged: a replica that cannot be read may hold it too")
    copies = evidence.copies.values()
    if any(2 * sum(name in held for held in copies) > len(evidence.owners) for name in suspects):
        return _left(Rule.ZOMBIE, "not purged: most replicas hold it")
    timeless = any(held[name].writetime is None for held in copies for name in suspects if name in held)
    unnamed = not all(addressable(evidence.columns[place], path) for place, path in suspects)
    whole = deletes_row(evidence, suspects)
    if not suspects or timeless or evidence.table.is_counter or (unnamed and not whole):
        return Decision(
            Rule.ZOMBIE, sentence="its write time or cell cannot be named in CQL: delete it yourself", suspects=suspects
        )
    if refusal := _unreachable(evidence):
        return _left(Rule.ZOMBIE, f"not purged: {refusal}")
    times = times_of(suspected(evidence, suspects).values())
    way = writing(evidence, times, at_all=not evidence.reach.not_at_all)
    return Decision(Rule.ZOMBIE, Action.PURGE, Action.PURGE.sentence, way.at_all, suspects, way.refused)


def suspected(evidence: Case, suspects: Collection[AtomName]) -> dict[AtomName, Atom]:
    """Return the newest version of each suspect."""
    copies = evidence.copies
    return {name: atom for name, atom in winners(copies).items() if name in suspects}


def deletes_row(evidence: Evidence, suspects: frozenset[AtomName]) -> bool:
    """Whether a purge of the suspects is the delete of a row: nothing else is there, and others lack it."""
    return is_whole_row(evidence, suspects) and not evidence.name.static


def _act(evidence: Case, rule: Rule) -> Decision:
    """Prefer the servers' own merge, which knows the tombstones; else write cells back; else leave it."""
    way = merging(evidence)
    if _mergeable(evidence) and not way.refused:
        return Decision(rule, Action.RECONCILE, rule.sentence)
    if can_write_back(evidence) and not _unreachable(evidence):
        write = _writing_back(evidence)
        return Decision(rule, Action.WRITE_BACK, rule.sentence, write.at_all, refused=write.refused)
    if _mergeable(evidence):
        return Decision(rule, Action.RECONCILE, rule.sentence, refused=way.refused)
    return _left(Rule.OUT_OF_REACH, evidence.reach.not_at_all)


def kept_to(planned: Action, evidence: Case, decision: Decision) -> Decision:
    """Return a decision that keeps to the action of its plan where nothing but the servers' rules has changed since.

    Merged or written back, the newest of each cell wins: which of the two it is depends on what the servers allow. A
    merge that they forbid by now waits until they allow it; a write-back is carried out though they allow a merge.
    """
    if planned is Action.RECONCILE and decision.action is Action.WRITE_BACK and _mergeable(evidence):
        return replace(decision, action=planned, at_all=True, refused=merging(evidence).refused)
    if planned is Action.WRITE_BACK and decision.action is Action.RECONCILE and can_write_back(evidence):
        write = _writing_back(evidence)
        return replace(decision, action=planned, at_all=write.at_all, refused=write.refused)
    return decision


def _mergeable(evidence: Case) -> bool:
    """Whether a read at ALL makes the servers merge the row, and nothing that is not known."""
    # With a replica that was not read, the servers might merge that one too, and what it alone holds.
    return evidence.table.read_repair == "BLOCKING" and not evidence.unread and not evidence.reach.not_at_all


def _writing_back(evidence: Case) -> Way:
    at_all = not evidence.unread and not evidence.reach.not_at_all
    return writing(evidence, _lacking_times(evidence), at_all=at_all)


def _unreachable(evidence: Case) -> str:
    """Say why no write that all replicas acknowledge can be had; empty if one can.

    By QUORUM alone a cell that is covered by a tombstone cannot be told from one that has not arrived.
    """
    return "" if evidence.alone else evidence.reach.not_at_all


def _lacking_times(evidence: Case) -> list[int]:
    """Return the write times of the winning cells that some replica lacks."""
    won = winners(evidence.copies)
    return times_of(atom for held in evidence.copies.values() for atom in lacked(held, won).values())


def can_write_back(evidence: Case) -> bool:
    """Whether every cell can be written as it stands: time and expiry known, value as stored, cell addressable."""
    table = evidence.table
    if table.is_counter or not evidence.reading.capabilities.timed:
        return False
    if any(c.column.masked for c in evidence.columns):
        return False  # what we read may be the mask, not the value
    held = list(evidence.copies.values())
    bare = any(state is not None and not cells for state, cells in zip(evidence.states.values(), held, strict=True))
    if bare and any(state is None for state in evidence.states.values()):
        return False  # a row of keys alone, where another replica has none: its write time is not to be had
    differing = {n for cells in held for n, atom in cells.items() if any(other.get(n) != atom for other in held)}
    if not all(addressable(evidence.columns[place], path) for place, path in differing):
        return False
    return bool(differing) and all(cells[n].writetime is not None for cells in held for n in differing if n in cells)


def _left(rule: Rule, detail: str = "") -> Decision:
    return Decision(rule, sentence=f"{rule.sentence} ({detail})" if detail else rule.sentence)
