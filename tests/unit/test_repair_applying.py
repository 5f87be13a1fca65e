"""What happens between plan, apply and resume: time passes, others write and delete, and nothing comes back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest

from consistency.errors import UsageError
from consistency.model.reading import Capabilities, Cell, Locality, RowState
from consistency.model.ring import MURMUR3, Node, Replication, Ring
from consistency.model.schema import Table
from consistency.rows.delete_search import DeleteSearch
from consistency.rows.names import RowRef
from repair.applying.actions import Actor
from repair.applying.applier import Applier
from repair.applying.guard import NO_UNDO, Guard, PlanRefused
from repair.applying.outcomes import Tally
from repair.applying.pace import ApplyOptions, Pace
from repair.deciding.case import CaseReader
from repair.deciding.copies import copies
from repair.deciding.decide import Action, Rule
from repair.deciding.forecast import Change
from repair.deciding.policy import Policy, Require, Zombies
from repair.keeping.entries import Entry, Fate, Result
from repair.keeping.planfile import Plan
from repair.planning.planner import FoundRow, PlanOptions, plan_batch
from repair.undoing.undo import NO_MAJORITY, Undoer, Undoing, became, to_bring_back, undoing, write_time
from tests.simulation.memory import Fault, SimCluster, Trouble
from tests.simulation.repair_laws import shown
from tests.simulation.repair_servers import SimWriter, collect_garbage
from tests.simulation.repairing import MemoryJournal, planned_on
from tests.simulation.storage import Delete, Key, Write, token_of
from tests.simulation.values import int_bytes, keyspace, make_table
from tests.simulation.vclock import EPOCH_S, SimClock, VirtualLoop, run_virtual

GRACE_S = 40
NODES = tuple(Node(f"h{n}", f"10.0.0.{n}", 9042, "dc1", "r1", (n * 10**18,), "5.0.8") for n in (1, 2, 3))
TABLE = make_table("t", ["int"], ["int"], regulars=["int"], gc_grace_seconds=GRACE_S)
YOUNG_US = (EPOCH_S - 10) * 1_000_000


class Stage:
    """Three nodes, RF 3, one partition of two rows on node 3 alone, and a plan to merge them.

    `behind_s` is how far the clock of node 1 is behind the others'.
    """

    def __init__(
        self,
        policy: Policy | None = None,
        rows: int = 2,
        faults: tuple[Fault, ...] = (),
        behind_s: float = 0.0,
        table: Table = TABLE,
        locality: Locality = Locality.NODE_LOCAL,
    ) -> None:
        self.table = table
        self.loop = VirtualLoop()
        ring = Ring("simulated", MURMUR3, NODES)
        schema = {"ks": keyspace("ks", Replication("NetworkTopologyStrategy", (("dc1", 3),)), [table])}
        self.cluster = SimCluster(
            self.loop, ring, schema, Capabilities(), random.Random(1), faults=faults, locality=locality
        )
        self.clock = SimClock(self.loop, clocks_s={NODES[0]: -behind_s, NODES[1]: 0.0})
        self.writer = SimWriter(self.cluster, self.loop, table, faults)
        self.policy = policy or Policy()
        self.rows: list[tuple[Key, Key]] = [((int_bytes(1),), (int_bytes(c),)) for c in range(rows)]
        for key, clustering in self.rows:
            write = Write(key, clustering, YOUNG_US, (("v0", None, int_bytes(7)),), insert=True)
            self.cluster.apply(table, write, [NODES[2]])

    def search(self) -> DeleteSearch:
        """Look for deletes as a plan does."""
        return DeleteSearch(self.cluster)

    async def plan(self) -> Plan:
        """Plan all rows."""
        self.evidence = await CaseReader.open(self.cluster, self.clock)
        refs = [
            RowRef("ks", "t", token_of(key), {"p0": key[0].hex(), "c0": clustering[0].hex()})
            for key, clustering in self.rows
        ]
        made = await plan_batch(
            self.evidence, self.search(), [FoundRow(ref) for ref in refs], PlanOptions(self.policy), "salt"
        )
        return await planned_on(self.cluster, self.table, self.policy, made)

    async def apply(
        self, plan: Plan, journal: MemoryJournal, rate: float | None = None, max_deletes: int | None = None
    ) -> Tally:
        """Apply, or go on, as the commands do."""
        guard = Guard(plan, self.cluster, self.writer, self.clock)
        applier = Applier(plan, self.evidence, Actor(self.cluster, self.writer), guard, self.clock, journal)
        options = ApplyOptions(rate, max_deletes=max_deletes)
        return await applier.run(journal.record(), options, asyncio.Event(), lambda _: None)

    async def undo(self, plan: Plan, journal: MemoryJournal) -> Tally:
        """Undo, as the command does."""
        guard = Guard(plan, self.cluster, self.writer, self.clock)
        undoer = Undoer(await CaseReader.open(self.cluster, self.clock), self.writer, guard, self.clock)
        return await undoer.run(journal.record(), journal, Pace(self.clock, None), asyncio.Event(), lambda _: None)  # type: ignore[arg-type]

    def copies(self) -> list[dict[str, object]]:
        """Return what each node holds of the rows, write times too."""
        now_s = EPOCH_S + int(self.loop.now)
        stores = [self.cluster.store(node, self.table) for node in NODES]
        return [{str(c): shown(s, ("t", key, c), now_s) for key, c in self.rows} for s in stores]

    async def begun(self, plan: Plan) -> MemoryJournal:
        """Return the journal of a run that was killed after it had said what it would do."""
        journal = MemoryJournal(plan, random.Random(1))
        for number, evidence in enumerate(await self.evidence.read_many([row.ref for row in plan.rows])):
            await journal.intent(number, copies(evidence))
        return journal

    async def delete_and_forget(self) -> None:
        """Delete the rows on a quorum, let gc_grace pass, and compact the deletes away there."""
        for key, clustering in self.rows:
            self.cluster.apply(self.table, Delete(key, YOUNG_US + 1, clustering, clustering), NODES[:2])
        await asyncio.sleep(GRACE_S + 60)
        for node in NODES[:2]:
            collect_garbage(self.cluster.store(node, self.table), self.clock.now_us() - GRACE_S * 1_000_000)

    def holders(self) -> set[int]:
        """Return the nodes that show any of the rows."""
        now_s = EPOCH_S + int(self.loop.now)
        stores = {n: self.cluster.store(node, self.table) for n, node in enumerate(NODES, start=1)}
        return {n for n, s in stores.items() for key, c in self.rows if shown(s, ("t", key, c), now_s) is not None}


def played(stage: Stage, play: Callable[[], object]) -> None:
    """Run a play on the stage's virtual time."""
    run_virtual(stage.loop, play())  # type: ignore[arg-type]


