"""One row on both sides: what is the same, what differs for sure and by which name, and what is not claimed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from consistency.comparing.rows import Unlike, compare_row, merged
from consistency.comparing.terms import Compare, Terms
from consistency.model.cqltype import parse_type
from consistency.model.reading import Capabilities, Cell, Depth, Reading, RowState
from consistency.model.ring import Node
from consistency.model.schema import Column
from consistency.model.sides import Side, SidedNode
from consistency.results.pair_findings import PairKind
from tests.simulation.values import int_bytes, make_table, sized

TABLE = replace(
    make_table("t", ("int",), ("int",), (), ("int", "text")),
    columns=(
        *make_table("t", ("int",), ("int",), (), ("int",)).columns,
        Column("m", "regular", -1, parse_type("map<int, int>", {})),
        Column("n", "regular", -1, parse_type("list<int>", {})),
    ),
)
COLUMNS = Reading(TABLE, Depth.CONTENT, Capabilities()).regulars
"""v0 int, m map<int, int>, n list<int>."""
TERMS = Terms()
NONE = Cell(None)


def nodes(side: Side, count: int) -> list[SidedNode]:
    """Return nodes of one side."""
    return [SidedNode.of(side, Node(f"h{i}", f"10.0.0.{i}", 9042, "dc1", "r", (i,), "5.0.8")) for i in range(count)]


def row(value: int | None = 1, time: int = 10, expires: int | None = None, m: Cell = NONE, n: Cell = NONE) -> RowState:
    """Return a copy of a row."""
    return RowState((NONE if value is None else Cell(int_bytes(value), time, expires), m, n))


def mapped(**entries: tuple[int, int]) -> Cell:
    """Return a map's cell: by key `k1` the value and its write time."""
    raw = b"".join(sized([int_bytes(int(k[1:])), int_bytes(v)])[4:] for k, (v, _) in entries.items())
    return Cell(int_bytes(len(entries)) + raw, tuple(time for _, time in entries.values()), None)


def listed(*elements: int) -> Cell:
    """Return a list's cell."""
    return Cell(sized([int_bytes(each) for each in elements]), (10,) * len(elements), None)


def unlike(source: Sequence[RowState | None], target: Sequence[RowState | None], terms: Terms = TERMS) -> Unlike:
    """Compare the copies of two sides."""
    states: dict[Node, RowState | None] = dict(zip(nodes(Side.SOURCE, len(source)), source, strict=True))
    states |= dict(zip(nodes(Side.TARGET, len(target)), target, strict=True))
    return compare_row(COLUMNS, states, terms)


def facts(source: Sequence[RowState | None], target: Sequence[RowState | None], terms: Terms = TERMS) -> list[str]:
    """Return by which kinds two sides differ."""
    return [kind.value for kind in unlike(source, target, terms).facts]


EXPIRIES, VALUES = Terms(Compare.EXPIRIES), Terms(Compare.VALUES)


@pytest.mark.parametrize(
    ("source", "target", "terms", "kinds"),
    [
        (row(), row(), TERMS, []),
        (row(), None, TERMS, ["only_source"]),
        (None, row(), TERMS, ["only_target"]),
        (None, None, TERMS, []),
        (row(1), row(2), VALUES, ["value"]),
        (row(1, 10), row(2, 11), TERMS, ["value"]),
        (row(1), row(None), TERMS, ["value"]),
        (row(1, 10), row(1, 11), TERMS, ["writetime"]),
        (row(1, 10), row(1, 11), VALUES, []),
        (row(1, 10), row(1, 11), Terms(tolerated_us=1), []),
        (row(1, 10), row(1, 12), Terms(tolerated_us=1), ["writetime"]),
        (row(1, 10), row(2, 10), Terms(tolerated_us=1), ["value"]),
        (row(expires=5), row(expires=6), TERMS, []),
        (row(expires=5), row(expires=6), EXPIRIES, ["expiry"]),
        (row(expires=5), row(), EXPIRIES, ["expiry"]),
        (row(m=mapped(k1=(1, 10))), row(m=mapped(k1=(2, 10))), TERMS, ["value"]),
        (row(m=mapped(k1=(1, 10))), row(m=mapped(k1=(1, 10), k2=(1, 10))), TERMS, ["value"]),
        (row(m=mapped(k1=(1, 10))), row(m=mapped(k1=(1, 12))), TERMS, ["writetime"]),
        (row(m=mapped(k1=(1, 10))), row(m=mapped(k1=(1, 12))), Terms(tolerated_us=2), []),
        (row(m=mapped(k1=(1, 10))), row(m=mapped(k1=(1, 12))), VALUES, []),
        (row(n=listed(1, 2)), row(n=listed(2, 1)), VALUES, ["value"]),
        (row(1, 10, m=mapped(k1=(1, 10))), row(1, 11, m=mapped(k1=(2, 10))), TERMS, ["value", "writetime"]),
    ],
)
def test_sides_that_agree_with_themselves_differ_by_their_cells(
    source: RowState | None, target: RowState | None, terms: Terms, kinds: list[str]
) -> None:
    """Each kind has its name, the gravest first; what is not compared, or tolerated, is none."""
    assert facts([source, source, source], [target], terms) == kinds


