"""How servers before 5.0 hash rows: no rule makes two sets of rows alike, whatever the form and the key's type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from consistency.cluster.connection import Connection
from consistency.cluster.described import Described
from consistency.cluster.row_hash import DIVIDEND, PRIME, Form, form_of, row_hash, scheme, summed_hash
from consistency.model.reading import CHECKED_DEPTHS, Capabilities, Depth, RawRow, Reading, Route
from consistency.model.ring import MURMUR3, Ring
from tests.simulation import aggregates
from tests.simulation.scenario import make_nodes
from tests.simulation.values import int_bytes, long_bytes, make_table
from tests.support.exchanges import STORIES, Row
from tests.support.hashing import number, random_sets_have_sums_of_their_own, summand

OLD = Capabilities(hashes=False, unchecked_text=True, collection_times=False)
MIXED = Capabilities(hashes=False, collection_times=False)
"""What nodes of 4.1 and 5.0 together can do."""
ANCIENT = Capabilities(hashes=False, arithmetic=False, collection_times=False, timed=False)


def reading_of(*key: str, capabilities: Capabilities = OLD, depth: Depth = Depth.CONTENT) -> Reading:
    """Return the reading of the stories' table with a partition key of these types."""
    return Reading(make_table("t", key, ("int",), (), ("text", "text", "map<text, int>")), depth, capabilities)


def raw(row: Row, kind: str) -> RawRow:
    """Return a row of a story as a server would send it, its map in the order of its keys."""
    p, c, a, b, m = row
    key = int_bytes(p) if kind == "int" else b"p%d" % p
    entries = sorted((m or {}).items())
    parts = [part for k, v in entries for part in (int_bytes(len(k)), k.encode(), int_bytes(4), int_bytes(v))]
    cells: list[bytes | None] = []
    for text in (a, b):
        cells += [None] * 3 if text is None else [text.encode(), long_bytes(1_700_000_000_000_000), None]
    return (long_bytes(p), key, int_bytes(c), *cells, b"".join([int_bytes(len(entries)), *parts]) if m else None)


@pytest.mark.parametrize(
    ("key", "capabilities", "form"),
    [
        (("text",), Capabilities(), Form.MASK_HASH),
        (("int",), Capabilities(), Form.MASK_HASH),
        (("blob",), OLD, Form.MURMUR3),
        (("text",), OLD, Form.MURMUR3),
        (("ascii",), OLD, Form.REMAINDER),
        (("int",), OLD, Form.REMAINDER),
        (("timeuuid",), OLD, Form.REMAINDER),
        (("text", "text"), OLD, Form.REMAINDER),
        (("blob", "int"), OLD, Form.REMAINDER),
        (("blob",), MIXED, Form.MURMUR3),
        (("text",), MIXED, Form.REMAINDER),
        (("text",), ANCIENT, None),
    ],
)
def test_one_form_fits_a_table_on_all_nodes(
    key: tuple[str, ...], capabilities: Capabilities, form: Form | None
) -> None:
    """A node of 5.0 beside older ones refuses texts that are none, so that those are hashed as the others can."""
    reading = reading_of(*key, capabilities=capabilities)
    assert form_of(reading.table, capabilities) is form
    named = f"content/server/{form.value}" if form else "content/server"
    assert (scheme(reading, Route.SERVER), scheme(reading, Route.CLIENT)) == (named, "content/client")
    if form is None:
        for make in (row_hash, summed_hash):
            with pytest.raises(ValueError, match=r"before Cassandra 4\.0"):
                make(reading, "MD5")


