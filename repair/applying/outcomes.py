"""What comes of a row, why, how it adds up, and which exit code that is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from consistency.cluster.guardrails import Refusal
from consistency.model.reading import CellColumn
from consistency.results.verdict import ExitCode
from consistency.rows.evidence import Evidence
from repair.deciding.copies import Copies, copies, left_by_time
from repair.deciding.decide import Action, Decision, Rule
from repair.deciding.forecast import Change, change
from repair.deciding.stubborn import stubborn
from repair.keeping.entries import Account, Fate, Outcome, Result
from repair.keeping.planfile import PlannedRow

_SHADOWED = "a delete that a replica still knows of covers it there, so it was no zombie: plan with --zombies purge"


@dataclass
class Tally:
    """What came of the rows so far, with a reason for each that is not verified."""

    total: int
    account: Account = field(default_factory=Account)
    stopped_at: int | None = None
    """How many rows had vanished when the breaker stopped the run; None if it did not."""
    interrupted: bool = False
    out_of_time: bool = False
    left_out: int = 0
    """Rows of the findings that the plan says nothing of: what became of them is not known."""

    @property
    def results(self) -> Counter[Result]:
        """How many rows came to what."""
        return self.account.results

    @property
    def reasons(self) -> Counter[tuple[Result, str]]:
        """Why rows are not verified."""
        return self.account.reasons

    @property
    def changes(self) -> Counter[Change]:
        """What became of the rows, as far as every replica was read after."""
        return self.account.changes

    def add(self, result: Result, reason: str, change: Change | None = None) -> None:
        """Count one row."""
        self.account.add(result, reason, change)

    def take(self, account: Account) -> None:
        """Count the rows of a chunk."""
        self.account.add_all(account)

    def unread(self, reason: str, rows: int) -> None:
        """Count rows of a range that could not be read."""
        self.account.add(Result.UNKNOWN, reason, times=rows)

    @property
    def deleted(self) -> int:
        """How many rows that a replica held are on none of them any more."""
        return self.changes[Change.DELETED]

    @property
    def done(self) -> int:
        """How many rows have an outcome."""
        return self.account.rows


def untouched(row: PlannedRow) -> Result:
    """Return what comes of a row that nothing is done with."""
    decision = Decision(row.rule)
    if decision.done:
        return Result.VERIFIED
    return Result.WAITING if decision.unknown else Result.LEFT


def left_alone(row: PlannedRow, now: Evidence | None) -> Outcome:
    """Return the outcome of a row that nothing is done with; one that agreed must agree now."""
    result = untouched(row)
    if now is not None and now.unread:
        return Outcome(Result.UNKNOWN, next(iter(now.unread.values())))
    if now is not None and not now.agreed:
        return Outcome(Result.SKIPPED, "its replicas agreed when the plan was made, and differ now: check again")
    verified = result is Result.VERIFIED
    return Outcome(result, row.rule.sentence if verified else f"{row.rule.value}: {row.sentence}")


def settled(now: Evidence) -> Outcome | None:
    """Return the outcome of a row whose replicas agree after it was acted on; None if they do not, yet."""
    if now.agreed and not now.unread:
        return Outcome(Result.VERIFIED, "", copies(now))
    if now.agreed and len(now.states) >= now.quorum:
        nodes = ", ".join(sorted(node.name for node in now.unread))
        return Outcome(Result.WAITING, f"the replicas that can be read agree; not read: {nodes}", copies(now))
    return None


def failed(row: PlannedRow, before: Evidence, now: Evidence, refusal: Refusal | None) -> Outcome:
    """Return the outcome of a row whose replicas still do not agree; `refusal` is what a server did not do for it."""
    if len(now.states) < len(before.states) or (refusal and now.unread):
        reason = next(iter(now.unread.values()), "a replica that was read before is not read now")
        return Outcome(Result.UNKNOWN, refusal.text if refusal else reason, copies(now))
    if refusal is not None:
        return Outcome(Result.REFUSED, refused(refusal), copies(now))
    known = stubborn(before, now) if row.action is Action.RECONCILE else ""
    if row.rule is Rule.ZOMBIE and row.action is Action.RECONCILE:
        known = _SHADOWED
    return Outcome(Result.DIVERGENT, known or "the replicas still differ", copies(now))


def refused(refusal: Refusal) -> str:
    """Say what a server did not do, and what helps."""
    if refusal.passes:
        return f"{refusal.text}: resume tries again"
    return f"{refusal.text}; resume continues after that is fixed"


def proven(outcome: Outcome, columns: tuple[CellColumn, ...], before: Copies, fate: Fate, now_s: int) -> Outcome:
    """Say what is known of our writes, which replicas they changed, and what became of the row.

    What has expired by now, in seconds since the epoch, is nobody's work.
    """
    if outcome.after is None:
        return replace(outcome, fate=fate)
    before = left_by_time(before, outcome.after, now_s)
    changed = frozenset(h for h, state in outcome.after.items() if h in before and before[h] != state)
    became = change(columns, before, outcome.after)
    if fate is Fate.NONE and became is not Change.UNCHANGED:
        return replace(outcome, fate=fate)  # others did that
    return replace(outcome, fate=fate, changed=changed if fate is Fate.DONE else frozenset(), change=became)


def may_have_vanished(outcome: Outcome | None) -> bool:
    """Whether a row that was begun is gone, or may be; one that found no turn, or that we never wrote to, is not.

    Nor is one that has expired, or that was gone before.
    """
    if outcome is None or outcome.fate is Fate.NONE or outcome.change is Change.UNCHANGED:
        return False
    return outcome.after is None or all(state is None for state in outcome.after.values())


def has_stayed(outcome: Outcome | None) -> bool:
    """Whether a row that was acted on is proven to be there after: what a server refused proves nothing."""
    if outcome is None or outcome.fate is Fate.NONE or outcome.result is not Result.VERIFIED:
        return False
    return any(state is not None for state in (outcome.after or {}).values())


def exit_code(results: Iterable[Result], left_out: int = 0) -> ExitCode:
    """Return the command's exit code: what is left or differs weighs more than what is not known.

    `left_out` are rows that were found to differ and never planned: nothing is known of them.
    """
    found = set(results)
    wrong = found & {Result.LEFT, Result.SKIPPED, Result.DIVERGENT, Result.REFUSED, Result.NOT_UNDONE}
    return ExitCode.of(wrong=bool(wrong), unknown=bool(left_out or found & {Result.WAITING, Result.UNKNOWN}))
