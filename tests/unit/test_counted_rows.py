"""Rows of two clusters that are judged by their bytes come to the same as rows that are joined, one by one."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from consistency.checking.plan import Leaf
from consistency.cluster.by_token import token_of
from consistency.cluster.clock import SystemClock
from consistency.cluster.packed_rows import PackedPages
from consistency.cluster.table_reader import TableReader
from consistency.comparing import counted_rows
from consistency.comparing.counted_rows import CountedRows, UnlikeRows
from consistency.comparing.terms import Compare, Terms
from consistency.errors import InternalError
from consistency.model.cqltype import parse_type
from consistency.model.reading import Capabilities, Depth, RawRow, Reading, Route
from consistency.model.ring import Node
from consistency.model.row_arrays import NO_TIME
from consistency.model.schema import Column
from consistency.model.sides import Side, SidedNode
from consistency.model.tokens import MAX_TOKEN, MIN_TOKEN, TokenRange
from consistency.results.pair_findings import GRAVEST_FIRST
from consistency.results.strip import strip_cell
from repair.sync.range_rows import RangeRows
from tests.simulation.packed import all_packed
from tests.unit.fake_cluster import US, nodes, table

SOURCE = [SidedNode.of(Side.SOURCE, node) for node in nodes(3)]
TARGET = [SidedNode.of(Side.TARGET, node) for node in nodes(2)]
LEAF = Leaf(TokenRange.full_ring(), (*SOURCE[:2], *TARGET, SOURCE[2]))
PLAIN = replace(table(), columns=(*table().columns, Column("w", "regular", -1, parse_type("int", {}))))
WITH_MAP = replace(table(), columns=(*table().columns, Column("w", "regular", -1, parse_type("map<int, int>", {}))))
NEVER, A_TIME, ANOTHER = None, US.to_bytes(8, "big"), (US + 3).to_bytes(8, "big")
TERMS = [
    *(Terms(compare) for compare in Compare),
    Terms(Compare.WRITETIMES, tolerated_us=5),
    Terms(Compare.EXPIRIES, tolerated_us=2),
]


class Held:
    """What the replicas hold, as they would send it: by node a row by key."""

    def __init__(self) -> None:
        """Hold nothing."""
        self.of: dict[Node, dict[int, RawRow]] = {node: {} for node in LEAF.replicas}

    async def rows(self, node: Node, *_: object) -> AsyncGenerator[list[RawRow], None]:
        """Page through a replica's rows in ring order."""
        ordered = sorted(self.of[node].values(), key=lambda row: int.from_bytes(row[0] or b"", "big", signed=True))
        for at in range(0, len(ordered), 7):
            yield ordered[at : at + 7]

    def packed_rows(self, node: Node, *_: object) -> PackedPages:
        """The same rows as bytes."""
        return all_packed(self.rows(node))


def drawn(rng: random.Random, *, with_map: bool) -> Held:
    """Draw rows: most are the same on each side, and differ between the sides in a cell or not at all."""
    held = Held()
    for number in range(120):
        first = _cells(rng, with_map=with_map)
        second = first if rng.random() < 0.4 else _changed(rng, first, _cells(rng, with_map=with_map))
        of_side = {Side.SOURCE: first, Side.TARGET: second}
        lacking = rng.choice([None, None, None, *Side])
        for node in LEAF.replicas:
            side = cast("SidedNode", node).side
            torn = rng.random() < 0.05
            if side is not lacking and not torn:
                held.of[node][number] = (*_name(number), *of_side[side])
            elif torn and rng.random() < 0.5:
                held.of[node][number] = (*_name(number), *_cells(rng, with_map=with_map))
    return held


def _name(number: int) -> tuple[bytes, bytes]:
    key = number.to_bytes(4, "big", signed=True)
    return token_of((key,)).to_bytes(8, "big", signed=True), key


def _cells(rng: random.Random, *, with_map: bool) -> RawRow:
    """Draw the cells of two columns: value, write time and TTL of each."""
    text = (rng.choice([b"a", b"b"]), rng.choice([A_TIME, ANOTHER]), rng.choice([None, b"\0\0\0\x09", b"\0\0\0\x0a"]))
    text = text if rng.random() < 0.9 else (None, None, None)
    if not with_map:
        number = (rng.choice([b"\0\0\0\1", b"\0\0\0\2"]), rng.choice([A_TIME, ANOTHER]), None)
        return (*text, *(number if rng.random() < 0.9 else (None, None, None)))
    length = (4).to_bytes(4, "big")
    pairs = b"".join(length + n.to_bytes(4, "big") for n in (1, rng.randrange(2)))
    times = (1).to_bytes(4, "big") + (8).to_bytes(4, "big") + rng.choice([A_TIME, ANOTHER])
    ttls = (1).to_bytes(4, "big") + rng.choice([(-1).to_bytes(4, "big", signed=True), length + b"\0\0\0\x09"])
    return (*text, (1).to_bytes(4, "big") + pairs, times, ttls)


