"""Leaves digested by the hashes of their rows, which their count then begins with: the digests and counts of before."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consistency.checking import narrow_arrays, range_settling
from consistency.checking.leaves import digest_leaf
from consistency.checking.listing import Listing
from consistency.checking.narrow_arrays import digest_by_arrays
from consistency.checking.narrow_partitions import Partitions
from consistency.checking.plan import Leaf
from consistency.checking.range_rows import FirstReadings, RangeRows
from consistency.checking.scan import ScanOptions
from consistency.checking.trees import differing
from consistency.cluster.server_digest import ServerDigest
from consistency.errors import ReplicaError, ReplicaTimeout, TooMuchToScan
from consistency.model.reading import Capabilities, Depth, Reading
from consistency.model.row_arrays import HashedRows
from consistency.model.schema import Table
from consistency.model.tokens import TokenRange
from consistency.results.report import Report
from tests.simulation.cases import run_case
from tests.simulation.scenario import LONG_AGO_US, Scenario, row
from tests.simulation.values import int_bytes, make_table
from tests.simulation.vclock import EPOCH_S

PLAIN = make_table("t", ("int",), ("int",), (), ("int", "text"))
BLOBS = make_table("t", ("blob",), ("int",), (), ("int", "text"))
MAPS = make_table("t", ("int",), ("text",), (), ("int", "map<text, int>"))
VARINTS = make_table("t", ("int",), ("varint",), (), ("int",))
OLD = Capabilities(hashes=False, unchecked_text=True, collection_times=False)
SMALL = ScanOptions(leaf_rows=40, leaves_at_once=2, max_findings=0)


def dense(table: Table = PLAIN, capabilities: Capabilities | None = None, **more: Any) -> Scenario:
    """Return a cluster of which every leaf differs: rows stale, missing, tied, and of unlike expiries."""
    scenario = Scenario(table=table, capabilities=capabilities or Capabilities(), **more)
    scenario.fill(100, 4)
    for p in range(100):
        write = row(p, p % 4, LONG_AGO_US + p % 7, v0=int_bytes(9))
        scenario.apply(write, on=[1 + p % 3])
        if p % 5 == 0:
            scenario.apply(row(p, 70, LONG_AGO_US, v0=int_bytes(9)), on=[1, 2])
        if p % 6 == 0:
            scenario.apply(replace(write, ts=LONG_AGO_US + 9, expires=EPOCH_S + 90_000))
            scenario.apply(replace(write, ts=LONG_AGO_US + 9, expires=EPOCH_S + 90_500), on=[2])
    return scenario


def used(monkeypatch: pytest.MonkeyPatch) -> list[Leaf]:
    """Return the leaves that are to be digested by arrays from now on, as they come."""
    leaves: list[Leaf] = []

    async def listen(*args: Any, **kwargs: Any) -> Any:
        leaves.append(args[1])
        return await digest_by_arrays(*args, **kwargs)

    monkeypatch.setattr("consistency.checking.scan.digest_by_arrays", listen)
    return leaves


def never(*_: object) -> bool:
    """Say no."""
    return False


def without(monkeypatch: pytest.MonkeyPatch, scenario: Scenario, **options: Any) -> Report:
    """Return the report of a check that digests every leaf whole."""
    with monkeypatch.context() as patched:
        patched.setattr(Partitions, "arrays_worth_it_at_once", never)
        return scenario.check(scan=SMALL, **options)


@pytest.mark.parametrize("depth", [Depth.CONTENT, Depth.VERSIONS])
@pytest.mark.parametrize(
    ("table", "capabilities"),
    [(PLAIN, Capabilities()), (MAPS, Capabilities()), (PLAIN, OLD), (BLOBS, OLD), (MAPS, OLD)],
    ids=["mask_hash", "mask_hash of maps", "remainder", "murmur3", "remainder of maps"],
)
def test_the_sum_of_hashes_is_the_servers_digest(table: Table, capabilities: Capabilities, depth: Depth) -> None:
    """With the newest write time, in one piece or several, and it is known what differs."""
    scenario = dense(table, capabilities)
    reads, leaf = scenario.reads(Reading(table, depth, capabilities)), Leaf(TokenRange.full_ring(), scenario.nodes)

    async def main() -> None:
        whole = await digest_leaf(reads, leaf)
        for leaf_rows in (1, 30_000):
            found = await digest_by_arrays(reads, leaf, Partitions(), leaf_rows=leaf_rows)
            assert found.digests == whole.digests
            assert found.newest_us == whole.newest_us
            assert found.scheme == whole.scheme
            assert differing([found]) == [found]
            assert isinstance(found.differing, FirstReadings)
            assert found.differing.any
            first = [await RangeRows(reads, part.leaf).first() for part in found.differing.parts]
            for before, part in zip(first, found.differing.parts, strict=True):
                assert part.unlike.keys.tolist() == before.keys.tolist()
                assert (part.unlike.hashes == before.hashes).all()

    scenario.run(main)


@given(
    st.lists(st.binary(min_size=16, max_size=16)),
    st.sampled_from([Capabilities(), OLD]),
    st.sampled_from([PLAIN, BLOBS]),
)
def test_arrays_add_up_as_bytes_do(hashes: list[bytes], capabilities: Capabilities, table: Table) -> None:
    """Whatever the signs are, and however many carry over."""
    asked = ServerDigest(Reading(table, Depth.CONTENT, capabilities), newest=False)
    width = 8 if table is BLOBS and capabilities is OLD else 16
    hashes = [raw[:width] for raw in hashes]
    words = [[int.from_bytes(raw[at : at + 8], "big") for at in (0, 8)] for raw in hashes]
    rows = replace(HashedRows.none(0), tokens=np.zeros(len(hashes), np.int64))
    rows = replace(rows, hashes=np.array(words, np.uint64).reshape(-1, 2))
    assert asked.of_arrays(rows) == asked.of_hashes(hashes)


@pytest.mark.parametrize("capabilities", [Capabilities(), OLD], ids=["5.0", "4.1"])
@pytest.mark.parametrize("table", [PLAIN, BLOBS, MAPS], ids=["plain", "blobs", "maps"])
def test_the_same_rows_are_counted(table: Table, capabilities: Capabilities, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where every leaf is digested whole, and as a listing has: kinds, coverage, rows, and the trees' roots."""
    plain = without(monkeypatch, dense(table, capabilities))
    listed = dense(table, capabilities).check(scan=replace(SMALL, max_findings=None))
    leaves = used(monkeypatch)
    report = dense(table, capabilities).check(scan=SMALL)
    assert len(leaves) >= 4
    assert report.findings_by_kind == plain.findings_by_kind == listed.findings_by_kind
    assert {"expiry", "stale", "missing", "tie"} <= set(report.findings_by_kind)
    assert report.coverage == plain.coverage
    (mine,), (other,) = report.tables, plain.tables
    assert (mine.rows, mine.strip, mine.held) == (other.rows, other.strip, other.held)
    assert [tree.roots for tree in mine.trees] == [tree.roots for tree in other.trees]


