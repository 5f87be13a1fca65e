"""What bounds a merge of ranges: how much may vanish whatever fails meanwhile, and how much is kept in memory."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from consistency.errors import InternalError, ReplicaUnavailable
from consistency.model.tokens import MAX_TOKEN, MIN_TOKEN, TokenRange
from repair.applying import applier as applying
from repair.applying import pace, range_merging
from repair.applying.chunks import ChunkReader, Limits
from repair.applying.guard import PlanRefused
from repair.keeping.entries import Fate, Result
from repair.keeping.files import json_line
from repair.keeping.planfile import Plan
from tests.simulation.repair_servers import Refusals, Trick
from tests.simulation.repairing import MemoryJournal
from tests.simulation.storage import token_of
from tests.simulation.values import int_bytes
from tests.simulation.vclock import EPOCH_S
from tests.unit.test_range_merging import HOUR_AGO_US, PARTITIONS, Stage


class Killed(Exception):
    """What ends a run in the middle, as a signal would."""


def gone(stage: Stage) -> int:
    """Count the partitions of which no node shows the first row."""
    return sum(stage.held(p) == [None, None, None] for p in PARTITIONS)


def as_one_range(plan: Plan) -> tuple[Plan, MemoryJournal]:
    """Return a plan of the ring as one range, and a journal for it."""
    whole = replace(plan, ranges=(replace(plan.ranges[0], token_range=TokenRange(MIN_TOKEN, MAX_TOKEN)),))
    return whole, MemoryJournal(whole, random.Random(1))


def all_deleted_on_one() -> Stage:
    """Every partition was deleted through node 3 alone, so a merge takes all of their rows."""
    stage = Stage()
    for p in PARTITIONS:
        stage.delete(p, HOUR_AGO_US, (3,))
    return stage


@pytest.mark.parametrize("trick", [Trick.FORBIDDEN, Trick.OVERLOADED, Trick.UNAVAILABLE])
def test_rows_that_a_server_refused_earn_no_leave_for_others(trick: Trick) -> None:
    """Only what was merged and is there after has been proven to stay: refusals must not let more vanish at once."""
    stage = all_deleted_on_one()

    async def play(planned: Plan, _: MemoryJournal) -> None:
        plan, journal = as_one_range(planned)
        stage.writer.refusals = Refusals(at=frozenset({1, 2}), trick=trick)
        tally = await stage.apply(plan, journal, max_deletes=4)
        assert tally.stopped_at is not None
        assert gone(stage) <= 2

    stage.played(play)


def test_a_failure_midway_holds_no_other_range_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that were under way when the nodes stopped answering do not keep the breaker's room for ever."""
    monkeypatch.setattr(applying, "_RANGE_LANES", 1)
    stage = all_deleted_on_one()

    async def play(plan: Plan, journal: MemoryJournal) -> None:
        keep, ring_now = journal.note, stage.cluster.ring_now
        slowed, failed = False, False

        async def slow(data: Mapping[str, Any]) -> None:
            nonlocal slowed
            await keep(data)
            if "merging" in data and not slowed:
                slowed = True
                await asyncio.sleep(3.0)

        async def fails_once() -> Any:
            nonlocal failed
            if slowed and not failed:
                failed = True
                raise ReplicaUnavailable("no node answers")
            return await ring_now()

        journal.note = slow  # type: ignore[method-assign]
        stage.cluster.ring_now = fails_once  # type: ignore[method-assign]
        applied = asyncio.create_task(stage.apply(plan, journal, max_deletes=4))
        await asyncio.wait({applied}, timeout=600.0)
        assert applied.done(), "it waits for rows that will never end"
        assert applied.result().results[Result.UNKNOWN]
        assert applied.result().stopped_at is not None
        assert gone(stage) <= 2

    stage.played(play)


