"""Leaves digested by partition or by row at once: what a whole leaf's digest and a closer look say, in one pass."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import reduce

import pytest

from consistency.checking import narrow_partitions
from consistency.checking.leaves import DifferingRows, digest_leaf
from consistency.checking.narrow_partitions import Partitions, digest_by_partition
from consistency.checking.narrow_rows import digest_by_row
from consistency.checking.plan import Leaf
from consistency.checking.scan import Scan, ScanOptions
from consistency.checking.trees import differing
from consistency.cluster.server_digest import ServerDigest
from consistency.errors import ReplicaRefused, ReplicaUnavailable
from consistency.model.reading import Capabilities, RawRow
from consistency.model.tokens import TokenRange
from consistency.model.tree import Digest
from consistency.results.findings import Finding
from consistency.results.kinds import Kind
from tests.simulation.scenario import LONG_AGO_US, Scenario, row
from tests.simulation.values import int_bytes, make_table
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


@pytest.mark.parametrize("by_row", [False, True], ids=["partitions", "rows"])
def test_a_row_from_the_future_is_found_at_once(monkeypatch: pytest.MonkeyPatch, *, by_row: bool) -> None:
    """Also where its replicas agree: what is digested in parts tells the newest write time."""
    monkeypatch.setattr(Partitions, "worth_it_at_once", lambda *_: not by_row)
    monkeypatch.setattr(Partitions, "rows_worth_it_at_once", lambda *_: by_row)
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

    async def fails(*_: object, **__: object) -> object:
        raise error

    monkeypatch.setattr(Partitions, "worth_it_at_once", lambda *_: True)
    monkeypatch.setattr(narrow_partitions, "_told_by", no)
    assert checked(scenario) == plain
    monkeypatch.setattr(Partitions, "worth_it_at_once", lambda *_: False)
    monkeypatch.setattr(Partitions, "rows_worth_it_at_once", lambda *_: True)
    monkeypatch.setattr("consistency.checking.scan.digest_by_row", fails)
    assert checked(large_table(3)) == plain


def test_only_where_leaf_after_leaf_differs() -> None:
    """Not where partitions are known to be small, not where most leaves agree or most partitions differ."""
    assert LARGE.worth_it_at_once(READING)
    assert Partitions(leaves=4, unlike=4).worth_it_at_once(READING)
    assert not Partitions(groups=10, rows=190, leaves=4, unlike=4).worth_it_at_once(READING)
    assert not Partitions(groups=1, rows=1_000, leaves=5, unlike=2).worth_it_at_once(READING)
    assert not Partitions(groups=1, rows=1_000, leaves=1, unlike=1).worth_it_at_once(READING)
    assert not Partitions(groups=1, rows=1_000, differing=501, leaves=4, unlike=4).worth_it_at_once(READING)
    assert not Partitions(groups=1, rows=1_000, leaves=4, unlike=4, refused=True).worth_it_at_once(READING)
    assert READING.table is PLAIN


def test_rows_are_hashed_at_once_where_partitions_are_no_help() -> None:
    """Where nearly every leaf differs, of small partitions or in most of them, and few enough rows to remember."""
    lone = replace(READING, table=make_table("t", ("int",), (), (), ("int",)))
    assert Partitions(leaves=4, unlike=4).rows_worth_it_at_once(lone)
    assert Partitions(groups=10, rows=19, leaves=4, unlike=3).rows_worth_it_at_once(READING)
    assert Partitions(groups=1, rows=1_000, differing=501, leaves=4, unlike=4).rows_worth_it_at_once(READING)
    assert Partitions(groups=1, rows=1_000, leaves=4, unlike=4, refused=True).rows_worth_it_at_once(READING)
    assert not LARGE.rows_worth_it_at_once(READING)
    assert not Partitions(leaves=4, unlike=2).rows_worth_it_at_once(lone)
    assert not Partitions(leaves=1, unlike=1).rows_worth_it_at_once(lone)
    assert not Partitions(leaves=4, unlike=4, dense=True).rows_worth_it_at_once(lone)


@pytest.mark.parametrize("seed", range(10))
def test_the_same_rows_are_found_by_row_at_once(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by digesting whole leaves first, also where more differ than are remembered; rows are counted alike."""
    plain = checked(large_table(seed))
    used: list[int | None] = []

    async def listen(*args: object, **kwargs: object) -> object:
        result = await digest_by_row(*args, **kwargs)  # type: ignore[arg-type]
        used.append(None if result.differing is None else len(result.differing.names))  # type: ignore[union-attr]
        return result

    monkeypatch.setattr(Partitions, "worth_it_at_once", lambda *_: False)
    monkeypatch.setattr(Partitions, "rows_worth_it_at_once", lambda partitions, _: partitions.leaves % 3 > 0)
    monkeypatch.setattr("consistency.checking.narrow_rows.MOST_KNOWN", 1 + seed % 2)
    monkeypatch.setattr("consistency.checking.scan.digest_by_row", listen)
    assert checked(large_table(seed)) == plain
    assert any(used)


