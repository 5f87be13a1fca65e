"""Deletes that a trace rules out: a row is forecast to come back only where that is proven, and then it does."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from io import StringIO
from typing import Any

import pytest

from consistency.cli.show.terminal.console import make_console
from consistency.cli.show.terminal.rowview import print_row, value_text
from consistency.cluster.locality import TraceEvent, tombstones_in
from consistency.errors import NotProvenLocal, ReplicaRefused
from consistency.model.reading import ONE_REPLICA, Locality
from consistency.results.findings import Finding, Kind
from consistency.results.forecast import Forecast
from consistency.rows.delete_search import DEFAULT_MOST_TRACES, DeleteSearch, search_warnings
from consistency.rows.explain import Chosen, explain
from consistency.rows.names import RowRef
from repair.deciding.case import CaseReader
from repair.deciding.forecast import Change
from repair.keeping.entries import Result
from tests.simulation.repairing import MemoryJournal
from tests.simulation.storage import Delete, Key, Write, token_of
from tests.simulation.values import int_bytes, make_table
from tests.simulation.vclock import EPOCH_S
from tests.unit.test_forecast import left
from tests.unit.test_repair_applying import GRACE_S, NODES, YOUNG_US, Stage, played

LACKED = ((int_bytes(1),), (int_bytes(0),))
SIBLING = ((int_bytes(1),), (int_bytes(9),))


def put(stage: Stage, row: tuple[Key, Key], ts: int, on: Any = NODES, expires: int | None = None) -> None:
    """Write a row to some nodes."""
    write = Write(*row, ts, (("v0", None, int_bytes(7)),), expires=expires, insert=True)
    stage.cluster.apply(stage.table, write, on)


def staged(written_us: int = YOUNG_US, sibling_us: int | None = YOUNG_US, **named: Any) -> Stage:
    """Return a row that node 1 lacks, beside another one of its partition that all nodes hold."""
    stage = Stage(rows=0, **named)
    stage.rows = [LACKED]
    put(stage, LACKED, written_us, NODES[1:])
    if sibling_us is not None:
        put(stage, SIBLING, sibling_us)
    return stage


def told(stage: Stage) -> Forecast | None:
    """Return the forecast of the row."""
    found: list[Forecast | None] = []

    async def play() -> None:
        found.extend(row.forecast for row in (await stage.plan()).rows)

    played(stage, play)
    (one,) = found
    return one


@pytest.mark.parametrize(
    ("sibling_us", "forecast"),
    [
        (YOUNG_US - 1, Forecast.RESTORE),
        (YOUNG_US, Forecast.RESTORE),
        (YOUNG_US + 1, Forecast.UNKNOWN),
        (None, Forecast.UNKNOWN),
    ],
)
def test_a_cell_that_is_no_newer_rules_out_a_delete_of_the_partition(
    sibling_us: int | None, forecast: Forecast
) -> None:
    """Node 1 shows it, so it holds no such delete that is as new; of a partition that it lacks nothing is known."""
    assert told(staged(sibling_us=sibling_us)) is forecast


@pytest.mark.parametrize(
    "delete",
    [
        Delete(LACKED[0], YOUNG_US + 1, LACKED[1], LACKED[1]),
        Delete(LACKED[0], YOUNG_US + 1, (int_bytes(-5),), (int_bytes(5),)),
        Delete(LACKED[0], YOUNG_US - 5, (int_bytes(3),), (int_bytes(3),)),
        Write(*LACKED, YOUNG_US + 1, (("v0", None, None),)),
    ],
    ids=["row", "range", "another row", "cell"],
)
def test_a_tombstone_in_the_partition_rules_out_nothing(delete: Delete | Write) -> None:
    """It may be older than the row, or another's: that is not told."""
    stage = staged()
    stage.cluster.apply(stage.table, delete, NODES[:1])
    assert told(stage) is Forecast.UNKNOWN


def test_a_row_as_old_as_gc_grace_is_not_known() -> None:
    """Its tombstone is not counted any more and may still hide it."""
    old_us = (EPOCH_S - GRACE_S - 5) * 1_000_000
    assert told(staged(old_us, old_us)) is Forecast.UNKNOWN


@pytest.mark.parametrize("expires", [EPOCH_S + 60, EPOCH_S + 100_000])
def test_a_row_must_outlast_the_repair(expires: int) -> None:
    """One that expires within the hour may be gone by then, delete or not."""
    stage = staged()
    put(stage, LACKED, YOUNG_US + 1, NODES[1:], expires)
    assert told(stage) is (Forecast.RESTORE if expires > EPOCH_S + 3_600 else Forecast.UNKNOWN)


def test_a_row_that_expired_on_one_replica_is_not_known() -> None:
    """Node 1 had it with a time to live: an expired cell is a tombstone to the others."""
    stage = staged()
    put(stage, LACKED, YOUNG_US + 1, NODES[:1], EPOCH_S - 1)
    assert told(stage) is Forecast.UNKNOWN


