"""What probably happened: groups findings by replica, write time and kind, and states each cause with its counts.

A sentence that guesses ends in a question. Thin evidence gives no sentence:

- a group of fewer than `FEWEST_ROWS` rows is ignored;
- a replica is named if it is behind in `MOSTLY` of the differing rows that it should hold, within the named time
  (or if `NEARLY_ALL` of these rows are all that some ranges hold);
- a time is named if at most `MOST_RUNS` periods contain `NEARLY_ALL` of a replica's rows;
- rows whose write times CQL does not show count for no time.

Shares are shares of the differing rows; digests do not tell how many rows were written in all at a time.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from consistency.model.cqltext import some_of, visible
from consistency.model.write_times import minute_text, window_text
from consistency.results.cause import Cause, CauseKind
from consistency.results.figures import counted
from consistency.results.findings import Finding, State
from consistency.results.kinds import Kind
from consistency.results.recency import newest_of
from consistency.results.timeline import EVERY_ROW, Moment, Timeline, runs
from consistency.results.unstreamed import Hollow, Owned, RangeCounts

FEWEST_ROWS = 20
MOSTLY = 0.8
NEARLY_ALL = 0.9
MOST_RUNS = 3
_ROWS_OF_DELETED = 5
"""Missing rows of each partition, on average, from which the delete of whole partitions is likely."""

_HOUR_US = 3_600_000_000
_GAPS_US = (_HOUR_US // 2, 6 * _HOUR_US)
_LONGEST_RUN_US = 7 * 24 * _HOUR_US
_TORN_US = _HOUR_US // 4
_NANOSECONDS = 10**17
"""Write times after this cannot be microseconds of our age: a client passed nanoseconds."""


_MOST_PARTITIONS = 10_000
"""Partitions with missing rows that are told apart for each replica; of more nothing is said."""
_MICROSECONDS = 10**14
"""Write times before this (the year 1973) cannot be microseconds of our age."""
_MILLISECONDS, _SECONDS = 10**11, 10**9
"""From these values on, such a time is one of our age in milliseconds, or in seconds."""
_TIMED = frozenset({Kind.MISSING, Kind.STALE, Kind.TIE, Kind.ZOMBIE_SUSPECT})
"""The kinds that missed writes explain."""


@dataclass(slots=True)
class _WrongUnits:
    """Rows whose newest write time is not in microseconds of our age, by the unit that it looks like."""

    rows: Counter[str] = field(default_factory=Counter)
    lowest: int = 0
    highest: int = 0

    def add(self, time: int) -> None:
        """Count a row."""
        self.lowest, self.highest = (min(self.lowest, time), max(self.highest, time)) if self.rows else (time, time)
        self.rows[_looks_like(time)] += 1

    def cause(self) -> Cause | None:
        """Return the cause that they suggest, or None for few rows."""
        total = self.rows.total()
        if total < FEWEST_ROWS:
            return None
        if self.lowest == self.highest:
            tells = f"one and the same write time, {self.lowest}: does a client set a constant"
        else:
            kinds = [f"{count:,} {kind}" for kind, count in self.rows.most_common()]
            tells = f"write times not in microseconds since 1970 ({', '.join(kinds)}): does a client set them itself"
        text = (
            f"{total:,} of the differing rows carry {tells} (USING TIMESTAMP, or the driver's timestamp generator)?"
            " A write or delete with the servers' own time wins over them, even if it came first"
        )
        return Cause(CauseKind.ODD_WRITE_TIMES, text, total)


def _looks_like(time: int) -> str:
    if time < 0:
        return "negative"
    if time >= _MILLISECONDS:
        return "in milliseconds"
    return "in seconds" if time >= _SECONDS else "small numbers"


class CauseCounter:
    """Counts findings as they come, in bounded memory; `causes` returns what they suggest.

    `tokens` are those of the ring, the ends of the ranges that nodes stream as a whole.
    """

    def __init__(self, tokens: Sequence[int] = ()) -> None:
        self._timeline = Timeline()
        self._ranges = RangeCounts(tokens)
        self._kinds: Counter[Kind] = Counter()
        self._should_hold: Counter[str] = Counter()
        self._behind: Counter[str] = Counter()
        self._missing: Counter[str] = Counter()
        self._partitions: dict[str, set[tuple[str, int]]] = defaultdict(set)
        self._alone: Counter[str] = Counter()
        self._lacks_of_one: Counter[str] = Counter()
        self._holders: dict[Kind, Counter[str]] = {Kind.ZOMBIE_SUSPECT: Counter(), Kind.NON_OWNER: Counter()}
        self._one_time = 0
        self._whole_ms = 0
        self._furthest_us = 0
        self._wrong_units = _WrongUnits()

    def add(self, finding: Finding) -> None:
        """Count one finding."""
        newest = newest_of(finding)
        if finding.kind in _TIMED and newest is not None and newest < _MICROSECONDS:
            self._wrong_units.add(newest)  # the wrong unit explains the row; its real write time is not known
            return
        self._kinds[finding.kind] += 1
        if finding.kind in (Kind.MISSING, Kind.STALE):
            self._count_behind(finding, newest)
        elif finding.kind in self._holders:
            held = (State.CURRENT, State.STALE)
            self._holders[finding.kind].update(n for n, view in finding.replicas.items() if view.state in held)
        elif finding.kind is Kind.TIE and newest is not None:
            self._one_time += 1
            self._whole_ms += newest % 1000 == 0
        elif finding.kind is Kind.FUTURE_WRITE_TIME and newest is not None:
            self._furthest_us = max(self._furthest_us, newest)

    def _count_behind(self, finding: Finding, newest: int | None) -> None:
        read: list[str] = []
        behind: list[str] = []
        for name, view in finding.replicas.items():
            if view.state is State.UNREADABLE:
                continue
            read.append(name)
            self._should_hold[name] += 1
            if view.state is not State.CURRENT:
                behind.append(name)
                self._behind[name] += 1
                if view.state is State.MISSING:
                    self._missing[name] += 1
                    self._count_missing(name, f"{finding.keyspace}.{finding.table}", finding.token)
        holders = [name for name in read if finding.replicas[name].state is not State.MISSING]
        if len(holders) == 1 and len(read) > 2:
            self._alone[holders[0]] += 1
            self._lacks_of_one.update(behind)
        if newest is not None:
            self._timeline.add(newest, read, behind)

    def _count_missing(self, name: str, table: str, token: int) -> None:
        self._ranges.add(name, table, token)
        partitions = self._partitions[name]
        if len(partitions) <= _MOST_PARTITIONS:
            partitions.add((table, token))

    def causes(self, owned: Owned | None = None) -> tuple[Cause, ...]:
        """Return what probably happened, most explained rows first; empty if the evidence is thin."""
        found = self._hollow_causes(self._ranges.hollow(owned or Owned()))
        explained = {name for cause in found for name in cause.replicas}
        if not explained:
            found += [cause for name in sorted(self._alone) if (cause := self._missed_deletes(name))]
        for name in sorted(self._behind):
            blamed = name in explained or self._lacks_of_one[name] >= NEARLY_ALL * self._behind[name]
            if not blamed and (cause := self._replica_cause(name)):
                found.append(cause)
        if not found and (torn := self._torn()):
            found.append(torn)
        others = (self._ties(), self._future(), self._zombies(), self._non_owners(), self._wrong_units.cause())
        found += [cause for cause in others if cause]
        return tuple(sorted(found, key=lambda cause: -cause.rows))

    # Ranges in which a replica holds nothing.

    def _hollow_causes(self, hollow: Sequence[Hollow]) -> list[Cause]:
        telling = [h for h in hollow if self._explains(h)]
        partial = [h for h in telling if not h.everywhere]
        out = [self._empty_cause(h) for h in telling if h.everywhere]
        if len(partial) == 1:
            out.append(self._joined_cause(partial[0]))
        elif partial:
            out.append(_raised_cause(partial))
        return out

    def _explains(self, hollow: Hollow) -> bool:
        return hollow.lacking >= FEWEST_ROWS and hollow.lacking >= NEARLY_ALL * self._behind[hollow.replica]

    def _empty_cause(self, hollow: Hollow) -> Cause:
        text = f"{visible(hollow.replica)} lacks {_of(hollow)} in all ranges that it owns: did it join without"
        text += " streaming (auto_bootstrap: false), or lose its data files"
        stretches = self._stretches(hollow.replica)
        if len(stretches) == 1:
            text += f", or was it down while they were written ({_written(stretches[0])})"
        text += self._or_deleted_whole(hollow.replica)
        return Cause(CauseKind.HOLDS_NOTHING, f"{text}?", hollow.lacking, (hollow.replica,))

    def _joined_cause(self, hollow: Hollow) -> Cause:
        where = f"{hollow.ranges:,} token range{'' if hollow.ranges == 1 else 's'}"
        text = (
            f"{visible(hollow.replica)} lacks {_of(hollow)} in {where}, and no others: did it gain these ranges without"
            f" streaming (auto_bootstrap: false, a move, a raised replication factor)"
            f"{self._or_deleted_whole(hollow.replica)}?"
        )
        return Cause(CauseKind.JOINED_WITHOUT_STREAMING, text, hollow.lacking, (hollow.replica,))

    # One replica that is behind.

    def _replica_cause(self, name: str) -> Cause | None:
        behind = self._behind[name]
        if behind < FEWEST_ROWS:
            return None
        stretches = self._stretches(name)
        told = [s for s in stretches if s.behind >= FEWEST_ROWS and s.behind >= MOSTLY * s.rows]
        if told and sum(s.behind for s in told) >= NEARLY_ALL * behind:
            return self._missed(name, told)
        return self._lagging(name) if behind >= MOSTLY * self._should_hold[name] else None

    def _stretches(self, name: str) -> list[Moment]:
        """Return the few periods that contain nearly all of a replica's rows, or none."""
        moments = self._timeline.moments(name)
        for gap_us in _GAPS_US:
            found = sorted(runs(moments, gap_us), key=lambda run: -run.behind)[:MOST_RUNS]
            short = all(run.last_us - run.first_us <= _LONGEST_RUN_US for run in found)
            if found and short and sum(run.behind for run in found) >= NEARLY_ALL * self._behind_of(name):
                return found
        return []

    def _behind_of(self, name: str) -> int:
        return self._kinds[Kind.MISSING] + self._kinds[Kind.STALE] if name == EVERY_ROW else self._behind[name]

    def _missed(self, name: str, stretches: Sequence[Moment]) -> Cause:
        behind, rows = sum(s.behind for s in stretches), sum(s.rows for s in stretches)
        others = self._behind[name] - behind
        when = " and ".join(
            window_text(first, last) for first, last in sorted((s.first_us, s.last_us) for s in stretches)
        )
        text = (
            f"{visible(name)} {self._verb(name)} {_share(behind, rows)} of the differing rows written {when}, and in"
            f" {f'{others:,}' if others else 'no'} others: was it down longer than the hint window (max_hint_window),"
            f" or without hints{self._or_deleted(name)}?"
        )
        return Cause(CauseKind.MISSED_WRITES, text, behind, (name,))

    def _verb(self, name: str) -> str:
        """Say how a replica differs, without a verdict on what it lacks: that may be the newest truth, a delete."""
        return "lacks what others hold in" if self._missing[name] else "is behind in"

    def _or_deleted(self, name: str) -> str:
        """Say that a delete looks the same; rows of few partitions may have gone with these."""
        if not self._missing[name]:
            return ""
        return self._or_deleted_whole(name) or ", or were the rows that it lacks deleted through it alone"

    def _or_deleted_whole(self, name: str) -> str:
        """Say that rows of few partitions may have been deleted with these; empty if they are of many."""
        missing, partitions = self._missing[name], len(self._partitions[name])
        if partitions > _MOST_PARTITIONS or missing < _ROWS_OF_DELETED * partitions:
            return ""
        of = counted(partitions, "partition")
        return f", or were the rows that it lacks, {missing:,} of {of}, deleted with these through it alone"

    def _missed_deletes(self, name: str) -> Cause | None:
        """Rows that only one replica holds: it may have missed their deletes, or all others lost them."""
        rows = self._alone[name]
        if rows < FEWEST_ROWS:
            return None
        text = (
            f"Only {visible(name)} holds {counted(rows, 'row')}, which the other replicas lack: were they deleted while"
            " it was down longer than the hint window, or did the others lose them?"
        )
        return Cause(CauseKind.MISSED_DELETES, text, rows, (name,))

    def _lagging(self, name: str) -> Cause:
        behind, rows = self._behind[name], self._should_hold[name]
        moments = [m for m in self._timeline.moments(name) if m.behind]
        span = ""
        if moments:
            whole = Moment()
            for moment in moments:
                whole.add(moment)
            span = f", written {_written(whole)} and at no one time"
        text = (
            f"{visible(name)} {self._verb(name)} {_share(behind, rows)} of the differing rows that it should hold"
            f"{span}: does it drop writes (nodetool tpstats), and does nodetool repair reach it"
            f"{self._or_deleted(name)}?"
        )
        return Cause(CauseKind.LAGGING_REPLICA, text, behind, (name,))

    def _torn(self) -> Cause | None:
        """Rows of one short period that no single replica misses."""
        total = self._behind_of(EVERY_ROW)
        stretches = self._stretches(EVERY_ROW)
        if total < FEWEST_ROWS or len(stretches) != 1 or stretches[0].last_us - stretches[0].first_us > _TORN_US:
            return None
        run = stretches[0]
        worst, most = max(self._behind.items(), key=lambda item: (item[1], item[0]))
        if most >= MOSTLY * self._should_hold[worst]:
            return None
        text = (
            f"{_share(run.behind, total)} of the differing rows were written {_written(run)}, and no one replica is"
            f" behind in most of them ({visible(worst)} in {most:,}): did one client write at consistency level ONE or"
            " ANY, or go on after timeouts?"
        )
        return Cause(CauseKind.TORN_WRITES, text, run.behind)

    # Kinds that are a cause by themselves.

    def _ties(self) -> Cause | None:
        count = self._one_time  # of a counter, and before 5.0 of a collection, no write time is told
        if count < FEWEST_ROWS:
            return None
        coarse = self._whole_ms >= NEARLY_ALL * count
        clock = f", {self._whole_ms:,} of them at a whole millisecond" if coarse else ""
        text = (
            f"{counted(count, 'row holds', 'rows hold')} different values with one write time{clock}: are there two"
            " writers without a shared clock that set write times themselves (USING"
            f" TIMESTAMP){', in milliseconds' if coarse else ''}?"
        )
        return Cause(CauseKind.TIED_CLOCKS, text, count)

    def _future(self) -> Cause | None:
        count = self._kinds[Kind.FUTURE_WRITE_TIME]
        if count < FEWEST_ROWS:
            return None
        some = counted(count, "row carries", "rows carry")
        if self._furthest_us > _NANOSECONDS:
            text = f"{some} write times beyond the year 5000: does a client pass nanoseconds?"
        else:
            until = minute_text(self._furthest_us)
            text = f"{some} write times in the future, up to {until}: is a client's clock wrong?"
        return Cause(CauseKind.FUTURE_CLOCK, text, count)

    def _zombies(self) -> Cause | None:
        found = self._top_holder(Kind.ZOMBIE_SUSPECT)
        if found is None:
            return None
        name, held, count = found
        text = (
            f"{visible(name)} holds {held:,} of {count:,} zombie suspects: was it down longer than gc_grace_seconds, or"
            " restored from an old copy, so that it missed their deletes?"
        )
        return Cause(CauseKind.OLD_COPY, text, held, (name,))

    def _non_owners(self) -> Cause | None:
        count = self._kinds[Kind.NON_OWNER]
        if count < FEWEST_ROWS:
            return None
        holders = tuple(name for name, _ in self._holders[Kind.NON_OWNER].most_common(MOST_RUNS))
        text = (
            f"{counted(count, 'row lies', 'rows lie')} on nodes that do not own them, most on {_names(holders[:1])}:"
            " was nodetool cleanup not run after a node joined or a replication factor was lowered?"
        )
        return Cause(CauseKind.NO_CLEANUP, text, count, holders)

    def _top_holder(self, kind: Kind) -> tuple[str, int, int] | None:
        """Return the replica that holds nearly all rows of a kind, how many it holds, and how many there are."""
        count = self._kinds[kind]
        if count < FEWEST_ROWS or not self._holders[kind]:
            return None
        name, held = self._holders[kind].most_common(1)[0]
        return (name, held, count) if held >= NEARLY_ALL * count else None


def _raised_cause(hollow: Sequence[Hollow]) -> Cause:
    names = tuple(h.replica for h in hollow)
    each = "; ".join(f"{_of(h)}" for h in hollow[:MOST_RUNS])
    text = (
        f"{_names(names)} lack nearly all rows of some ranges and none of others ({each}): was the replication factor"
        " raised without nodetool repair --full?"
    )
    return Cause(CauseKind.REPLICATION_RAISED, text, sum(h.lacking for h in hollow), names)


def _names(names: Sequence[str]) -> str:
    return some_of([visible(name) for name in names], MOST_RUNS)


def _of(hollow: Hollow) -> str:
    return f"{hollow.lacking:,} of about {counted(hollow.rows, 'row')}"


def _share(part: int, whole: int) -> str:
    """Return `98% (98 of 100)`, rounded down so that 100% means all."""
    return f"{100 * part // max(1, whole)}% ({part:,} of {whole:,})"


def _written(stretch: Moment) -> str:
    return window_text(stretch.first_us, stretch.last_us)