def test_what_was_read_is_not_read_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A leaf is hashed once before its window and once after it, and digested not at all."""
    scenario, leaves = dense(), used(monkeypatch)
    hashed: list[TokenRange] = []
    digested: list[TokenRange] = []
    hash_rows, digest = scenario.cluster.hashed_rows, scenario.cluster.digest

    async def hashing(*args: Any, **kwargs: Any) -> Any:
        hashed.append(args[2])
        return await hash_rows(*args, **kwargs)

    async def digesting(*args: Any, **kwargs: Any) -> Any:
        digested.append(args[3])
        return await digest(*args, **kwargs)

    monkeypatch.setattr(scenario.cluster, "hashed_rows", hashing)
    monkeypatch.setattr(scenario.cluster, "digest", digesting)
    scenario.check(scan=SMALL)
    assert leaves
    assert digested
    for leaf in leaves:
        assert hashed.count(leaf.token_range) == 2 * 3
        assert leaf.token_range not in digested


def test_a_table_of_which_few_leaves_differ_is_digested_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of four, or none, and where there is room to list rows."""
    leaves = used(monkeypatch)
    scenario = Scenario(table=PLAIN)
    scenario.fill(200, 4)
    assert scenario.check(scan=SMALL).exit_code == 0
    scenario = Scenario(table=PLAIN)
    scenario.fill(200, 4)
    for p in range(6):
        scenario.apply(row(p, 1, LONG_AGO_US + 5, v0=int_bytes(50)), on=[1])
    assert scenario.check(scan=SMALL).findings_by_kind == {"stale": 6}
    dense().check(scan=replace(SMALL, max_findings=None))
    assert leaves == []
    dense(VARINTS).check(scan=SMALL)
    assert leaves == [], "two spellings of a key are two hashes"


def test_a_listing_ends_at_the_last_of_some_leaves_that_it_has_no_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room that no leaf fits in would have every further leaf digested, hashed by name, refused, and then counted."""
    plain = without(monkeypatch, dense())
    leaves = used(monkeypatch)
    report = dense().check(scan=replace(SMALL, leaf_rows=20, max_findings=14))
    assert leaves
    (table,), (other,) = report.tables, plain.tables
    assert 0 < table.divergent_rows - table.counted.rows < 14
    assert table.divergent_rows == other.divergent_rows
    assert report.findings_by_kind == plain.findings_by_kind


def test_a_leaf_that_has_too_many_rows_does_not_end_a_listing() -> None:
    """The next one may have few; only after four on end nobody expects that any more."""
    listing = Listing(10)
    assert [listing.takes(rows) for rows in (4, 7, 8, 9, 3)] == [True, False, False, False, True]
    assert [listing.takes(rows) for rows in (4, 5, 1)] == [False, False, True]
    assert [listing.takes(rows) for rows in (4, 5, 6, 7, 1)] == [False] * 5
    assert listing.full
    assert Listing().takes(10**9)


def test_hashes_are_read_ahead_only_while_few_rows_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would be held beside the others; the same rows are counted."""
    leaves = used(monkeypatch)
    plain = dense().check(scan=SMALL)
    unbounded = len(leaves)
    leaves.clear()
    monkeypatch.setattr(range_settling, "MOST_WAITING", 60)
    assert dense().check(scan=SMALL).findings_by_kind == plain.findings_by_kind
    assert 0 < len(leaves) < unbounded


