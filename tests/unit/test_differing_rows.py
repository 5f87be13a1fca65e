"""Rows that differ, found by their hashes: the same rows as by reading and joining them all, and no others."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import cast

import pytest

from consistency.checking import descend
from consistency.checking.descend import Descent, differences
from consistency.checking.leaves import digest_leaf
from consistency.checking.listing import Listing
from consistency.checking.narrow_partitions import Partitions
from consistency.checking.narrow_rows import differing_rows
from consistency.checking.plan import Leaf
from consistency.checking.scan import ScanOptions
from consistency.cluster.clock import SystemClock
from consistency.cluster.port import Key, ReplicaReader
from consistency.cluster.table_reader import TableReader
from consistency.errors import ReplicaError, ReplicaRefused
from consistency.model.reading import Capabilities, Depth, RawRow, Reading, Route
from consistency.model.ring import Node
from consistency.model.tokens import TokenRange
from consistency.rows.merge_join import Difference, JoinCounts, join_rows
from tests.simulation.memory import Pace, Trouble
from tests.simulation.scenario import LONG_AGO_US, ROWS, Scenario, row
from tests.simulation.storage import Delete
from tests.simulation.values import int_bytes, make_table
from tests.simulation.vclock import EPOCH_S

PLAIN = make_table("t", ("int",), ("int",), (), ("int", "text"))
READING = Reading(PLAIN, Depth.CONTENT, Capabilities())


def damaged(rng: random.Random, faults: tuple[tuple[Trouble, int, float, float], ...] = ()) -> Scenario:
    """Return a cluster with rows missing, stale, and deleted on one replica or two."""
    scenario = Scenario(table=PLAIN, faults=faults)
    scenario.fill(20, 5)
    for _ in range(15):
        p, c, nodes = rng.randrange(20), rng.randrange(8), rng.sample([1, 2, 3], rng.choice((1, 2)))
        if rng.random() < 0.3:
            place = (int_bytes(c),)
            scenario.apply(Delete((int_bytes(p),), LONG_AGO_US + 9, place, place), on=nodes)
        else:
            scenario.apply(row(p, c, LONG_AGO_US + rng.randrange(9), v0=int_bytes(rng.randrange(99))), on=nodes)
    return scenario


def found(scenario: Scenario, partitions: Partitions | None = None) -> tuple[list[Difference], JoinCounts]:
    """Return what the hashes lead to in the whole ring."""
    tally, out, partitions = JoinCounts(), list[Difference](), partitions or Partitions()
    leaf = Leaf(TokenRange.full_ring(), scenario.nodes)

    async def main() -> None:
        rows = differing_rows(scenario.reads(READING), leaf, tally, partitions, Listing())
        async with aclosing(rows):
            out.extend([difference async for difference in rows])

    scenario.run(main)
    return out, tally


@pytest.mark.parametrize("seed", range(10))
def test_hashes_lead_to_the_rows_that_a_join_finds(seed: int) -> None:
    """Row by row and state by state, in ring order; the rows are counted alike."""
    joined, counted = list[Difference](), JoinCounts()
    scenario = damaged(random.Random(seed))

    async def join() -> None:
        everything = TokenRange.full_ring()
        streams = {n: scenario.cluster.rows(n, READING, everything, EPOCH_S) for n in scenario.nodes}
        joined.extend([difference async for difference in join_rows(READING, streams, EPOCH_S, counted)])

    scenario.run(join)
    hashed, tally = found(damaged(random.Random(seed)))
    assert {d.name: d.states for d in hashed} == {d.name: d.states for d in joined}
    assert joined
    assert [d.name.token for d in hashed] == sorted(d.name.token for d in hashed)
    assert tally.rows == counted.rows


SMALL_PARTITIONS = Partitions(rows=3, groups=1)
"""What makes the scan hash every row at once."""


@pytest.mark.parametrize("seed", range(10))
def test_partition_digests_lead_to_the_same_rows(seed: int) -> None:
    """Whether many partitions differ or few, and whatever is in them; the rows are counted alike."""
    rng = random.Random(seed)
    few = rng.random() < 0.5

    def scenario() -> Scenario:
        made = damaged(random.Random(seed))
        if few:  # more partitions, which all agree
            for p in range(100, 200):
                for c in range(5):
                    made.apply(row(p, c, LONG_AGO_US, v0=int_bytes(c)))
        return made

    at_once, counted = found(scenario(), replace(SMALL_PARTITIONS))
    partitions = Partitions()
    narrowed, tally = found(scenario(), partitions)
    assert narrowed == at_once
    assert tally.rows == counted.rows
    assert partitions.groups == (120 if few else 20)


def test_only_the_rows_of_differing_partitions_are_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One partition of a hundred differs: its five rows are hashed on each replica, and no others."""
    scenario = Scenario(table=PLAIN)
    scenario.fill(100, 5)
    scenario.apply(row(7, 2, LONG_AGO_US + 9, v0=int_bytes(1)), on=[2])
    hashed: list[Key] = []
    plain = scenario.cluster.row_hashes_of

    def listen(node: Node, reading: Reading, partitions: Sequence[Key], now_s: int) -> AsyncIterator[list[RawRow]]:
        hashed.extend(partitions)
        return plain(node, reading, partitions, now_s)

    monkeypatch.setattr(scenario.cluster, "row_hashes_of", listen)
    monkeypatch.setattr(scenario.cluster, "row_hashes", None)
    differences_found, tally = found(scenario)
    assert [d.name.key for d in differences_found] == [(int_bytes(7), int_bytes(2))]
    assert hashed == [(int_bytes(7),)] * 3
    assert tally.rows == 500


