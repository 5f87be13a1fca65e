"""Rows by token: no key in what is sent, every row found as by its key, and no more read than that takes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field, replace

import pytest

from consistency.cluster.by_token import MOST_PAGES, RowsByToken, paged_by_range, token_of
from consistency.cluster.locality import TracesLeft
from consistency.cluster.port import Key
from consistency.cluster.wire import INT, Page, Statement
from consistency.errors import ReplicaError, ReplicaRefused, TooMuchToScan
from consistency.model.reading import Capabilities, Depth, RawRow, Reading
from consistency.model.ring import Node
from consistency.model.schema import Table
from consistency.model.tokens import TokenRange
from tests.simulation.values import int_bytes, long_bytes, make_table
from tests.unit.fake_cluster import nodes

NODE = nodes()[0]
NOW_S = 1_700_000_000
ROWS = make_table("t", ("int",), ("int",), ("int",), ("int",))
CAPABILITIES = Capabilities(timed=False)


def key(*numbers: int) -> Key:
    """Serialize a key of ints."""
    return tuple(map(int_bytes, numbers))


PARTITION = key(7)
TOKEN = token_of(PARTITION)
AT = f"token(p0) >= {TOKEN} AND token(p0) <= {TOKEN}"


@dataclass
class Server:
    """Holds one partition's rows, and perhaps others of its token; sends pages, and keeps what it was asked."""

    rows: list[RawRow]
    page_rows: int = 100
    forbids: str = ""
    error: type[ReplicaError] = ReplicaRefused
    asked: list[tuple[str, Key]] = field(default_factory=list)
    pages: int = 0

    async def ask(
        self, node: Node, reading: Reading, text: str, values: Key, now_s: int
    ) -> AsyncGenerator[list[RawRow], None]:
        """Answer a statement."""
        self.asked.append((text.partition(" WHERE ")[2], values))
        if self.forbids and self.forbids in text:
            msg = f"{node}: not allowed"
            raise self.error(msg)
        found = self.rows
        if values:
            found = [row for row in self.rows if row[reading.layout.key][-len(values) :] == values]
        for at in range(0, len(found), self.page_rows):
            self.pages += 1
            yield found[at : at + self.page_rows]


def raw(reading: Reading, partition: Key, clustering: bytes | None, token: int = TOKEN) -> RawRow:
    """Return a row; without a clustering key what a partition shows that holds statics alone."""
    cells = sum(c.width for c in reading.statics + reading.regulars)
    return (long_bytes(token), *partition, clustering, *(None for _ in range(cells)))


def reading_of(table: Table = ROWS) -> Reading:
    """Read values and write times."""
    return Reading(table, Depth.CONTENT, CAPABILITIES)


def found_on(server: Server, *keys: Key, reading: Reading | None = None) -> dict[Key, RawRow]:
    """Read rows by key."""
    return asyncio.run(RowsByToken(server.ask).rows(NODE, reading or reading_of(), keys, NOW_S))


def test_rows_of_one_partition_are_read_by_its_token() -> None:
    """One range read that binds nothing; another partition of the token, and what is not there, are left out."""
    reading = reading_of()
    others = [raw(reading, key(8), int_bytes(c)) for c in range(3)]
    mine = [raw(reading, PARTITION, None), *(raw(reading, PARTITION, int_bytes(c)) for c in range(3))]
    server = Server(others + mine)
    assert found_on(server, key(7, 1), key(7, 9), key(7, 2)) == {key(7, 1): mine[2], key(7, 2): mine[3]}
    assert server.asked == [(AT, ())]


def test_each_partition_is_asked_for_once() -> None:
    """Whatever the order of the keys, also where one comes twice."""
    server = Server([])
    assert found_on(server, key(7, 1), key(8, 1), key(7, 2), key(7, 1)) == {}
    assert [values for _, values in server.asked] == [(), ()]


def test_no_more_is_read_once_every_row_was_seen() -> None:
    """The pages after the one that has the last of the rows stay on the server."""
    reading = reading_of()
    server = Server([raw(reading, PARTITION, int_bytes(c)) for c in range(100)], page_rows=5)
    assert list(found_on(server, key(7, 3), key(7, 8))) == [key(7, 3), key(7, 8)]
    assert server.pages == 2


def test_a_row_of_a_large_partition_is_asked_for_by_its_clustering_key() -> None:
    """After so many pages: still by range, the partition's key is not bound."""
    reading = reading_of()
    rows = [raw(reading, PARTITION, int_bytes(c)) for c in range(100)]
    server = Server([raw(reading, key(8), int_bytes(90)), *rows], page_rows=5)
    assert found_on(server, key(7, 1), key(7, 90), key(7, 200)) == {key(7, 1): rows[1], key(7, 90): rows[90]}
    assert server.pages == MOST_PAGES + 1
    assert server.asked[1:] == [(f"{AT} AND c0 = ? ALLOW FILTERING", key(c)) for c in (90, 200)]


def test_many_rows_of_a_large_partition_are_read_with_it() -> None:
    """As many pages as there are rows cost less than a request for each."""
    reading = reading_of()
    server = Server([raw(reading, PARTITION, int_bytes(c)) for c in range(100)], page_rows=5)
    assert len(found_on(server, *(key(7, c) for c in range(0, 100, 4)))) == 25
    assert server.asked == [(AT, ())]


