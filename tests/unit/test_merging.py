"""Merging reads: rows that can share a read do, each learns how its own ended, and none waits for long."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from consistency.errors import ReplicaError, ReplicaTimeout, TooFewReplicas
from consistency.model.cqlbytes import split_sequence, split_tuple
from consistency.model.ring import Node
from consistency.rows.names import RowName
from repair.deciding.case import Case
from repair.writing.merging import MOST_ROWS, MergingReads
from repair.writing.statements import Write
from tests.simulation.values import make_table
from tests.unit.test_repair_decide import NODES, cell, evidence

WIDE = make_table("t", ("int", "text"), ("int",), (), ("text",))
ONE = "SELECT v0 FROM ks.t WHERE p0 = ? AND p1 = ? AND c0 = ?"
MANY = "SELECT v0 FROM ks.t WHERE p0 = ? AND p1 IN ? AND c0 = ? LIMIT {}"
OF_ONE = "SELECT v0 FROM ks.t WHERE p0 = ? AND p1 = ? AND c0 IN ? LIMIT {}"


class Server:
    """A writer that keeps what it is sent, and fails where it is told to."""

    def __init__(self, failing: Sequence[bytes] = (), failure: ReplicaError | None = None) -> None:
        self.sent: list[tuple[Node, str, tuple[bytes | None, ...]]] = []
        self._failing = failing
        self._failure = failure or ReplicaTimeout("no answer in time")

    async def through(self, node: Node, write: Write, *, at_all: bool) -> None:
        assert at_all
        self.sent.append((node, write.cql, write.values))
        await asyncio.sleep(0.001)
        asked = split_sequence(write.values[1] or b"") if "p1 IN ?" in write.cql else list(write.values[1:2])
        if set(asked) & set(self._failing):
            raise self._failure


def row(p: bytes, q: bytes, c: bytes) -> Case:
    """Return evidence of one row of the wide table."""
    return replace(evidence(cell(), None, None, of=WIDE), name=RowName(1, (p, q, c)))


def merge(server: Server, rows: Sequence[tuple[Node, Case]]) -> list[str]:
    """Have rows merged all at once; return what each was told, empty where all went well."""

    async def one(merging: MergingReads, node: Node, evidence: Case) -> str:
        try:
            await merging.merge(node, evidence)
        except ReplicaError as error:
            return str(error)
        return ""

    async def main() -> list[str]:
        merging = MergingReads(server)  # type: ignore[arg-type]
        return list(await asyncio.gather(*(one(merging, node, evidence) for node, evidence in rows)))

    return asyncio.run(main())


def test_rows_that_share_all_but_one_column_share_a_read() -> None:
    """All of the clustering key, and of the partition key all but its last column; others have reads of their own."""
    server = Server()
    rows = [row(b"1", b"a", b"x"), row(b"1", b"b", b"x"), row(b"2", b"c", b"x"), row(b"1", b"d", b"y")]
    assert merge(server, [(NODES[0], r) for r in rows]) == [""] * 4
    many, *alone = sorted(server.sent, key=lambda sent: "LIMIT" not in sent[1])
    assert many[1] == MANY.format(3)
    assert many[2][0] == b"1"
    assert split_sequence(many[2][1] or b"") == [b"a", b"b"]
    assert many[2][2] == b"x"
    assert sorted(alone, key=repr) == sorted(
        [(NODES[0], ONE, (b"2", b"c", b"x")), (NODES[0], ONE, (b"1", b"d", b"y"))], key=repr
    )


def test_rows_of_one_partition_share_a_read() -> None:
    """It names their clustering keys; a row that has its clustering key in common with one of them is none of it."""
    server = Server()
    rows = [row(b"1", b"a", b"x"), row(b"1", b"a", b"y"), row(b"1", b"b", b"x"), row(b"1", b"a", b"z")]
    assert merge(server, [(NODES[0], r) for r in rows]) == [""] * 4
    (_, alone, key), (_, many, values) = sorted(server.sent, key=lambda sent: "LIMIT" in sent[1])
    assert (alone, key) == (ONE, (b"1", b"b", b"x"))
    assert many == OF_ONE.format(4)
    assert values[:2] == (b"1", b"a")
    assert split_sequence(values[2] or b"") == [b"x", b"y", b"z"]


def test_clustering_keys_of_several_columns_are_named_as_tuples() -> None:
    """As the servers take them."""
    table = make_table("t", ("int",), ("int", "text"), (), ("text",))
    rows = [
        replace(evidence(cell(), None, None, of=table), name=RowName(1, (b"p", b"1", second)))
        for second in (b"", b"yy")
    ]
    server = Server()
    assert merge(server, [(NODES[0], r) for r in rows]) == ["", ""]
    ((_, cql, values),) = server.sent
    assert cql == "SELECT v0 FROM ks.t WHERE p0 = ? AND (c0, c1) IN ? LIMIT 3"
    assert [split_tuple(part or b"", 2) for part in split_sequence(values[1] or b"")] == [[b"1", b""], [b"1", b"yy"]]


def test_rows_of_one_partition_with_a_collection_are_read_one_by_one() -> None:
    """Servers refuse a list of clustering keys beside a collection."""
    table = make_table("t", ("int",), ("int",), (), ("set<text>",))
    rows = [replace(evidence(cell(), None, None, of=table), name=RowName(1, (b"p", c))) for c in (b"x", b"y")]
    server = Server()
    assert merge(server, [(NODES[0], r) for r in rows]) == ["", ""]
    assert [" IN " in cql for _, cql, _ in server.sent] == [False, False]


def test_partitions_that_may_be_one_to_the_servers_are_read_one_by_one() -> None:
    """Of a list they would read the decimal 1.0 and leave 1.00 as it is, which is a partition of its own."""
    table = make_table("t", ("int", "decimal"), ("int",), (), ("text",))
    like = evidence(cell(), None, None, of=table)
    names = [(b"1", b"1.0", b"x"), (b"1", b"1.00", b"x"), (b"1", b"1.0", b"y")]
    server = Server()
    assert merge(server, [(NODES[0], replace(like, name=RowName(1, name))) for name in names]) == ["", "", ""]
    assert sorted(cql.partition("WHERE ")[2] for _, cql, _ in server.sent) == [
        "p0 = ? AND p1 = ? AND c0 = ?",
        "p0 = ? AND p1 = ? AND c0 IN ? LIMIT 3",
    ]


@pytest.mark.parametrize(("names", "repeated"), [((b"ax", b"ay"), False), ((b"ax", b"bx"), True)])
def test_too_few_replicas_are_certain_for_one_partition_alone(names: Sequence[bytes], *, repeated: bool) -> None:
    """Of several partitions some may have been merged before one had too few: nobody says that nothing was done."""
    server = Server(failing=[b"a"], failure=TooFewReplicas("too few", 2))
    told: list[bool] = []

    async def one(merging: MergingReads, name: bytes) -> None:
        try:
            await merging.merge(NODES[0], row(b"1", name[:1], name[1:]))
        except ReplicaError as error:
            told.append(error.repeated)

    async def main() -> None:
        merging = MergingReads(server)  # type: ignore[arg-type]
        await asyncio.gather(*(one(merging, name) for name in names))

    asyncio.run(main())
    assert set(told) == {repeated}


def test_no_read_has_more_rows_than_may_be_under_way() -> None:
    """The rest has the next one; each coordinator its own."""
    server = Server()
    rows = [(NODES[0], row(b"1", bytes([n]), b"x")) for n in range(MOST_ROWS + 3)]
    rows += [(NODES[1], row(b"1", bytes([100 + n]), b"x")) for n in range(2)]
    assert merge(server, rows) == [""] * len(rows)
    sizes = {(node.name, len(split_sequence(values[1] or b""))) for node, _, values in server.sent}
    assert sizes == {(NODES[0].name, MOST_ROWS), (NODES[0].name, 3), (NODES[1].name, 2)}


def test_a_read_of_several_that_fails_is_done_row_by_row() -> None:
    """One row's trouble is its own: the others are merged, and told so."""
    server = Server(failing=[b"c"])
    names = [b"a", b"b", b"c", b"d"]
    told = merge(server, [(NODES[0], row(b"1", name, b"x")) for name in names])
    assert told == ["", "", "no answer in time", ""]
    assert [cql for _, cql, _ in server.sent] == [MANY.format(5), ONE, ONE, ONE, ONE]


