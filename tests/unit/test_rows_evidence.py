"""One row is understood once: what a check finds, what is explained and what a repair decides rest on one evidence."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import product

import pytest

from consistency.cluster.clock import SystemClock
from consistency.errors import UsageError
from consistency.model.cqltype import parse_type
from consistency.model.ownership import DISPUTED
from consistency.model.reading import Capabilities, Cell, Depth, Reading, RowState
from consistency.model.schema import Column, Table
from consistency.model.servertime import ServerTime
from consistency.results.kinds import Kind
from consistency.rows.cells import Atom, addressable, atoms
from consistency.rows.classify import judge_row
from consistency.rows.evidence import Evidence
from consistency.rows.explain import explain
from consistency.rows.names import RowName, RowRef, row_name, row_ref
from consistency.rows.reconcile import rank
from consistency.rows.zombies import is_suspected_row, zombie_suspects
from repair.deciding.case import Case
from repair.deciding.decide import Action, Rule, decide
from repair.deciding.policy import Policy
from tests.simulation.scenario import make_nodes
from tests.simulation.values import int_bytes, make_table
from tests.unit.fake_cluster import FakeCluster, port
from tests.unit.test_explain import chosen_by_hand, finding_of

GRACE_S = 864_000
TABLE = make_table("t", ("int",), ("int",), ("int",), ("int", "map<text, int>"), gc_grace_seconds=GRACE_S)
READING = Reading(TABLE, Depth.CONTENT, Capabilities())
NOW_US = 1_700_000_000_000_000
YOUNG, OLD = NOW_US - 3_600_000_000, NOW_US - (GRACE_S + 60) * 1_000_000
NAME = RowName(7, (int_bytes(1), int_bytes(2)))
ENTRY = b"\0\0\0\1" + b"\0\0\0\1a" + b"\0\0\0\4" + int_bytes(5)
"""A map of one entry."""

GONE = None
AGED = RowState((Cell(int_bytes(1), OLD), Cell(None)))
FRESH = RowState((Cell(int_bytes(1), YOUNG), Cell(None)))
MIXED = RowState((Cell(int_bytes(1), OLD), Cell(ENTRY, (YOUNG,), (None,))))
TIMELESS = RowState((Cell(None), Cell(ENTRY, None, None)))
BARE = RowState((Cell(None), Cell(None)))
COPIES = (GONE, AGED, FRESH, MIXED, TIMELESS, BARE)


def evidence(*states: RowState | None, dcs: tuple[str, ...] = ("dc1",) * 6) -> Case:
    """Return what as many nodes hold of a row."""
    owners = make_nodes(dcs[: len(states)])
    return Case(READING, NAME, owners, dict(zip(owners, states, strict=True)), {}, ServerTime.exactly(NOW_US))


def test_what_is_reported_as_a_zombie_is_never_repaired_unasked() -> None:
    """A finding's suspect is the plan's suspect, whatever three replicas hold."""
    reported = 0
    for held in product(COPIES, repeat=3):
        seen = evidence(*held)
        if seen.present and Kind.ZOMBIE_SUSPECT in judge_row(seen).facts:
            reported += 1
            assert decide(seen, Policy()).rule is Rule.ZOMBIE, held
            assert decide(seen, Policy()).action is Action.NONE, held
    assert reported > 2


@pytest.mark.parametrize(
    ("held", "suspect", "reported"),
    [
        ((AGED, GONE, GONE), True, True),
        ((AGED, AGED, GONE), False, False),
        ((FRESH, GONE, GONE), False, False),
        ((MIXED, GONE, GONE), True, False),
        ((AGED, BARE, BARE), True, False),
        ((TIMELESS, GONE, GONE), True, False),
        ((BARE, GONE, GONE), True, False),
    ],
)
def test_a_part_of_a_row_and_an_unknown_age_are_suspect_and_no_alarm(
    held: tuple[RowState | None, ...], *, suspect: bool, reported: bool
) -> None:
    """A repair leaves them alone; a check reports them as what they are besides."""
    seen = evidence(*held)
    assert (zombie_suspects(seen) is not None) is suspect
    assert is_suspected_row(seen) is reported


def test_a_minority_of_one_data_centre_is_reported_too() -> None:
    """A delete at LOCAL_QUORUM may have reached one data centre alone, and be purged there."""
    apart = ("dc1", "dc1", "dc1", "dc2", "dc2", "dc2")
    assert is_suspected_row(evidence(AGED, AGED, AGED, AGED, GONE, GONE, dcs=apart))
    assert not is_suspected_row(evidence(AGED, AGED, AGED, AGED, AGED, GONE, dcs=apart))


def test_columns_and_their_elements_are_ranked_by_one_rule() -> None:
    """Write time, then expiry, then value."""
    versions = [Cell(b"b", 5, None), Cell(b"a", 5, 9), Cell(b"a", 6, None), Cell(b"c", 5, None)]
    of_columns = sorted(versions, key=rank)
    of_atoms = sorted((Atom(c.value or b"", 5 if c.writetimes == 5 else 6, 9 if c.expires else None) for c in versions),
                      key=lambda atom: atom.rank)  # fmt: skip
    assert [cell.value for cell in of_columns] == [atom.value for atom in of_atoms] == [b"b", b"c", b"a", b"a"]


def test_a_collection_that_cannot_be_taken_apart_is_one_atom_without_a_name() -> None:
    """Damaged bytes end no check and no plan: they are as old as their newest element, and never written."""
    broken = RowState((Cell(None), Cell(b"?", (YOUNG, OLD), (None, None))))
    assert atoms(READING.regulars, broken) == {(1, None): Atom(b"?", YOUNG, None)}
    assert not addressable(READING.regulars[1], None)
    assert addressable(READING.regulars[0], None)
    seen = evidence(broken, FRESH, FRESH)
    assert judge_row(seen).facts
    unmergeable = replace(seen, reading=replace(READING, table=replace(TABLE, read_repair="NONE")))
    assert decide(unmergeable, Policy()).action is Action.NONE


def test_a_name_survives_its_way_through_a_file() -> None:
    """Of a row and of a static row; a key of other columns names nothing."""
    for name in (NAME, RowName(7, (int_bytes(1),), static=True)):
        assert row_name(TABLE, row_ref(TABLE, name)) == name
    with pytest.raises(UsageError, match="another primary key"):
        row_name(TABLE, RowRef("ks", "t", 7, {"p1": "00"}))


def test_a_partition_key_names_no_static_row_where_the_table_has_none() -> None:
    """Its static columns were dropped: an explanation would find no row on any replica, and call it settled."""
    number = parse_type("int", {})
    table = Table("ks", "t", "1", (Column("p", "partition_key", 0, number), Column("c", "clustering", 0, number)))
    with pytest.raises(UsageError, match="another primary key"):
        row_name(table, RowRef("ks", "t", 7, {"p": "00000001"}))


def test_an_explanation_does_not_settle_a_row_of_which_the_owners_are_disputed() -> None:
    """As a repair: where the nodes disagree on who owns it nobody knows whom to ask."""
    cluster = FakeCluster(factor="2").fill(6)
    others = tuple(replace(node, host_id=f"other {node.host_id}") for node in cluster._ring.nodes)
    disputed = replace(cluster._ring, views=(replace(cluster._ring, nodes=others),))
    reader = port(cluster)

    async def ring() -> object:
        return disputed

    reader.ring = ring  # type: ignore[method-assign,assignment]
    found = asyncio.run(explain(reader, SystemClock(), chosen_by_hand(finding_of(4))))
    assert set(found.unread.values()) == {DISPUTED}
    assert int(found.exit_code) == 3


def test_evidence_names_the_first_replica_that_was_not_read() -> None:
    """The node, then why."""
    (node,) = make_nodes(("dc1",))
    assert Evidence(READING, NAME, (node,), {}, {node: "down"}).why_unread == f"{node}: down"
    assert evidence(AGED).why_unread == ""
