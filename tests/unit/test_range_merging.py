"""Ranges that are merged as ranges: around what is to be left, stopped before too much vanishes, resumed and undone."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from consistency.cluster.guardrails import Guardrails
from consistency.cluster.wire import ALL
from consistency.errors import TooMuchToScan, UsageError
from consistency.model.reading import Capabilities
from consistency.model.ring import MURMUR3, Replication, Ring
from consistency.model.tokens import MAX_TOKEN, MIN_TOKEN, TokenRange
from consistency.results.kinds import Kind
from consistency.results.range_findings import RangeFinding, RangeView
from repair.applying import range_merging, range_work
from repair.applying.actions import Actor
from repair.applying.applier import Applier
from repair.applying.chunks import Limits
from repair.applying.guard import Guard
from repair.applying.outcomes import Tally
from repair.applying.pace import ApplyOptions, Pace
from repair.deciding.case import CaseReader
from repair.deciding.forecast import Change
from repair.deciding.policy import Policy
from repair.keeping.chain import chained
from repair.keeping.entries import Fate, Result
from repair.keeping.planfile import Plan
from repair.keeping.record import Record, parse_journal
from repair.undoing.undo import Undoer, preview
from tests.simulation.memory import Fault, SimCluster, Trouble
from tests.simulation.repair_laws import Shown, shown
from tests.simulation.repair_servers import Refusals, SimWriter, Trick
from tests.simulation.repairing import MemoryJournal, planned_on
from tests.simulation.storage import Delete, Stored, Write, token_of
from tests.simulation.values import int_bytes, keyspace, make_table
from tests.simulation.vclock import EPOCH_S, SimClock, VirtualLoop, run_virtual
from tests.unit.test_repair_applying import NODES

TABLE = make_table("t", ["int"], ["int"], regulars=["int", "int"], gc_grace_seconds=86_400)
HOUR_AGO_US, WEEK_AGO_US = (EPOCH_S - 3_600) * 1_000_000, (EPOCH_S - 7 * 86_400) * 1_000_000
PARTITIONS = sorted(range(20), key=lambda p: token_of((int_bytes(p),)))
"""In ring order."""


class Stage:
    """Three nodes, RF 3, twenty partitions of two rows that all hold, and a plan of the whole ring as ranges."""

    def __init__(self, faults: tuple[Fault, ...] = (), limits: Limits | None = None) -> None:
        self.loop = VirtualLoop()
        schema = {"ks": keyspace("ks", Replication("NetworkTopologyStrategy", (("dc1", 3),)), [TABLE])}
        ring = Ring("simulated", MURMUR3, NODES)
        self.cluster = SimCluster(self.loop, ring, schema, Capabilities(), random.Random(1), faults=faults)
        self.clock = SimClock(self.loop)
        self.writer = SimWriter(self.cluster, self.loop, TABLE, faults)
        self.limits = limits
        for p in PARTITIONS:
            for c in (0, 1):
                self.write(p, c, 7, HOUR_AGO_US - 10_000_000)

    def write(self, p: int, c: int, value: int, at_us: int, on: tuple[int, ...] = (1, 2, 3)) -> None:
        """Insert a row on some nodes."""
        cells = (("v0", None, int_bytes(value)),)
        written = Write((int_bytes(p),), (int_bytes(c),), at_us, cells, insert=True)
        self.cluster.apply(TABLE, written, [NODES[n - 1] for n in on])

    def delete(self, p: int, at_us: int, on: tuple[int, ...]) -> None:
        """Delete a partition on some nodes."""
        self.cluster.apply(TABLE, Delete((int_bytes(p),), at_us), [NODES[n - 1] for n in on])

    def stale(self, *partitions: int) -> None:
        """Have a newer version of the first row of partitions on node 1 alone."""
        for p in partitions:
            self.write(p, 0, 8, HOUR_AGO_US, (1,))

    def held(self, p: int, c: int = 0) -> list[int | None]:
        """Return the row's value on each node, None where a node shows no row."""
        now_s = EPOCH_S + int(self.loop.now)
        row = ("t", (int_bytes(p),), (int_bytes(c),))
        return [_value(shown(self.cluster.store(node, TABLE), row, now_s)) for node in NODES]

    async def plan(self) -> Plan:
        """Plan the ring as ranges."""
        self.evidence = await CaseReader.open(self.cluster, self.clock)
        views = {node.name: RangeView(host_id=node.host_id) for node in NODES}
        ends = [MIN_TOKEN, *(n.tokens[0] for n in NODES), MAX_TOKEN]
        ranges = [TokenRange(*pair) for pair in pairwise(ends)]
        found = tuple(RangeFinding("ks", "t", each, {Kind.STALE: 5}, views) for each in ranges)
        plan = await planned_on(self.cluster, TABLE, Policy(), ())
        return replace(plan, ranges=found)

    async def apply(self, plan: Plan, journal: MemoryJournal, max_deletes: int | None = None) -> Tally:
        """Apply, or go on, as the commands do."""
        guard = Guard(plan, self.cluster, self.writer, self.clock)
        actor = Actor(self.cluster, self.writer)
        applier = Applier(plan, self.evidence, actor, guard, self.clock, journal, self.limits)  # type: ignore[arg-type]
        options = ApplyOptions(None, max_deletes=max_deletes)
        return await applier.run(journal.record(), options, asyncio.Event(), lambda _: None)

    async def undo(self, journal: MemoryJournal) -> Tally:
        """Undo, as the command does."""
        record = journal.record()
        guard = Guard(record.plan, self.cluster, self.writer, self.clock)
        undoer = Undoer(await CaseReader.open(self.cluster, self.clock), self.writer, guard, self.clock)
        return await undoer.run(record, journal, Pace(self.clock, None), asyncio.Event(), lambda _: None)  # type: ignore[arg-type]

    def played(self, play: Callable[[Plan, MemoryJournal], Awaitable[None]]) -> None:
        """Plan, and run a play on virtual time."""

        async def main() -> None:
            plan = await self.plan()
            await play(plan, MemoryJournal(plan, random.Random(1)))

        run_virtual(self.loop, main())


