"""What a journal knows of rows: what came of each and why, its copies before and after, what is known of our writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from repair.deciding.copies import Copies, copies_from_json, copies_json
from repair.deciding.forecast import Change

Place = tuple[int, int]
"""Where a line of the file begins, and its length in bytes."""


class Result(str, Enum):
    """What came of one row."""

    VERIFIED = "verified"
    LEFT = "left-alone"
    SKIPPED = "skipped"
    DIVERGENT = "still-divergent"
    WAITING = "waits-for-node"
    UNKNOWN = "unknown"
    REFUSED = "refused"
    UNDONE = "undone"
    NOT_UNDONE = "not-undone"
    UNCHANGED = "not-changed"


class Fate(str, Enum):
    """What is known of our writes to a row."""

    NONE = "none"
    """Nothing was sent, or what was sent was refused before anything was done."""
    DONE = "done"
    """What was sent was acknowledged; what was not acknowledged was surely not done."""
    UNKNOWN = "unknown"
    """Something was sent of which it is not known whether it was done."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a row and why, the copies after it, and what is known of our writes to it."""

    result: Result
    reason: str = ""
    after: Copies | None = None
    fate: Fate = Fate.NONE
    changed: frozenset[str] = frozenset()
    """The host ids of the replicas whose copies our writes changed, proven by reading them after."""
    change: Change | None = None
    """What became of the row; None if that is not known."""


@dataclass
class Account:
    """What came of some rows, counted, with a reason for each that is not verified."""

    results: Counter[Result] = field(default_factory=Counter)
    reasons: Counter[tuple[Result, str]] = field(default_factory=Counter)
    changes: Counter[Change] = field(default_factory=Counter)
    vanished: int = 0
    """How many rows that most replicas held are gone: what the breaker counts."""

    def add(self, result: Result, reason: str, change: Change | None = None, times: int = 1) -> None:
        """Count rows."""
        self.results[result] += times
        if result is not Result.VERIFIED:
            self.reasons[result, reason] += times
        if change is not None:
            self.changes[change] += times

    def add_all(self, other: Account) -> None:
        """Count the rows of another account."""
        self.results.update(other.results)
        self.reasons.update(other.reasons)
        self.changes.update(other.changes)
        self.vanished += other.vanished

    @property
    def rows(self) -> int:
        """How many rows have an outcome."""
        return sum(self.results.values())

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "results": {result.value: count for result, count in self.results.items()},
            "reasons": [[result.value, reason, count] for (result, reason), count in self.reasons.items()],
            "changes": {change.value: count for change, count in self.changes.items()},
            "vanished": self.vanished,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Account:
        """Read the JSON form; KeyError, ValueError or TypeError if it is not valid."""
        return cls(
            Counter({Result(name): int(count) for name, count in data["results"].items()}),
            Counter({(Result(name), str(reason)): int(count) for name, reason, count in data["reasons"]}),
            Counter({Change(name): int(count) for name, count in data["changes"].items()}),
            int(data["vanished"]),
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """What the journal knows of one row: pre-image once acted on, outcome once verified, copies after it."""

    before: Copies | None = None
    result: Result | None = None
    reason: str = ""
    after: Copies | None = None
    by_us: int | None = None
    """When that was seen, by the most advanced of the servers' clocks: no server had stamped a later write by then."""
    undoing_us: int | None = None
    """The write time of an undo that was begun."""
    undo: Result | None = None
    undo_reason: str = ""
    fate: Fate | None = None
    """None while a row is under way, and in journals that do not tell."""
    changed: frozenset[str] = frozenset()
    change: Change | None = None

    @property
    def open(self) -> bool:
        """Whether resume goes on with the row: it has no end yet, or one that was a refusal or is not known."""
        return self.result in (None, Result.REFUSED, Result.UNKNOWN) and self.undoing_us is None

    @property
    def pre_image(self) -> Copies | None:
        """The copies before our writes; None if none of ours can have reached the row."""
        return None if self.fate is Fate.NONE else self.before


def outcome_json(outcome: Outcome, by_us: int | None = None) -> dict[str, Any]:
    """Return an outcome as a journal keeps it, with the instant by which it was seen."""
    data: dict[str, Any] = {"result": outcome.result.value, "reason": outcome.reason}
    data |= {"fate": outcome.fate.value, "changed": sorted(outcome.changed)}
    if outcome.after is not None:
        data["after"] = copies_json(outcome.after)
    if outcome.change is not None:
        data["change"] = outcome.change.value
    if by_us is not None:
        data["by"] = by_us
    return data


def ended(before: Copies | None, data: Mapping[str, Any]) -> Entry:
    """Return what is known of a row that had these copies, once it has the outcome that `outcome_json` wrote."""
    return Entry(
        before,
        Result(data["result"]),
        str(data["reason"]),
        copies_from_json(data["after"]) if "after" in data else None,
        int(data["by"]) if "by" in data else None,
        fate=Fate(data["fate"]) if "fate" in data else None,
        changed=frozenset(map(str, data.get("changed", ()))),
        change=Change(data["change"]) if "change" in data else None,
    )