def test_a_row_alone_that_fails_is_not_asked_for_twice() -> None:
    """There is nobody else to blame."""
    server = Server(failing=[b"a"])
    assert merge(server, [(NODES[0], row(b"1", b"a", b"x"))]) == ["no answer in time"]
    assert len(server.sent) == 1


def test_a_static_row_is_read_by_itself() -> None:
    """Its read names no clustering key."""
    table = make_table("t", ("int",), ("int",), ("text",), ("text",))
    static = [
        replace(evidence(cell(), None, None, of=table), name=RowName(1, (key,), static=True)) for key in (b"a", b"b")
    ]
    server = Server()
    assert merge(server, [(NODES[0], r) for r in static]) == ["", ""]
    assert [cql.endswith("c0 IN ()") for _, cql, _ in server.sent] == [True, True]


def test_a_row_that_is_given_up_takes_no_other_with_it() -> None:
    """Where the run is interrupted between two rows of one read, the other one still learns how it ended."""
    server = Server()

    async def main() -> None:
        merging = MergingReads(server)  # type: ignore[arg-type]
        first = asyncio.create_task(merging.merge(NODES[0], row(b"1", b"a", b"x")))
        second = asyncio.create_task(merging.merge(NODES[0], row(b"1", b"b", b"x")))
        await asyncio.sleep(0)
        first.cancel()
        await second
        with pytest.raises(asyncio.CancelledError):
            await first

    asyncio.run(main())
    assert len(server.sent) == 1