def _value(row: Shown) -> int | None:
    cell: Stored | None = None if row is None else row.get(("v0", None))
    return None if cell is None else int.from_bytes(cell.value or b"", "big")


def _is_of(p: int, tokens: set[int]) -> bool:
    return token_of((int_bytes(p),)) in tokens


def touched(stage: Stage, p: int) -> bool:
    """Whether a read of a range at ALL has merged a partition."""
    return any(token_of((int_bytes(p),)) in each for each in stage.writer.ranges_read)


def results(tally: Tally) -> dict[Result, int]:
    """Return the counts that are not zero."""
    return {result: count for result, count in tally.results.items() if count}


def test_ranges_are_merged_around_what_is_to_be_left() -> None:
    """A zombie and a future write stay as they are, and with them their neighbours: no read touches their tokens."""
    stage = Stage()
    stage.stale(*PARTITIONS)
    zombie, future = PARTITIONS[6], PARTITIONS[9]
    stage.write(zombie, 5, 3, WEEK_AGO_US, (2,))
    stage.write(future, 6, 4, (EPOCH_S + 7_200) * 1_000_000, (3,))

    async def play(plan: Plan, journal: MemoryJournal) -> None:
        tally = await stage.apply(plan, journal)
        assert results(tally) == {Result.VERIFIED: 18, Result.LEFT: 4}
        assert tally.total == 22
        why = {"zombie-suspect", "future-write-time", range_work.BESIDE.partition(":")[0]}
        assert {reason.partition(":")[0] for _, reason in tally.reasons} == why
        assert stage.held(zombie, 5) == [None, 3, None]
        assert stage.held(future, 6) == [None, None, 4]
        assert all(stage.held(p) == [8, 7, 7] for p in (zombie, future))
        assert all(stage.held(p) == [8, 8, 8] for p in PARTITIONS if p not in (zombie, future))
        assert [touched(stage, p) for p in PARTITIONS] == [p not in (zombie, future) for p in PARTITIONS]
        assert journal.record().complete

    stage.played(play)


