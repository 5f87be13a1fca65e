"""Raw rows taken apart: which bytes are the key, which are statics, values, write times and TTLs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consistency.cluster import selects
from consistency.model.reading import Capabilities, Cell, Depth, Reading, RowState, each_time
from consistency.model.tokens import TokenRange
from tests.simulation.values import int_bytes, long_bytes, make_table, sized

TABLE = make_table("t", ("int", "text"), ("int",), ("int",), ("text", "map<text, int>"))
NEW, OLD = Capabilities(), Capabilities(hashes=False, collection_times=False)
CONTENT = Reading(TABLE, Depth.CONTENT, NEW)
KEY = (long_bytes(-9), int_bytes(1), b"x")
STATIC = (int_bytes(3), long_bytes(30), int_bytes(5))
NULL_STATIC = (None, None, None)
REGULAR = (
    b"text",
    long_bytes(40),
    None,
    b"map bytes",
    sized([long_bytes(41), long_bytes(42)]),
    sized([None, int_bytes(7)]),
)
NOTHING = (None,) * 6


def test_a_row_is_taken_apart_as_the_reading_says() -> None:
    """Values, write times in µs, and expiries counted from the instant of the read, an element each for a map."""
    raw = (*KEY, int_bytes(2), *STATIC, *REGULAR)
    assert CONTENT.row_state(raw, 100).cells == (
        Cell(b"text", 40, None),
        Cell(b"map bytes", (41, 42), (None, 107)),
    )
    assert CONTENT.static_state(raw, 100) == RowState((Cell(int_bytes(3), 30, 105),))
    assert raw[CONTENT.layout.key] == (int_bytes(1), b"x", int_bytes(2))
    assert raw[CONTENT.layout.partition] == (int_bytes(1), b"x")


def test_a_static_row_read_by_itself_says_the_same() -> None:
    """The static row of a partition has one state, whichever statement read it."""
    assert CONTENT.static_row_state((*KEY, *STATIC), 100) == CONTENT.static_state(
        (*KEY, int_bytes(2), *STATIC, *NOTHING), 100
    )


def test_a_row_of_nulls_is_a_row_and_statics_of_nulls_are_none() -> None:
    """An INSERT of a primary key alone leaves a row; static cells that are all null leave nothing."""
    raw = (*KEY, int_bytes(2), *NULL_STATIC, *NOTHING)
    assert CONTENT.has_row(raw)
    assert CONTENT.row_state(raw, 0) == RowState((Cell(None), Cell(None)))
    assert CONTENT.static_state(raw, 0) is None
    assert CONTENT.static_row_state((*KEY, *NULL_STATIC), 0) is None


def test_a_partition_of_statics_alone_has_no_row() -> None:
    """Its clustering is null; a table without clustering has a row in every partition."""
    assert not CONTENT.has_row((*KEY, None, *STATIC, *NOTHING))
    bare = Reading(make_table("t", ("int",)), Depth.CONTENT, NEW)
    assert bare.has_row((long_bytes(1), int_bytes(1), None, None, None))


@pytest.mark.parametrize("capabilities", [NEW, OLD, replace(OLD, timed=False)])
@pytest.mark.parametrize("depth", list(Depth))
@pytest.mark.parametrize("counter", [False, True])
def test_the_statement_asks_for_exactly_the_cells_of_a_raw_row(
    capabilities: Capabilities, depth: Depth, counter: bool
) -> None:
    """What selects.py selects and how reading.py counts cells must be the same list."""
    reading = Reading(replace(TABLE, is_counter=counter), depth, capabilities)
    statement = selects.select_rows(reading, TokenRange.full_ring())
    names = statement.removeprefix("SELECT ").split(" FROM ")[0]
    wanted = ["system.token(p0", "p1)", "p0", "p1", "c0"]
    for column in reading.statics + reading.regulars:
        name = column.column.name
        wanted += [name] * column.value + [f"writetime({name})"] * column.writetime + [f"ttl({name})"] * column.ttl
    assert names.split(", ") == wanted
    assert len(wanted) - 1 == reading.layout.regulars.stop
    # A counter has no TTL, and old servers tell neither time of a collection.
    assert not (counter and "ttl(" in names)
    assert capabilities.collection_times or "(v1)" not in names
    assert ("s0" in names.split(", ")) == depth.with_values


def test_what_cannot_be_seen_is_said() -> None:
    """Each weakness of a reading has its sentence, and a strong reading does not claim weaknesses it lacks."""

    def says(reading: Reading, words: str) -> bool:
        return any(words in text for text in reading.blind)

    assert says(CONTENT, "deletes that left no live row")
    assert not says(CONTENT, "different values")
    assert says(replace(CONTENT, depth=Depth.VERSIONS), "different values written at the same time")
    assert says(Reading(TABLE, Depth.VERSIONS, OLD), "changes inside v1")
    assert not says(Reading(TABLE, Depth.CONTENT, OLD), "changes inside")
    assert says(Reading(TABLE, Depth.CONTENT, OLD), "when elements of v1 were written or expire")
    assert not says(CONTENT, "when elements")
    assert says(Reading(TABLE, Depth.CONTENT, replace(NEW, timed=False)), "only in their expiry")
    assert says(Reading(make_table("t", ("int",), regulars=()), Depth.CONTENT, NEW), "row markers")
    assert says(CONTENT, "row markers: when a row itself")
    assert says(Reading(replace(TABLE, is_counter=True), Depth.CONTENT, NEW), "counter shards")
    assert not says(Reading(replace(TABLE, is_counter=True), Depth.CONTENT, NEW), "row markers")


TIMES = st.none() | st.integers(-5, 5) | st.lists(st.none() | st.integers(-5, 5), max_size=4).map(tuple)


@given(st.lists(TIMES, max_size=4))
def test_the_newest_write_time_is_that_of_any_cell(times: list[int | tuple[int | None, ...] | None]) -> None:
    """Over simple cells and elements alike; a row without any has none."""
    state = RowState(tuple(Cell(None, t) for t in times))
    flat = [n for t in times for n in each_time(t)]
    assert state.newest_us == (max(flat) if flat else None)