def test_the_replicas_that_show_the_row_must_share_a_cell() -> None:
    """Each may have deleted what only the other one shows."""
    stage = staged()
    key, clustering = LACKED
    stage.cluster.apply(stage.table, Write(key, clustering, YOUNG_US + 1, (("v0", None, None),)), NODES[1:2])
    assert told(stage) is Forecast.UNKNOWN


@pytest.mark.parametrize("locality", ONE_REPLICA)
def test_what_is_forecast_to_come_back_needs_no_leave(locality: Locality) -> None:
    """With no row that may vanish it is repaired, in both localities, and counted as restored."""
    stage = staged(locality=locality)

    async def play() -> None:
        plan = await stage.plan()
        assert plan.forecast == {Forecast.RESTORE: 1}
        tally = await stage.apply(plan, MemoryJournal(plan, random.Random(1)), max_deletes=0)
        assert (tally.stopped_at, tally.changes) == (None, {Change.RESTORED: 1})

    played(stage, play)


def test_rows_that_vanish_against_the_forecast_open_the_breaker() -> None:
    """The partitions were deleted through node 1 after the plan: one is taken, and the rest is not begun."""
    stage = Stage(rows=0)
    for n in range(40):
        put(stage, ((int_bytes(n),), (int_bytes(0),)), YOUNG_US, NODES[1:])
        put(stage, ((int_bytes(n),), (int_bytes(9),)), YOUNG_US)
        stage.rows.append(((int_bytes(n),), (int_bytes(0),)))

    async def play() -> None:
        plan = await stage.plan()
        assert plan.forecast == {Forecast.RESTORE: 40}
        for key, _ in stage.rows:
            stage.cluster.apply(stage.table, Delete(key, YOUNG_US + 1), NODES[:1])
        tally = await stage.apply(plan, MemoryJournal(plan, random.Random(1)), rate=10.0, max_deletes=0)
        assert tally.stopped_at == tally.deleted
        assert 1 <= tally.deleted <= 4

    played(stage, play)
    assert left(stage) >= 36


def test_a_table_without_siblings_costs_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """A partition of one row shows nothing where it lacks the row, so it is not asked for."""
    stage = Stage(rows=0, table=make_table("t", ["int"], [], regulars=["int"]))
    row = ((int_bytes(1),), ())
    stage.rows = [row]
    put(stage, row, YOUNG_US, NODES[1:])
    monkeypatch.setattr(stage.cluster, "traced_partition", None)

    async def play() -> None:
        reader = await _reader(stage)
        (case,) = await reader.read_many([_ref(stage, row)])
        assert await DeleteSearch(stage.cluster).rules_out([case]) == [False]

    played(stage, play)


@pytest.mark.parametrize(
    ("error", "warned"), [(ReplicaRefused("no SELECT permission on system_traces"), True), (NotProvenLocal("x"), False)]
)
def test_what_cannot_be_traced_is_not_known(monkeypatch: pytest.MonkeyPatch, error: Exception, warned: bool) -> None:
    """No error ends the plan; a refusal is told once, and nothing more is asked."""
    stage = staged()
    asked: list[object] = []

    async def refuses(*args: object) -> None:
        asked.append(args)
        raise error

    monkeypatch.setattr(stage.cluster, "traced_partition", refuses)
    search = DeleteSearch(stage.cluster)

    async def play() -> None:
        reader = await _reader(stage)
        cases = await reader.read_many([_ref(stage, LACKED)])
        assert await search.rules_out(cases) == [False]
        other = replace(cases[0], name=replace(cases[0].name, key=(int_bytes(2), int_bytes(0))))
        assert await search.rules_out([other]) == [False]

    played(stage, play)
    assert len(asked) == (1 if warned else 2)
    assert (
        any(
            "SELECT permission" in warning
            for warning in search_warnings(len(search.skipped), search.refused, DEFAULT_MOST_TRACES)
        )
        is warned
    )


def test_traces_are_bounded_and_each_partition_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten partitions of five lacked rows, and three traces: three partitions are known, and the plan says so."""
    stage = Stage(rows=0)
    for n in range(10):
        put(stage, ((int_bytes(n),), (int_bytes(9),)), YOUNG_US)
        for c in range(5):
            stage.rows.append(((int_bytes(n),), (int_bytes(c),)))
            put(stage, stage.rows[-1], YOUNG_US, NODES[1:])
    search = DeleteSearch(stage.cluster, 3)
    monkeypatch.setattr(stage, "search", lambda: search)

    async def play() -> None:
        assert (await stage.plan()).forecast == {Forecast.RESTORE: 15, Forecast.UNKNOWN: 35}

    played(stage, play)
    assert search_warnings(len(search.skipped), search.refused, 3) == (
        "deletes were not looked for in 7 more partitions: --max-traces 3",
    )


def test_without_traces_nothing_is_asked_and_nobody_is_warned(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody wants is no news."""
    stage = staged()
    search = DeleteSearch(stage.cluster, 0)
    monkeypatch.setattr(stage, "search", lambda: search)
    monkeypatch.setattr(stage.cluster, "traced_partition", None)
    assert told(stage) is Forecast.UNKNOWN
    assert search_warnings(len(search.skipped), search.refused, 0) == ()