def test_a_partition_that_is_too_much_is_not_read_whole() -> None:
    """Tombstones may stop the read of a partition, and not that of one row; a table of such rows has no other way."""
    reading = reading_of()
    server = Server([raw(reading, PARTITION, int_bytes(1))], forbids=f"{AT}$", error=TooMuchToScan)

    async def ask(node: Node, of: Reading, text: str, values: Key, now_s: int) -> AsyncGenerator[list[RawRow], None]:
        async for rows in server.ask(node, of, text if values else f"{text}$", values, now_s):
            yield rows

    assert asyncio.run(RowsByToken(ask).rows(NODE, reading, [key(7, 1)], NOW_S)).keys() == {key(7, 1)}
    plain = reading_of(make_table("t", ("int",)))
    with pytest.raises(TooMuchToScan):
        asyncio.run(RowsByToken(ask).rows(NODE, plain, [PARTITION], NOW_S))


@pytest.mark.parametrize("table", [{"speculative_retry": "NEVER"}, {"read_repair": "NONE"}])
def test_where_filtering_is_forbidden_a_read_by_key_must_not_make_servers_write(table: dict[str, str]) -> None:
    """Allowed where the table's options see to that; else refused with what would allow it, and no key."""
    rows = [raw(reading_of(), PARTITION, int_bytes(c)) for c in range(100)]
    server = Server(rows, page_rows=1, forbids="ALLOW FILTERING")
    with pytest.raises(ReplicaRefused, match=r"not allowed.*ALTER TABLE ks\.t WITH speculative_retry = 'NEVER'"):
        found_on(server, key(7, 90))
    quiet = reading_of(replace(ROWS, **table))  # type: ignore[arg-type]
    assert found_on(server, key(7, 90), reading=quiet) == {key(7, 90): rows[90]}
    assert server.asked[-1] == ("p0 = ? AND c0 = ?", key(7, 90))


def test_a_key_in_other_bytes_is_the_same_row() -> None:
    """The decimals 1.0 and 1.00 are one clustering key to Cassandra; of a custom type the server is asked."""
    short, long = int_bytes(1) + b"\x0a", int_bytes(2) + b"\x64"
    decimals = reading_of(make_table("t", ("int",), ("decimal",)))
    row = raw(decimals, PARTITION, long)
    assert found_on(Server([row]), (*PARTITION, short), reading=decimals) == {(*PARTITION, short): row}


def test_statics_are_read_by_token_too() -> None:
    """One row a partition, without its rows; another partition of the token is passed over."""
    reading = reading_of()
    rows: list[RawRow] = [(long_bytes(TOKEN), *partition, b"s", None, None) for partition in (key(8), PARTITION)]
    server = Server(rows)
    assert asyncio.run(RowsByToken(server.ask).static_row(NODE, reading, PARTITION, NOW_S)) == rows[1]
    assert server.asked == [(AT, ())]
    assert asyncio.run(RowsByToken(Server([]).ask).static_row(NODE, reading, PARTITION, NOW_S)) is None


def pages_of(
    tokens: list[int], size: int, sent: list[bytes | None]
) -> Callable[[Statement], AsyncGenerator[Page, None]]:
    """Answer range reads of rows of one cell, their token; keep the paging state of every page asked for."""

    async def pages(statement: Statement) -> AsyncGenerator[Page, None]:
        start, end = map(int, statement.cql.split())
        rows = [token for token in tokens if start < token <= end]
        state: bytes | None = None
        for at in range(0, len(rows), size):
            sent.append(state)
            some = rows[at : at + size]
            body = b"".join(INT.pack(8) + long_bytes(token) for token in some)
            state = b"more" if at + size < len(rows) else None
            yield Page(len(some), 1, body, state)

    return pages


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_a_range_is_paged_by_ranges(size: int) -> None:
    """Every row once and in order, and a paging state only where a partition is larger than a page."""
    tokens = sorted([1, 2, 2, 3, 3, 3, 4, 9, 9, 9, 9, 9, 10, 11])
    sent: list[bytes | None] = []

    async def read() -> list[int]:
        pages = paged_by_range(
            pages_of(tokens, size, sent), TokenRange(0, 10), lambda part: Statement(f"{part.start} {part.end}")
        )
        return [int.from_bytes(row[0] or b"", "big") for page in [p async for p in pages] for row in page.rows()]

    assert asyncio.run(read()) == tokens[:-1]
    assert any(sent) is (size <= tokens.count(9))


def test_what_is_left_is_said() -> None:
    """How many queries, for how long, and whether there is a key in them; nothing of nothing."""
    left = TracesLeft()
    assert not left.sentence
    left.add(Statement("SELECT 1"))
    assert left.sentence.startswith("1 traced query stays in system_traces for a day")
    assert left.sentence.endswith("no key")
    left.add(Statement("SELECT 1", (b"x",)))
    left.add(Statement("SELECT 1", paging_state=b"x"))
    assert "in 2 of them a key" in left.sentence
    assert left.as_json() == {"sessions": 3, "with_keys": 2}
