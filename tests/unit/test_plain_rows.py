"""Rows of ranges that are judged as arrays: the same decisions as row by row, the same rows, the same copies again."""

from __future__ import annotations

import asyncio
import base64
import random
import zlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consistency.cluster.packed_rows import PackedPages
from consistency.cluster.packed_rows import packed as packed_row
from consistency.errors import InternalError
from consistency.model.layout import RowLayout, token_in
from consistency.model.reading import Capabilities, Depth, RawRow, Reading
from consistency.model.ring import Node
from consistency.model.servertime import ServerTime
from consistency.rows import windows as windows_module
from consistency.rows.merge_join import JoinCounts
from consistency.rows.names import RowName, named_key
from consistency.rows.windows import RawCopies, WindowTooWide, windows
from repair.applying.chunks import is_simple
from repair.deciding.case import Case
from repair.deciding.copies import copies as host_copies
from repair.deciding.decide import Action, Rule, decide, kept_to
from repair.deciding.forecast import may_vanish
from repair.deciding.plain_rows import PlainRows, Sorter, can_be_plain, merged
from repair.deciding.policy import Policy
from repair.keeping.plain_lines import as_merged, packed, unpacked
from tests.simulation.values import int_bytes, long_bytes, make_table

NOW_US = 1_800_000_000_000_000
NOW_S = NOW_US // 1_000_000
WHEN = ServerTime(NOW_US - 400_000, NOW_US)
TABLE = make_table("t", ["int"], ["int"], regulars=["int", "text"], gc_grace_seconds=86_400)
READING = Reading(TABLE, Depth.CONTENT, Capabilities())
OWNERS = tuple(Node(f"host{i}", f"10.0.0.{i}", 9042, "dc1", "r", (i,), "5.0.8") for i in range(5))
AGES_S = (-7_200, -30, 1, 40, 3_600, 86_000, 87_000, 900_000)
"""How long ago cells were written: in the future, in flight, young, older than gc_grace."""


@st.composite
def _cells(draw: st.DrawFn) -> tuple[bytes | None, bytes | None, bytes | None]:
    value = draw(st.sampled_from([None, b"\0\0\0\1", b"\0\0\0\2", b""]))
    if value is None:
        return None, None, None
    if draw(st.integers(0, 9)) == 9:
        return value, None, None  # the least write time of all, which servers do not tell
    written = long_bytes(NOW_US - draw(st.sampled_from(AGES_S)) * 1_000_000)
    return value, written, draw(st.sampled_from([None, None, int_bytes(50), int_bytes(9_000)]))


@st.composite
def _rows(draw: st.DrawFn) -> tuple[tuple[Node, ...], list[RawCopies]]:
    """Draw rows that differ, on replicas of one or two data centres; copies are often the same."""
    owners = OWNERS[: draw(st.integers(2, 5))]
    if draw(st.booleans()):
        owners = tuple(replace(node, dc=f"dc{place % 2}") for place, node in enumerate(owners))
    found: list[RawCopies] = []
    for number in range(draw(st.integers(1, 6))):
        versions = [(*draw(_cells()), *draw(_cells())) for _ in range(2)]
        versions.append((*versions[0][:3], *versions[1][3:]))
        key = (long_bytes(number), int_bytes(number), int_bytes(0))
        held = [draw(st.sampled_from([None, *versions])) for _ in owners]
        copies = tuple(None if cells is None else (*key, *cells) for cells in held)
        if len(set(copies)) > 1:
            found.append(copies)
    return owners, found


def case_of(owners: Sequence[Node], copies: RawCopies) -> Case:
    """Return the case that the rules for single rows are given."""
    raw = next(filter(None, copies))
    states = {n: None if r is None else READING.row_state(r, NOW_S) for n, r in zip(owners, copies, strict=True)}
    name = RowName(int.from_bytes(raw[0] or b"", "big"), named_key(raw[READING.layout.key]))
    return Case(READING, name, tuple(owners), states, {}, WHEN)


