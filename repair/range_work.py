"""A chunk under way: which of its rows are acted on and how, which are left, and what an earlier attempt has done."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from consistency.cluster.guardrails import Refusal
from consistency.cluster.port import Key
from consistency.model.tokens import TokenRange
from consistency.rows.names import RowRef
from repair.case import Case
from repair.chunk_lines import ChunkRow
from repair.chunks import Judged, is_simple
from repair.copies import copies
from repair.decide import Action, Decision, Rule
from repair.entries import Account, Entry, Outcome, Result
from repair.forecast import Change, most_held
from repair.outcomes import left_alone, refused
from repair.planfile import PlannedRow
from repair.still_right import Begun, Row, carried_over

BESIDE = (
    "a row of its partition is to be left alone, and merging its neighbours may take it along: plan again with"
    " --range-merge never"
)
AGREE = Outcome(Result.VERIFIED, "the replicas agree")


@dataclass
class Work:
    """The rows of a chunk by their place in it, those that are acted on, and what came of them.

    `left` counts the rows that have no place, as nothing is to be done with them; `young` are to be looked at again.
    No read of a range may touch the tokens in `around`.
    """

    number: int
    token_range: TokenRange
    page_rows: int
    rows: list[Row] = field(default_factory=list)
    begun: list[Begun] = field(default_factory=list)
    outcomes: dict[int, Outcome | Entry] = field(default_factory=dict)
    left: Account = field(default_factory=Account)
    young: list[PlannedRow] = field(default_factory=list)
    around: set[int] = field(default_factory=set)

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

    @property
    def intended(self) -> list[ChunkRow]:
        """The rows as the journal is to hold them before anything is done: each with its first pre-image."""
        cases = {begun.row.number: begun.case for begun in self.begun}
        return [
            ChunkRow(row.planned, Entry(row.entry.pre_image or copies(cases[row.number])))
            if row.number in cases
            else ChunkRow(row.planned, row.entry)
            for row in self.rows
        ]

    @property
    def ended(self) -> Sequence[Outcome | Entry | None]:
        """What came of each row, in the order of their places; None of one that found no turn."""
        return [self.outcomes.get(row.number) for row in self.rows]

    def account(self, before: Sequence[ChunkRow]) -> Account:
        """Add up what came of all rows, of which there were these copies before."""
        account = Account()
        account.add_all(self.left)
        for place, outcome in self.outcomes.items():
            if outcome.result is not None:
                account.add(outcome.result, outcome.reason, outcome.change)
            held = before[place].entry.before or {}
            account.vanished += outcome.change is Change.DELETED and most_held(held)
        return account


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


def _left(planned: PlannedRow) -> Outcome | None:
    """Return the outcome of a row that nothing is done with now; None of any other."""
    if planned.refused:
        return Outcome(Result.REFUSED, refused(Refusal(planned.refused)))
    return left_alone(planned, None) if planned.action is Action.NONE else None
