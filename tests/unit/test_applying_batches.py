"""Which rows of a plan go through the pipeline together: whole partitions, as many as a batch has room for."""

from __future__ import annotations

import random
from collections.abc import Sequence

from consistency.rows.names import RowRef
from repair.deciding.case import Case
from repair.deciding.decide import Action
from repair.keeping.entries import Result
from tests.simulation.repairing import MemoryJournal
from tests.simulation.storage import Write
from tests.simulation.values import int_bytes
from tests.simulation.vclock import EPOCH_S
from tests.unit.test_repair_applying import NODES, YOUNG_US, Stage, played

_TOMORROW_US = (EPOCH_S + 86_400) * 1_000_000


def staged(partitions: int, rows: int) -> Stage:
    """Return a stage of so many partitions of so many rows each, all of which node 3 alone holds."""
    stage = Stage(rows=0)
    for p in range(partitions):
        for c in range(rows):
            key, clustering = (int_bytes(p),), (int_bytes(c),)
            stage.rows.append((key, clustering))
            stage.cluster.apply(
                stage.table, Write(key, clustering, YOUNG_US, (("v0", None, int_bytes(7)),), insert=True), [NODES[2]]
            )
    return stage


def in_future(stage: Stage, p: int, c: int) -> None:
    """Write a cell of a row a day ahead, on node 3 alone: such a row is left alone."""
    write = Write((int_bytes(p),), (int_bytes(c),), _TOMORROW_US, (("v0", None, int_bytes(8)),))
    stage.cluster.apply(stage.table, write, [NODES[2]])


def applied(stage: Stage, rate: float | None = None) -> tuple[list[list[RowRef]], dict[Result, int]]:
    """Plan and apply; return which rows were read together before anything else was done with them, and the results."""
    read: list[list[RowRef]] = []
    results: dict[Result, int] = {}

    async def play() -> None:
        plan = await stage.plan()
        read_many = stage.evidence.read_many

        async def noted(refs: Sequence[RowRef]) -> Sequence[Case]:
            read.append(list(refs))
            return await read_many(refs)

        stage.evidence.read_many = noted  # type: ignore[method-assign]
        results.update((await stage.apply(plan, MemoryJournal(plan, random.Random(1)), rate)).results)

    played(stage, play)
    return _first(read), results


def _first(read: Sequence[list[RowRef]]) -> list[list[RowRef]]:
    seen: set[int] = set()
    found = []
    for refs in read:
        names = {hash(tuple(sorted(ref.key_hex.items()))) for ref in refs}
        if not names & seen:
            found.append(refs)
        seen |= names
    return found


def partitions(refs: Sequence[RowRef]) -> dict[int, int]:
    """Return how many rows of each token were read together."""
    tokens = [ref.token for ref in refs]
    return {token: tokens.count(token) for token in tokens}


def test_small_partitions_share_a_batch_and_none_is_cut() -> None:
    """Forty partitions of three rows: batches of at most fifty rows, a partition in one of them."""
    read, results = applied(staged(partitions=40, rows=3))
    assert results == {Result.VERIFIED: 120}
    assert len(read) == 3
    assert max(map(len, read)) <= 50
    assert all(set(partitions(refs).values()) == {3} for refs in read)


def test_a_partition_larger_than_a_batch_has_its_own() -> None:
    """All its rows are read before any is acted on."""
    read, results = applied(staged(partitions=2, rows=60))
    assert results == {Result.VERIFIED: 120}
    assert sorted(map(len, read)) == [60, 60]


def test_a_slow_rate_makes_small_batches_of_whole_partitions() -> None:
    """A batch holds a tenth of a second's rows, but never a part of a partition."""
    read, results = applied(staged(partitions=6, rows=3), rate=70.0)
    assert results == {Result.VERIFIED: 18}
    assert len(read) == 3
    assert all(set(partitions(refs).values()) == {3} and len(refs) <= 7 for refs in read)


def test_a_partition_with_a_row_that_is_left_alone_has_a_batch_of_its_own() -> None:
    """A merge of its neighbours may take that row along: it is read with them, and with nobody else's."""
    stage = staged(partitions=5, rows=3)
    in_future(stage, p=2, c=1)
    read, results = applied(stage)
    assert results == {Result.VERIFIED: 14, Result.LEFT: 1}
    of_two = {ref.token for refs in read for ref in refs if ref.key_hex["p0"] == int_bytes(2).hex()}
    (apart,) = [refs for refs in read if {ref.token for ref in refs} & of_two and len(refs) > 1]
    assert {ref.token for ref in apart} == of_two
    assert max(map(len, read)) == 12


def test_rows_left_alone_do_not_hold_up_the_other_partitions_of_a_batch() -> None:
    """A row that has changed since the plan stands by while its own partition is merged."""
    stage = staged(partitions=3, rows=2)

    async def play() -> None:
        plan = await stage.plan()
        assert {row.action for row in plan.rows} == {Action.RECONCILE}
        late = Write((int_bytes(1),), (int_bytes(0),), YOUNG_US + 5, (("v0", None, int_bytes(9)),))
        stage.cluster.apply(stage.table, late, [NODES[0]])
        tally = await stage.apply(plan, MemoryJournal(plan, random.Random(1)))
        assert tally.results == {Result.VERIFIED: 5, Result.SKIPPED: 1}

    played(stage, play)
