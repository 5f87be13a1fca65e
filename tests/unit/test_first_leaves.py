"""The first leaves of a table, of which it is not known yet whether they differ: by partition where those are large."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from consistency.checking import narrow_partitions
from consistency.checking.leaves import digest_leaf
from consistency.checking.narrow_partitions import Partitions, digest_by_partition, glance
from consistency.checking.plan import Leaf
from consistency.checking.sampling import Sample
from consistency.checking.scan import ScanOptions
from consistency.checking.trees import BRANCH
from consistency.cluster.table_reader import TableReader
from consistency.errors import ReplicaRefused, ReplicaUnavailable
from consistency.model.reading import RawRow, Reading, Route
from consistency.model.ring import Node
from consistency.model.tokens import TokenRange
from tests.simulation.scenario import LONG_AGO_US, Scenario, make_nodes, row
from tests.simulation.storage import token_of
from tests.simulation.values import int_bytes
from tests.unit.test_differing_partitions import checked, large_table
from tests.unit.test_differing_rows import PLAIN, READING


def test_no_leaf_of_large_partitions_is_digested_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each leaf differs: one small piece tells how large partitions are, and by partition each is asked once."""
    scenario = in_large_partitions()
    for p in sorted(range(60), key=lambda p: token_of((int_bytes(p),)))[::4]:
        scenario.apply(row(p, 1, LONG_AGO_US + 9, v0=int_bytes(1)), on=[2])
    asked = Asked(scenario, monkeypatch)
    report = scenario.check(scan=ScanOptions(leaf_rows=240))
    assert (len(scenario.findings), report.coverage.complete) == (15, True)
    assert report.tables[0].ranges > 2 * BRANCH
    assert asked.whole == Counter()
    assert 1 <= asked.glances() <= 2
    assert set(asked.by_partition.values()) == {3}
    assert len(asked.by_partition) == report.tables[0].ranges