def test_a_row_of_an_allowed_zombie_is_not_brought_back_by_a_range() -> None:
    """What the policy allows is for rows that the plan names: a range restores and purges nothing."""
    stage = Stage()
    stage.write(3, 5, 3, WEEK_AGO_US, (2,))

    async def play(plan: Plan, journal: MemoryJournal) -> None:
        del journal
        for zombies in ("restore", "purge"):
            policy = Policy.from_json({**Policy().as_json(), "zombies": zombies})
            made = replace(plan, policy=policy)
            tally = await stage.apply(made, MemoryJournal(made, random.Random(1)))
            assert results(tally) == {Result.LEFT: 1}
            ((_, reason),) = tally.reasons
            assert reason.startswith("zombie-suspect: ")
            assert stage.held(3, 5) == [None, 3, None]

    stage.played(play)


def test_a_write_that_may_be_in_flight_is_left() -> None:
    """A row written a moment ago that differs is left; one that has arrived by the second look does not count."""
    stage = Stage()
    young_us = EPOCH_S * 1_000_000 - 1_000
    stage.write(3, 0, 9, young_us, (1,))
    stage.write(4, 0, 9, young_us, (1,))

    async def play(plan: Plan, journal: MemoryJournal) -> None:
        read_many = stage.evidence.read_many

        async def arrives(refs: Any) -> Any:
            if any(int_bytes(4).hex() in ref.key_hex.values() for ref in refs):
                stage.write(4, 0, 9, young_us)
            return await read_many(refs)

        stage.evidence.read_many = arrives  # type: ignore[method-assign]
        tally = await stage.apply(plan, journal)
        assert results(tally) == {Result.LEFT: 1}
        assert "settling" in next(iter(tally.reasons))[1]
        assert stage.held(3) == [9, 7, 7]
        assert not stage.writer.ranges_read

    stage.played(play)


def test_what_a_merge_leaves_of_a_row_is_read_and_not_foreseen() -> None:
    """A cell that a replica knows to be deleted goes everywhere, and a cell beside it stays: that is told as it is."""
    stage = Stage()
    stage.stale(PARTITIONS[1])
    for p in PARTITIONS[:1]:
        with_two = (("v0", None, int_bytes(7)), ("v1", None, int_bytes(6)))
        stage.cluster.apply(TABLE, Write((int_bytes(p),), (int_bytes(0),), HOUR_AGO_US, with_two), NODES)
        deleted = Write((int_bytes(p),), (int_bytes(0),), HOUR_AGO_US + 1, (("v1", None, None),))
        stage.cluster.apply(TABLE, deleted, NODES[:1])

    async def play(plan: Plan, journal: MemoryJournal) -> None:
        tally = await stage.apply(plan, journal)
        assert results(tally) == {Result.VERIFIED: 2}
        assert {change: n for change, n in tally.changes.items() if n} == {Change.CELLS_DELETED: 1, Change.UPDATED: 1}
        undone = await stage.undo(journal)
        assert undone.results[Result.UNDONE] == 2

    stage.played(play)


def test_a_write_between_reading_and_merging_survives() -> None:
    """Of old evidence the rows are read again: what has changed is skipped, untouched, and has no read over it."""
    stage = Stage()
    stage.stale(*PARTITIONS)
    late = PARTITIONS[5]
    stage.write(late, 1, 8, HOUR_AGO_US, (1,))

    async def play(plan: Plan, journal: MemoryJournal) -> None:
        keep = journal.note

        async def slow(data: Mapping[str, Any]) -> None:
            await keep(data)
            if "merging" in data and stage.held(late) == [8, 7, 7]:
                await asyncio.sleep(3.0)
                stage.write(late, 0, 9, stage.clock.now_us(), (2,))

        journal.note = slow  # type: ignore[method-assign]
        tally = await stage.apply(plan, journal)
        assert results(tally) == {Result.VERIFIED: 19, Result.SKIPPED: 1, Result.LEFT: 1}
        assert stage.held(late) == [8, 9, 7]
        assert stage.held(late, 1) == [8, 7, 7]
        assert not touched(stage, late)
        undone = await stage.undo(journal)
        assert undone.results[Result.UNDONE] == 19
        assert stage.held(late) == [8, 9, 7]

    stage.played(play)