def test_an_old_plan_brings_nothing_back() -> None:
    """Planned while young, deleted by a quorum and purged since: what is a zombie by now is left."""
    stage = Stage()

    async def play() -> None:
        plan = await stage.plan()
        assert {(row.rule, row.action) for row in plan.rows} == {(Rule.LAST_WRITE, Action.RECONCILE)}
        await stage.delete_and_forget()
        tally = await stage.apply(plan, MemoryJournal(plan, random.Random(1)))
        assert tally.results == {Result.SKIPPED: 2}
        assert all("zombie-suspect" in reason for _, reason in tally.reasons)

    played(stage, play)
    assert stage.holders() == {3}


def test_a_resume_brings_nothing_back() -> None:
    """A run that was killed before it wrote, resumed after the delete was purged: the rows are left."""
    stage = Stage()

    async def play() -> None:
        plan = await stage.plan()
        journal = await stage.begun(plan)
        await stage.delete_and_forget()
        assert (await stage.apply(plan, journal)).results == {Result.SKIPPED: 2}

    played(stage, play)
    assert stage.holders() == {3}


def test_a_resume_goes_on_where_nothing_changed() -> None:
    """The same run, resumed at once, ends verified on all replicas."""
    stage = Stage()

    async def play() -> None:
        plan = await stage.plan()
        assert (await stage.apply(plan, await stage.begun(plan))).results == {Result.VERIFIED: 2}

    played(stage, play)
    assert stage.holders() == {1, 2, 3}