def test_a_clean_table_is_digested_by_partition_at_its_beginning_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until its first leaves were compared; the rest are digested whole."""
    scenario = in_large_partitions()
    asked = Asked(scenario, monkeypatch)
    report = scenario.check(scan=ScanOptions(leaf_rows=120, leaves_at_once=4))
    assert report.coverage.complete
    assert 1 <= asked.glances() <= 2
    assert BRANCH <= len(asked.by_partition) < 3 * BRANCH
    assert len(asked.by_partition) + len(asked.whole) == report.tables[0].ranges > 4 * BRANCH
    assert not asked.by_partition.keys() & asked.whole.keys()


@pytest.mark.parametrize("rows", [1, 25])
def test_leaves_of_small_partitions_are_digested_whole(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their answers would be too many: nothing but a small piece, on one replica, is asked for by partition."""
    scenario = Scenario(table=PLAIN)
    scenario.fill(1_000 // rows, rows)
    asked = Asked(scenario, monkeypatch)
    scenario.check(scan=ScanOptions(leaf_rows=100))
    assert 1 <= asked.glances() <= 2
    assert not asked.by_partition
    assert len(asked.whole) > 2 * BRANCH


@pytest.mark.parametrize(
    ("leaf_rows", "sample", "gone"),
    [(2_000, None, None), (100, Sample(share=0.5), None), (100, None, 2)],
    ids=["small", "sampled", "a replica is down"],
)
def test_partitions_are_not_looked_at_first(
    leaf_rows: int, sample: Sample | None, gone: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a table is soon read whole, where leaves are small, and where no leaf could be told by its partitions."""
    scenario = in_large_partitions()
    if gone is not None:
        ring = scenario.cluster.ring_before
        nodes = tuple(replace(node, up=number != gone) for number, node in enumerate(ring.nodes))
        scenario.cluster.rings(replace(ring, nodes=nodes))
    asked = Asked(scenario, monkeypatch)
    scenario.check(scan=ScanOptions(leaf_rows=leaf_rows), sample=sample)
    assert not asked.by_partition
    assert asked.whole


def test_a_replica_that_fails_ends_the_digests_by_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or leaf after leaf would be asked for by partition first, and then once more."""
    scenario = in_large_partitions()
    asked = Asked(scenario, monkeypatch)

    tried: list[Leaf] = []

    async def fails(_: object, leaf: Leaf, *__: object, **___: object) -> object:
        tried.append(leaf)
        raise ReplicaUnavailable("a connection was lost")

    monkeypatch.setattr("consistency.checking.scan.digest_by_partition", fails)
    report = scenario.check(scan=ScanOptions(leaf_rows=120, leaves_at_once=1))
    assert len(tried) == 1
    assert len(asked.whole) == report.tables[0].ranges
    assert report.coverage.complete


def test_a_glance_that_finds_nothing_looks_once_more_and_no_further() -> None:
    """A partition may be larger than a small piece of a leaf is; one that does not answer tells nothing."""
    pieces: list[TokenRange] = []
    told: dict[str, list[RawRow]] = {"first": [], "second": [(b"", b"k", (90).to_bytes(8, "big"), b"")]}

    async def answered(_: Node, piece: TokenRange, *__: object) -> AsyncIterator[list[RawRow]]:
        pieces.append(piece)
        yield told["first" if len(pieces) == 1 else "second"]

    async def fails(*_: object) -> AsyncIterator[list[RawRow]]:
        raise ReplicaRefused("guardrail")
        yield []

    leaf = Leaf(TokenRange.full_ring(), make_nodes(("dc1",) * 3))
    table = SimpleNamespace(reading=READING, partition_digests=answered, now_s=lambda: 1)
    known = Partitions()
    asyncio.run(glance(cast("TableReader", table), leaf, known))
    assert (known.at_first, known.seen_groups, known.seen_rows, len(pieces)) == (True, 1, 90, 2)
    told["second"] = []
    pieces.clear()
    known = Partitions()
    asyncio.run(glance(cast("TableReader", table), leaf, known))
    assert (known.at_first, len(pieces)) == (False, 2)
    table.partition_digests = fails
    asyncio.run(glance(cast("TableReader", table), leaf, known))
    assert not known.at_first


def test_a_leaf_is_cut_by_how_many_answers_are_expected() -> None:
    """Of large partitions there are few; of those that are not known there may be as many as rows."""
    leaf = Leaf(TokenRange.full_ring(), ())

    def pieces(**known: int) -> int:
        return len(Partitions(**known).pieces_by_partition(leaf, 40_000))

    assert pieces() == pieces(groups=7, rows=7) == pieces(seen_groups=7, seen_rows=7) == 4
    assert pieces(groups=10, rows=1_000) == pieces(seen_groups=10, seen_rows=1_000) == 1
    assert pieces(groups=10, rows=20) == pieces(groups=10, rows=20, seen_groups=1, seen_rows=2) == 2
    assert pieces(groups=10, rows=1_000, largest=40_000_000) == 40
    assert len(Partitions(groups=10, rows=1_000).pieces_by_row(leaf, 40_000)) == 4


def test_more_partitions_than_can_be_held_are_digested_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a leaf has more than was expected; it is remembered how small they are."""
    monkeypatch.setattr(narrow_partitions, "MOST_HELD", 50)
    scenario = large_table(1)
    leaf = Leaf(TokenRange.full_ring(), scenario.nodes)

    async def main() -> None:
        whole = await digest_leaf(scenario.reads(READING), leaf)
        known = Partitions(seen_groups=1, seen_rows=100, at_first=True)
        result = await digest_by_partition(scenario.reads(READING), leaf, known, leaf_rows=1)
        assert (result.digests, result.newest_us, result.differing) == (whole.digests, whole.newest_us, None)
        assert known.seen_groups > 50
        assert known.groups == 0
        assert not known.worth_it_at_once(READING)

    scenario.run(main)


@pytest.mark.parametrize("seed", range(10))
def test_the_same_rows_are_found_where_the_first_leaves_are_digested_by_partition(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by digesting them whole."""
    plain = checked(large_table(seed))
    monkeypatch.setattr(narrow_partitions, "_LEAST_AT_FIRST", 2)
    monkeypatch.setattr(narrow_partitions, "_LEAST_AT_ONCE", 2)
    scenario = large_table(seed)
    asked = Asked(scenario, monkeypatch)
    assert checked(scenario) == plain
    assert sum(asked.by_partition.values()) > 3 * BRANCH


def in_large_partitions() -> Scenario:
    """Return a cluster with 2,400 rows in partitions of 40, the same everywhere."""
    scenario = Scenario(table=PLAIN)
    scenario.fill(60, 40)
    return scenario


class Asked:
    """Counts what a check asks of the replicas: the ranges that they digest whole, and by partition."""

    def __init__(self, scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
        self.whole = Counter[TokenRange]()
        self.by_partition = Counter[TokenRange]()
        digest, partition_digests = scenario.cluster.digest, scenario.cluster.partition_digests

        def whole(node: Node, reading: Reading, route: Route, token_range: TokenRange, *_: int, **more: bool) -> Any:
            self.whole[token_range] += 1
            return digest(node, reading, route, token_range, *_, **more)

        def by_partition(node: Node, reading: Reading, token_range: TokenRange, *_: int, **more: bool) -> Any:
            self.by_partition[token_range] += 1
            return partition_digests(node, reading, token_range, *_, **more)

        monkeypatch.setattr(scenario.cluster, "digest", whole)
        monkeypatch.setattr(scenario.cluster, "partition_digests", by_partition)

    def glances(self) -> int:
        """Leave out the pieces that one replica alone was asked for, and return how many they are."""
        pieces = [token_range for token_range, replicas in self.by_partition.items() if replicas == 1]
        for token_range in pieces:
            del self.by_partition[token_range]
        return len(pieces)