def test_a_leaf_with_a_huge_partition_is_digested_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """More rows than can be held are not read for a digest, and nobody tries again."""
    plain = without(monkeypatch, dense())
    monkeypatch.setattr(narrow_arrays, "MOST_HELD", 3)
    leaves = used(monkeypatch)
    report = dense().check(scan=replace(SMALL, leaves_at_once=1))
    assert report.findings_by_kind == plain.findings_by_kind
    assert [tree.roots for tree in report.tables[0].trees] == [tree.roots for tree in plain.tables[0].trees]
    assert len(leaves) == 1


def test_rows_of_one_name_are_read_in_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """The digest is right all the same, and the rows are joined."""
    plain = without(monkeypatch, dense())
    scenario, leaves = dense(), used(monkeypatch)
    honest = scenario.cluster.hashed_rows

    async def colliding(*asked: Any, most: int | None) -> HashedRows:
        found = await honest(*asked, most=most)
        return replace(found, keys=found.keys % np.uint64(5))

    monkeypatch.setattr(scenario.cluster, "hashed_rows", colliding)
    report = scenario.check(scan=SMALL)
    assert leaves
    assert report.findings_by_kind == plain.findings_by_kind
    assert [tree.roots for tree in report.tables[0].trees] == [tree.roots for tree in plain.tables[0].trees]


def test_nothing_is_known_of_a_leaf_with_two_rows_of_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor of its other pieces: all of it is read once more, in another way where that must be."""
    scenario = dense()
    reads, leaf = (
        scenario.reads(Reading(PLAIN, Depth.CONTENT, Capabilities())),
        Leaf(TokenRange.full_ring(), scenario.nodes),
    )
    honest, (first, *_) = scenario.cluster.hashed_rows, leaf.token_range.split(3)

    async def colliding(*asked: Any, most: int | None) -> HashedRows:
        found = await honest(*asked, most=most)
        return replace(found, keys=found.keys % np.uint64(5)) if first == asked[2] else found

    async def main() -> None:
        whole = await digest_leaf(reads, leaf)
        monkeypatch.setattr(scenario.cluster, "hashed_rows", colliding)
        found = await digest_by_arrays(reads, leaf, Partitions(), leaf_rows=30_000)
        assert found.differing is None
        assert found.digests == whole.digests

    scenario.run(main)


@pytest.mark.parametrize("trouble", [ReplicaTimeout, TooMuchToScan, ReplicaError])
def test_a_replica_that_does_not_answer_for_a_while_is_asked_again(
    trouble: type[ReplicaError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The leaf is digested whole then: nothing is lost, nothing is counted twice."""
    plain = without(monkeypatch, dense())
    scenario, leaves = dense(), used(monkeypatch)
    honest, failed = scenario.cluster.hashed_rows, list[TokenRange]()

    async def failing(*asked: Any, most: int | None) -> HashedRows:
        if asked[0] == scenario.nodes[1] and most is not None and len(failed) < 2:
            failed.append(asked[2])
            raise trouble("not now")
        return await honest(*asked, most=most)

    monkeypatch.setattr(scenario.cluster, "hashed_rows", failing)
    report = scenario.check(scan=SMALL)
    assert len(leaves) > len(failed) == 2
    assert report.coverage == plain.coverage
    assert report.findings_by_kind == plain.findings_by_kind


def test_what_was_in_flight_when_it_was_read_ahead_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that agrees after the window is none that differs."""
    scenario, leaves = Scenario(table=PLAIN), used(monkeypatch)
    scenario.fill(200, 4)
    rng = random.Random(3)
    late = rng.sample(range(200), 150)
    for p in range(200):
        scenario.apply(row(p, 1, LONG_AGO_US + 5, v0=int_bytes(50)), on=[1])

    def arrive() -> None:
        for p in late:
            scenario.apply(row(p, 1, LONG_AGO_US + 5, v0=int_bytes(50)))

    scenario.loop.call_later(3.0, arrive)
    report = scenario.check(scan=SMALL, settle_window_s=5.0)
    assert leaves
    assert report.findings_by_kind == {"stale": 50}


def test_an_interrupt_leaves_what_was_read_ahead_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that wait for their second reading are neither found nor forgotten."""
    leaves = used(monkeypatch)
    report = dense().check(scan=SMALL, settle_window_s=60.0, stop_at_s=10.0)
    assert leaves
    assert report.interrupted
    assert report.tables[0].unsettled_rows > 0
    assert report.coverage.failed > 0


def test_all_promises_hold_where_every_leaf_is_hashed_for_a_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of simulated clusters with writes, faults and interrupts, whether leaves differ or not."""
    leaves = used(monkeypatch)
    monkeypatch.setattr(Partitions, "_unlike", lambda _, share: share > 0)
    monkeypatch.setattr("tests.simulation.cases._max_findings", lambda _: 0)
    for seed in range(92_000, 92_050):
        assert run_case(seed).broken == []
    assert len(leaves) > 20