@pytest.mark.parametrize("resumed", [False, True])
def test_what_was_done_before_a_failure_is_proven(monkeypatch: pytest.MonkeyPatch, *, resumed: bool) -> None:
    """The ring changes in the middle of a chunk: what was merged until then has its outcome, and can be undone."""
    monkeypatch.setattr(pace, "_MOST_TOGETHER", 2)
    stage = Stage()
    stage.stale(*PARTITIONS)

    async def play(planned: Plan, _: MemoryJournal) -> None:
        plan, journal = as_one_range(planned)
        through, ring_now = stage.writer.through, stage.cluster.ring_now
        merged = False

        async def slow(*args: Any, **options: Any) -> None:
            nonlocal merged
            await through(*args, **options)
            merged = True
            await asyncio.sleep(3.0)

        async def changed() -> Any:
            if merged:
                raise PlanRefused("the ring has changed")
            return await ring_now()

        stage.writer.through = slow  # type: ignore[method-assign]
        stage.cluster.ring_now = changed  # type: ignore[method-assign]
        with pytest.raises(PlanRefused):
            await stage.apply(plan, journal, max_deletes=4)
        touched = [p for p in PARTITIONS if stage.held(p) == [8, 8, 8]]
        assert touched
        stage.cluster.ring_now = ring_now  # type: ignore[method-assign]
        stage.writer.through = through  # type: ignore[method-assign]
        rows = [row for _, some in journal.record().unpacked() for row in some]
        done = [row for row in rows if row.entry.fate is Fate.DONE]
        assert len(done) >= len(touched)
        if resumed:
            assert (await stage.apply(plan, journal)).results[Result.VERIFIED] == 20
            assert all(stage.held(p) == [8, 8, 8] for p in PARTITIONS)
            assert journal.record().complete
        await stage.undo(journal)
        assert all(stage.held(p) == [7, 7, 7] for p in (PARTITIONS if resumed else touched))

    stage.played(play)


@pytest.mark.parametrize("kills", [1, 3])
def test_what_vanished_in_killed_runs_counts(kills: int) -> None:
    """A kill between merge and outcome must not give the next run the whole room again."""
    stage = all_deleted_on_one()

    async def play(plan: Plan, journal: MemoryJournal) -> None:
        keep = journal.note
        left = kills

        async def dies(data: Mapping[str, Any]) -> None:
            nonlocal left
            if "merged" in data and left and any(chunk.acted for chunk in journal.record().chunks.values()):
                left -= 1
                raise Killed
            await keep(data)

        journal.note = dies  # type: ignore[method-assign]
        for _ in range(kills):
            with pytest.raises(Killed):
                await stage.apply(plan, journal, max_deletes=4)
        for _ in range(2):
            assert (await stage.apply(plan, journal, max_deletes=4)).stopped_at is not None
            assert gone(stage) <= 2

    stage.played(play)


def test_a_resume_that_is_killed_forgets_no_vanished_row() -> None:
    """What an outcome of the journal says of vanished rows holds, also while a resume is about to say it again."""
    stage = all_deleted_on_one()
    stage.limits = Limits(rows=100)

    async def play(plan: Plan, journal: MemoryJournal) -> None:
        tally = await stage.apply(plan, journal, max_deletes=4)
        assert tally.stopped_at == 4
        again = journal.record()
        open_chunk = next((chunk for chunk in again.chunks.values() if chunk.open), None)
        assert sum(chunk.account.vanished for chunk in again.chunks.values()) == 4
        if open_chunk is not None:
            at, length = open_chunk.before or (0, 0)
            line = json.loads(journal.raw[at : at + length])
            del line["check"]
            journal.enter(json_line(line))
        assert sum(chunk.account.vanished for chunk in journal.record().chunks.values()) == 4

    stage.played(play)


def test_rows_that_are_alike_are_not_kept_beside_the_few_that_differ() -> None:
    """What proves a row is that row: a range may hold a thousand times as many others, and large ones.

    A plain row is proven by its bytes; the third, a tie, is taken apart, though not what lies beside it.
    """
    stage = Stage()
    first, last, tied = PARTITIONS[0], PARTITIONS[-1], PARTITIONS[5]
    stage.stale(first, last)
    stage.write(tied, 0, 8, HOUR_AGO_US - 10_000_000, (1,))
    kept: list[tuple[int, int]] = []

    async def play(planned: Plan, _: MemoryJournal) -> None:
        plan, journal = as_one_range(planned)
        held = ChunkReader.held

        async def looked_at(*args: Any) -> Any:
            found = await held(*args)
            kept.append((len(found.alike), len(found.as_foreseen)))
            return found

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(ChunkReader, "held", looked_at)
            tally = await stage.apply(plan, journal)
        assert tally.results[Result.VERIFIED] == 3
        assert kept == [(1, 2)]
        assert stage.held(tied) == [8, 8, 8]

    stage.played(play)