@settings(deadline=None, max_examples=150)
@given(_rows(), st.sampled_from([Policy(), Policy(settle_s=60.0), Policy(max_skew_s=10_000.0)]))
def test_a_row_is_plain_if_the_rules_for_single_rows_say_so(
    drawn: tuple[tuple[Node, ...], list[RawCopies]], policy: Policy
) -> None:
    """What is decided of arrays is what is decided of each row; what no array tells is left to the rules for rows."""
    owners, rows = drawn
    if not rows:
        return
    plain, vanishing, _ = Sorter(READING, owners, policy, WHEN).told_apart(rows)
    for copies, is_plain, may in zip(rows, plain.tolist(), vanishing.tolist(), strict=True):
        case = case_of(owners, copies)
        decision = kept_to(Action.RECONCILE, case, decide(case, policy))
        held = [state for state in case.states.values() if state is not None]
        bare = any(all(cell.value is None for cell in state.cells) for state in held)
        tied = any(
            mine.writetimes is not None and mine.writetimes == cell.writetimes and mine != cell
            for state in held
            for other in held
            for mine, cell in zip(state.cells, other.cells, strict=True)
        )
        timeless = any(c.value is not None and c.writetimes is None for state in held for c in state.cells)
        expected = is_simple(decision) and decision.rule is Rule.LAST_WRITE and not (bare or tied or timeless)
        assert is_plain == expected, (decision, copies)
        if is_plain:
            assert may == may_vanish(case, decision)


def test_a_cell_of_unknown_age_is_not_plain() -> None:
    """Servers do not tell the least write time of all: such a cell of one replica may be a zombie's."""
    written = long_bytes(NOW_US - 3_600_000_000)
    key = (long_bytes(1), int_bytes(1), int_bytes(0))
    rows: list[RawCopies] = [
        tuple((*key, b"\0\0\0\1", long_bytes(NOW_US - 3_600_000_000 - n), None, *second) for n in range(1, 3))
        for second in ((None, None, None), (b"a", written, None))
    ]
    assert Sorter(READING, OWNERS[:2], Policy(), WHEN).told_apart(rows).plain.tolist() == [True, True]
    rows[0] = ((*key, b"\0\0\0\1", written, None, b"a", None, None), *rows[0][1:])
    assert Sorter(READING, OWNERS[:2], Policy(), WHEN).told_apart(rows).plain.tolist() == [False, True]
    assert decide(case_of(OWNERS[:2], rows[0]), Policy()).rule is Rule.ZOMBIE


def test_what_one_data_centre_lacks_may_be_deleted_there() -> None:
    """A delete at LOCAL_QUORUM may have reached one data centre alone: three of five are no majority in each."""
    owners = [replace(node, dc="dc0" if place < 3 else "dc1") for place, node in enumerate(OWNERS)]
    old = long_bytes(NOW_US - 900_000_000_000)
    row = (long_bytes(1), int_bytes(1), int_bytes(0), b"\0\0\0\1", old, None, b"a", old, None)
    rows: list[RawCopies] = [(row, row, row, None, None)]
    assert Sorter(READING, owners, Policy(), WHEN).told_apart(rows).plain.tolist() == [False]
    assert Sorter(READING, OWNERS, Policy(), WHEN).told_apart(rows).plain.tolist() == [True]
    assert decide(case_of(owners, rows[0]), Policy()).rule is Rule.ZOMBIE


