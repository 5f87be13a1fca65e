"""Servers that refuse: what was not done is not undone, no row is torn, and resume goes on once they allow it."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace

import pytest

from consistency.cluster.guardrails import Guardrails
from consistency.cluster.wire import ALL, QUORUM
from consistency.model.reading import ONE_REPLICA, Locality
from repair.deciding.copies import copies, copies_json
from repair.deciding.decide import Action, Rule
from repair.keeping.entries import Fate, Result
from repair.keeping.files import json_line
from repair.keeping.planfile import Plan
from tests.simulation.repair_servers import Refusals, Trick
from tests.simulation.repairing import MemoryJournal
from tests.simulation.storage import Delete, Write
from tests.simulation.values import int_bytes, make_table
from tests.simulation.vclock import EPOCH_S
from tests.unit.test_repair_applying import GRACE_S, NODES, TABLE, YOUNG_US, Stage, played

UNREPAIRED = replace(TABLE, read_repair="NONE")
OF_TWO_AGES = replace(
    make_table("t", ["int"], ["int"], regulars=["int", "int"], gc_grace_seconds=GRACE_S), read_repair="NONE"
)
ALWAYS = Refusals(frozenset(range(1_000)))
ENDS = {Trick.FORBIDDEN: Fate.NONE, Trick.UNAVAILABLE: Fate.NONE}
"""What is known after a failure; of all others nothing."""


def guarded(stage: Stage, rails: Guardrails | None) -> None:
    """Have every node forbid this, or nothing any more."""
    stage.cluster.guarded = dict.fromkeys(NODES, rails) if rails else {}


def journal_of(plan: Plan) -> MemoryJournal:
    """Begin a journal."""
    return MemoryJournal(plan, random.Random(1))


@pytest.mark.parametrize("table", [TABLE, UNREPAIRED], ids=["merged", "written back"])
@pytest.mark.parametrize("locality", ONE_REPLICA)
@pytest.mark.parametrize("trick", list(Trick))
def test_nothing_is_undone_where_nothing_is_proven_to_be_changed(
    trick: Trick, locality: Locality, table: object
) -> None:
    """However a request fails, undo changes no replica; what was surely not done is told from what may have been."""
    stage = Stage(table=table, locality=locality)  # type: ignore[arg-type]

    async def play() -> None:
        plan = await stage.plan()
        journal = journal_of(plan)
        stage.writer.refusals = replace(ALWAYS, trick=trick)
        tally = await stage.apply(plan, journal)
        assert sum(tally.results.values()) == 2
        assert {e.fate for e in journal.record().entries.values()} == {ENDS.get(trick, Fate.UNKNOWN)}
        stage.writer.refusals = Refusals()
        before = stage.copies()
        undone = await stage.undo(plan, journal)
        assert stage.copies() == before, "undo changed what was not shown to be ours"
        assert Result.UNDONE not in undone.results
        assert undone.done == 2, "a row is not named"
        if trick in ENDS:
            assert undone.results == {Result.UNCHANGED: 2}
            assert all(trick.value in reason for _, reason in undone.reasons)

    played(stage, play)


@pytest.mark.parametrize("locality", ONE_REPLICA)
def test_a_resume_goes_on_once_the_servers_allow_it_and_then_there_is_something_to_undo(locality: Locality) -> None:
    """Refused rows are not done: resumed they are verified, and undone they are as most replicas held them."""
    stage = Stage(locality=locality)

    async def play() -> None:
        plan = await stage.plan()
        journal = journal_of(plan)
        stage.writer.refusals = replace(ALWAYS, trick=Trick.FORBIDDEN)
        assert (await stage.apply(plan, journal)).results == {Result.REFUSED: 2}
        assert stage.holders() == {3}
        assert journal.record().open_rows == [0, 1]
        stage.writer.refusals = Refusals()
        assert (await stage.apply(plan, journal)).results == {Result.VERIFIED: 2}
        assert stage.holders() == {1, 2, 3}
        assert journal.record().open_rows == []
        assert (await stage.undo(plan, journal)).results == {Result.UNDONE: 2}
        assert stage.holders() == set()

    played(stage, play)


def test_a_row_that_was_written_to_one_of_two_replicas_is_resumed_and_undone() -> None:
    """The second replica refuses, the first took the row: what is known is kept from one attempt to the next.

    Before the copies of the row, each of the two has taken a stand-in.
    """
    stage = Stage(rows=1, table=UNREPAIRED)

    async def play() -> None:
        plan = await stage.plan()
        journal = journal_of(plan)
        stage.writer.refusals = Refusals(frozenset({4}), trick=Trick.FORBIDDEN)
        assert (await stage.apply(plan, journal)).results == {Result.REFUSED: 1}
        entry = journal.record().entries[0]
        assert (entry.fate, len(entry.changed)) == (Fate.DONE, 1)
        half = journal.raw
        assert (await stage.undo(plan, journal)).results == {Result.UNDONE: 1}
        assert stage.holders() == set()
        journal.raw = half

    played(stage, play)

    again = Stage(rows=1, table=UNREPAIRED)

    async def resumed() -> None:
        plan = await again.plan()
        journal = journal_of(plan)
        again.writer.refusals = Refusals(frozenset({4}), trick=Trick.FORBIDDEN)
        await again.apply(plan, journal)
        assert (await again.apply(plan, journal)).results == {Result.VERIFIED: 1}
        assert again.holders() == {1, 2, 3}
        entry = journal.record().entries[0]
        assert (entry.fate, len(entry.changed)) == (Fate.DONE, 2)

    played(again, resumed)


def test_a_kill_between_the_write_and_its_proof_leaves_the_row_to_a_person() -> None:
    """Somebody else may have merged the row as well: resumed it is verified, and undo leaves it and says so."""
    stage = Stage(rows=1)

    async def play() -> None:
        plan = await stage.plan()
        journal = journal_of(plan)
        (before,) = await stage.evidence.read_many([plan.rows[0].ref])
        journal.enter(json_line({"intent": 0, "before": copies_json(copies(before))}))
        for node in NODES:
            key, clustering = stage.rows[0]
            write = Write(key, clustering, YOUNG_US, (("v0", None, int_bytes(7)),), insert=True)
            stage.cluster.apply(stage.table, write, [node])
        assert (await stage.undo(plan, journal)).results == {Result.NOT_UNDONE: 1}
        assert (await stage.apply(plan, journal)).results == {Result.VERIFIED: 1}
        held = stage.copies()
        undone = await stage.undo(plan, journal)
        assert undone.results == {Result.NOT_UNDONE: 1}
        assert all("not known" in reason for _, reason in undone.reasons)
        assert stage.copies() == held

    played(stage, play)


def test_what_a_killed_run_may_have_done_is_not_ours_to_undo() -> None:
    """Killed after one of two replicas was written, or after somebody else wrote it: the resumed row proves nothing."""
    stage = Stage(rows=1, table=UNREPAIRED)

    async def play() -> None:
        plan = await stage.plan()
        journal = await stage.begun(plan)
        key, clustering = stage.rows[0]
        write = Write(key, clustering, YOUNG_US, (("v0", None, int_bytes(7)),), insert=True)
        stage.cluster.apply(stage.table, write, [NODES[0]])
        assert (await stage.apply(plan, journal)).results == {Result.VERIFIED: 1}
        assert journal.record().entries[0].fate is Fate.UNKNOWN
        held = stage.copies()
        assert (await stage.undo(plan, journal)).results == {Result.NOT_UNDONE: 1}
        assert stage.copies() == held

    played(stage, play)


def test_a_kill_before_the_write_leaves_nothing_to_undo() -> None:
    """Every replica holds what it held before: that is read, and said."""
    stage = Stage(rows=1)

    async def play() -> None:
        plan = await stage.plan()
        journal = await stage.begun(plan)
        undone = await stage.undo(plan, journal)
        assert undone.results == {Result.UNCHANGED: 1}

    played(stage, play)


def _two_ages(stage: Stage) -> None:
    """Give node 3 a second, younger cell in each row."""
    for key, clustering in stage.rows:
        write = Write(key, clustering, YOUNG_US + 5_000_000, (("v1", None, int_bytes(8)),))
        stage.cluster.apply(stage.table, write, [NODES[2]])


@pytest.mark.parametrize("locality", ONE_REPLICA)
@pytest.mark.parametrize("number", range(1, 7))
def test_cells_of_different_ages_come_to_a_replica_together_or_not_at_all(number: int, locality: Locality) -> None:
    """Whichever request is refused: each replica shows the whole row, or nothing of it."""
    stage = Stage(table=OF_TWO_AGES, locality=locality)
    _two_ages(stage)

    async def play() -> None:
        plan = await stage.plan()
        assert {row.action for row in plan.rows} == {Action.WRITE_BACK}
        stage.writer.refusals = Refusals(frozenset({number}), trick=Trick.FORBIDDEN)
        await stage.apply(plan, journal_of(plan))

    played(stage, play)
    for held in stage.copies():
        assert all(row is None or len(row) == 2 for row in held.values()), "a row is torn"  # type: ignore[arg-type]


@pytest.mark.parametrize("where", range(2))
@pytest.mark.parametrize("trick", list(Trick))
def test_what_a_replica_hides_comes_to_no_other_whatever_is_refused(trick: Trick, where: int) -> None:
    """Of two replicas that lack a row one has deleted it: where no delete can be passed on, the other lacks it yet."""
    stage = Stage(rows=1, table=UNREPAIRED)
    key, clustering = stage.rows[0]
    stage.cluster.apply(stage.table, Delete(key, YOUNG_US + 1, clustering, clustering), [NODES[where]])

    async def play() -> None:
        plan = await stage.plan()
        journal = journal_of(plan)
        stage.writer.refusals = Refusals(deletes=True, trick=trick)
        await stage.apply(plan, journal)
        assert stage.writer.failed
        assert stage.holders() <= {3}
        stage.writer.refusals = Refusals()
        await stage.apply(plan, journal)
        # A row of which the cells are gone, and nobody knows how old it is, is left to a person.
        assert stage.holders() == ({3} if trick in (Trick.TIMEOUT, Trick.LOST) else set())

    played(stage, play)


@pytest.mark.parametrize("number", range(1, 12))
def test_a_row_that_a_replica_hides_is_made_bare_nowhere(number: int) -> None:
    """A row marker tells whether the row itself was deleted: refused half-way, it shows on no other replica."""
    stage = Stage(rows=1, table=UNREPAIRED)
    key, clustering = stage.rows[0]
    stage.cluster.apply(stage.table, Delete(key, YOUNG_US + 1, clustering, clustering), [NODES[1]])

    async def play() -> None:
        plan = await stage.plan()
        stage.writer.refusals = Refusals(frozenset(range(number, 100)), trick=Trick.FORBIDDEN)
        await stage.apply(plan, journal_of(plan))
        assert stage.holders() <= {3}

    played(stage, play)


OLD = Guardrails(oldest_us=YOUNG_US + 1, name="node")


def test_a_guardrail_on_write_times_is_foreseen_and_resume_goes_on_once_it_is_lifted() -> None:
    """One old cell forbids the row: named in the plan, nothing of the row is written, and all of it is later."""
    stage = Stage(table=OF_TWO_AGES, locality=Locality.TRACED)
    _two_ages(stage)
    guarded(stage, OLD)

    async def play() -> None:
        plan = await stage.plan()
        assert {row.action for row in plan.rows} == {Action.WRITE_BACK}
        assert all("minimum_timestamp" in row.refused for row in plan.rows)
        assert plan.to_do == ()
        before, journal = stage.copies(), journal_of(plan)
        tally = await stage.apply(plan, journal)
        assert tally.results == {Result.REFUSED: 2}
        assert all("minimum_timestamp" in reason for _, reason in tally.reasons)
        assert stage.copies() == before
        guarded(stage, None)
        await stage.plan()  # the rules are asked for anew by each command
        assert (await stage.apply(plan, journal)).results == {Result.VERIFIED: 2}

    played(stage, play)
    assert all(len(row) == 2 for held in stage.copies() for row in held.values())  # type: ignore[arg-type]


def test_a_rule_on_write_times_does_not_bind_what_each_node_takes_by_itself() -> None:
    """At NODE_LOCAL the servers do not look at it."""
    stage = Stage(table=OF_TWO_AGES)
    _two_ages(stage)
    guarded(stage, OLD)

    async def play() -> None:
        plan = await stage.plan()
        assert not plan.refused
        assert (await stage.apply(plan, journal_of(plan))).results == {Result.VERIFIED: 2}

    played(stage, play)


LEVELS = {"reads": {ALL: "node: no reads at ALL"}, "writes": {ALL: "node: no writes at ALL"}}


@pytest.mark.parametrize("locality", ONE_REPLICA)
@pytest.mark.parametrize("names", [("reads",), ("reads", "writes")], ids=["reads", "reads and writes"])
def test_where_reads_at_all_are_forbidden_rows_are_written_back(names: Iterable[str], locality: Locality) -> None:
    """The plan knows it; where writes at ALL are forbidden too, they go at QUORUM, and are read on every replica."""
    stage = Stage(locality=locality)
    guarded(stage, Guardrails(**{name: LEVELS[name] for name in names}))  # type: ignore[arg-type]

    async def play() -> None:
        plan = await stage.plan()
        assert {(row.rule, row.action, row.refused) for row in plan.rows} == {(Rule.LAST_WRITE, Action.WRITE_BACK, "")}
        journal = journal_of(plan)
        assert (await stage.apply(plan, journal)).results == {Result.VERIFIED: 2}
        assert stage.holders() == {1, 2, 3}
        assert (await stage.undo(plan, journal)).results == {Result.UNDONE: 2}
        assert stage.holders() == set()

    played(stage, play)


def test_what_no_level_allows_is_left_alone_with_the_rule_that_forbids_it() -> None:
    """No read at ALL, no write at ALL or QUORUM: the plan says so, and promises nothing."""
    stage = Stage(locality=Locality.TRACED)
    no_writes = {ALL: "node: no writes", QUORUM: "node: no writes"}
    guarded(stage, Guardrails(LEVELS["reads"], no_writes))

    async def play() -> None:
        plan = await stage.plan()
        assert [row.refused for row in plan.refused] == ["node: no writes"] * 2
        assert (await stage.apply(plan, journal_of(plan))).results == {Result.REFUSED: 2}

    played(stage, play)
    assert stage.holders() == {3}


@pytest.mark.parametrize("locality", ONE_REPLICA)
def test_a_guardrail_that_comes_after_the_plan_is_named_and_resume_goes_on_without_it(locality: Locality) -> None:
    """A merge was planned, and reads at ALL are forbidden by now: refused by name, nothing written, merged later."""
    stage = Stage(locality=locality)

    async def play() -> None:
        plan = await stage.plan()
        assert {row.action for row in plan.rows} == {Action.RECONCILE}
        guarded(stage, Guardrails(LEVELS["reads"]))
        await stage.plan()  # the rules are asked for anew by each command
        before, journal = stage.copies(), journal_of(plan)
        tally = await stage.apply(plan, journal)
        assert tally.results == {Result.REFUSED: 2}
        assert all("no reads at ALL" in reason for _, reason in tally.reasons)
        assert stage.copies() == before
        guarded(stage, None)
        await stage.plan()
        assert (await stage.apply(plan, journal)).results == {Result.VERIFIED: 2}
        assert stage.holders() == {1, 2, 3}
        assert (await stage.undo(plan, journal)).results == {Result.UNDONE: 2}

    played(stage, play)


@pytest.mark.parametrize("locality", ONE_REPLICA)
def test_a_guardrail_that_goes_after_the_plan_takes_no_row_out_of_it(locality: Locality) -> None:
    """A write-back was planned, and reads at ALL are allowed by now: it is carried out as planned."""
    stage = Stage(locality=locality)
    guarded(stage, Guardrails(LEVELS["reads"]))

    async def play() -> None:
        plan = await stage.plan()
        assert {row.action for row in plan.rows} == {Action.WRITE_BACK}
        journal = journal_of(plan)
        stage.writer.refusals = Refusals(frozenset({1}), trick=Trick.FORBIDDEN)
        assert (await stage.apply(plan, journal)).results == {Result.REFUSED: 1, Result.VERIFIED: 1}
        guarded(stage, None)
        await stage.plan()
        assert (await stage.apply(plan, journal)).results == {Result.VERIFIED: 2}
        assert stage.holders() == {1, 2, 3}

    played(stage, play)


def test_an_undo_that_was_refused_overwrites_nothing_that_came_meanwhile() -> None:
    """An application whose clock is behind writes before the undo is tried again: its write stays, the row is named."""
    stage = Stage(table=OF_TWO_AGES)

    async def play() -> None:
        plan = await stage.plan()
        journal = journal_of(plan)
        assert (await stage.apply(plan, journal)).results == {Result.VERIFIED: 2}
        stage.writer.refusals = replace(ALWAYS, trick=Trick.FORBIDDEN)
        assert (await stage.undo(plan, journal)).results == {Result.NOT_UNDONE: 2}
        stage.writer.refusals = Refusals()
        key, clustering = stage.rows[0]
        late = Write(key, clustering, YOUNG_US - 5, (("v1", None, int_bytes(8)),), insert=False)
        stage.cluster.apply(OF_TWO_AGES, late, NODES)
        before = stage.copies()
        undone = await stage.undo(plan, journal)
        assert undone.results == {Result.NOT_UNDONE: 1, Result.UNDONE: 1}
        assert all("written to since" in reason for result, reason in undone.reasons if result is Result.NOT_UNDONE)
        now = stage.copies()
        assert [held[str(clustering)] for held in now] == [held[str(clustering)] for held in before]

    played(stage, play)


@pytest.mark.parametrize("holders", [(0, 2), (2,)], ids=["on two", "on one"])
def test_a_deleted_row_that_would_have_expired_is_left_bare_nowhere(holders: tuple[int, ...]) -> None:
    """It was inserted with a TTL and deleted on one replica: written back, all its replicas lack it."""
    stage = Stage(rows=1, table=UNREPAIRED)
    key, clustering = stage.rows[0]
    expires = EPOCH_S + 80_000
    lasting = Write(key, clustering, YOUNG_US + 1, (("v0", None, int_bytes(7)),), expires=expires, insert=True)
    stage.cluster.apply(stage.table, lasting, [NODES[n] for n in holders])
    stage.cluster.apply(stage.table, Delete(key, YOUNG_US + 2, clustering, clustering), [NODES[1]])

    async def play() -> None:
        plan = await stage.plan()
        assert {row.action for row in plan.rows} == {Action.WRITE_BACK}
        assert (await stage.apply(plan, journal_of(plan))).results == {Result.VERIFIED: 1}

    played(stage, play)
    assert stage.holders() == set()


def test_a_row_of_keys_alone_that_was_inserted_after_its_delete_stays_where_it_shows() -> None:
    """One replica deleted the row, another one has it inserted anew since: no replica that shows it loses it."""
    stage = Stage(rows=1, table=UNREPAIRED)
    key, clustering = stage.rows[0]
    first = Write(key, clustering, YOUNG_US + 1, (("v0", None, int_bytes(7)),), insert=True)
    stage.cluster.apply(stage.table, first, [NODES[0], NODES[2]])
    stage.cluster.apply(stage.table, Delete(key, YOUNG_US + 2, clustering, clustering), [NODES[1]])
    stage.cluster.apply(stage.table, Write(key, clustering, YOUNG_US + 3, (), insert=True), [NODES[2]])

    async def play() -> None:
        plan = await stage.plan()
        assert {row.action for row in plan.rows} == {Action.WRITE_BACK}
        assert (await stage.apply(plan, journal_of(plan))).results == {Result.DIVERGENT: 1}

    played(stage, play)
    assert stage.holders() == {1, 3}