def test_a_purge_is_not_resumed_against_the_policy() -> None:
    """--require all holds for a resume too: with a replica gone since, the purge waits."""
    gone = Fault(Trouble.DOWN, NODES[0], GRACE_S + 100.0, 1e9)
    stage = Stage(Policy(Zombies.PURGE, Require.ALL), faults=(gone,))

    async def play() -> None:
        await asyncio.sleep(GRACE_S + 60)
        plan = await stage.plan()
        assert {row.action for row in plan.rows} == {Action.PURGE}
        journal = await stage.begun(plan)
        await asyncio.sleep(GRACE_S)
        assert (await stage.apply(plan, journal)).results == {Result.UNKNOWN: 2}

    played(stage, play)
    assert stage.holders() == {3}


@pytest.mark.parametrize(
    ("age_us", "result", "fate"), [(1, Result.SKIPPED, Fate.NONE), (0, Result.VERIFIED, Fate.UNKNOWN)]
)
def test_a_row_that_waits_long_for_its_turn_is_read_again(age_us: int, result: Result, fate: Fate) -> None:
    """What somebody wrote after it was read is left alone; what came from a replica meanwhile is not called ours."""
    stage = Stage()

    async def play() -> None:
        plan = await stage.plan()
        journal = MemoryJournal(plan, random.Random(1))
        applying = asyncio.create_task(stage.apply(plan, journal, rate=0.3))
        await asyncio.sleep(1)
        key, clustering = stage.rows[1]
        late = Write(key, clustering, YOUNG_US + age_us, (("v0", None, int_bytes(7)),), insert=True)
        stage.cluster.apply(TABLE, late, [NODES[0]])
        await applying
        ended = journal.record().entries
        assert (ended[0].result, ended[0].fate) == (Result.VERIFIED, Fate.DONE)
        assert (ended[1].result, ended[1].fate) == (result, fate)

    played(stage, play)


def test_a_row_that_agreed_is_read_again() -> None:
    """What agreed when the plan was made and differs now is not called verified."""
    stage = Stage()

    async def play() -> None:
        for key, clustering in stage.rows:
            stage.cluster.apply(TABLE, Write(key, clustering, YOUNG_US, (("v0", None, int_bytes(7)),), insert=True))
        plan = await stage.plan()
        assert {row.rule for row in plan.rows} == {Rule.AGREED}
        key, clustering = stage.rows[0]
        stage.cluster.apply(TABLE, Write(key, clustering, YOUNG_US + 5, (("v0", None, int_bytes(8)),)), [NODES[0]])
        tally = await stage.apply(plan, MemoryJournal(plan, random.Random(1)))
        assert tally.results == {Result.VERIFIED: 1, Result.SKIPPED: 1}

    played(stage, play)


def test_another_replication_is_refused() -> None:
    """A plan rests on where rows are kept: altered replication refuses it before anything is written."""
    stage = Stage()

    async def play() -> None:
        plan = await stage.plan()
        fewer = keyspace("ks", Replication("NetworkTopologyStrategy", (("dc1", 1),)), [TABLE])
        stage.cluster.change_schema = lambda _: {"ks": fewer}
        with pytest.raises(PlanRefused, match="replication"):
            await stage.apply(plan, MemoryJournal(plan, random.Random(1)))

    played(stage, play)
    assert stage.holders() == {3}


def test_a_token_that_is_not_the_keys_is_refused() -> None:
    """A findings or plan file that was edited cannot make a repair write to nodes that do not own the row."""
    stage = Stage()

    async def play() -> None:
        plan = await stage.plan()
        with pytest.raises(UsageError, match="another token"):
            await stage.evidence.read(replace(plan.rows[0].ref, token=plan.rows[0].ref.token + 1))

    played(stage, play)