@settings(deadline=None, max_examples=100)
@given(_rows())
def test_a_journal_gives_back_the_copies_of_plain_rows(drawn: tuple[tuple[Node, ...], list[RawCopies]]) -> None:
    """Packed and unpacked, each copy is what it was, and what is foreseen of a merge is the newest of each cell."""
    owners, rows = drawn
    if not rows:
        return
    plain, vanishing, newest = Sorter(READING, owners, Policy(), WHEN).told_apart(rows)
    keys = [next(filter(None, copies))[READING.layout.key] for copies in rows]
    tokens = [int.from_bytes(next(filter(None, copies))[0] or b"", "big") for copies in rows]
    some = PlainRows(_longs(tokens), keys, rows, vanishing, newest).take(plain)
    data = packed(some, READING.layout, [node.host_id for node in owners], NOW_S)
    found = list(unpacked(data))
    assert data["count"] == len(found) == len(some)
    for n, (token, key, copies) in enumerate(found):
        raws, at, name = some.copies[n], some.tokens[n], some.keys[n]
        assert (token, key) == (int(at), [(cell or b"").hex() for cell in name])
        assert copies == host_copies(case_of(owners, raws))
        raw = (long_bytes(token), *name, *merged(raws, READING.layout.regulars))
        assert as_merged(copies) == dict.fromkeys(copies, READING.row_state(raw, NOW_S))
        assert some.foreseen(n, READING.layout.regulars) == packed_row(raw)


@pytest.mark.parametrize("place", [-2, 3, 127])
def test_a_copy_of_a_replica_that_does_not_exist_is_damage(place: int) -> None:
    """Whatever a changed file says, nothing of it is taken for another replica's copy."""
    row = (long_bytes(1), int_bytes(1), int_bytes(0), b"\0\0\0\1", long_bytes(9), None, b"a", long_bytes(9), None)
    rows = PlainRows(_longs([1]), [row[READING.layout.key]], [(row, None, row)], np.zeros(1, np.bool_), _longs([0]))
    data = packed(rows, READING.layout, ["a", "b", "c"], NOW_S)
    raw = bytearray(zlib.decompress(base64.b64decode(data["rows"])))
    raw[8] = place % 256
    data["rows"] = base64.b64encode(zlib.compress(bytes(raw))).decode()
    with pytest.raises(ValueError, match="a"):
        list(unpacked(data))


def _longs(tokens: Sequence[int]) -> windows_module.Numbers:
    return np.array(tokens, np.int64)


@pytest.mark.parametrize(
    ("regulars", "of", "plain"),
    [
        (["int", "text"], {}, True),
        (["frozen<list<int>>"], {}, True),
        (["int", "set<int>"], {}, False),
        ([], {}, False),
    ],
)
def test_tables_whose_columns_are_one_cell_each_have_plain_rows(
    regulars: list[str], of: dict[str, object], *, plain: bool
) -> None:
    """Elements of collections have times of their own, and a row of keys alone tells none."""
    table = replace(make_table("t", ["int"], ["int"], regulars=regulars), **of)  # type: ignore[arg-type]
    assert can_be_plain(Reading(table, Depth.CONTENT, Capabilities())) == plain
    assert not can_be_plain(Reading(table, Depth.VERSIONS, Capabilities()))
    assert not can_be_plain(Reading(table, Depth.CONTENT, Capabilities(timed=False)))


# Windows


async def _pages(rows: Sequence[RawRow], sizes: random.Random) -> PackedPages:
    at = 0
    while at < len(rows):
        size = sizes.randrange(1, 6)
        yield [packed_row(row) for row in rows[at : at + size]]
        at += size
        await asyncio.sleep(0)


def _row(token: int, key: int, value: int) -> RawRow:
    return long_bytes(token), int_bytes(key), int_bytes(0), int_bytes(value)


LAYOUT = RowLayout.of(partition=1, clustering=1, statics=0, regulars=1)


async def _read(
    replicas: Sequence[Sequence[RawRow]], end: int, most: int = 1_000, seed: int = 0, most_bytes: int = 10**6
) -> JoinCounts:
    counts, sizes = JoinCounts(), random.Random(seed)
    streams = [_pages(rows, sizes) for rows in replicas]
    seen: dict[object, RawCopies] = {}
    last, alike = -(2**63), 0
    async for window in windows(LAYOUT, streams, end, counts, most, most_bytes):
        assert last < window.end <= end or (last, window.end) == (end, end)
        tokens = [token_in(next(filter(None, held))) for held in window.differing.values()]
        assert tokens == window.tokens.tolist() == sorted(tokens)
        assert all(last < token <= window.end for token in tokens)
        assert not seen.keys() & window.differing.keys()
        seen |= window.differing
        alike += len(window.alike)
        last = window.end
    assert last == end
    held = [{row[LAYOUT.key]: row for row in rows} for rows in replicas]
    expected = {key: tuple(of.get(key) for of in held) for key in {key for of in held for key in of}}
    assert seen == {key: copies for key, copies in expected.items() if len(set(copies)) > 1}
    assert alike == len(expected) - len(seen)
    assert counts.rows == len(expected)
    return counts