@pytest.mark.parametrize("refused", ["partition_digests", "row_hashes_of"])
def test_a_server_that_refuses_is_asked_for_every_rows_hash(refused: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guardrails can forbid GROUP BY, and long lists after IN: the same rows are found, and nobody asks again."""
    whole, counted = found(damaged(random.Random(3)))
    scenario, partitions = damaged(random.Random(3)), Partitions()

    async def no(*_: object, **__: object) -> AsyncIterator[list[RawRow]]:
        raise ReplicaRefused("guardrail")
        yield []

    monkeypatch.setattr(scenario.cluster, refused, no)
    for p in range(100, 200):  # that agree, or all rows would be hashed anyway
        for c in range(4):
            scenario.apply(row(p, c, LONG_AGO_US, v0=int_bytes(1)))
    names, tally = found(scenario, partitions)
    assert names == whole
    assert tally.rows == counted.rows + 400
    assert not partitions.worth_it(READING)


@pytest.mark.parametrize("holders", [[1], [2], [3], [2, 3]])
def test_a_partition_that_not_every_replica_has_is_hashed(holders: list[int]) -> None:
    """Whichever of them has it, the first one asked or not."""
    scenario = Scenario(table=PLAIN)
    scenario.fill(20, 5)
    for c in range(5):
        scenario.apply(row(77, c, LONG_AGO_US, v0=int_bytes(1)), on=holders)
    differences_found, tally = found(scenario)
    assert sorted(d.name.key for d in differences_found) == [(int_bytes(77), int_bytes(c)) for c in range(5)]
    assert tally.rows == 105


def test_a_partition_that_comes_in_two_parts_is_hashed_where_one_of_them_differs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Servers answer with one row for each; were one ever cut in two, the part that agrees would hide nothing."""
    scenario = Scenario(table=PLAIN)
    scenario.fill(20, 5)
    scenario.apply(row(7, 2, LONG_AGO_US + 9, v0=int_bytes(1)), on=[2])
    plain = scenario.cluster.partition_digests

    async def cut(
        node: Node, reading: Reading, token_range: TokenRange, now_s: int, **_: bool
    ) -> AsyncIterator[list[RawRow]]:
        async for page in plain(node, reading, token_range, now_s):
            for token, key, count, total in page:
                yield [(token, key, int_bytes(1), b"the same"), (token, key, count, total)]

    monkeypatch.setattr(scenario.cluster, "partition_digests", cut)
    assert [d.name.key for d in found(scenario)[0]] == [(int_bytes(7), int_bytes(2))]


def test_small_partitions_are_not_worth_a_digest_each() -> None:
    """Once a table's partitions are known to hold a row or two, their rows are hashed at once."""
    scenario, partitions = Scenario(table=PLAIN), Partitions()
    scenario.fill(30, 2)
    scenario.apply(row(7, 1, LONG_AGO_US + 9, v0=int_bytes(1)), on=[2])
    assert partitions.worth_it(READING)
    assert len(found(scenario, partitions)[0]) == 1
    assert not partitions.worth_it(READING)


def test_partitions_that_mostly_differ_are_not_worth_a_digest_each() -> None:
    """Their rows are hashed all the same."""
    scenario, partitions = Scenario(table=PLAIN), Partitions()
    scenario.fill(30, 5)
    for p in range(16):
        scenario.apply(row(p, 1, LONG_AGO_US + 9, v0=int_bytes(1)), on=[2])
    assert len(found(scenario, partitions)[0]) == 16
    assert (partitions.groups, partitions.rows, partitions.differing) == (30, 150, 80)
    assert not partitions.worth_it(READING)


def test_a_leaf_is_hashed_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pieces find what the whole finds, each row once."""
    whole, counted = found(damaged(random.Random(5)))
    monkeypatch.setattr(descend, "HASHED_ROWS", 7)
    scenario, pieces, descent = damaged(random.Random(5)), list[Difference](), Descent()

    async def main() -> None:
        leaf = Leaf(TokenRange.full_ring(), scenario.nodes)
        result = await digest_leaf(scenario.reads(READING), leaf)
        rows = differences(scenario.reads(READING), result, descent, Partitions())
        pieces.extend([difference async for difference in rows])

    scenario.run(main)
    assert sorted(pieces, key=repr) == sorted(whole, key=repr)
    assert descent.rows == counted.rows


def test_a_disturbed_hash_is_no_difference() -> None:
    """Its row is read by key on all replicas, and is the same there."""
    scenario = Scenario(table=PLAIN, faults=((Trouble.DISTURBED, 2, 0.0, 1e9),))
    scenario.fill(4, 3)
    hashed, tally = found(scenario)
    assert hashed == []
    assert tally.rows == 12
    assert scenario.cluster.hit[Trouble.DISTURBED]


def test_a_row_that_cannot_be_read_on_every_replica_fails_the_leaf() -> None:
    """What is not known of it is not left out."""
    with pytest.raises(ReplicaError):
        found(damaged(random.Random(1), ((Trouble.DOWN, 3, 0.0, 1e9),)))


def test_statics_and_other_routes_are_left_to_the_join() -> None:
    """A static cell changes the hash of every row of its partition."""
    table = TableReader(cast("ReplicaReader", None), READING, Route.SERVER, SystemClock())
    assert table.hashes_rows
    assert not table.reads(Reading(ROWS, Depth.CONTENT, Capabilities())).hashes_rows
    assert not table.by(Route.CLIENT).hashes_rows
    assert table.reads(Reading(PLAIN, Depth.VERSIONS, Capabilities(hashes=False))).hashes_rows


def test_the_settle_window_passes_while_the_rest_is_digested() -> None:
    """A difference in the first leaf is reported before the last one is digested."""
    scenario = Scenario(table=PLAIN)
    scenario.cluster._pace = Pace(latency_s=0.5, jitter_s=0.0, page_rows=100)
    scenario.fill(40, 1)
    for p in range(40):
        scenario.apply(row(p, 0, LONG_AGO_US + 9, v0=int_bytes(1)), on=[1])
    events: list[str] = []
    scenario.watching.found = lambda _: events.append("found")  # type: ignore[method-assign]
    scenario.watching.leaf_digested = lambda _: events.append("digested")  # type: ignore[method-assign]
    scenario.check(scan=ScanOptions(leaf_rows=1, leaves_at_once=1))
    assert events.count("found") == 40
    assert events.index("found") < len(events) - 1 - events[::-1].index("digested")