@pytest.mark.parametrize(
    ("releases", "forms"),
    [
        (("5.0.9", "5.0.8", "6.0-alpha2"), (Form.MASK_HASH, Form.MASK_HASH, Form.MASK_HASH)),
        (("4.0.19", "4.1.10", "4.0.19"), (Form.REMAINDER, Form.MURMUR3, Form.MURMUR3)),
        (("4.1.10", "5.0.9", "4.1.10"), (Form.REMAINDER, Form.REMAINDER, Form.MURMUR3)),
        (("4.1.10", "", "4.1.10"), (Form.REMAINDER, Form.MURMUR3, Form.MURMUR3)),
        (("3.11.17", "4.1.10", "5.0.9"), (None, None, None)),
    ],
)
def test_a_cluster_under_upgrade_hashes_as_all_of_its_nodes_can(
    releases: Sequence[str], forms: Sequence[Form | None]
) -> None:
    """Keys of int, text and blob: a single newer or older node decides for all; one that does not answer for none."""
    nodes = make_nodes(("dc1",) * 3)
    ring = Ring("c", MURMUR3, tuple(replace(n, release=r) for n, r in zip(nodes, releases, strict=True)))
    connection, unused = cast("Connection", SimpleNamespace(protocol_version=5)), cast("Any", None)
    capabilities = Described(connection, ring, unused, unused).capabilities
    assert capabilities.collection_times is (forms[0] is Form.MASK_HASH)
    tables = (make_table("t", (key,), ()) for key in ("int", "text", "blob"))
    assert tuple(form_of(table, capabilities) for table in tables) == tuple(forms)


@pytest.mark.parametrize("kind", ["int", "text", "blob"])
@pytest.mark.parametrize("story", STORIES)
def test_what_weak_sums_cannot_tell_apart(story: str, kind: str) -> None:
    """Rows and bytes that were exchanged, moved or emptied: the digests differ where the rows do."""
    reading = reading_of(kind)
    one, other = ([raw(row, kind) for row in rows] for rows in STORIES[story])
    digests = [aggregates.server_digest(reading, rows).value for rows in (one, other)]
    assert digests[0] != digests[1]
    assert aggregates.server_digest(reading, one[::-1]).value == digests[0], "a sum knows no order"


@pytest.mark.parametrize("kind", ["int", "text"])
def test_random_sets_of_rows_have_sums_of_their_own(kind: str) -> None:
    """Also of rows that differ in one small number; a row by itself has the hash that it adds to a sum."""
    reading = reading_of(kind)
    rows = [raw((p, c, "a", "b", None), kind) for p in range(12) for c in range(12)]
    hashes = list(map(summand(reading), [(aggregates.row_hash(reading, row),) for row in rows]))
    assert len({len(aggregates.row_hash(reading, row)) for row in rows}) == 1
    for row, hashed in zip(rows, hashes, strict=True):
        assert number(aggregates.server_digest(reading, [row]).value) % 2**160 == hashed % 2**160
    random_sets_have_sums_of_their_own(hashes)


def test_every_write_time_and_expiry_counts() -> None:
    """A write time of 0 too, and at depth versions without the values."""
    for kind in ("int", "text"):
        for depth in CHECKED_DEPTHS:
            reading = reading_of(kind, depth=depth)
            rows = []
            for written, ttl in ((None, None), (0, None), (1, None), (0, 1), (0, 2), (2**40, 1)):
                value = [b"x"] if depth is Depth.CONTENT else []
                cells = [
                    *value,
                    None if written is None else long_bytes(written),
                    None if ttl is None else int_bytes(ttl),
                ]
                map_cells = [None] * (depth is Depth.CONTENT)
                rows.append((long_bytes(1), b"key", int_bytes(1), *cells, *[None] * len(cells), *map_cells))
            hashes = [aggregates.row_hash(reading, row) for row in rows]
            assert len(set(hashes)) == len(rows)


def test_the_constants_are_what_the_argument_needs() -> None:
    """A prime that keeps bytes apart at any distance, below the fixed part; a dividend as long as four divisors."""
    half = (PRIME - 1) // 2
    assert PRIME.bit_length() == 126
    assert all(pow(base, n - 1, n) == 1 for n in (PRIME, half) for base in (2, 3, 5, 7, 11, 13, 17, 19, 23))
    assert pow(256, 2, PRIME) != 1  # so its order is half or all of PRIME - 1
    assert DIVIDEND.bit_length() == 5 * 128 >= 4 * 126 + 128
