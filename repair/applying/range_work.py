"""A chunk under way: which of its rows are acted on and how, which are left, and what an earlier attempt has done."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from consistency.cluster.guardrails import Refusal
from consistency.cluster.packed_rows import PackedRow
from consistency.cluster.port import Key
from consistency.model.servertime import ServerTime
from consistency.model.tokens import TokenRange
from consistency.rows.names import RowRef
from consistency.rows.windows import KeyCells, RawCopies
from repair.applying.chunks import Judged, is_simple
from repair.applying.outcomes import has_stayed, left_alone, may_have_vanished, refused
from repair.applying.still_right import Begun, Row, carried_over
from repair.deciding.case import Case
from repair.deciding.copies import copies
from repair.deciding.decide import Action, Decision, Rule
from repair.deciding.forecast import Change, most_held
from repair.deciding.plain_rows import PlainRows
from repair.keeping.chunk_lines import AS_FORESEEN, ChunkRow, Ended
from repair.keeping.entries import Account, Entry, Fate, Outcome, Result
from repair.keeping.planfile import PlannedRow

BESIDE = (
    "a row of its partition is to be left alone, and merging its neighbours may take it along: plan again with"
    " --range-merge never"
)
AGREE = Outcome(Result.VERIFIED, "the replicas agree")


@dataclass(frozen=True, eq=False)
class Group:
    """The rows of one token that are acted on: those that are cases, and the places of the plain ones."""

    token: int
    begun: Sequence[Begun]
    plain: range

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return len(self.begun) + len(self.plain)


@dataclass
class Work:
    """The rows of a chunk by their place in it, those that are acted on, and what came of them.

    Plain rows have the places after `rows`; their evidence is of the instant `when`. `left` counts the rows that have
    no place, as nothing is to be done with them; `young` are to be looked at again. No read of a range may touch the
    tokens in `around`.
    """

    number: int
    token_range: TokenRange
    when: ServerTime
    page_rows: int
    rows: list[Row] = field(default_factory=list)
    begun: list[Begun] = field(default_factory=list)
    plain: PlainRows = field(default_factory=PlainRows.none)
    as_foreseen: set[int] = field(default_factory=set)
    """Places of plain rows that every replica holds as their merge was foreseen."""
    outcomes: dict[int, Outcome | Entry] = field(default_factory=dict)
    left: Account = field(default_factory=Account)
    young: list[PlannedRow] = field(default_factory=list)
    around: set[int] = field(default_factory=set)
    sent: set[int] = field(default_factory=set)
    """Tokens that a read at ALL was asked for: its rows may be merged, whatever was heard of it."""

    def sort(self, found: Iterable[Judged]) -> None:
        """Tell the rows that are acted on from those that are left, and from those that the servers refuse for now.

        Rows that have their place already, and that nothing was done with yet, keep it.
        """
        places = {key_of(row.planned.ref): row.number for row in self.rows if _is_untouched(row)}
        rows = list(found)
        self.around |= {judged.token for judged in rows if not is_simple(judged.decision)}
        for judged in rows:
            planned = planned_now(judged.case, judged.decision)
            place = places.pop(judged.case.name.key, None)
            outcome = _left(planned)
            if outcome is None and judged.token in self.around:
                outcome = Outcome(Result.LEFT, BESIDE)
            if place is None and outcome is not None:
                self._leave(planned, outcome)
                continue
            row = Row(len(self.rows) if place is None else place, planned, Entry())
            self.rows[row.number : row.number + 1] = [row]
            if outcome is None:
                self.begun.append(Begun(row, judged.case, judged.decision))
            else:
                self.outcomes[row.number] = outcome
        self.outcomes.update(dict.fromkeys(places.values(), AGREE))
        self.begun = self.without_around(self.begun, BESIDE)

    def take_plain(self, plain: PlainRows) -> None:
        """Take the plain rows of a chunk whose other rows are sorted; those beside a row that is left are left, too."""
        if self.around:
            beside = np.isin(plain.tokens, np.array(sorted(self.around), np.int64))
            if beside.any():
                self.left.add(Result.LEFT, BESIDE, times=int(beside.sum()))
                plain = plain.take(~beside)
        self.plain = plain

    def groups(self) -> list[Group]:
        """Return the rows that are acted on, by their tokens in ring order."""
        first = len(self.rows)
        begun: dict[int, list[Begun]] = defaultdict(list)
        for each in self.begun:
            begun[each.case.name.token].append(each)
        tokens, starts = np.unique(self.plain.tokens, return_index=True)
        ends = [*starts[1:].tolist(), len(self.plain)]
        spans = zip(tokens.tolist(), starts.tolist(), ends, strict=False)
        plain = {token: range(first + start, first + end) for token, start, end in spans}
        return [Group(at, begun.get(at, ()), plain.get(at, range(0))) for at in sorted(begun.keys() | plain.keys())]

    def without_around(self, begun: Sequence[Begun], reason: str) -> list[Begun]:
        """Return the rows that may be acted on; those of tokens that no read may touch are left, for this reason."""
        for each in begun:
            if each.case.name.token in self.around:
                left = Outcome(Result.LEFT, reason)
                self.outcomes[each.row.number] = carried_over(each.row.entry, each.case, left)
        return [each for each in begun if each.case.name.token not in self.around]

    def _leave(self, planned: PlannedRow, outcome: Outcome) -> None:
        if planned.rule is Rule.SETTLING:
            self.young.append(planned)
        else:
            self.left.add(outcome.result, outcome.reason)

    def leave_young(self, rows: Iterable[PlannedRow]) -> None:
        """Leave rows alone whose newest write may still be in flight."""
        for planned in rows:
            outcome = left_alone(planned, None)
            self.left.add(outcome.result, outcome.reason)

    def plain_without_around(self, places: Sequence[int], reason: str) -> list[int]:
        """Return the places of the plain rows that may be acted on; the others are left, for this reason."""
        left = Outcome(Result.LEFT, reason)
        self.outcomes.update({place: left for place in places if self.token_at(place) in self.around})
        return [place for place in places if self.token_at(place) not in self.around]

    def token_at(self, place: int) -> int:
        """Return the token of a plain row."""
        return int(self.plain.tokens[place - len(self.rows)])

    def key_at(self, place: int) -> KeyCells:
        """Return the key of a plain row."""
        return self.plain.keys[place - len(self.rows)]

    def copies_at(self, place: int) -> RawCopies:
        """Return the copies of a plain row as they were read."""
        return self.plain.copies[place - len(self.rows)]

    def foreseen_at(self, place: int, regulars: slice) -> PackedRow:
        """Return what every replica is to hold of a plain row once it is merged."""
        return self.plain.foreseen(place - len(self.rows), regulars)

    def fate_of(self, group: Group) -> tuple[int, int, int]:
        """Return of how many rows of a group a merge may leave nothing; how many may be gone; how many have stayed."""
        places = self.may_vanish(group)
        vanished = stayed = 0
        for place in places:
            outcome = self.outcomes.get(place)
            if isinstance(outcome, Outcome):
                vanished += may_have_vanished(outcome)
                stayed += has_stayed(outcome)
            elif place in self.as_foreseen:
                stayed += 1
            else:
                vanished += group.token in self.sent  # a failure kept us from looking
        return len(places), vanished, stayed

    def may_vanish(self, group: Group) -> list[int]:
        """Return the places of those rows that most replicas hold and that a merge may leave nothing of."""
        first = len(self.rows)
        plain = [place for place in group.plain if self.plain.may_vanish[place - first]]
        return [each.row.number for each in group.begun if each.risk.may_vanish] + plain

    @property
    def intended(self) -> list[ChunkRow]:
        """The rows but the plain ones as the journal is to hold them before anything is done: with their pre-image."""
        cases = {begun.row.number: begun.case for begun in self.begun}
        return [
            ChunkRow(row.planned, Entry(row.entry.pre_image or copies(cases[row.number])))
            if row.number in cases
            else ChunkRow(row.planned, row.entry)
            for row in self.rows
        ]

    @property
    def ended(self) -> Sequence[Ended]:
        """What came of each row, in the order of their places."""
        places = range(len(self.rows) + len(self.plain))
        return [AS_FORESEEN if place in self.as_foreseen else self.outcomes.get(place) for place in places]

    def account(self, before: Sequence[ChunkRow]) -> Account:
        """Add up what came of all rows; of those that are not plain there were these copies before."""
        account = Account()
        account.add_all(self.left)
        restored = sum(None in self.copies_at(place) for place in self.as_foreseen)
        for change, times in ((Change.RESTORED, restored), (Change.UPDATED, len(self.as_foreseen) - restored)):
            if times:
                account.add(Result.VERIFIED, "", change, times)
        for place, outcome in self.outcomes.items():
            if outcome.result is not None:
                account.add(outcome.result, outcome.reason, outcome.change)
            if _is_gone(outcome):
                account.vanished += self._most_held(place, before)
        return account

    def _most_held(self, place: int, before: Sequence[ChunkRow]) -> bool:
        if place < len(self.rows):
            return most_held(before[place].entry.before or {})
        held = self.copies_at(place)
        return 2 * sum(raw is not None for raw in held) > len(held)


def planned_now(case: Case, decision: Decision) -> PlannedRow:
    """Return what a plan would say of a row, but for the digests of its copies: these are in the journal."""
    table = case.table
    key_hex = {column.name: raw.hex() for column, raw in zip(table.primary_key, case.name.key, strict=True)}
    ref = RowRef(table.keyspace, table.name, case.name.token, key_hex)
    seen = {node.host_id: "" for node in case.states}
    return PlannedRow(ref, decision.rule, decision.action, decision.sentence, seen, refused=decision.refused)


def key_of(ref: RowRef) -> Key:
    """Return the serialized key of a row of a chunk."""
    return tuple(map(bytes.fromhex, ref.key_hex.values()))


def _is_untouched(row: Row) -> bool:
    return row.entry.open and row.entry.pre_image is None


def _is_gone(outcome: Outcome | Entry) -> bool:
    """Whether no replica holds a row any more for all we know, and we may have done that: also a killed run may."""
    if not outcome.after or outcome.fate is Fate.NONE or outcome.change is Change.UNCHANGED:
        return False
    return all(state is None for state in outcome.after.values())


def _left(planned: PlannedRow) -> Outcome | None:
    """Return the outcome of a row that nothing is done with now; None of any other."""
    if planned.refused:
        return Outcome(Result.REFUSED, refused(Refusal(planned.refused)))
    return left_alone(planned, None) if planned.action is Action.NONE else None