def test_what_differs_is_remembered_until_it_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """And no longer: not by the account, nor where nothing differs."""
    monkeypatch.setattr(Partitions, "worth_it_at_once", lambda *_: False)
    monkeypatch.setattr(Partitions, "rows_worth_it_at_once", lambda *_: True)
    ended: list[Scan] = []
    monkeypatch.setattr(Scan, "close", lambda scan: _closed(scan, ended))
    checked(large_table(1))
    assert ended
    for scan in ended:
        assert not scan._known
        assert scan.account is not None
        assert all(result.differing is None for result in scan.account.results.values())


async def _closed(scan: Scan, ended: list[Scan]) -> None:
    ended.append(scan)


def test_a_leafs_digest_is_the_sum_of_its_rows() -> None:
    """With the newest write time, in one piece or several; of more rows than are remembered none is."""
    scenario = large_table(1)
    leaf = Leaf(TokenRange.full_ring(), scenario.nodes)

    async def main() -> None:
        whole = await digest_leaf(scenario.reads(READING), leaf)
        for leaf_rows in (1, 30_000):
            known = Partitions()
            rows = await digest_by_row(scenario.reads(READING), leaf, known, leaf_rows=leaf_rows)
            assert rows.digests == whole.digests
            assert rows.newest_us == whole.newest_us
            assert isinstance(rows.differing, DifferingRows)
            assert rows.differing.any == bool(differing([whole]))
            assert len(set(rows.differing.names)) == len(rows.differing.names)
            assert rows.differing.rows >= 800
            assert not known.dense
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("consistency.checking.narrow_rows.MOST_KNOWN", len(rows.differing.names) - 1)
                again = await digest_by_row(scenario.reads(READING), leaf, known, leaf_rows=leaf_rows)
            assert again.differing is None
            assert known.dense
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("consistency.checking.narrow_rows.MOST_HELD", 30)
                known = Partitions()
                again = await digest_by_row(scenario.reads(READING), leaf, known, leaf_rows=leaf_rows)
            assert (again.digests, again.newest_us, again.differing) == (whole.digests, whole.newest_us, None)
            assert known.dense

    scenario.run(main)


def test_hashes_add_up_as_the_servers_do() -> None:
    """Signed, whatever their width, and however they came."""
    rng = random.Random(7)
    for width in (8, 16):
        hashes = [rng.randbytes(width) for _ in range(1_000)] + [b"\xff" * width, b"\x80" + bytes(width - 1)]
        number = sum(int.from_bytes(each, "big", signed=True) for each in hashes)
        for parts in ([hashes], [hashes[:3], [], hashes[3:]], [[*hashes[:5], b""], hashes[5:]]):
            asked = ServerDigest(READING, newest=True)
            digest = reduce(asked.add, map(asked.of_hashes, parts), Digest(0, bytes(20), 5))
            assert int.from_bytes(digest.value, "big") == number % 2**160
            assert (digest.rows, digest.newest_us) == (sum(map(len, parts)), 5)
    assert ServerDigest(READING, newest=True).of_hashes([]) == Digest(0, bytes(20))
    remainders = replace(READING, capabilities=Capabilities(hashes=False))
    alone = [(number + 2**126).to_bytes(16, "big") for number in (3, -4, 2**125)]
    digest = ServerDigest(remainders, newest=True).of_hashes(alone)
    assert int.from_bytes(digest.value, "big") == 2**125 - 1