def test_a_deleted_partition_opens_the_breaker() -> None:
    """Rows that most replicas hold vanish with a delete in the middle: no more than may, and none after these."""
    stage = Stage()
    stage.stale(*PARTITIONS)
    for p in PARTITIONS[4:8]:
        stage.delete(p, HOUR_AGO_US + 1, (3,))

    async def play(plan: Plan, journal: MemoryJournal) -> None:
        tally = await stage.apply(plan, journal, max_deletes=2)
        assert tally.stopped_at is not None
        gone = [p for p in PARTITIONS if stage.held(p) == [None, None, None]]
        assert len(gone) == 1
        assert tally.changes[Change.DELETED] == 2
        record = journal.record()
        assert record.open_ranges
        assert not record.complete
        again = await stage.apply(plan, journal, max_deletes=100)
        assert again.changes[Change.DELETED] == 8
        assert journal.record().complete
        assert all(stage.held(p) == [None, None, None] for p in PARTITIONS[4:8])

    stage.played(play)


def test_none_may_vanish_where_none_is_allowed() -> None:
    """With no row that may vanish, a row that one replica lacks is not merged at all."""
    stage = Stage()
    stage.delete(4, HOUR_AGO_US + 1, (3,))

    async def play(plan: Plan, journal: MemoryJournal) -> None:
        tally = await stage.apply(plan, journal, max_deletes=0)
        assert tally.stopped_at == 0
        assert stage.held(4) == [7, 7, None]

    stage.played(play)


@pytest.mark.parametrize("kill_ms", range(1, 40, 2))
def test_a_killed_run_is_gone_on_with(kill_ms: int) -> None:
    """Killed at any moment: resume brings every row to its end, the first pre-image is kept, and undo is exact."""
    stage = Stage(limits=Limits(rows=6))
    stage.stale(*PARTITIONS)
    stage.write(PARTITIONS[3], 5, 3, WEEK_AGO_US, (2,))

    async def play(plan: Plan, journal: MemoryJournal) -> None:
        task = asyncio.create_task(stage.apply(plan, journal))
        await asyncio.wait({task}, timeout=kill_ms / 1_000)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        tally = await stage.apply(plan, journal)
        assert results(tally) == {Result.VERIFIED: 19, Result.LEFT: 2}
        record = journal.record()
        assert record.complete
        rows = [row for _, some in record.unpacked() for row in some]
        assert len(rows) == 19
        for row in rows:
            assert len(set((row.entry.before or {}).values())) == 2, "not its first pre-image"
        known = sum(row.entry.fate is Fate.DONE for row in rows)
        undone = await stage.undo(journal)
        assert undone.results[Result.UNDONE] == known
        assert sum(stage.held(p) == [7, 7, 7] for p in PARTITIONS) == known
        assert sum(stage.held(p) == [8, 8, 8] for p in PARTITIONS) == 19 - known
        assert stage.held(PARTITIONS[3]) == [8, 7, 7]
        assert known >= 8

    stage.played(play)


