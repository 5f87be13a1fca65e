"""What is asked of each row that is counted, and what its cells become: one hash, and names as good as hashes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consistency.checking.scan import ScanOptions
from consistency.cluster import selects
from consistency.cluster.hashed_columns import HashedColumns
from consistency.cluster.page_arrays import hashed_rows
from consistency.cluster.wire import INT, Page
from consistency.model.reading import Capabilities, Depth, RawRow, Reading
from consistency.model.row_arrays import NO_TIME, HashedRows, Shown
from consistency.model.schema import Table
from consistency.model.tokens import TokenRange
from tests.simulation.scenario import LONG_AGO_US, Scenario, row
from tests.simulation.values import int_bytes, long_bytes, make_table
from tests.simulation.vclock import EPOCH_S

INTS = make_table("t", ("int",), ("int", "uuid"), (), ("int", "text"))
TEXTS = make_table("t", ("int",), ("text",), (), ("int", "map<int, int>"))
ALONE = make_table("t", ("int",), (), (), ("int",))
OLD = Capabilities(hashes=False, unchecked_text=True, collection_times=False)
FIELDS = ("tokens", "keys", "hashes", "expiries", "ages", "times")


def asked_of(table: Table, shown: Shown = Shown.KINDS) -> HashedColumns:
    """Return what is asked of the rows of a table."""
    return HashedColumns.of(Reading(table, Depth.CONTENT, Capabilities()), shown)


def page_of(rows: Sequence[RawRow]) -> Page:
    """Return the page that a server makes of rows."""
    cells = [INT.pack(-1) if cell is None else INT.pack(len(cell)) + cell for row in rows for cell in row]
    return Page(len(rows), len(rows[0]), b"".join(cells))


def drawn_rows(cells: Sequence[Any], width: int) -> Any:
    """Draw rows: token, a hash of so many bytes, then cells."""
    hashed = st.binary(min_size=width, max_size=width)
    return st.lists(st.tuples(st.binary(min_size=8, max_size=8), hashed, *cells), min_size=1, max_size=80)


def bytes_of(size: int) -> Any:
    """Draw a value of so many bytes, now and then an odd one."""
    return st.one_of(st.binary(min_size=size, max_size=size), st.sampled_from([b"", None]))


NUMBERS = st.one_of(st.none(), st.binary(min_size=4, max_size=4).map(lambda raw: bytes([raw[0] & 0x7F]) + raw[1:]))
TIMES = st.one_of(st.none(), st.integers(0, 2**60).map(lambda n: n.to_bytes(8, "big")))
OF_INTS = (bytes_of(4), bytes_of(16), NUMBERS, NUMBERS, TIMES, TIMES)


@given(st.sampled_from((8, 16)).flatmap(lambda width: drawn_rows(OF_INTS, width)), st.booleans())
def test_a_row_becomes_the_same_however_the_others_of_its_page_are_laid_out(rows: list[RawRow], alike: bool) -> None:
    """Rows that are all laid out alike are read at once, others one by one: with the same result."""
    rows = rows[:1] * 40 if alike else rows
    asked = asked_of(INTS)
    found = hashed_rows(page_of(rows), asked)
    one_by_one = HashedRows.joined([hashed_rows(page_of([row]), asked) for row in rows], 2)
    for name in FIELDS:
        assert getattr(found, name).tolist() == getattr(one_by_one, name).tolist(), name
    assert found.tokens.tolist() == [int.from_bytes(row[0] or b"", "big", signed=True) for row in rows]
    assert found.hashes.tolist() == [
        [int.from_bytes((row[1] or b"")[a : a + 8], "big") for a in (0, 8)] for row in rows
    ]
    wanted = [[NO_TIME if t is None else int.from_bytes(t, "big") for t in row[-2:]] for row in rows]
    assert found.times.tolist() == wanted
    named = {(row[0], row[2:4]) for row in rows}
    assert len(set(found.keys.tolist())) == len(named)
    expiries = {row[4:6] for row in rows}
    assert len(set(found.expiries.tolist())) == len(expiries)


def test_rows_of_a_range_have_names_of_their_own() -> None:
    """Numbers that follow one another, change places or are next to nothing in one of two columns, of many tokens."""
    asked, rng = asked_of(make_table("t", ("int",), ("int", "bigint")), Shown.ROWS), random.Random(4)
    tokens = [rng.getrandbits(64).to_bytes(8, "big") for _ in range(40)] + [bytes(8), b"\xff" * 8, long_bytes(1)]
    few = [*range(40), 2**31 - 1]
    rows = [(token, bytes(16), int_bytes(c), long_bytes(d)) for token in tokens for c, d in product(few, few)]
    found = hashed_rows(page_of(rows), asked)
    assert found.distinct
    assert len(found) == 43 * 41 * 41
    low = found.keys & np.uint64(2**20 - 1)  # of as many random numbers some 67,500 are unlike
    assert len(np.unique(low)) > 65_000


def test_the_token_is_the_name_of_a_row_without_clustering_key() -> None:
    """Nothing of it is made another number."""
    found = hashed_rows(page_of([(long_bytes(-7), bytes(8))]), asked_of(ALONE, Shown.ROWS))
    assert found.keys.view(np.int64).tolist() == [-7]


@pytest.mark.parametrize(
    ("table", "hashes", "of_times"),
    [(INTS, 1, 1), (ALONE, 1, 1), (TEXTS, 2, 4), (make_table("t", ("text",), ("int", "text")), 2, 2)],
)
def test_one_hash_tells_a_row_apart_and_numbers_the_rest(table: Table, hashes: int, of_times: int) -> None:
    """A hash more is for a key with a text in it, and two are for the times of collections."""
    reading = Reading(table, Depth.CONTENT, Capabilities())
    for shown, wanted in ((Shown.ROWS, hashes), (Shown.AGES, hashes), (Shown.KINDS, of_times)):
        asked = HashedColumns.of(reading, shown)
        text = selects.hashed_rows(reading, TokenRange.full_ring(), "MD5", asked)
        assert text.count("system.mask_hash((") == wanted
    older = Reading(table, Depth.CONTENT, OLD)
    text = selects.hashed_rows(older, TokenRange.full_ring(), "", HashedColumns.of(older, Shown.KINDS))
    assert text.count("tuple<blob") == hashes, "servers before 5.0 tell no times of collections"


@pytest.mark.parametrize("capabilities", [Capabilities(), OLD], ids=["5.0", "4.1"])
@pytest.mark.parametrize(
    "table",
    [
        make_table("t", ("int",), ("int",), (), ("int", "text")),
        make_table("t", ("int",), (("int", True),), (), ("int", "map<text, int>")),
        make_table("t", ("int",), ("text",), (), ("int",)),
        make_table("t", ("blob",), ("int",), (), ("int",)),
    ],
    ids=["int", "descending", "text", "blob"],
)
def test_rows_of_every_shape_are_counted_as_they_are_listed(table: Table, capabilities: Capabilities) -> None:
    """Empty and missing cells in the key among others, later expiries, rows that one replica lacks."""

    def planted() -> Scenario:
        scenario = Scenario(table=table, capabilities=capabilities)
        scenario.fill(8, 5)
        odd = replace(row(3, 0, LONG_AGO_US, v0=int_bytes(4)), clustering=(b"",))
        scenario.apply(odd)
        if table.clustering[0].type.name == "int":
            scenario.apply(replace(odd, ts=LONG_AGO_US + 1), on=[2])
        for p in range(4):
            write = row(p, 2, LONG_AGO_US + 3, v0=int_bytes(1))
            scenario.apply(replace(write, expires=EPOCH_S + 90_000))
            scenario.apply(replace(write, expires=EPOCH_S + 90_000 + p), on=[1])
            scenario.apply(row(p, 3, LONG_AGO_US + p, v0=int_bytes(2)), on=[3])
            scenario.apply(row(p, 90, LONG_AGO_US, v0=int_bytes(2)), on=[1, 2])
        return scenario

    listed, counted = planted().check(scan=ScanOptions()), planted()
    counted.cluster.rows = None  # type: ignore[method-assign, assignment]  # whoever reads rows fails
    report = counted.check(scan=ScanOptions(max_findings=0))
    assert report.findings_by_kind == listed.findings_by_kind
    assert {"expiry", "stale", "missing"} <= set(listed.findings_by_kind)
    assert report.coverage.failed == 0
