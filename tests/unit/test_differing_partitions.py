"""Leaves digested by partition at once: what a digest of the whole leaf and a closer look say, in one pass."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest

from consistency.checking import narrow_partitions
from consistency.checking.leaves import digest_leaf
from consistency.checking.narrow_partitions import Partitions, digest_by_partition
from consistency.checking.plan import Leaf
from consistency.checking.scan import ScanOptions
from consistency.checking.trees import differing
from consistency.errors import ReplicaRefused, ReplicaUnavailable
from consistency.model.reading import RawRow
from consistency.model.tokens import TokenRange
from consistency.results.findings import Finding
from consistency.results.kinds import Kind
from tests.simulation.scenario import LONG_AGO_US, Scenario, row
from tests.simulation.values import int_bytes
from tests.simulation.vclock import EPOCH_S
from tests.unit.test_differing_rows import PLAIN, READING, damaged

LARGE = Partitions(groups=1, rows=1_000, leaves=4, unlike=4)
"""What makes the next leaf be digested by partition."""


def large_table(seed: int) -> Scenario:
    """Return a cluster with many partitions that agree and some that do not, all over the ring."""
    scenario = damaged(random.Random(seed))
    for p in range(100, 260):
        for c in range(5):
            scenario.apply(row(p, c, LONG_AGO_US, v0=int_bytes(c)))
    return scenario


def checked(scenario: Scenario) -> tuple[list[Finding], int]:
    """Return the findings of a check in small leaves, and how many rows it counted."""
    report = scenario.check(scan=ScanOptions(leaf_rows=60, leaves_at_once=2))
    found = sorted(scenario.watching.findings, key=lambda f: (f.token, sorted(f.key_hex.items())))
    assert report.coverage.complete
    return found, report.tables[0].rows


@pytest.mark.parametrize("seed", range(10))
def test_the_same_rows_are_found_at_once(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by digesting whole leaves first; the rows are counted alike, and some leaves were digested so."""
    plain = checked(large_table(seed))
    used: list[Leaf] = []

    async def listen(*args: object, **kwargs: object) -> object:
        result = await digest_by_partition(*args, **kwargs)  # type: ignore[arg-type]
        used.append(result.leaf)
        return result

    monkeypatch.setattr(Partitions, "worth_it_at_once", lambda partitions, _: partitions.leaves % 3 > 0)
    monkeypatch.setattr("consistency.checking.scan.digest_by_partition", listen)
    assert checked(large_table(seed)) == plain
    assert used


def test_a_leafs_digest_is_the_sum_of_its_partitions() -> None:
    """With the newest write time, whether it is digested whole or by partition, in one piece or several."""
    scenario = large_table(1)
    leaf = Leaf(TokenRange.full_ring(), scenario.nodes)

    async def main() -> None:
        whole = await digest_leaf(scenario.reads(READING), leaf)
        for leaf_rows in (1, 30_000):
            parts = await digest_by_partition(scenario.reads(READING), leaf, Partitions(), leaf_rows=leaf_rows)
            assert parts.digests == whole.digests
            assert parts.newest_us == whole.newest_us
            assert differing([parts]) == [parts] * len(differing([whole]))
            assert parts.differing is not None
            assert parts.differing.agreed_rows >= 800

    scenario.run(main)


def test_a_leaf_of_which_most_rows_differ_has_all_of_them_hashed() -> None:
    """Whichever of its pieces they lie in; the same rows are found."""
    scenario = Scenario(table=PLAIN)
    scenario.fill(30, 5)
    for p in range(16):
        scenario.apply(row(p, 1, LONG_AGO_US + 9, v0=int_bytes(1)), on=[2])
    leaf = Leaf(TokenRange.full_ring(), scenario.nodes)

    async def main() -> None:
        for leaf_rows in (1, 30_000):
            parts = await digest_by_partition(scenario.reads(READING), leaf, Partitions(), leaf_rows=leaf_rows)
            assert differing([parts]) == [parts]
            assert parts.differing is None

    scenario.run(main)


def test_a_row_from_the_future_is_found_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where its replicas agree: the digests by partition tell the newest write time."""
    monkeypatch.setattr(Partitions, "worth_it_at_once", lambda *_: True)
    scenario = large_table(2)
    scenario.apply(row(150, 3, (EPOCH_S + 86_400) * 1_000_000, v0=int_bytes(1)))
    found, _ = checked(scenario)
    assert [list(f.key.values()) for f in found if f.kind is Kind.FUTURE_WRITE_TIME] == [[150, 3]]


@pytest.mark.parametrize(
    "error", [ReplicaRefused("guardrail"), ReplicaUnavailable("a connection was lost")], ids=["refused", "lost"]
)
def test_a_leaf_that_cannot_be_digested_by_partition_is_digested_whole(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is missing from the account, and the same rows are found."""
    plain = checked(large_table(3))
    scenario = large_table(3)

    async def no(*_: object, **__: object) -> AsyncIterator[list[RawRow]]:
        raise error
        yield []

    monkeypatch.setattr(Partitions, "worth_it_at_once", lambda *_: True)
    monkeypatch.setattr(narrow_partitions, "_told_by", no)
    assert checked(scenario) == plain


def test_only_where_leaf_after_leaf_differs() -> None:
    """Not before partitions are known to be large, not where most leaves agree or most partitions differ."""
    assert LARGE.worth_it_at_once(READING)
    assert not Partitions(leaves=4, unlike=4).worth_it_at_once(READING)
    assert not Partitions(groups=10, rows=190, leaves=4, unlike=4).worth_it_at_once(READING)
    assert not Partitions(groups=1, rows=1_000, leaves=5, unlike=2).worth_it_at_once(READING)
    assert not Partitions(groups=1, rows=1_000, leaves=1, unlike=1).worth_it_at_once(READING)
    assert not Partitions(groups=1, rows=1_000, differing=501, leaves=4, unlike=4).worth_it_at_once(READING)
    assert not Partitions(groups=1, rows=1_000, leaves=4, unlike=4, refused=True).worth_it_at_once(READING)
    assert READING.table is PLAIN
