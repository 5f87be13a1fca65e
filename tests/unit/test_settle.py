"""Suspects are read again past the window: what stays different is settled, what moves is not claimed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from consistency.checking import settle
from consistency.checking.settle import MAX_ROUNDS, Settled, Settlement, Settler, Unsettled
from consistency.model.reading import Capabilities, Depth, Reading
from consistency.model.servertime import ServerTime
from consistency.rows.merge_join import Difference
from consistency.rows.names import RowName
from consistency.rows.read import read_state
from tests.simulation.histories import EPOCH_US
from tests.simulation.memory import Trouble
from tests.simulation.scenario import LONG_AGO_US, Scenario, row
from tests.simulation.storage import Delete, Write, token_of
from tests.simulation.values import int_bytes, make_table
from tests.simulation.vclock import EPOCH_S

WINDOW_S = 2.5
KEY = (int_bytes(1), int_bytes(1))
NAME = RowName(token_of(KEY[:1]), KEY)
MAPS = make_table("t", ("int",), ("int",), (), ("map<text, int>",))
BARE = make_table("t", ("int",), ("int",), (), ())


def settled(
    scenario: Scenario, depth: Depth = Depth.CONTENT, more: Callable[[Settler], Awaitable[None]] | None = None
) -> list[Settlement]:
    """Hand the row (1, 1) as the replicas hold it to a settler and return what comes out."""
    outcomes: list[Settlement] = []
    reading = Reading(scenario.table, depth, Capabilities())

    async def take(outcome: Settlement) -> None:
        outcomes.append(outcome)

    async def main() -> None:
        settler = Settler(scenario.cluster, scenario.clock, take, WINDOW_S)
        states = {n: await read_state(scenario.cluster, reading, NAME, n, EPOCH_S) for n in scenario.nodes}
        await settler.put(reading, Difference(NAME, states))
        running = asyncio.create_task(settler.run())
        if more:
            await more(settler)
        await settler.finish()
        await running
        assert settler.waiting == 0

    scenario.run(main)
    return outcomes


@pytest.mark.parametrize("depth", list(Depth))
def test_an_old_row_that_one_replica_lacks_is_settled_after_one_window(depth: Depth) -> None:
    """Its write is long past: one look past the window is enough, and brings every replica's full state."""
    scenario = Scenario()
    scenario.apply(row(1, 1, v0=int_bytes(7)), on=[1, 2])
    (outcome,) = settled(scenario, depth)
    assert isinstance(outcome, Settled)
    assert outcome.reading.depth is Depth.CONTENT
    values = [state and state.cells[0].value for state in outcome.states.values()]
    assert values == [int_bytes(7), int_bytes(7), None]
    assert WINDOW_S <= scenario.loop.now < 2 * WINDOW_S


def test_a_stale_cell_is_settled_after_one_window_even_if_young() -> None:
    """An older version that is still there cannot hide a delete: no second window is spent."""
    scenario = Scenario()
    scenario.apply(row(1, 1, EPOCH_US - 2000, v0=int_bytes(7)))
    scenario.apply(row(1, 1, EPOCH_US - 1000, v0=int_bytes(8)), on=[1, 2])
    (outcome,) = settled(scenario)
    assert isinstance(outcome, Settled)
    assert scenario.loop.now < 2 * WINDOW_S


def test_a_young_row_that_one_replica_lacks_is_looked_at_twice() -> None:
    """It may have arrived and been deleted again; the second window tells."""
    scenario = Scenario()
    scenario.apply(row(1, 1, EPOCH_US - 1000, v0=int_bytes(7)), on=[1, 2])
    (outcome,) = settled(scenario)
    assert isinstance(outcome, Settled)
    assert 2 * WINDOW_S <= scenario.loop.now < 3 * WINDOW_S


def test_a_row_that_all_agree_on_is_passed_on_with_the_instant_it_was_found_wrong_at() -> None:
    """Reading it on every replica takes time; a later instant would judge it otherwise near a limit."""
    scenario, outcomes = Scenario(), list[Settlement]()
    scenario.apply(row(1, 1, v0=int_bytes(7)))
    reading, then = Reading(scenario.table, Depth.CONTENT, Capabilities()), ServerTime.exactly(EPOCH_US - 1)

    async def take(outcome: Settlement) -> None:
        outcomes.append(outcome)

    async def main() -> None:
        settler = Settler(scenario.cluster, scenario.clock, take, WINDOW_S)
        state = await read_state(scenario.cluster, reading, NAME, scenario.nodes[0], EPOCH_S)
        assert state is not None
        await settler.put_agreed(reading, [(NAME, state)], scenario.nodes, then)

    scenario.run(main)
    (outcome,) = outcomes
    assert isinstance(outcome, Settled)
    assert outcome.when == then


def test_a_write_that_arrives_within_the_window_is_dropped() -> None:
    """In flight when it was seen, everywhere when it is read again: nothing comes out."""
    scenario = Scenario()
    late = row(1, 1, EPOCH_US - 1000, v0=int_bytes(7))
    scenario.apply(late, on=[1])
    scenario.loop.call_later(2.0, lambda: scenario.apply(late))
    assert settled(scenario) == []