def test_what_an_undo_would_bring_back() -> None:
    """Of a purge everything that any replica held, never less; where votes are split, nothing."""

    def state(*values: bytes | None) -> RowState:
        return RowState(tuple(Cell(v, 5 if v else None) for v in values))

    zombie, live, other = state(b"a", None), state(None, b"b"), state(b"c", b"b")
    assert to_bring_back(Action.PURGE, {"1": zombie, "2": live, "3": live}) == state(b"a", b"b")
    assert to_bring_back(Action.RECONCILE, {"1": zombie, "2": live, "3": live}) == live
    assert to_bring_back(Action.RECONCILE, {"1": None, "2": None, "3": live}) is None
    assert to_bring_back(Action.RECONCILE, {"1": zombie, "2": live, "3": other}) == NO_MAJORITY
    assert to_bring_back(Action.RECONCILE, {"1": None, "2": live}) == NO_MAJORITY


@pytest.mark.parametrize(
    ("action", "change", "holders", "meaning", "done"),
    [
        (Action.RECONCILE, Change.DELETED, 1, Undoing.NOTHING, None),
        (Action.RECONCILE, Change.DELETED, 2, Undoing.REWRITE, Change.RESTORED),
        (Action.PURGE, Change.DELETED, 1, Undoing.UNPURGE, Change.RESTORED),
        (Action.RECONCILE, Change.RESTORED, 1, Undoing.DELETE, Change.DELETED),
        (Action.RECONCILE, Change.UPDATED, 3, Undoing.REWRITE, Change.UPDATED),
    ],
)
def test_what_an_undo_has_done_to_a_row_is_told(
    action: Action, change: Change, holders: int, meaning: Undoing, done: Change | None
) -> None:
    """A row whose delete was known to most stays deleted, so nobody is told that it was restored."""
    held, newer = (RowState((Cell(value, 5),)) for value in (b"a", b"b"))
    before = {str(node): held if node < holders else None for node in range(3)}
    left = {Change.DELETED: None, Change.RESTORED: held, Change.UPDATED: newer}[change]
    after = dict.fromkeys(before, left)
    entry = Entry(before, Result.VERIFIED, "", after, fate=Fate.DONE, changed=frozenset("0"), change=change)
    assert undoing(action, entry) is meaning
    assert became(Result.UNDONE, action, entry) is done
    assert became(Result.NOT_UNDONE, action, entry) is None


def test_an_undo_never_overwrites_what_came_after() -> None:
    """Killed after its intent, then written to by the application: the resumed run cannot be undone over that write."""
    stage = Stage()

    async def play() -> None:
        plan = await stage.plan()
        journal = await stage.begun(plan)
        for key, clustering in stage.rows:
            stage.cluster.apply(
                TABLE, Write(key, clustering, YOUNG_US + 9, (("v0", None, int_bytes(99)),), insert=True)
            )
        assert (await stage.apply(plan, journal)).results == {Result.VERIFIED: 2}
        guard = Guard(plan, stage.cluster, stage.writer, stage.clock)
        undoer = Undoer(stage.evidence, stage.writer, guard, stage.clock)
        tally = await undoer.run(journal.record(), journal, Pace(stage.clock, None), asyncio.Event(), lambda _: None)  # type: ignore[arg-type]
        assert tally.results == {Result.NOT_UNDONE: 2}

    played(stage, play)
    shows = [shown(stage.cluster.store(NODES[0], TABLE), ("t", key, c), EPOCH_S) for key, c in stage.rows]
    assert [held and held["v0", None].value for held in shows] == [int_bytes(99)] * 2