def test_the_columns_that_differ_are_told() -> None:
    """Each with its own kind."""
    found = unlike([row(1, 10, m=mapped(k1=(1, 10)))], [row(1, 11, m=mapped(k1=(2, 10)))])
    assert found.columns == {0: PairKind.WRITETIME, 1: PairKind.VALUE}
    assert found.only({1}).facts == (PairKind.VALUE,)
    assert found.only({None}).facts == ()


def test_the_newest_version_is_what_a_side_holds() -> None:
    """A stale replica does not make the sides differ, and the newest of all does."""
    assert facts([row(1, 10), row(2, 20), row(1, 10)], [row(2, 20)]) == []
    assert facts([row(1, 10), row(2, 20), row(1, 10)], [row(1, 10)]) == ["value"]
    assert facts([row(1, 10)], [row(1, 10), row(9, 20)]) == ["value"]


def test_what_a_replica_lacks_may_be_deleted_there() -> None:
    """The merge may come to the newest version or to nothing: only what is neither is a difference."""
    torn = [row(1, 10), None]
    assert facts(torn, [row(1, 10)]) == []
    assert facts(torn, [None]) == []
    assert facts(torn, [row(2, 10)]) == ["value"]
    assert facts([row(1, 10), row(None)], [row(1, 10)]) == []
    assert facts([row(1, 10), row(None)], [row(None)]) == []
    assert facts([row(1, 10), row(None)], [row(3, 10)]) == ["value"]
    assert facts(torn, torn) == []
    assert facts([None, row()], [None, row(2)]) == []


def test_without_write_times_no_version_is_known_to_win() -> None:
    """At depth values, or of a collection in older servers: any of them may be what the side comes to."""
    bare = [RowState((Cell(int_bytes(each)), NONE, NONE)) for each in (1, 2)]
    assert facts(bare, [bare[0]], VALUES) == []
    assert facts(bare, [bare[1]], VALUES) == []
    assert facts(bare, [RowState((Cell(int_bytes(3)), NONE, NONE))], VALUES) == ["value"]


def test_collections_of_a_torn_side_are_compared_element_by_element() -> None:
    """Each element's newest version wins; one that a replica lacks may be deleted; of lists nothing is claimed."""
    torn = [row(m=mapped(k1=(1, 10), k2=(5, 10))), row(m=mapped(k1=(2, 20), k2=(5, 10)))]
    assert facts(torn, [row(m=mapped(k1=(2, 20), k2=(5, 10)))]) == []
    assert facts(torn, [row(m=mapped(k1=(1, 10), k2=(5, 10)))]) == ["value"]
    lacking = [row(m=mapped(k1=(1, 10))), row(m=mapped(k1=(1, 10), k2=(5, 10)))]
    assert facts(lacking, [row(m=mapped(k1=(1, 10)))]) == []
    assert facts(lacking, [row(m=mapped(k1=(1, 10), k2=(5, 10)))]) == []
    assert facts(lacking, [row(m=mapped(k1=(1, 10), k2=(6, 10)))]) == ["value"]
    lists = [row(n=listed(1)), row(n=listed(2))]
    assert facts(lists, [row(n=listed(3))]) == []


def test_a_key_in_other_bytes_is_a_value_that_differs() -> None:
    """1.0 and 1.00 are one key to Cassandra; applications see two."""
    spelled = replace(row(), spelling=(int_bytes(1), b"other"))
    assert unlike([row()], [spelled]).key
    assert facts([row()], [spelled]) == ["value"]
    assert facts([spelled], [spelled, row()]) == []


def test_merged_copies_are_the_newest_of_each_column() -> None:
    """As a findings file shows a side."""
    copies = dict(zip(nodes(Side.SOURCE, 3), [row(1, 10), None, row(2, 20)], strict=True))
    assert merged(copies) == row(2, 20)
    assert merged(dict.fromkeys(nodes(Side.SOURCE, 2))) is None