def _changed(rng: random.Random, one: RawRow, other: RawRow) -> RawRow:
    """Take one column, or one part of a column, from another row."""
    place = rng.randrange(2)
    if rng.random() < 0.5 and one[3 * place] is not None and other[3 * place] is not None:
        part = 3 * place + rng.randrange(3)
        return (*one[:part], other[part], *one[part + 1 :])
    return (*one[: 3 * place], *other[3 * place : 3 * place + 3], *one[3 * place + 3 :])


def reading(held: Held, *, with_map: bool) -> TableReader:
    """Return what reads the rows in full."""
    able = Capabilities()
    return TableReader(
        cast("Any", held), Reading(WITH_MAP if with_map else PLAIN, Depth.CONTENT, able), Route.CLIENT, SystemClock()
    )


def read(held: Held, terms: Terms, *, windowed: bool, with_map: bool) -> Mapping[int, tuple[int, ...]]:
    """Return the rows that differ, by the hash of the name: token, kind, sides that disagree, newest write time."""
    rows = UnlikeRows(reading(held, with_map=with_map), LEAF, terms)
    rows._windowed = windowed
    found = asyncio.run(rows.read())
    columns = (found.tokens, found.kinds, found.inner, found.newest)
    told = zip(*(column.tolist() for column in columns), strict=True)
    return dict(zip(found.names.tolist(), told, strict=True))


@pytest.mark.parametrize("with_map", [False, True], ids=["cells", "map"])
@pytest.mark.parametrize("terms", TERMS, ids=repr)
def test_rows_come_to_the_same_by_their_bytes_and_one_by_one(terms: Terms, with_map: bool) -> None:
    """Kind, sides that disagree with themselves, age: of every row, and no other row is told of."""
    seen: set[int] = set()
    for seed in range(12):
        held = drawn(random.Random(seed), with_map=with_map)
        joined = read(held, terms, windowed=False, with_map=with_map)
        assert read(held, terms, windowed=True, with_map=with_map) == joined
        seen |= {kind for _, kind, _, _ in joined.values()}
    kinds = {GRAVEST_FIRST[place].value for place in seen if place >= 0}
    wanted = {"only_source", "only_target", "value"}
    wanted |= {"writetime"} if terms.compare is not Compare.VALUES and terms.tolerated_us < 3 else set()
    wanted |= {"expiry"} if terms.compare is Compare.EXPIRIES else set()
    assert kinds == wanted


def test_a_row_without_write_times_is_of_no_age() -> None:
    """As one that shows nothing but its key is."""
    held = Held()
    held.of[SOURCE[0]][1] = held.of[SOURCE[1]][1] = held.of[SOURCE[2]][1] = (*_name(1), *(None,) * 6)
    ((_, kind, inner, newest),) = read(held, Terms(), windowed=True, with_map=False).values()
    assert (GRAVEST_FIRST[kind].value, inner, newest) == ("only_source", 0, NO_TIME)


def test_rows_mark_each_cell_of_a_strip_that_they_lie_in() -> None:
    """By one token of each, at the ends of the ring too."""
    rng = random.Random(3)
    for count in (0, 1, 40, 2_000):
        tokens = [rng.randint(MIN_TOKEN + 1, MAX_TOKEN) for _ in range(count)] + [MIN_TOKEN + 1, -1, 0, MAX_TOKEN]
        none = np.zeros(len(tokens), np.int64)
        rows = CountedRows(none, np.array(tokens), none.astype(np.int8), none.astype(np.int8), none, none)
        marked = [strip_cell(token) for token in rows.spread_tokens]
        assert sorted(marked) == sorted({strip_cell(token) for token in tokens})


def test_two_rows_of_one_hash_are_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """One would be counted for the other."""
    monkeypatch.setattr(counted_rows, "_name", lambda _: 7)
    held = Held()
    for number in (1, 2):
        held.of[SOURCE[0]][number] = (*_name(number), b"a", A_TIME, None, None, None, None)
    with pytest.raises(InternalError, match="one hash"):
        read(held, Terms(), windowed=True, with_map=False)


@pytest.mark.parametrize("with_map", [False, True], ids=["cells", "map"])
@pytest.mark.parametrize("terms", TERMS, ids=repr)
def test_a_plan_finds_the_rows_of_a_range_by_their_bytes(terms: Terms, with_map: bool) -> None:
    """The same ones as by a join, and what both sides hold of those on which neither disagrees with itself."""

    async def found(held: Held, make: Any) -> list[Any]:
        return [each async for each in RangeRows(reading(held, with_map=with_map), LEAF, terms, make).read()]

    for seed in range(6):
        held = drawn(random.Random(seed), with_map=with_map)
        joined = asyncio.run(found(held, None))
        by_bytes = asyncio.run(found(held, lambda name, sides: (name, dict(sides))))
        assert [name for name, _ in by_bytes] == [name for name, _ in joined]
        assert any(case is not None for _, case in by_bytes)
        for name, case in by_bytes:
            number = int.from_bytes(name.key[0], "big")
            copies = {
                side: {rows.get(number) for node, rows in held.of.items() if cast("SidedNode", node).side is side}
                for side in Side
            }
            if case is not None:
                assert all(len(each) == 1 for each in copies.values())
                assert {side: state is None for side, state in case[1].items()} == {
                    side: each == {None} for side, each in copies.items()
                }