@pytest.mark.parametrize("moves", [False, True])
def test_old_evidence_of_a_partition_that_no_window_holds_is_read_again(*, moves: bool) -> None:
    """It is walked through: its rows are merged as they were, and left if one of them has changed meanwhile."""
    stage = Stage(limits=Limits(of_token=4))
    large = PARTITIONS[5]
    for c in range(2, 10):
        stage.write(large, c, 7, HOUR_AGO_US - 10_000_000)
    stage.stale(*PARTITIONS)

    async def play(plan: Plan, journal: MemoryJournal) -> None:
        keep = journal.note

        async def slow(data: Mapping[str, Any]) -> None:
            await keep(data)
            if "merging" in data and data["start"] < token_of((int_bytes(large),)) <= data["end"]:
                await asyncio.sleep(3.0)
                if moves:
                    stage.write(large, 5, 9, stage.clock.now_us(), (2,))

        journal.note = slow  # type: ignore[method-assign]
        tally = await stage.apply(plan, journal)
        assert tally.results[Result.VERIFIED] == 20 - moves
        assert tally.results[Result.LEFT] == moves
        assert stage.held(large) == ([8, 7, 7] if moves else [8, 8, 8])
        assert stage.held(large, 5) == [7, 9 if moves else 7, 7]

    stage.played(play)


def test_a_range_that_cannot_be_compared_is_unknown_and_the_others_are_merged() -> None:
    """A row that CQL has no name for (COMPACT STORAGE) must not keep all other ranges and rows from their repair."""
    stage = Stage()
    stage.stale(*PARTITIONS)

    async def play(plan: Plan, journal: MemoryJournal) -> None:
        first, tokens = plan.ranges[0].token_range, [token_of((int_bytes(p),)) for p in PARTITIONS]
        following = ChunkReader.next

        async def nameless(reader: ChunkReader, left: TokenRange, room: int) -> Any:
            if left.end == first.end:
                raise InternalError("a row lacks a clustering column")
            return await following(reader, left, room)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(ChunkReader, "next", nameless)
            tally = await stage.apply(plan, journal)
        assert any("a row lacks a clustering column" in reason for _, reason in tally.reasons)
        assert tally.results[Result.UNKNOWN]
        assert tally.results[Result.VERIFIED] == sum(token not in first for token in tokens)
        assert not journal.record().complete
        assert (await stage.apply(plan, journal)).results[Result.VERIFIED] == 20

    stage.played(play)


def test_evidence_does_not_age_while_read_follows_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Around rows that are left many reads follow each other: what changes meanwhile is seen before its own turn."""
    monkeypatch.setattr(range_merging, "_READS", 2)
    stage = Stage()
    stage.stale(*PARTITIONS[::2])
    for p in PARTITIONS[1::2]:
        stage.write(p, 6, 4, (EPOCH_S + 7_200) * 1_000_000, (3,))
    late = PARTITIONS[18]

    async def play(planned: Plan, _: MemoryJournal) -> None:
        plan, journal = as_one_range(planned)
        through = stage.writer.through

        async def slow(*args: Any, **options: Any) -> None:
            await through(*args, **options)
            await asyncio.sleep(1.5)
            if stage.held(late) == [8, 7, 7]:
                stage.write(late, 0, 9, stage.clock.now_us(), (2,))

        stage.writer.through = slow  # type: ignore[method-assign]
        tally = await stage.apply(plan, journal)
        assert stage.held(late) == [8, 9, 7]
        assert tally.results[Result.SKIPPED] == 1
        assert tally.results[Result.VERIFIED] == 9

    stage.played(play)