def test_what_a_killed_run_has_half_done_is_not_known_to_be_ours() -> None:
    """A row that changed between intent and resume is merged to its end, keeps its first copies, and is not undone."""
    stage = Stage()
    stage.stale(*PARTITIONS)

    async def play(plan: Plan, journal: MemoryJournal) -> None:
        keep, killed = journal.note, asyncio.Event()

        async def dies(data: Mapping[str, Any]) -> None:
            await keep(data)
            if "merging" in data and not killed.is_set():
                killed.set()
                await asyncio.sleep(1_000.0)

        journal.note = dies  # type: ignore[method-assign]
        task = asyncio.create_task(stage.apply(plan, journal))
        await killed.wait()
        await asyncio.sleep(1.0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        unended = [row for _, some in journal.record().unpacked() for row in some if row.entry.result is None]
        halfway = next(p for p in PARTITIONS if _is_of(p, {row.planned.ref.token for row in unended}))
        stage.write(halfway, 0, 8, HOUR_AGO_US, (2,))
        assert results(await stage.apply(plan, journal)) == {Result.VERIFIED: 20}
        rows = [row for _, some in journal.record().unpacked() for row in some]
        (row,) = (row for row in rows if _is_of(halfway, {row.planned.ref.token}))
        before = {node.name: (row.entry.before or {})[node.host_id] for node in NODES}
        assert before[NODES[1].name] == before[NODES[2].name] != before[NODES[0].name]
        assert row.entry.fate is Fate.UNKNOWN
        tally = await stage.undo(journal)
        assert stage.held(halfway) == [8, 8, 8]
        assert tally.results[Result.NOT_UNDONE] >= 1

    stage.played(play)


def test_what_was_merged_is_taken_back() -> None:
    """Undo writes what most replicas held, row by row; what was written since stays, a second undo says so again."""
    stage = Stage(limits=Limits(rows=3))
    stage.stale(*PARTITIONS)
    stage.write(PARTITIONS[2], 5, 3, HOUR_AGO_US, (2, 3))

    async def play(plan: Plan, journal: MemoryJournal) -> None:
        await stage.apply(plan, journal)
        assert stage.held(PARTITIONS[2], 5) == [3, 3, 3]
        stage.write(PARTITIONS[0], 0, 9, stage.clock.now_us())
        assert sum(preview(journal.record()).values()) == 21
        tally = await stage.undo(journal)
        assert results(tally) == {Result.UNDONE: 20, Result.NOT_UNDONE: 1}
        assert stage.held(PARTITIONS[0]) == [9, 9, 9]
        assert all(stage.held(p) == [7, 7, 7] for p in PARTITIONS[1:])
        assert stage.held(PARTITIONS[2], 5) == [3, 3, 3]
        again = await stage.undo(journal)
        assert (again.total, results(again)) == (1, {Result.NOT_UNDONE: 1})
        assert journal.record().results == {Result.VERIFIED: 21}

    stage.played(play)


@pytest.mark.parametrize("trick", list(Trick))
def test_a_refused_read_is_tried_again_by_resume(trick: Trick) -> None:
    """What a server failed of a range read is refused or unknown, named, and done by the next run."""
    stage = Stage()
    stage.stale(*PARTITIONS)

    async def play(plan: Plan, journal: MemoryJournal) -> None:
        stage.writer.refusals = Refusals(rate=1.0, trick=trick)
        tally = await stage.apply(plan, journal)
        assert set(results(tally)) <= {Result.REFUSED, Result.VERIFIED}
        assert sum(tally.results.values()) == 20
        refused = [row.entry for _, some in journal.record().unpacked() for row in some]
        assert {entry.fate for entry in refused} == {Fate.NONE if trick is Trick.FORBIDDEN else Fate.UNKNOWN}
        stage.writer.refusals = Refusals()
        assert results(await stage.apply(plan, journal)) == {Result.VERIFIED: 20}
        assert all(stage.held(p) == [8, 8, 8] for p in PARTITIONS)

    stage.played(play)


def test_reads_at_all_that_are_forbidden_since_the_plan_are_refused_by_name() -> None:
    """Nothing is done as long as a guardrail forbids ALL; resume goes on once it is lifted."""
    stage = Stage()
    stage.stale(*PARTITIONS)
    stage.cluster.guarded = dict.fromkeys(NODES, Guardrails(reads={ALL: "reads at ALL are forbidden"}))

    async def play(plan: Plan, journal: MemoryJournal) -> None:
        tally = await stage.apply(plan, journal)
        assert results(tally) == {Result.REFUSED: 20}
        assert "reads at ALL are forbidden" in next(iter(tally.reasons))[1]
        assert not stage.writer.ranges_read
        stage.cluster.guarded = {}
        stage.evidence = await CaseReader.open(stage.cluster, stage.clock)
        assert results(await stage.apply(plan, journal)) == {Result.VERIFIED: 20}

    stage.played(play)


def test_a_replica_that_cannot_be_read_leaves_its_range_open() -> None:
    """What is left of a range is unknown, not done; once the node answers, resume goes on with it."""
    stage = Stage(faults=(Fault(Trouble.DOWN, NODES[1], 0.0, 50.0),))
    stage.stale(*PARTITIONS)

    async def play(plan: Plan, journal: MemoryJournal) -> None:
        tally = await stage.apply(plan, journal)
        assert set(results(tally)) == {Result.UNKNOWN}
        assert all("could not be read" in reason for _, reason in tally.reasons)
        assert len(journal.record().open_ranges) == 4
        assert not journal.record().complete
        await asyncio.sleep(60.0)
        assert results(await stage.apply(plan, journal)) == {Result.VERIFIED: 20}

    stage.played(play)


def test_a_partition_of_too_many_rows_is_left_and_named() -> None:
    """Rows that cannot be kept in memory together are counted, and the operator is told what merges them."""
    stage = Stage(limits=Limits(of_token=4))
    stage.stale(*PARTITIONS)
    for c in range(10, 20):
        stage.write(PARTITIONS[5], c, 3, HOUR_AGO_US, (2, 3))

    async def play(plan: Plan, journal: MemoryJournal) -> None:
        tally = await stage.apply(plan, journal)
        assert results(tally) == {Result.VERIFIED: 19, Result.LEFT: 11}
        assert any(range_merging.TOO_MANY in reason for _, reason in tally.reasons)
        assert stage.held(PARTITIONS[5], 12) == [None, 3, 3]

    stage.played(play)


@pytest.mark.parametrize("plain", [True, False])
def test_damaged_rows_of_a_chunk_are_told(*, plain: bool) -> None:
    """A journal whose packed rows were changed is not undone by halves: it says that nothing of it can be trusted."""
    stage = Stage()
    for p in PARTITIONS:
        # Another value with the same write time is no plain row.
        stage.write(p, 0, 8, HOUR_AGO_US if plain else HOUR_AGO_US - 10_000_000, (1,))

    async def play(planned: Plan, journal: MemoryJournal) -> None:
        await stage.apply(planned, journal)
        at = journal.raw.index(b'"rows":"', journal.raw.index(b'"plain"' if plain else b'"merging"')) + 30
        raw = journal.raw[:at] + b"AAAAAAAAAAAA" + journal.raw[at + 12 :]
        with pytest.raises(UsageError, match="line 2 is damaged"):
            parse_journal(raw, "journal")
        # One of an earlier version has no checksums, and is believed until its rows are unpacked.
        record = parse_journal(raw.replace(b'{"schema":3', b'{"schema":2', 1), "journal")
        with pytest.raises(UsageError, match="damaged"):
            list(record.unpacked())

    stage.played(play)


def test_a_journal_is_read_without_its_rows() -> None:
    """What is kept of a chunk does not grow with its rows; lines about ranges that the plan has not are damage."""
    stage = Stage()
    stage.stale(*PARTITIONS)

    async def play(plan: Plan, journal: MemoryJournal) -> None:
        await stage.apply(plan, journal)
        record: Record = journal.record()
        assert not record.entries
        assert sum(chunk.acted for chunk in record.chunks.values()) == 20
        assert record.check is not None
        line, _ = chained(b'{"merged":9,"start":1,"end":2,"account":{},"waiting":0,"rows":""}\n', record.check)
        foreign = journal.raw + line
        with pytest.raises(UsageError, match="is damaged"):
            parse_journal(foreign, "journal")

    stage.played(play)


def test_a_read_that_is_too_much_is_asked_for_again_in_smaller_pages() -> None:
    """A server that cannot bear a page of a range gets a quarter of it, down to a row."""
    stage = Stage()
    stage.stale(*PARTITIONS)
    pages: list[int | None] = []

    async def play(plan: Plan, journal: MemoryJournal) -> None:
        through = stage.writer.through

        async def picky(node: Any, write: Any, *, at_all: bool) -> None:
            pages.append(write.page_rows)
            if write.page_rows is not None and write.page_rows > 1:
                msg = "too much"
                raise TooMuchToScan(msg)
            await through(node, write, at_all=at_all)

        stage.writer.through = picky  # type: ignore[method-assign]
        assert results(await stage.apply(plan, journal)) == {Result.VERIFIED: 20}
        assert 1 in pages

    stage.played(play)