def test_a_row_that_is_deleted_while_it_settles_is_dropped() -> None:
    """Lacking at both looks, once because it had not come and once because it had gone: no difference."""
    scenario = Scenario()
    late = row(1, 1, EPOCH_US - 1000, v0=int_bytes(7))
    gone = Delete(late.key, EPOCH_US + 1, late.clustering, late.clustering)
    scenario.apply(late, on=[1])
    scenario.loop.call_later(1.0, lambda: scenario.apply(late))
    scenario.loop.call_later(2.0, lambda: scenario.apply(gone, on=[2, 3]))
    scenario.loop.call_later(3.5, lambda: scenario.apply(gone, on=[1]))
    assert settled(scenario) == []


def test_an_element_that_is_deleted_while_it_settles_is_dropped() -> None:
    """The same inside a map: the older element that is left does not prove that the newer one never came."""

    def element(name: bytes, ts: int, value: int | None) -> Write:
        cells = (("v0", name, None if value is None else int_bytes(value)),)
        return Write(KEY[:1], KEY[1:], ts, cells, insert=True)

    scenario = Scenario(MAPS)
    scenario.apply(element(b"old", LONG_AGO_US, 1))
    late, gone = element(b"new", EPOCH_US - 1000, 2), element(b"new", EPOCH_US + 1, None)
    scenario.apply(late, on=[1])
    scenario.loop.call_later(1.0, lambda: scenario.apply(late))
    scenario.loop.call_later(2.0, lambda: scenario.apply(gone, on=[2, 3]))
    scenario.loop.call_later(3.5, lambda: scenario.apply(gone, on=[1]))
    assert settled(scenario) == []


def test_a_row_without_write_times_is_looked_at_often() -> None:
    """Deleted and inserted anew it looks the same; only a row that is lacking through all rounds is settled."""
    lost = Scenario(BARE)
    lost.apply(row(1, 1), on=[1])
    (outcome,) = settled(lost)
    assert isinstance(outcome, Settled)
    assert lost.loop.now > 4 * WINDOW_S
    churned = Scenario(BARE)
    churned.apply(row(1, 1, EPOCH_US), on=[1])
    churned.loop.call_later(9.0, lambda: churned.apply(row(1, 1, EPOCH_US)))
    assert settled(churned) == []


@pytest.mark.parametrize("also_stale", [False, True])
def test_a_hot_row_is_judged_by_what_stays_or_not_at_all(also_stale: bool) -> None:
    """Rewritten ten times a second: unsettled on its own, settled by a cell that is lost beside it; never false."""
    scenario = Scenario()
    scenario.apply(row(1, 1, v0=int_bytes(0), v1=b"old"))
    if also_stale:
        scenario.apply(row(1, 1, LONG_AGO_US + 5, v1=b"new"), on=[1, 2])
    scenario.apply(row(1, 1, EPOCH_US - 1, v0=int_bytes(1)), on=[1])
    for i in range(300):
        write = row(1, 1, EPOCH_US + i * 100_000, v0=int_bytes(i))
        for node in (1, 2, 3):
            # The second node is always a little behind, so that no look ever finds all alike.
            scenario.loop.call_later(0.1 * i + 0.099 * (node == 2), scenario.apply, write, [node])
    (outcome,) = settled(scenario)
    if also_stale:
        assert isinstance(outcome, Settled)
    else:
        assert isinstance(outcome, Unsettled)
        assert "kept changing" in outcome.reason


def test_the_rounds_are_bounded() -> None:
    """However long a row keeps changing, it is read a fixed number of times."""
    scenario = Scenario()
    for i in range(1000):
        scenario.loop.call_later(0.1 * i, scenario.apply, row(1, 1, EPOCH_US + i, v0=int_bytes(i)), [1])
    scenario.apply(row(1, 1, EPOCH_US - 1, v0=int_bytes(9)), on=[1])
    settled(scenario)
    assert scenario.loop.now < (MAX_ROUNDS + 1) * (WINDOW_S + 0.1)


def test_a_replica_that_cannot_be_read_again_leaves_the_row_unsettled_or_is_named() -> None:
    """Where the rest agrees nothing is claimed; where it differs the finding says who was not asked."""
    agreeing = Scenario(faults=((Trouble.DOWN, 3, 1.0, 1e9),))
    agreeing.apply(row(1, 1, v0=int_bytes(7)), on=[1, 2])
    (outcome,) = settled(agreeing)
    assert isinstance(outcome, Unsettled)
    differing = Scenario(faults=((Trouble.DOWN, 3, 1.0, 1e9),))
    differing.apply(row(1, 1, v0=int_bytes(7)), on=[1])
    (outcome,) = settled(differing)
    assert isinstance(outcome, Settled)
    assert [n.name for n in outcome.unread] == ["10.0.0.3:9042"]
    assert len(outcome.states) == 2


def test_many_suspects_are_settled_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that must be seen again holds nobody up: hundreds take little longer than one, however few readers."""
    monkeypatch.setattr(settle, "_QUEUE_LIMIT", 1000)
    scenario = Scenario()
    for c in range(400):
        scenario.apply(row(1, c, EPOCH_US - 1000, v0=int_bytes(7)), on=[1, 2])

    async def more(settler: Settler) -> None:
        reading = Reading(scenario.table, Depth.CONTENT, Capabilities())
        for c in range(400):
            name = RowName(NAME.token, (int_bytes(1), int_bytes(c)))
            states = {n: await read_state(scenario.cluster, reading, name, n, EPOCH_S) for n in scenario.nodes}
            await settler.put(reading, Difference(name, states))

    assert len(settled(scenario, more=more)) == 401
    assert scenario.loop.now < 15