@settings(deadline=None, max_examples=120)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 3), st.lists(st.integers(0, 2), min_size=3, max_size=3))),
    st.integers(0, 1_000),
)
def test_windows_show_each_row_that_differs_once(rows: list[tuple[int, int, list[int]]], seed: int) -> None:
    """Whatever the pages, each row is matched with its like on every replica, and no token is in two windows."""
    by_key = {(token, part): values for token, part, values in rows}
    replicas = [
        [_row(token, 4 * token + part, values[n]) for (token, part), values in sorted(by_key.items()) if values[n]]
        for n in range(3)
    ]
    asyncio.run(_read(replicas, 41, seed=seed))


def test_windows_of_replicas_that_hold_nothing() -> None:
    """A range without rows is one window without rows; where one replica has none, all rows of the others differ."""
    asyncio.run(_read([[], [], []], 9))
    asyncio.run(_read([[_row(n, n, 1) for n in range(20)], [], [_row(n, n, 1) for n in range(20)]], 30))


def test_a_partition_that_is_too_large_for_a_window_is_told() -> None:
    """No window ends within a token, so one that has too many rows is a matter for who walks through them."""
    large = [_row(5, n, 1) for n in range(50)]
    with pytest.raises(WindowTooWide):
        asyncio.run(_read([large, large], 9, most=20))
    with pytest.raises(WindowTooWide):
        asyncio.run(_read([large, large], 9, most_bytes=500))
    asyncio.run(_read([large, large], 9, most=60))


def test_rows_out_of_order_or_twice_are_no_evidence() -> None:
    """Then no pairing can be trusted."""
    rows = [_row(n, n, 1) for n in range(9)]
    with pytest.raises(InternalError, match="ring order"):
        asyncio.run(_read([rows, rows[::-1]], 9))
    with pytest.raises(InternalError, match="twice"):
        asyncio.run(_read([rows, [*rows[:3], _row(2, 2, 2), *rows[3:]]], 9))
    with pytest.raises(InternalError, match="twice"):
        asyncio.run(_read([rows[:2], [*rows[:3], _row(2, 2, 2), *rows[3:]]], 9))


def test_tokens_may_lie_as_far_apart_as_the_ring_is_long() -> None:
    """A table of few rows has neighbours more than half of the ring apart, and the least and the greatest token."""
    rows = [_row(token, n, 1) for n, token in enumerate((-(2**63) + 1, -(2**62), 2**62 + 9, 2**63 - 1))]
    for seed in range(9):
        asyncio.run(_read([rows, rows[:3], rows[1:]], 2**63 - 1, seed=seed))


class Failing:
    """A replica that stops answering, beside one that answers late."""

    def __init__(self) -> None:
        self.answered = False

    async def late(self) -> PackedPages:
        """Answer after the other has failed."""
        await asyncio.sleep(0.01)
        self.answered = True
        yield [packed_row(_row(1, 1, 1))]

    async def failing(self) -> PackedPages:
        """Fail at once."""
        raise InternalError("it does not answer")
        yield []


def test_a_replica_that_fails_ends_the_windows_once_the_others_have_answered() -> None:
    """Nothing is read of a replica in the background any more when its reader hears of it."""
    replica = Failing()

    async def read() -> None:
        async for _ in windows(LAYOUT, [replica.late(), replica.failing()], 9, JoinCounts(), 9, 10**6):
            pass

    with pytest.raises(InternalError, match="it does not answer"):
        asyncio.run(read())
    assert replica.answered