def test_random_histories_never_belie_a_forecast() -> None:
    """Rows, siblings, and deletes of every reach at random times on random nodes: restored is restored."""
    seen: Counter[Forecast | None] = Counter()
    for seed in range(300):
        rng = random.Random(seed)
        stage = Stage(rows=0)
        for c in range(4):
            row = (LACKED[0], (int_bytes(c),))
            stage.rows.append(row)
            lacking = rng.choice((NODES, NODES[1:], NODES[1:], NODES[2:]))
            put(stage, row, YOUNG_US + rng.randrange(6), lacking, rng.choice((None, None, EPOCH_S - 1)))
        for _ in range(rng.choice((0, 1, 1, 2))):
            low, high = sorted(rng.randrange(4) for _ in range(2))
            reach = rng.choice(((None, None), ((int_bytes(low),), (int_bytes(high),))))
            delete = Delete(LACKED[0], YOUNG_US + rng.randrange(6), *reach)
            stage.cluster.apply(stage.table, delete, rng.sample(NODES, rng.choice((1, 1, 2))))
        played(stage, lambda stage=stage: _told_and_done(stage, seen))  # type: ignore[misc]
    assert seen[Forecast.RESTORE] > 50, seen


async def _told_and_done(stage: Stage, seen: Counter[Forecast | None]) -> None:
    plan = await stage.plan()
    journal = MemoryJournal(plan, random.Random(1))
    await stage.apply(plan, journal, max_deletes=100)
    entries = journal.record().entries
    for number, row in enumerate(plan.rows):
        seen[row.forecast] += 1
        entry = entries[number]
        if row.forecast is Forecast.RESTORE:
            assert (entry.result, entry.change) == (Result.VERIFIED, Change.RESTORED)
            assert entry.after is not None
            assert None not in entry.after.values()
        if row.forecast is Forecast.UPDATE:
            assert entry.change is not Change.DELETED


@pytest.mark.parametrize(
    ("lines", "count"),
    [
        (["Executing seq scan across 1 sstables for (min(1), max(1)]", "Read 2 live rows and 3 tombstone cells"], 3),
        (
            [
                "Read 0 live and 1 tombstone cells",
                "Read 1 live rows and 1 tombstone cells (see tombstone_warn_threshold)",
            ],
            2,
        ),
        (["Read 0 live rows and 0 tombstone cells"], 0),
        (["Executing seq scan across 1 sstables for (min(1), max(1)]"], None),
        ([], None),
    ],
)
def test_tombstones_are_counted_by_the_servers_own_words(lines: list[str], count: int | None) -> None:
    """What a trace does not tell is not none."""
    assert tombstones_in([TraceEvent(line, "10.0.0.1:7000") for line in lines]) == count


@pytest.mark.parametrize(("sibling_us", "said"), [(YOUNG_US, True), (YOUNG_US + 1, False)])
def test_an_explanation_says_that_the_row_comes_back(sibling_us: int, said: bool) -> None:
    """Instead of that an absent row may have been deleted; and nothing is traced where nobody wants that."""
    stage = staged(sibling_us=sibling_us)
    ref = _ref(stage, LACKED)
    finding = Finding(Kind.MISSING, ref.keyspace, ref.table, ref.token, {"p0": 1, "c0": 0}, ref.key_hex, {})
    out = StringIO()

    async def play() -> None:
        chosen = Chosen(finding, 1, 1, {})
        found = await explain(stage.cluster, stage.clock, chosen)
        assert found.undeleted is said
        print_row(make_console(out), chosen, found, [], show=value_text)
        assert not (await explain(stage.cluster, stage.clock, chosen, traces=False)).undeleted

    played(stage, play)
    assert ("a merge brings the row back" in " ".join(out.getvalue().split())) is said
    assert ("CQL does not show deletes" in out.getvalue()) is not said


async def _reader(stage: Stage) -> CaseReader:
    return await CaseReader.open(stage.cluster, stage.clock)


def _ref(stage: Stage, row: tuple[Key, Key]) -> RowRef:
    key = {c.name: raw.hex() for c, raw in zip(stage.table.primary_key, (*row[0], *row[1]), strict=True)}
    return RowRef("ks", stage.table.name, token_of(row[0]), key)