@pytest.mark.parametrize(("behind_s", "result"), [(0.0, Result.UNDONE), (25.0, Result.NOT_UNDONE)])
def test_an_undo_never_writes_into_a_servers_future(behind_s: float, result: Result) -> None:
    """What it would have to win over is newer than the slowest clock: the rows are left, and said to wait for it."""
    stage = Stage(behind_s=behind_s)

    async def play() -> None:
        # Planned while the clocks were alike: with them apart such young rows are not touched to begin with.
        true, stage.clock.readings = stage.clock.readings, []
        plan = await stage.plan()
        journal = MemoryJournal(plan, random.Random(1))
        assert (await stage.apply(plan, journal)).results == {Result.VERIFIED: 2}
        stage.clock.readings = true
        tally = await _undo(stage, plan, journal)
        assert tally.results == {result: 2}
        assert not behind_s or all("undo it again in" in reason for _, reason in tally.reasons)
        if behind_s:
            await asyncio.sleep(behind_s)
            assert (await _undo(stage, plan, journal)).results == {Result.UNDONE: 2}

    played(stage, play)
    assert stage.holders() == set()


async def _undo(stage: Stage, plan: Plan, journal: MemoryJournal) -> Tally:
    guard = Guard(plan, stage.cluster, stage.writer, stage.clock)
    undoer = Undoer(stage.evidence, stage.writer, guard, stage.clock)
    return await undoer.run(journal.record(), journal, Pace(stage.clock, None), asyncio.Event(), lambda _: None)  # type: ignore[arg-type]


@pytest.mark.parametrize("changed", ["ring", "table"])
def test_what_no_longer_fits_says_how_to_go_on(changed: str) -> None:
    """A repair, a sync and an undo go on in other ways: none of them by a check alone."""
    stage = Stage()

    async def play() -> None:
        plan = await stage.plan()
        ground = SimpleNamespace(
            cluster=plan.cluster,
            ring="another" if changed == "ring" else plan.ring,
            host_ids=plan.host_ids,
            tables=dict.fromkeys(plan.tables, "another"),
        )
        guards = (stage.cluster, stage.writer, stage.clock)
        with pytest.raises(PlanRefused, match=r"changed since the plan was made: run the check again$"):
            await Guard(ground, *guards).check()
        with pytest.raises(PlanRefused, match=r"changed since the plan was made: the journal tells of .* yourself$"):
            await Guard(ground, *guards, NO_UNDO).check()

    played(stage, play)


def test_an_undo_wins_over_any_delete_that_a_server_had_stamped_by_then() -> None:
    """A delete hides the row, and its time is not to be had: later than the fastest clock showed, or not at all."""
    stage = Stage()

    async def play() -> None:
        plan = await stage.plan()
        (before,) = await stage.evidence.read_many([plan.rows[0].ref])
        gone = replace(before, states=dict.fromkeys(NODES))
        wanted = before.states[NODES[2]]
        at_us = write_time(Action.RECONCILE, wanted, Entry(by_us=gone.when.latest_us - 1), gone)
        assert at_us == gone.when.latest_us
        too_late = write_time(Action.RECONCILE, wanted, Entry(by_us=gone.when.latest_us), gone)
        assert too_late == gone.when.latest_us + 1 > gone.when.writable_us

    played(stage, play)


def test_a_row_that_is_not_read_for_a_while_is_gone_on_with() -> None:
    """A replica that was read for the plan does not answer: nothing is done, that is unknown, and resume does it."""
    stage = Stage(faults=(Fault(Trouble.DOWN, NODES[0], 3.0, 12.0),))

    async def play() -> None:
        plan = await stage.plan()
        journal = MemoryJournal(plan, random.Random(1))
        await asyncio.sleep(5)
        tally = await stage.apply(plan, journal)
        assert tally.results == {Result.UNKNOWN: 2}
        assert all("not read now" in reason for _, reason in tally.reasons)
        assert journal.record().open_rows == [0, 1]
        assert stage.holders() == {3}
        await asyncio.sleep(10)
        assert (await stage.apply(plan, journal)).results == {Result.VERIFIED: 2}

    played(stage, play)
